"""Recognising, by its content, whether a file is a photo that the readers can decode."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
from PIL import ExifTags, Image

_IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2"}
)
_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw", ".x3f"}
)
_RAW_MAGIC = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb")
NO_PHOTOS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})  # Pillow opens them but cannot decode them
_DNG_VERSION = 50706


def find_fault(path: Path) -> str | None:
    """Return the reason why a file cannot be read as a photo: "a folder", "a raw file of a camera" and the like.

    A file with a common suffix counts as a photo even if it is damaged, so that reading it reports the damage.

    Returns:
        The reason, or ``None`` if the file is a photo.
    """
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "no file"
    if is_raw(path):
        return "a raw file of a camera"
    if path.suffix.lower() in _IMAGE_SUFFIXES or is_heif(path):
        return None
    image_format = _pillow_format(path)
    is_photo = cv2.haveImageReader(str(path)) if image_format is None else image_format not in NO_PHOTOS
    return None if is_photo else "no image in a known format"


def is_heif(path: Path) -> bool:
    """Tell whether a file is a HEIC photo, whatever its suffix; phones also name such files ``.jpg``."""
    head = _head(path)
    is_brand = head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head
    return is_brand or (path.suffix.lower() in _HEIF_SUFFIXES and b"ftypavif" not in head)


def is_raw(path: Path) -> bool:
    """Tell whether a file is a camera's raw file, of which an image library would decode only the thumbnail."""
    head = _head(path)
    if path.suffix.lower() in _RAW_SUFFIXES or head.startswith(_RAW_MAGIC) or head[4:12] == b"ftypcrx ":
        return True
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if head[8:10] == b"CR":
        return True
    try:
        with warnings.catch_warnings(), path.open("rb") as stream:
            warnings.simplefilter("ignore")
            with Image.open(stream) as image:
                tags = image.getexif()
    except Exception:  # noqa: BLE001 - reading it reports the damage
        return False
    return _DNG_VERSION in tags or tags.get(ExifTags.Base.NewSubfileType) == 1  # 1: reduced from another image


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(64)


def _pillow_format(path: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as stream, Image.open(stream) as image:
                return image.format
    except Image.DecompressionBombError:
        return "too large"  # an image, whose size is refused when it is read
    except Exception:  # noqa: BLE001 - decoders raise anything for damaged files
        return None
