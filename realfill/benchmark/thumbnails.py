"""Small pictures for the page as data URIs: photos, marked holes, difference maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from realfill.errors import RealFillError
from realfill.io.images import ImageArray, MaskArray, fit_within, read_image, resize

THUMBNAIL_PX = 320
SMALL_PX = 160
DIFFERENCE_LEVELS = 128
"""Mean absolute difference over channels, from 0 to 255, that maps to the brightest colour of a difference map."""

_COLOURS = "magma"
_QUALITY = 85
_STRIPE_PX = 6
_STRIPES = np.array([[230, 60, 140], [250, 190, 220]], np.uint8)


def thumbnail(path: Path, *, max_size_px: int = THUMBNAIL_PX) -> str | None:
    """Read a picture as a data URI; ``None`` if it cannot be read."""
    return _encoded(lambda: read_image(path)[0], max_size_px)


def marked_hole(target: Path, mask: Path) -> str | None:
    """Draw a target with its hole striped; ``None`` if a file cannot be read or the sizes differ."""

    def draw() -> ImageArray:
        image = read_image(target)[0]
        hole = _hole(mask, image)
        size = fit_within(image.shape[:2], THUMBNAIL_PX)
        image, hole = resize(image, size), resize(hole.astype(np.uint8) * np.uint8(255), size) > 127
        stripes = np.add.outer(np.arange(size[0]), np.arange(size[1])) // _STRIPE_PX % 2
        image[hole] = _STRIPES[stripes[hole]]
        return image

    return _encoded(draw, THUMBNAIL_PX)


def difference_map(picture: Path, truth: Path, mask: Path) -> str | None:
    """Draw the difference of a completion from the truth in the hole; ``None`` if a file is unreadable or sizes differ.

    Outside the hole, the map shows the truth in dark grey.
    """

    def draw() -> ImageArray:
        image, true = (read_image(path)[0].astype(np.int16) for path in (picture, truth))
        if image.shape != true.shape:
            raise ValueError(
                f"the picture has the size {image.shape[:2]}, and the truth {true.shape[:2]}; legal: one size"
            )
        hole = _hole(mask, true)
        context = np.repeat(true.mean(axis=2, keepdims=True) / 3, 3, axis=2)
        drawn = np.where(hole[..., None], _coloured(np.abs(image - true).mean(axis=2) / DIFFERENCE_LEVELS), context)
        return drawn.round().astype(np.uint8)

    return _encoded(draw, THUMBNAIL_PX)


def colour_bar() -> str:
    """Draw the colours of difference maps, from 0 on the left to the highest on the right."""
    bar = _coloured(np.repeat(np.linspace(0, 1, 256)[None], 12, axis=0))
    return _data_uri(bar.round().astype(np.uint8))


def _coloured(shares: np.ndarray) -> np.ndarray:
    """Map values (H, W), 0 to 1 and above, to colours (H, W, 3) from 0 to 255."""
    return mpl.colormaps[_COLOURS](np.clip(shares, 0, 1))[..., :3] * 255


def _hole(path: Path, image: np.ndarray) -> MaskArray:
    hole = read_image(path)[0][..., 0] > 127
    if hole.shape != image.shape[:2]:
        raise ValueError(f"the mask has the size {hole.shape}, and the picture {image.shape[:2]}; legal: one size")
    return hole


def _encoded(draw: Callable[[], ImageArray], max_size_px: int) -> str | None:
    try:
        image = draw()
    except (RealFillError, OSError, ValueError):
        return None
    return _data_uri(resize(image, fit_within(image.shape[:2], max_size_px)))


def _data_uri(image: ImageArray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
