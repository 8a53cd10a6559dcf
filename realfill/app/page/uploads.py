"""Photos from visitors: bounded while they arrive and before they are decoded, under names of the page's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from realfill.app.demo import demo_scene
from realfill.app.flow.photos import NamedPhoto
from realfill.app.flow.uploads import MAX_BYTES, check_photo
from realfill.app.page.gallery import encode_jpeg
from realfill.app.page.visit import THUMBNAIL_PX, RefusedError, Visit, file_of, without_preview
from realfill.io.files import require_space
from realfill.io.writing import write_png

_MAX_NAME = 80

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


def keep_photo(visit: Visit, received: Path, role: Role, name: str) -> NamedPhoto:
    """Check a file that was received, and make it a photo of the visit.

    A new target ends what was marked on the old one.

    Args:
        visit: the visit.
        received: the file; it is moved.
        role: whether it is the photo to complete or a reference.
        name: name that the visitor's computer gave it, only to be shown.

    Raises:
        SceneError: it is no photo, too large or too small, or there are enough references.
    """
    suffix = check_photo(received)
    shown = "".join(c for c in name if c.isprintable())[-_MAX_NAME:] or "photo"
    with visit.scene_changed():
        path = visit.photo_folder / f"{visit.take_number()}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        received.replace(path)
        try:
            return _add_reference(visit, path, shown) if role == "reference" else _set_target(visit, path, shown)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def drop_reference(visit: Visit, file: str) -> None:
    """Remove a reference by the name of its file."""
    with visit.scene_changed() as choice:
        for photo in [photo for photo in choice.photos.references if file_of(photo).name == file]:
            choice.photos.remove_reference(photo)
            _unlink(photo)


def take_example(visit: Visit) -> None:
    """Replace the photos of a visit by the demo's: the left view with its hole, and the right view."""
    scene, _ = demo_scene()
    folder = visit.folder / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    for photo in list(visit.photos.references):
        drop_reference(visit, file_of(photo).name)
    write_png(folder / "left.png", scene.target)
    write_png(folder / "right.png", scene.references[0])
    keep_photo(visit, folder / "left.png", "target", "left view of a motorcycle, with a hole")
    keep_photo(visit, folder / "right.png", "reference", "right view of the motorcycle")
    with visit.hole_changed() as hole:
        hole.add(scene.mask)


def _add_reference(visit: Visit, path: Path, name: str) -> NamedPhoto:
    visit.photos.add_named([(name, path)])
    photo = visit.photos.references[-1]
    _write_thumbnail(photo)
    visit.photos.references[-1] = without_preview(photo)
    return visit.photos.references[-1]


def _set_target(visit: Visit, path: Path, name: str) -> NamedPhoto:
    before = visit.photos.target
    visit.flow.choice.set_target(path, name)
    target = visit.flow.choice.target
    assert target.preview is not None
    Image.fromarray(np.ascontiguousarray(target.preview)).save(visit.photo_folder / "preview.png", compress_level=1)
    if before is not None:
        _unlink(before)
    _write_thumbnail(target)
    visit.photos.target = without_preview(target)
    with visit.hole_changed():
        pass
    return visit.photos.target


def _write_thumbnail(photo: NamedPhoto) -> None:
    assert photo.preview is not None
    path = file_of(photo)
    path.with_name(f"{path.stem}.thumb.jpg").write_bytes(encode_jpeg(photo.preview, THUMBNAIL_PX))


def _unlink(photo: NamedPhoto) -> None:
    path = file_of(photo)
    path.unlink(missing_ok=True)
    path.with_name(f"{path.stem}.thumb.jpg").unlink(missing_ok=True)


def _too_large(limit: int) -> RefusedError:
    return RefusedError(f"the file is too large; legal: up to {limit // 10**6} MB")
