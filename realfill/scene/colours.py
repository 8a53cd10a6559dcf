"""Statistics of the colours of an image, which tell masks, layers and photos apart. Colours are (K, 3) uint8 sRGB."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray

_MAX_SAMPLES = 300_000  # pixels from which statistics are taken


def has_few_colours(colours: NDArray[np.uint8]) -> bool:
    """Tell whether up to four exact colours make up nearly all pixels."""
    rest = colours
    for _ in range(4):
        if len(rest) > 0.05 * len(colours):
            rest = rest[~is_near(rest, most_frequent(rest), 2)]
    return len(rest) <= 0.05 * len(colours)


def most_frequent(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Find the most frequent colour: the median of the fullest cell of a colour histogram."""
    cells = (colours.astype(np.int32) // 16) @ np.array([256, 16, 1])
    return np.median(colours[cells == np.bincount(cells).argmax()], axis=0).astype(np.float32)


def is_near(colours: NDArray[np.uint8], colour: NDArray[np.floating], tolerance: float) -> MaskArray:
    """Find the colours that differ from another colour by at most a tolerance in every channel."""
    return np.abs(colours - colour).max(axis=1) <= tolerance


def sample(pixels: NDArray) -> NDArray:
    """Take evenly spaced pixels (K, C), so that statistics of large images stay cheap."""
    return pixels[:: (len(pixels) // _MAX_SAMPLES) | 1]  # an odd step, because widths are often even


def to_grey(image: ImageArray) -> ImageArray:
    """Convert an image to grey with three equal channels."""
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def describe_colour(colour: NDArray[np.float32]) -> str:
    """Format a colour as rgb(...)."""
    return f"rgb({', '.join(str(round(float(n))) for n in colour.clip(0, 255))})"
