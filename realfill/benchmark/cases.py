"""Cases: scenes with their ground truth, which metrics see and methods do not."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from realfill.errors import SceneError
from realfill.io.images import ImageArray, natural_key, read_image
from realfill.scene.reading import find_image
from realfill.scene.scene import Scene

_MAX_PROMPT_BYTES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A scene and its ground truth.

    Attributes:
        name: name of the folder.
        scene: references, target and mask; the hole is blank, whatever the file contains there.
        truth: (H, W, 3) uint8, the true photo, of the target's size.
        prompt: a description of the scene, or ``None``.
    """

    name: str
    scene: Scene
    truth: ImageArray
    prompt: str | None = None

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Case:
        """Read a folder in RealBench's layout: a scene, ``target/gt.png`` and, if there is one, ``prompt.txt``.

        Raises:
            SceneError: the scene is unusable, or has no ground truth of its target's size.
        """
        folder = Path(directory)
        scene = Scene.load(folder).blanked()
        path = find_image(folder / "target", "gt", within=folder)
        if path is None:
            raise SceneError(f"{str(folder)!r} has no ground truth; legal: target/gt.png beside target/target.png")
        truth = read_image(path, "gt")[0]
        if truth.shape != scene.target.shape:
            raise SceneError(
                f"the ground truth of {str(folder)!r} is {truth.shape[1]} x {truth.shape[0]} pixels and the target "
                f"{scene.target.shape[1]} x {scene.target.shape[0]}; legal: the same size"
            )
        return cls(name=folder.name, scene=scene, truth=truth, prompt=_read_prompt(folder / "prompt.txt"))


def _read_prompt(file: Path) -> str | None:
    """Read a prompt; ``None`` if there is none.

    Raises:
        SceneError: the file is no text of up to 10 kB.
    """
    if not file.is_file():
        return None
    if file.stat().st_size > _MAX_PROMPT_BYTES:
        raise SceneError(f"{str(file)!r} has {file.stat().st_size} bytes; legal: up to {_MAX_PROMPT_BYTES}")
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except UnicodeDecodeError as error:
        raise SceneError(f"{str(file)!r} is no text in UTF-8 ({error}); save it as UTF-8") from error


def case_folders(directory: str | PathLike[str]) -> list[Path]:
    """List the scene folders of a benchmark in natural order: 2 before 10.

    Raises:
        SceneError: there is no scene folder.
    """
    folder = Path(directory)
    folders = sorted((p for p in folder.glob("*") if (p / "target").is_dir()), key=natural_key)
    if not folders:
        raise SceneError(f"{str(folder)!r} contains no scenes; legal: a folder of folders with ref/ and target/")
    return folders
