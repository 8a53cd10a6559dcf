"""Keeping: a folder in which everything that a flow makes outlives it.

Every scene has a numbered folder of its own, and every result a number, so that nothing is overwritten::

    FOLDER/1/scene/        the photos and the mask
    FOLDER/1/inputs.json   their hashes, by which the scene is found again
    FOLDER/1/checkpoint/   the fit, to go on with it
    FOLDER/1/adapter/      the result of the fit
    FOLDER/1/1-quick-result-telea/, 2-fit-of-mini-40-steps/   completions
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import WeakKeyDictionary

from realfill.errors import SceneError
from realfill.io.files import write_text
from realfill.io.images import natural_key
from realfill.io.json_files import read_json
from realfill.results.folder import SCORES_NAME
from realfill.scene.scene import Scene

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.results.completions import Completions

# Modules that need torch are imported where they are used, so that an interface appears at once.
# ruff: noqa: PLC0415

Suffix: TypeAlias = Literal[".png", ".tif", ".jpg", ".ora"]
_TITLE_NAME, _INPUTS_NAME = "title.json", "inputs.json"


class Keeper:
    """Writes scenes, fits and completions to a folder."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        """Keep everything in a folder, which is made when there is something to keep."""
        self.folder = Path(folder).expanduser()
        self._places: WeakKeyDictionary[Scene, Path] = WeakKeyDictionary()

    def place_of(self, scene: Scene) -> Path:
        """Return the numbered folder of a scene; the scene is written unless it is there already.

        Raises:
            OutputError: the disk is full.
        """
        from realfill.results.provenance import hash_scene

        if scene not in self._places:
            inputs = hash_scene(scene)
            place = next((known for known in _numbered(self.folder) if _inputs_of(known) == inputs), None)
            if place is None:
                numbers = [int(path.name) for path in _numbered(self.folder)]
                place = self.folder / str(max(numbers, default=0) + 1)
                partial = place / "scene.partial"
                shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
                scene.save(partial)
                write_text(place / _INPUTS_NAME, json.dumps(inputs, indent=1) + "\n")
                partial.rename(place / "scene")  # a scene is whole or does not exist
            self._places[scene] = place
        return self._places[scene]

    def scene_of(self, place: Path) -> Scene:
        """Return the scene of a numbered folder.

        Raises:
            SceneError: it is damaged.
        """
        scene = next((known for known, folder in list(self._places.items()) if folder == place), None)
        if scene is None:
            scene = Scene.load(place / "scene")
            self._places[scene] = place
        return scene

    def keep_adapter(self, scene: Scene, adapter: Adapter) -> None:
        """Write a fit of a scene; it replaces an earlier one."""
        adapter.save(self.place_of(scene) / "adapter", overwrite=True)

    def adapter_of(self, scene: Scene) -> Adapter | None:
        """Read the fit of a scene; ``None`` if there is none."""
        from realfill.models.diffusion.adapter import MANIFEST_NAME, Adapter

        folder = self.place_of(scene) / "adapter"
        return Adapter.load(folder) if (folder / MANIFEST_NAME).is_file() else None

    def keep_completions(self, scene: Scene, title: str, completions: Completions) -> tuple[int, Path]:
        """Write completions of a scene, or of a part of its hole; return their number and their folder."""
        place = self.place_of(scene)
        number = max((_number_of(path) for path in self.folder.glob("*/[0-9]*-*")), default=0) + 1
        folder = place / f"{number}-{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')[:60]}"
        folder.mkdir()
        write_text(folder / _TITLE_NAME, json.dumps({"title": title}) + "\n")
        completions.save(folder)
        return number, folder

    def list_completions(self) -> list[tuple[str, int, Path]]:
        """List title, number and folder of the completions of all scenes, the earliest first."""
        found = (f for place in _numbered(self.folder) for f in place.glob("[0-9]*-*") if (f / SCORES_NAME).is_file())
        return [(_title_of(folder), _number_of(folder), folder) for folder in sorted(found, key=_number_of)]

    def last_scene(self) -> Scene:
        """Read the last scene of the folder.

        Raises:
            SceneError: the folder holds no scene, or it is damaged.
        """
        places = sorted(_numbered(self.folder), key=natural_key)
        if not places:
            raise SceneError(f"{str(self.folder)!r} holds nothing to go on with; legal: the output of an earlier panel")
        return self.scene_of(places[-1])


def holds_work(folder: str | PathLike[str]) -> bool:
    """Tell whether a folder is the output of an earlier flow."""
    return any(_numbered(Path(folder).expanduser()))


def save_all(folder: str | PathLike[str], completions: Completions, adapter: Adapter | None) -> str:
    """Write completions and a fit to a folder that holds none; return where they are, in a sentence.

    Raises:
        OutputError: the folder holds results already.
    """
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    completions.save(place)
    if adapter is not None:
        adapter.save(place / "adapter")
    return f"{len(completions)} result{'s are' if len(completions) > 1 else ' is'} in {place}."


def _numbered(folder: Path) -> Iterator[Path]:
    """Find the folders of scenes."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.isdigit() and (path / "scene").is_dir():
            yield path


def _inputs_of(place: Path) -> object:
    try:
        return read_json(place / _INPUTS_NAME)
    except (OSError, ValueError):
        return None


def _number_of(folder: Path) -> int:
    """Return the number with which the name of a folder of results begins; 0 for other folders."""
    number = folder.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _title_of(folder: Path) -> str:
    """Read the title of a result; an older folder has it in its name only."""
    try:
        return str(read_json(folder / _TITLE_NAME)["title"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name.partition("-")[2].replace("-", " ").capitalize()
