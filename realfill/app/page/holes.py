"""The hole of a visit: drawn over a preview, kept at the photo's own size, or outlined around people and things."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from realfill.app.page.records import RefusedError
from realfill.app.page.uploads import PREVIEW_PX, photo_folder, photo_path, preview_size
from realfill.app.page.visits import Visit
from realfill.io.files import whole_file
from realfill.io.images import MaskArray, fit_within, resize
from realfill.scene.outpainting import Margins

_MASK_NAME = "mask.png"
_MOST_GROWTH = 2.0  # of a side, as a share of the photo


def read_hole(visit: Visit) -> MaskArray | None:
    """Read the hole at the target's size, (H, W) bool; ``None`` if nothing is marked."""
    path = visit.folder / _MASK_NAME
    if visit.target is None or not path.is_file():
        return None
    return read_mask_file(path)


def has_hole(visit: Visit) -> bool:
    """Tell whether something is marked, the canvas grows, or the target has transparent pixels."""
    if visit.target is None:
        return False
    if visit.margins:
        return True
    mask = read_hole(visit)
    if mask is not None and mask.any():
        return True
    try:
        with photo_path(visit, visit.target).open("rb") as stream, Image.open(stream) as image:
            return image.has_transparency_data
    except OSError:  # a format that Pillow does not read by itself; then a hole has to be marked
        return False


def read_mask_file(path: Path) -> MaskArray:
    """Read a mask that ``write_mask_file`` wrote."""
    with path.open("rb") as stream, Image.open(stream) as image:
        return np.asarray(image.convert("L")) > 127


def write_mask_file(path: Path, mask: MaskArray) -> None:
    """Write a mask, (H, W) bool, as white on black."""
    with whole_file(path) as partial, partial.open("wb") as stream:
        Image.fromarray(mask.astype(np.uint8) * 255).save(stream, format="PNG", compress_level=1)


def save_hole(visit: Visit, mask: MaskArray) -> None:
    """Keep a hole, (H, W) bool of the target's size."""
    with visit.changed():
        write_mask_file(visit.folder / _MASK_NAME, mask)
        visit.mask_version = visit.take_number()
        visit.scene_changed()


def draw_hole(visit: Visit, drawn: MaskArray) -> None:
    """Take over what was drawn on the preview; where nothing changed, the hole keeps its full detail.

    Args:
        visit: the visit.
        drawn: (h, w) bool, of the size of the preview.

    Raises:
        RefusedError: there is no target, or the drawing has another size.
    """
    size = preview_size(visit)
    if drawn.shape != size:
        raise RefusedError("the drawing belongs to another photo; reload the page")
    assert visit.target is not None
    old = read_hole(visit)
    old = np.zeros(visit.target.size, bool) if old is None else old
    touched = _enlarged(drawn != _shrunk(old, size), visit.target.size)
    save_hole(visit, np.where(touched, _enlarged(drawn, visit.target.size), old))


def hole_preview(visit: Visit) -> bytes:
    """Return the hole at the size of the preview as a PNG: white on black."""
    hole = read_hole(visit)
    size = preview_size(visit)
    small = np.zeros(size, bool) if hole is None else _shrunk(hole, size)
    stream = io.BytesIO()
    Image.fromarray(small.astype(np.uint8) * 255).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def decode_drawing(data: bytes) -> MaskArray:
    """Decode a drawing from the browser: a PNG in which white is marked.

    Raises:
        RefusedError: it is no PNG, or larger than a preview.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if max(image.size) > PREVIEW_PX:
                raise RefusedError(f"the drawing is larger than {PREVIEW_PX} pixels; reload the page")
            return np.asarray(image.convert("L")) > 127
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise RefusedError("the drawing did not arrive whole; draw a stroke again") from error


def add_to_hole(visit: Visit, mask: MaskArray) -> None:
    """Add pixels to the hole."""
    hole = read_hole(visit)
    save_hole(visit, mask if hole is None else hole | mask)


def set_margins(visit: Visit, shares: dict[str, float]) -> None:
    """Set how far each side of the canvas grows, as a share of the photo.

    Raises:
        RefusedError: a share is not legal, or the canvas is too large.
    """
    if visit.target is None:
        raise RefusedError("choose the photo to complete first")
    height, width = visit.target.size
    sides = {"left": width, "right": width, "top": height, "bottom": height}
    if not all(0 <= shares.get(side, 0.0) <= _MOST_GROWTH for side in sides):
        raise RefusedError(f"a side grows by up to {100 * _MOST_GROWTH:.0f} % of the photo")
    margins = {side: round(shares.get(side, 0.0) * length) for side, length in sides.items()}
    if any(margins.values()):
        try:
            Margins.of_sides(visit.target.size, margin=0, **margins)
        except ValueError as error:
            raise RefusedError(str(error)) from error
    with visit.changed():
        visit.margins = margins if any(margins.values()) else {}
        visit.scene_changed()


def keep_part(visit: Visit, number: int, place: int, drawn: MaskArray) -> None:
    """Keep the part of a result that is to be sampled again.

    Args:
        visit: the visit.
        number: number of the round.
        place: place of the result in it, from 0.
        drawn: (h, w) bool, of the size of the result's preview.

    Raises:
        RefusedError: there is no such round, or the drawing has another size.
    """
    size = visit.round(number).size
    if drawn.shape != fit_within(size, PREVIEW_PX):
        raise RefusedError("the drawing belongs to another result; reload the page")
    with visit.changed():
        write_mask_file(part_path(visit), _enlarged(drawn, size))
        visit.part = [number, place]


def part_path(visit: Visit) -> Path:
    """Return the file of the part that is to be sampled again."""
    return visit.folder / "part.png"


def preview_path(visit: Visit) -> Path:
    """Return the file of the preview of the target."""
    return photo_folder(visit) / "preview.png"


def _shrunk(mask: MaskArray, size: tuple[int, int]) -> MaskArray:
    return resize(mask.astype(np.float32), size) > 0.5


def _enlarged(mask: MaskArray, size: tuple[int, int]) -> MaskArray:
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
