"""Blending: a window's sample goes into the target's hole; nothing else changes (paper, section 3.3).

The paper feathers the mask and mixes the sample with the target. Inside the hole the target has nothing to mix in but
what shall go, and outside it known pixels would change. So here the sample meets the known side another way: what is
left between the two at the border is spread into the hole and added, smoothed and fading (``membrane``) or exactly
(``poisson``).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.config import Blend
from realfill.io.images import ImageArray, MaskArray
from realfill.io.profiles import to_depth
from realfill.masks import bounding_box, fill_smooth

_REACH = 16  # pixels of the model's into the hole, at which the correction has fallen to about a third
_COARSE_PX = 128  # longer side at which the Poisson equation is solved from nothing
_ITERATIONS = 30  # of conjugate gradients on the finest level; on each coarser one twice as many, which cost half


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
        known: (H, W, C) uint8, the window's box of the target; not read under the mask.
        mask: (H, W) bool, True = fill.
        patch: (H, W, C) float32 in [0, 255], the sample at the same size and in the same colours.
        method: ``membrane``, ``poisson`` or ``cut``.
        scale: the target's pixels to one of the model's: how blurred the sample is, and so the correction.
        dtype: of the result: uint8, or uint16 for a target of 16 bits, where 255 becomes 65535.

    Returns:
        (H, W, C): ``known`` outside the mask, exactly.
    """
    if method == "membrane" and not mask.all():
        patch = patch + _membrane(known, mask, patch, scale)
    if method == "poisson" and not mask.all():
        patch = patch + _harmonic(known.astype(np.float32) - patch, mask)
    peak = np.iinfo(dtype).max
    filled = (patch * np.float32(peak / 255)).round().clip(0, peak).astype(dtype)
    return np.where(mask[:, :, None], filled, to_depth(known, dtype))


def _membrane(known: ImageArray, mask: MaskArray, patch: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Continue the smoothed residual at the border into the hole, falling off with the distance from it."""
    outside = (~mask).astype(np.float32)
    residual = (known.astype(np.float32) - patch) * outside[:, :, None]
    sigma = max(1.0, 2 * scale)
    weight = np.maximum(cv2.GaussianBlur(outside, (0, 0), sigma), 1e-6)[:, :, None]
    smooth = cv2.GaussianBlur(residual, (0, 0), sigma).reshape(residual.shape) / weight
    hole = torch.from_numpy(mask)[None, None]
    spread = fill_smooth(torch.from_numpy(smooth).permute(2, 0, 1)[None], hole, empty=0.0)
    distance = cv2.distanceTransform(np.pad(mask, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    falloff = np.exp(-distance / (_REACH * scale))
    return spread[0].permute(1, 2, 0).numpy() * falloff[:, :, None].astype(np.float32)


def _harmonic(values: NDArray[np.float32], hole: MaskArray) -> NDArray[np.float32]:
    """Continue values into the hole by the solution of Laplace's equation.

    Added to a sample, the continued residual gives the image that has the sample's gradients in the hole and the known
    pixels at its border: the Poisson equation of Perez et al. 2003, "Poisson image editing". Where the hole meets the
    edge of the image, nothing is demanded.

    Args:
        values: (H, W, C); not read in the hole.
        hole: (H, W) bool, with at least one pixel outside.

    Returns:
        (H, W, C): ``values`` outside the hole.
    """
    values = np.where(hole[:, :, None], np.float32(0), values)
    if hole.any():
        top, left, bottom, right = bounding_box(hole)
        near = slice(max(0, top - 1), bottom + 1), slice(max(0, left - 1), right + 1)
        values[near] = _solve(values[near], hole[near])
    return values


def _solve(values: NDArray[np.float32], hole: MaskArray, iterations: int = _ITERATIONS) -> NDArray[np.float32]:
    """Solve channel by channel from the solution at half the size, where there is more than a coarse image.

    Cascadic multigrid (Bornemann & Deuflhard 1996): each level only has to mend what the one below could not show.

    Args:
        values: (H, W, C), 0 in the hole.
        hole: (H, W) bool.
        iterations: of conjugate gradients at this size.
    """
    small = max(hole.shape) <= _COARSE_PX
    start = values if small else _from_half(values, hole, 2 * iterations)
    iterations = 4 * max(hole.shape) if small else iterations
    inside = hole.astype(np.float32)
    channels = [
        _conjugate_gradients(np.ascontiguousarray(v), x * inside, inside, iterations)
        for v, x in zip(np.moveaxis(values, 2, 0), np.moveaxis(start, 2, 0), strict=True)
    ]
    return np.stack(channels, axis=2)


def _conjugate_gradients(
    known: NDArray[np.float32], found: NDArray[np.float32], inside: NDArray[np.float32], iterations: int
) -> NDArray[np.float32]:
    """Mend ``found``, (H, W), until its sum with ``known`` is harmonic in the hole; returns that sum.

    ``known`` is 0 in the hole, ``found`` outside of it. A pixel beyond the edge is as the one before it, so that it
    demands nothing.
    """

    def laplacian(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return inside * cv2.Laplacian(image, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE)

    demanded, residual = laplacian(known), laplacian(known + found)
    length, least = _dot(residual, residual), 1e-8 * _dot(demanded, demanded)
    direction = residual.copy()
    for _ in range(iterations):
        if length <= least:
            break
        image = laplacian(direction)
        step = length / _dot(direction, image)  # below 0, as the Laplacian is
        found -= step * direction
        residual -= step * image
        length, before = _dot(residual, residual), length
        direction *= length / before
        direction += residual
    return known + found


def _dot(one: NDArray[np.float32], two: NDArray[np.float32]) -> np.float32:
    return np.float32(np.vdot(one, two))


def _from_half(values: NDArray[np.float32], hole: MaskArray, iterations: int) -> NDArray[np.float32]:
    """Solve at half the size, where a pixel is known if any of its four is, and bring the solution back."""
    height, width = hole.shape
    padding = ((0, height % 2), (0, width % 2))
    blocks = ((height + 1) // 2, 2, (width + 1) // 2, 2)
    known = np.pad((~hole).astype(np.float32), padding).reshape(blocks).sum((1, 3))
    total = np.pad(values, (*padding, (0, 0))).reshape(*blocks, -1).sum((1, 3))
    solved = _solve(total / np.maximum(known, 1)[:, :, None], known == 0, iterations)
    size = (2 * blocks[2], 2 * blocks[0])
    grown = cv2.resize(solved, size, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    return grown.reshape(size[1], size[0], -1)[:height, :width]
