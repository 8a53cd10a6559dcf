"""Blending: a window's sample goes into the target's hole; nothing else changes (paper, section 3.3).

The paper feathers the mask and mixes the sample with the target. Inside the hole the target has nothing to mix in but
what shall go, and outside it known pixels would change. So here the sample meets the known side another way: what is
left between the two at the border is spread into the hole and added.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.config import Blend
from realfill.images import ImageArray, MaskArray
from realfill.masks import fill_smooth
from realfill.profiles import to_depth

_REACH = 16  # pixels of the model's into the hole, at which the correction has fallen to about a third


def blend(
    known: ImageArray,
    mask: MaskArray,
    patch: NDArray[np.float32],
    *,
    method: Blend,
    scale: float,
    dtype: type | np.dtype = np.uint8,
) -> NDArray:
    """Fill the hole with a sample.

    Args:
        known: (H, W, 3) uint8, the window's box of the target; not read under the mask.
        mask: (H, W) bool, True = fill.
        patch: (H, W, 3) float32 in [0, 255], the sample at the same size.
        method: ``membrane`` or ``cut``.
        scale: the target's pixels to one of the model's: how blurred the sample is, and so the correction.
        dtype: of the result: uint8, or uint16 for a target of 16 bits, where 255 becomes 65535.

    Returns:
        (H, W, 3): ``known`` outside the mask, exactly.
    """
    if method == "membrane" and not mask.all():
        patch = patch + _membrane(known, mask, patch, scale)
    peak = np.iinfo(dtype).max
    filled = (patch * np.float32(peak / 255)).round().clip(0, peak).astype(dtype)
    return np.where(mask[:, :, None], filled, to_depth(known, dtype))


def _membrane(known: ImageArray, mask: MaskArray, patch: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Continue the smoothed residual at the border into the hole, falling off with the distance from it."""
    outside = (~mask).astype(np.float32)
    residual = (known.astype(np.float32) - patch) * outside[:, :, None]
    sigma = max(1.0, 2 * scale)
    weight = cv2.GaussianBlur(outside, (0, 0), sigma)
    smooth = cv2.GaussianBlur(residual, (0, 0), sigma) / np.maximum(weight, 1e-6)[:, :, None]
    hole = torch.from_numpy(mask)[None, None]
    spread = fill_smooth(torch.from_numpy(smooth).permute(2, 0, 1)[None], hole, empty=0.0)
    distance = cv2.distanceTransform(np.pad(mask, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    falloff = np.exp(-distance / (_REACH * scale))
    return spread[0].permute(1, 2, 0).numpy() * falloff[:, :, None].astype(np.float32)
