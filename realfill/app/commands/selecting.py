"""What the commands that look into a photo share: its selection, and pictures of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from realfill.errors import OutputError

if TYPE_CHECKING:
    from realfill.io.images import ImageArray

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


def require_free(path: Path, *, overwrite: bool) -> None:
    """Check, before any work, that a file may be written.

    Raises:
        OutputError: it exists, or its folder cannot be written to.
        ValueError: no encoder has its suffix.
    """
    from realfill.io.lock import require_writable
    from realfill.io.writing import encoder_for

    encoder_for(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{str(path)!r} exists; choose another name, or use --overwrite")
    require_writable(path.parent)


def write_picture(path: Path, image: ImageArray) -> None:
    """Write an sRGB picture in the format of its suffix."""
    from realfill.io.photos import Photo
    from realfill.io.writing import write_photo

    write_photo(path, Photo(pixels=image))
