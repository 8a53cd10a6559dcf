"""Agreement: how much the references contradict a composite, for each pixel of the hole."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.composite import Composite
from realfill.geometry.layers import HalfSize, differ
from realfill.geometry.working import shrink, shrink_hole
from realfill.io.images import MaskArray

_COARSE = 0.0075  # blur of the colours that are compared, as a share of the longer side


def contradiction(result: Composite, hole: MaskArray) -> NDArray[np.float32]:
    """Compare each pixel of a composite with the references that it was not taken from.

    Args:
        result: the composite.
        hole: (H, W) bool.

    Returns:
        (H, W) float32: the smallest difference to a layer of another reference, from 0 (equal) to 98 (see
        ``layers.differ``); infinite where no other reference shows the pixel, and outside the hole.
    """
    if not result.layers:
        return np.full(hole.shape, np.inf, np.float32)
    height, width = result.layers[0].image.shape[:2]
    small_hole = shrink_hole(hole, (height, width))
    source = cv2.resize(result.source, (width, height), interpolation=cv2.INTER_NEAREST)
    small = shrink(result.image, (height, width))
    half = HalfSize.of(small, small_hole)
    image = half.shrink(small)
    least = np.full(small_hole.shape, np.inf, np.float32)
    for layer in result.layers:
        shown = layer.warp.valid_mask & ~layer.warp.hidden
        both = half.shrink(shown)
        weight = half.blur(both)
        error = half.blur(differ(image, half.shrink(layer.image), _COARSE * half.side) * both)
        difference = cv2.resize(error / np.maximum(weight, 1e-3), (width, height))
        others = small_hole & shown & (source >= 0) & (source != layer.warp.reference)
        least[others] = np.minimum(least, difference)[others]
    full = cv2.resize(least, hole.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.where(hole, full, np.float32(np.inf))
