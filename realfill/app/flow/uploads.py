"""Uploads: files that a browser sent, bounded before they are decoded, under names that are not the user's."""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from realfill.errors import SceneError
from realfill.io.recognition import find_fault, is_heif
from realfill.scene.checking import MIN_SIDE_PX

T = TypeVar("T")

MAX_BYTES = 128_000_000
MAX_PIXELS = 120_000_000
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".heif", ".json", ".ora"})
_PHOTOS = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "HEIF": ".heic",
    "AVIF": ".avif",
}  # fmt: skip
_LEGAL = "legal: a photo as JPEG, PNG, TIFF, WebP, AVIF or HEIC"


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
        if not 0 < len(content) <= MAX_BYTES:
            raise SceneError(
                f"{name!r} has {len(content) / 1e6:.1f} MB; legal: a file with content, up to {MAX_BYTES / 1e6:.0f} "
                "MB. Give a larger file by its path"
            )
        suffix = Path(name).suffix.lower()
        path = self.folder / f"upload-{self._count}{suffix if suffix in _SUFFIXES else ''}"
        self._count += 1
        path.write_bytes(content)
        return path

    def keep_photo(self, name: str, content: bytes | memoryview) -> Path:
        """Write a photo as ``keep`` does, and check it before anybody decodes it.

        Raises:
            SceneError: it is no photo, or too large or too small.
        """
        path = self.keep(name, content)
        try:
            check_photo(path)
        except SceneError as error:
            path.unlink()
            raise SceneError(f"{name}: {error}") from error
        return path


def check_photo(path: Path) -> str:
    """Check a file by its header alone, and return the suffix of its format.

    Raises:
        SceneError: it is no photo, or too large or too small.
    """
    fault = find_fault(path)
    if fault is not None:
        raise SceneError(f"this is {fault}; {_LEGAL}")
    if is_heif(path):
        _register_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with path.open("rb") as stream, Image.open(stream) as image:
                width, height, kind = image.width, image.height, image.format or ""
    except Image.DecompressionBombError:
        raise _too_many_pixels() from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise SceneError(f"this file cannot be read as a photo; {_LEGAL}") from error
    if width * height > MAX_PIXELS:
        raise _too_many_pixels()
    if min(width, height) < MIN_SIDE_PX:
        raise SceneError(f"the photo is {width} x {height} pixels; legal: at least {MIN_SIDE_PX} on each side")
    if kind not in _PHOTOS:
        raise SceneError(f"this is a file of the kind {kind}; {_LEGAL}")
    return _PHOTOS[kind]


def named(name: str, path: object, read: Callable[[], T]) -> T:
    """Read a file; an error names it as the user does.

    Raises:
        SceneError: it cannot be read.
    """
    try:
        return read()
    except SceneError as error:
        raise SceneError(str(error).replace(str(path), name)) from error


def _register_heif() -> None:
    """Teach Pillow to read HEIC, if the package for it is installed.

    Raises:
        SceneError: it is not installed.
    """
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError:
        raise SceneError(
            "this is a HEIC photo, which cannot be read here; save it as JPEG, or install pillow-heif"
        ) from None
    pillow_heif.register_heif_opener()


def _too_many_pixels() -> SceneError:
    return SceneError(f"the photo has too many pixels; legal: up to {MAX_PIXELS // 10**6} million")
