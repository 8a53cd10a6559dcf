"""The files of completions in an output folder."""

from __future__ import annotations

import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

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
            f"{str(folder)!r} already holds completions; choose another folder, or replace them with "
            "overwrite=True (--overwrite)"
        )
    return folder


def replace_files(folder: Path, partial: Path) -> None:
    """Move new files into a folder, then remove old ones, so that an interruption loses no completion.

    If the old completions were made differently, their ``scores.json`` goes first: after an interruption it would list
    new pictures as old ones.
    """
    old_files = saved_files(folder)
    new_names = {file.name for file in partial.iterdir()}
    if _recipe(folder) != _recipe(partial):
        (folder / SCORES_NAME).unlink(missing_ok=True)
    for name in sorted(new_names, key=lambda name: name == SCORES_NAME):
        (partial / name).replace(folder / name)
    for file in old_files:
        if file.name not in new_names:
            file.unlink(missing_ok=True)


def _recipe(folder: Path) -> Any:
    """Read what the completions in a folder have in common; ``None`` if that is not known."""
    try:
        return json.loads((folder / SCORES_NAME).read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def saved_files(folder: Path) -> list[Path]:
    """List the files of an earlier ``save`` in a folder."""
    images = [f for f in folder.iterdir() if _IMAGE_STEM.fullmatch(f.stem) and f.suffix in SUFFIXES.values()]
    return [f for f in (*images, *(folder / name for name in _OTHERS)) if f.exists()]
