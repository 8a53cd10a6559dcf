"""The files of completions in an output folder."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from realfill.errors import OutputError
from realfill.io.formats import SUFFIXES
from realfill.io.lock import require_writable

SCORES_NAME = "scores.json"
SHEET_NAME = "contact_sheet.png"
LAYERS_NAME = "layers.ora"
EVIDENCE_NAME = "evidence.png"
EVIDENCE_DATA_NAME = "evidence.npz"
PATCH_ENDING = "_patch"
WITHOUT_MODEL = "composite"
_IMAGE_STEM = re.compile(rf"\d{{2,}}_(seed\d+|{WITHOUT_MODEL})({PATCH_ENDING})?")
_OTHERS = (LAYERS_NAME, SHEET_NAME, EVIDENCE_NAME, EVIDENCE_DATA_NAME, SCORES_NAME)


def check_output(directory: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Check, before an expensive job, that completions can be written to a folder; create it if it does not exist.

    Raises:
        OutputError: the path is a file, cannot be written to, or holds completions and ``overwrite`` is not set.
    """
    folder = require_writable(directory)
    if not overwrite and saved_files(folder):
        raise OutputError(
            f"{str(folder)!r} already holds completions; choose another folder, or overwrite them explicitly"
        )
    return folder


def replace_files(folder: Path, partial: Path) -> None:
    """Move new files into a folder, then remove old ones, so that an interruption loses no completion."""
    old_files = saved_files(folder)
    new_names = {file.name for file in partial.iterdir()}
    for name in sorted(new_names, key=lambda name: name == SCORES_NAME):
        (partial / name).replace(folder / name)
    for file in old_files:
        if file.name not in new_names:
            file.unlink()


def saved_files(folder: Path) -> list[Path]:
    """List the files of an earlier ``save`` in a folder."""
    images = [f for f in folder.iterdir() if _IMAGE_STEM.fullmatch(f.stem) and f.suffix in SUFFIXES.values()]
    return [f for f in (*images, *(folder / name for name in _OTHERS)) if f.exists()]
