"""Seamless blending of chosen layers with the known pixels, by a screened Poisson equation (Bhat et al. 2008)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray

_REACH = 0.08  # distance over which a difference at the border fades, as a share of the longer side
_ITERATIONS = 400
_TOLERANCE = 1e-5


def blend_layers(images: Sequence[NDArray], labels: NDArray, known: ImageArray, hole: MaskArray) -> ImageArray:
    """Fill the hole with the layers' gradients, the known pixels at its border, and the layers' values further away.

    Args:
        images: of each layer, (H, W, 3) in [0, 255].
        labels: (H, W): the layer of each pixel.
        known: (H, W, 3) uint8.
        hole: (H, W) bool.

    Returns:
        (H, W, 3) uint8, equal to ``known`` outside the hole.
    """
    height, width = hole.shape
    stack = np.stack(images)
    y, x = np.mgrid[:height, :width]
    chosen = stack[labels, y, x]
    left, right, upper, lower = np.s_[:, :-1], np.s_[:, 1:], np.s_[:-1], np.s_[1:]

    def gradient(near: Any, far: Any) -> NDArray:
        """Average the gradients that the two pixels' own layers have between them."""
        a, b = labels[near], labels[far]
        here, there = (y[near], x[near]), (y[far], x[far])
        return (stack[(a, *there)] - stack[(a, *here)] + stack[(b, *there)] - stack[(b, *here)]) / 2

    across, down = gradient(left, right), gradient(upper, lower)
    weight_across = (hole[left] | hole[right]).astype(np.float32)
    weight_down = (hole[upper] | hole[lower]).astype(np.float32)
    screen = np.float32(1 / (_REACH * max(hole.shape)) ** 2)

    def divergence(right_flow: NDArray, down_flow: NDArray) -> NDArray:
        result = np.zeros((height, width), np.float32)
        result[right] += right_flow
        result[left] -= right_flow
        result[lower] += down_flow
        result[upper] -= down_flow
        return result * hole

    result = known.copy()
    for channel in range(3):
        image = np.where(hole, chosen[..., channel], known[..., channel]).astype(np.float32)
        residual = divergence(
            (across[..., channel] - image[right] + image[left]) * weight_across,
            (down[..., channel] - image[lower] + image[upper]) * weight_down,
        )
        direction, length = residual.copy(), float((residual**2).sum())
        limit = _TOLERANCE * length
        for _ in range(_ITERATIONS):
            if length <= limit:
                break
            product = screen * direction * hole + divergence(
                (direction[right] - direction[left]) * weight_across,
                (direction[lower] - direction[upper]) * weight_down,
            )
            step = np.float32(length / float((direction * product).sum()))
            image += step * direction
            residual -= step * product
            before, length = length, float((residual**2).sum())
            direction = residual + np.float32(length / before) * direction
        result[..., channel] = np.where(hole, image.round().clip(0, 255), known[..., channel]).astype(np.uint8)
    return result
