"""Keeping: a folder in which everything that a flow makes outlives it.

Every scene has a numbered folder of its own, so that nothing is overwritten::

    OUTPUT/1/scene/        the photos and the mask
    OUTPUT/1/checkpoint/   the fit, to go on with it
    OUTPUT/1/adapter/      the result of the fit
    OUTPUT/1/1-quick-result/, 2-fit/, 3-redone-part/   completions
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import WeakKeyDictionary

from realfill.errors import SceneError
from realfill.io.images import natural_key
from realfill.scene.scene import Scene

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.results.completion import Completion
    from realfill.results.completions import Completions

Suffix: TypeAlias = Literal[".png", ".tif", ".jpg", ".ora"]


class Keeper:
    """Writes scenes, fits and completions to an output folder."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        """Keep everything in a folder, which is made when there is something to keep."""
        self.folder = Path(folder).expanduser()
        self._places: WeakKeyDictionary[Scene, Path] = WeakKeyDictionary()

    def keep_scene(self, scene: Scene) -> Path:
        """Write a scene, unless it is there already; return its numbered folder.

        Raises:
            OutputError: the disk is full.
        """
        if scene not in self._places:
            numbers = [int(path.name) for path in _numbered(self.folder)]
            place = self.folder / str(max(numbers, default=0) + 1)
            partial = place / "scene.partial"
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            scene.save(partial)
            partial.rename(place / "scene")  # a scene is whole or does not exist
            self._places[scene] = place
        return self._places[scene]

    def keep_adapter(self, scene: Scene, adapter: Adapter) -> None:
        """Write a fit of a scene; it replaces an earlier one."""
        adapter.save(self.keep_scene(scene) / "adapter", overwrite=True)

    def keep_completions(self, scene: Scene, title: str, completions: Completions) -> None:
        """Write completions of a scene, or of a part of its hole, to a folder of their own."""
        place = self.keep_scene(scene)
        numbers = [_number_of(path) for path in place.glob("[0-9]*-*")]
        folder = place / f"{max(numbers, default=0) + 1}-{title.lower().replace(' ', '-')}"
        folder.mkdir()
        completions.save(folder)

    def checkpoint_folder(self, scene: Scene) -> Path:
        """Return the folder of a scene's checkpoint."""
        return self.keep_scene(scene) / "checkpoint"

    def open(self) -> tuple[Scene, Adapter | None, list[tuple[str, Completions]]]:
        """Read the last scene of the folder, its fit and its completions, which carry their titles.

        Raises:
            SceneError: the folder holds no scene, or a part is damaged.
        """
        from realfill.models.diffusion.adapter import MANIFEST_NAME, Adapter  # noqa: PLC0415 - imports torch
        from realfill.results.completions import Completions  # noqa: PLC0415

        places = sorted(_numbered(self.folder), key=natural_key)
        if not places:
            raise SceneError(f"{str(self.folder)!r} holds nothing to go on with; legal: the output of an earlier panel")
        scene, place = Scene.load(places[-1] / "scene"), places[-1]
        self._places[scene] = place
        adapter = Adapter.load(place / "adapter") if (place / "adapter" / MANIFEST_NAME).is_file() else None
        results = [
            (folder.name.partition("-")[2].replace("-", " ").capitalize(), Completions.load(folder, scene))
            for folder in sorted(_result_folders(place), key=natural_key)
        ]
        return scene, adapter, results


def holds_work(folder: str | PathLike[str]) -> bool:
    """Tell whether a folder is the output of an earlier flow."""
    return any(_numbered(Path(folder).expanduser()))


def save_all(folder: str | PathLike[str], completions: Completions | None, adapter: Adapter | None) -> str:
    """Write completions and a fit to a folder that holds none; return where they are, in a sentence.

    Raises:
        SceneError: there are no completions yet.
        OutputError: the folder holds results already.
    """
    if completions is None:
        raise SceneError("there is no result to save yet; make one first")
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    completions.save(place)
    if adapter is not None:
        adapter.save(place / "adapter")
    return f"{len(completions)} result{'s are' if len(completions) > 1 else ' is'} in {place}."


def encode(completion: Completion, suffix: Suffix, folder: Path) -> bytes:
    """Encode a completion as a file with its metadata.

    Args:
        completion: the completion.
        suffix: the format; ``.ora`` has layers.
        folder: for a temporary file.

    Raises:
        ValueError: the picture is too large for the format.
    """
    path = folder / f"download{suffix}"
    completion.save(path, overwrite=True)
    return path.read_bytes()


def _numbered(folder: Path) -> Iterator[Path]:
    """Find the folders of scenes."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.isdigit() and (path / "scene").is_dir():
            yield path


def _number_of(folder: Path) -> int:
    """Return the number with which the name of a folder of results begins; 0 for other folders."""
    number = folder.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _result_folders(place: Path) -> Iterator[Path]:
    return (path for path in place.glob("[0-9]*-*") if (path / "scores.json").is_file())
