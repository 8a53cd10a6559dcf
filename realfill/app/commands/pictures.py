"""Pictures of the composite, which ``run`` and ``complete`` write on request."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from realfill.app.commands.common import MachineOptions
from realfill.app.commands.stopping import StopOnInterrupt
from realfill.config import GeometryConfig
from realfill.errors import SceneError

if TYPE_CHECKING:
    from realfill.scene.scene import Scene

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415

PICTURES = "composite"
"""Folder within the output folder that holds the pictures."""
_LAST = "confidence.png"  # of the pictures that are written; with it, all are there
_NAME = re.compile(r"(matches_\d+|layers|depth|sources|confidence)\.png")


def write_pictures(scene: Scene, output: Path, machine: MachineOptions) -> None:
    """Write the pictures of the composite that the completions in an output folder rest on, unless they are there.

    Of several processes that train together, only the first does.

    Raises:
        SceneError: the record of the completions is damaged.
        StoppedError: a signal ended the work.
    """
    from realfill.compute.devices import is_main_process
    from realfill.io.files import partial_folder
    from realfill.io.writing import write_png
    from realfill.pipeline import draw_composite

    folder = output / PICTURES
    if not is_main_process() or are_written(output):
        return
    with StopOnInterrupt() as stop:
        pictures = draw_composite(
            scene, _settings_of(output), device=machine.device, on_step=stop.on_step, progress=machine.progress
        )
    if not pictures:
        machine.say("there is no composite to draw; it needs references, known pixels and --geometry True")
        return
    folder.mkdir(exist_ok=True)
    with partial_folder(folder) as partial:
        for name, picture in pictures.items():
            write_png(partial / f"{name}.png", picture)
        for name in pictures:
            (partial / f"{name}.png").replace(folder / f"{name}.png")
    machine.say(f"{len(pictures)} pictures of the composite written to {folder}")


def are_written(output: Path) -> bool:
    """Tell whether the pictures in an output folder are complete."""
    return (output / PICTURES / _LAST).is_file()


def remove_pictures(output: Path) -> None:
    """Remove the pictures in an output folder, whose completions are replaced; other files in their place stay."""
    folder = output / PICTURES
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):  # the last one first
        if _NAME.fullmatch(path.name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _settings_of(output: Path) -> GeometryConfig:
    """Read the settings of the composite that the completions in a folder were made with."""
    from realfill.io.json_files import read_json
    from realfill.results.folder import SCORES_NAME

    try:
        values = read_json(output / SCORES_NAME)
        made = {**values["provenance"], **values["completions"][0]["provenance"]}
        return GeometryConfig.from_dict(made["geometry"])
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise SceneError(f"{str(output / SCORES_NAME)!r} is damaged: {error}") from error
