"""What is drawn in the browser: over a preview of the target, or over a result."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from realfill.app.page.visit import PREVIEW_PX, RefusedError, Visit
from realfill.io.images import ImageArray, MaskArray, fit_within
from realfill.segmentation.preview import draw_instances


def preview_size(visit: Visit) -> tuple[int, int]:
    """Return the (height, width) of the preview of the target, at which the hole is drawn.

    Raises:
        SceneError: there is no target.
    """
    return fit_within(visit.flow.choice.target.size, PREVIEW_PX)


def draw_hole(visit: Visit, drawn: MaskArray) -> None:
    """Take over what was drawn on the preview, (h, w) bool.

    Raises:
        SceneError: there is no target.
        RefusedError: the drawing has another size.
    """
    if drawn.shape != preview_size(visit):
        raise RefusedError("the drawing belongs to another photo; reload the page")
    with visit.hole_changed() as hole:
        hole.redraw(drawn)


def encode_hole(visit: Visit) -> bytes:
    """Return the hole at the size of the preview as a PNG: white on black.

    Raises:
        SceneError: there is no target.
    """
    small = visit.flow.choice.require_hole().drawing(preview_size(visit))
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


def keep_part(visit: Visit, number: int, place: int, drawn: MaskArray) -> None:
    """Keep the part of a result that is to be sampled again.

    Args:
        visit: the visit.
        number: number of the result.
        place: place of the completion in it, from 0.
        drawn: (h, w) bool, of the size of the completion's preview.

    Raises:
        RefusedError: there is no such result, or the drawing has another size.
    """
    folder = visit.result(number, place).folder
    assert folder is not None
    with Image.open(folder / "before.png") as before:
        width, height = before.size
    if drawn.shape != fit_within((height, width), PREVIEW_PX):
        raise RefusedError("the drawing belongs to another result; reload the page")
    part = cv2.resize(drawn.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    visit.part = (number, place, part)


def draw_people(visit: Visit) -> ImageArray:
    """Draw the preview of the target with the numbered people, (h, w, 3) uint8.

    Raises:
        SceneError: there is no target.
        RefusedError: nobody was looked for.
    """
    instances = visit.flow.choice.require_hole().instances
    if instances is None:
        raise RefusedError("find the people first")
    with Image.open(visit.photo_folder / "preview.png") as preview:
        return draw_instances(np.asarray(preview.convert("RGB")), instances)
