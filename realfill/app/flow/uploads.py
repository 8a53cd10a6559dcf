"""Uploads: files that a browser sent, bounded, in a private folder, under names that are not the user's."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from realfill.errors import SceneError

T = TypeVar("T")

MAX_UPLOAD_BYTES = 200_000_000
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".heif", ".json", ".ora"})


class Uploads:
    """A private folder for uploaded files, which is removed with this object.

    Attributes:
        folder: the folder, for other temporary files too.
    """

    def __init__(self) -> None:
        """Create the folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="realfill-"))
        self._count = 0
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def keep(self, name: str, content: bytes | memoryview) -> Path:
        """Write a file under a name of its own; only a known suffix is taken from the user's name.

        Raises:
            SceneError: it is empty or too large.
        """
        if not 0 < len(content) <= MAX_UPLOAD_BYTES:
            raise SceneError(
                f"{name!r} has {len(content) / 1e6:.1f} MB; legal: a file with content, up to "
                f"{MAX_UPLOAD_BYTES / 1e6:.0f} MB. Give a larger file by its path"
            )
        suffix = Path(name).suffix.lower()
        path = self.folder / f"upload-{self._count}{suffix if suffix in _SUFFIXES else ''}"
        self._count += 1
        path.write_bytes(content)
        return path


def named(name: str, path: object, read: Callable[[], T]) -> T:
    """Read a file; an error names it as the user does.

    Raises:
        SceneError: it cannot be read.
    """
    try:
        return read()
    except SceneError as error:
        raise SceneError(str(error).replace(str(path), name)) from error
