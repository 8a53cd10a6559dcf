"""Photos from visitors: bounded in number, bytes and pixels before they are decoded, under names of the page's own."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from realfill.app.page.records import RefusedError, Upload
from realfill.app.page.visits import Visit
from realfill.config.fit import MAX_REFERENCES
from realfill.errors import SceneError
from realfill.io.files import require_space
from realfill.io.images import ImageArray, fit_within, read_image, resize
from realfill.io.recognition import find_fault, is_heif
from realfill.scene.checking import MIN_SIDE_PX

MAX_BYTES = 128_000_000
MAX_PIXELS = 120_000_000
PREVIEW_PX = 2048
THUMBNAIL_PX = 320
_MAX_NAME = 80
_SUFFIXES = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "HEIF": ".heic",
    "AVIF": ".avif",
}  # fmt: skip
_LEGAL = "legal: a photo as JPEG, PNG, TIFF, WebP, AVIF or HEIC"

Role = Literal["target", "reference"]


async def receive(chunks: AsyncIterator[bytes], path: Path, *, announced: int | None, limit: int = MAX_BYTES) -> None:
    """Write a request's body to a file, and stop as soon as it is too large.

    Args:
        chunks: the body.
        path: the file, whose folder exists.
        announced: the size that the browser announces.
        limit: largest size in bytes.

    Raises:
        RefusedError: the body is too large or empty.
        OutputError: the disk is full.
    """
    if announced is not None and announced > limit:
        raise _too_large(limit)
    require_space(path, announced or 0)
    received = 0
    with path.open("wb") as stream:
        async for chunk in chunks:
            received += len(chunk)
            if received > limit:
                raise _too_large(limit)
            stream.write(chunk)
    if not received:
        raise RefusedError("the file is empty; choose another one")


def keep_photo(visit: Visit, received: Path, role: Role, name: str) -> Upload:
    """Check a file that was received, and make it a photo of the visit.

    A new target ends what was marked on the old one.

    Args:
        visit: the visit.
        received: the file; it is moved.
        role: whether it is the photo to complete or a reference.
        name: name that the visitor's computer gave it, only to be shown.

    Raises:
        RefusedError: it is no photo, too large or too small, or there are enough references.
    """
    suffix = _check_header(received)
    try:
        image, _ = read_image(received, "the file")
    except SceneError as error:
        raise RefusedError(str(error).replace(repr(str(received)), "it")) from error
    shown = "".join(c for c in name if c.isprintable())[-_MAX_NAME:] or "photo"
    with visit.changed():
        if role == "reference" and len(visit.references) >= MAX_REFERENCES:
            raise RefusedError(f"there are {MAX_REFERENCES} references already; remove one first")
        file = f"{visit.take_number()}{suffix}"
        upload = Upload(file=file, name=shown, size=(image.shape[0], image.shape[1]))
        folder = photo_folder(visit)
        folder.mkdir(parents=True, exist_ok=True)
        received.replace(folder / file)
        _write_small(folder / f"{Path(file).stem}.thumb.jpg", image, THUMBNAIL_PX)
        if role == "reference":
            visit.references.append(upload)
        else:
            drop_target(visit)
            visit.target = upload
            write_preview(visit, image)
        visit.scene_changed()
    return upload


def drop_target(visit: Visit) -> None:
    """Forget the target and what was marked on it. Call it within ``visit.changed()``."""
    if visit.target is not None:
        _unlink(visit, visit.target)
    visit.target, visit.people, visit.chosen, visit.margins = None, {}, [], {}
    if visit.mask_version:
        visit.mask_version = visit.take_number()
    (visit.folder / "mask.png").unlink(missing_ok=True)


def drop_reference(visit: Visit, file: str) -> None:
    """Remove a reference."""
    with visit.changed():
        for upload in [upload for upload in visit.references if upload.file == file]:
            visit.references.remove(upload)
            _unlink(visit, upload)
        visit.scene_changed()


def photo_folder(visit: Visit) -> Path:
    """Return the folder of a visit's photos."""
    return visit.folder / "photos"


def photo_path(visit: Visit, upload: Upload) -> Path:
    """Return the file of a photo."""
    return photo_folder(visit) / upload.file


def preview_size(visit: Visit) -> tuple[int, int]:
    """Return the (height, width) of the preview of the target, at which the hole is drawn.

    Raises:
        RefusedError: there is no target.
    """
    if visit.target is None:
        raise RefusedError("choose the photo to complete first")
    return fit_within(visit.target.size, PREVIEW_PX)


def write_preview(visit: Visit, image: ImageArray) -> None:
    """Write the preview of the target losslessly."""
    small = resize(image, fit_within((image.shape[0], image.shape[1]), PREVIEW_PX))
    Image.fromarray(np.ascontiguousarray(small)).save(photo_folder(visit) / "preview.png", compress_level=1)


def _check_header(path: Path) -> str:
    """Check a file by its header alone, and return the suffix of its format.

    Raises:
        RefusedError: it is no photo, or too large or too small.
    """
    fault = find_fault(path)
    if fault is not None:
        raise RefusedError(f"this is {fault}; {_LEGAL}")
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
        raise RefusedError(f"this file cannot be read as a photo; {_LEGAL}") from error
    if width * height > MAX_PIXELS:
        raise _too_many_pixels()
    if min(width, height) < MIN_SIDE_PX:
        raise RefusedError(f"the photo is {width} x {height} pixels; legal: at least {MIN_SIDE_PX} on each side")
    if kind not in _SUFFIXES:
        raise RefusedError(f"this is a file of the kind {kind}; {_LEGAL}")
    return _SUFFIXES[kind]


def _register_heif() -> None:
    """Teach Pillow to read HEIC, if the package for it is there; reading the file says so if it is not."""
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError:
        raise RefusedError(
            "this is a HEIC photo, which this server cannot read; save it as JPEG, or ask for pip install pillow-heif"
        ) from None
    pillow_heif.register_heif_opener()


def _write_small(path: Path, image: ImageArray, side_px: int) -> None:
    small = resize(image, fit_within((image.shape[0], image.shape[1]), side_px))
    Image.fromarray(np.ascontiguousarray(small)).save(path, quality=85)


def _unlink(visit: Visit, upload: Upload) -> None:
    path = photo_path(visit, upload)
    path.unlink(missing_ok=True)
    path.with_name(f"{path.stem}.thumb.jpg").unlink(missing_ok=True)


def _too_large(limit: int) -> RefusedError:
    return RefusedError(f"the file is too large; legal: up to {limit // 10**6} MB")


def _too_many_pixels() -> RefusedError:
    return RefusedError(f"the photo has too many pixels; legal: up to {MAX_PIXELS // 10**6} million")
