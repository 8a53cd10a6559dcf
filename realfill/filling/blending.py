"""Blending: a window's sample goes into the target's hole; nothing else changes (paper, section 3.3).

The paper feathers the mask and mixes the sample with the target. Inside the hole the target has nothing to mix in but
what shall go, and outside it known pixels would change. So here the sample meets the known side another way: what is
left between the two at the border is spread into the hole and added, smoothed and fading (``membrane``) or exactly
(``poisson``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.config import Blend
from realfill.io.bands import bands
from realfill.io.images import ImageArray, MaskArray
from realfill.io.profiles import to_depth
from realfill.masks import bounding_box, fill_smooth

_REACH = 16  # pixels of the model's into the hole, at which the correction has fallen to about a third
_COARSE_PX = 128  # longer side at which the Poisson equation is solved from nothing
_MARGIN = 32  # pixels beyond a band that are solved with it
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
    result = to_depth(known, dtype).copy()
    peak = np.iinfo(dtype).max
    for place, correction in _corrections(known, mask, patch, method, scale):
        filled = ((patch[place] + correction) * np.float32(peak / 255)).round().clip(0, peak).astype(dtype)
        np.copyto(result[place], filled, where=mask[place][:, :, None])
    return result


def _corrections(
    known: ImageArray, mask: MaskArray, patch: NDArray[np.float32], method: Blend, scale: float
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32] | np.float32]]:
    """Yield places that together hold the hole, and what to add to the sample there."""
    everywhere = slice(0, mask.shape[1])
    if method == "cut" or mask.all():
        yield from (((rows, everywhere), np.float32(0)) for rows in bands(mask.shape))
    elif method == "membrane":
        spread = _membrane(known, mask, patch, scale)
        yield from (((rows, everywhere), spread[rows]) for rows in bands(mask.shape))
    elif mask.any():
        top, left, bottom, right = bounding_box(mask)
        top, columns = max(0, top - 1), slice(max(0, left - 1), right + 1)

        def residual(rows: slice) -> NDArray[np.float32]:
            place = slice(top + rows.start, top + rows.stop), columns
            return known[place].astype(np.float32) - patch[place]

        for rows, solved in _harmonic(residual, mask[top : bottom + 1, columns]):
            yield (slice(top + rows.start, top + rows.stop), columns), solved


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


def _harmonic(
    values: Callable[[slice], NDArray[np.float32]], hole: MaskArray, iterations: int = _ITERATIONS
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Continue values into the hole by the solution of Laplace's equation, band by band.

    Added to a sample, the continued residual gives the image that has the sample's gradients in the hole and the known
    pixels at its border: the Poisson equation of Perez et al. 2003, "Poisson image editing". Where the hole meets the
    edge of the image, nothing is demanded.

    Where there is more than a coarse image, it starts from the solution at half the size: cascadic multigrid (Bornemann
    & Deuflhard 1996). Each level only has to mend what the one below could not show, which reaches a few pixels: so
    a band needs to know of its neighbours no more than that solution.

    Args:
        values: gives rows of (H, W, C); not read in the hole.
        hole: (H, W) bool, with at least one pixel outside.
        iterations: of conjugate gradients at this size.

    Yields:
        Rows, from top to bottom, and what they hold, (h, W, C): ``values`` outside the hole.
    """
    small = max(hole.shape) <= _COARSE_PX
    half = None if small else _at_half(values, hole, 2 * iterations)
    iterations = 4 * max(hole.shape) if small else iterations
    for rows in bands(hole.shape):
        wide = slice(max(0, rows.start - _MARGIN), min(len(hole), rows.stop + _MARGIN))
        inside, known = hole[wide].copy(), values(wide)
        start = np.zeros_like(known) if half is None else _from_half(half, wide, hole.shape[1])
        known = np.where(inside[:, :, None], start, known)
        inside[0] &= wide.start == 0  # at a cut the start is taken for known
        inside[-1] &= wide.stop == len(hole)
        weight = inside.astype(np.float32)
        channels = [
            _conjugate_gradients(k * (1 - weight), s * weight, weight, iterations)
            for k, s in zip(np.moveaxis(known, 2, 0), np.moveaxis(start, 2, 0), strict=True)
        ]
        yield rows, np.stack(channels, axis=2)[rows.start - wide.start :][: rows.stop - rows.start]


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


def _at_half(values: Callable[[slice], NDArray[np.float32]], hole: MaskArray, iterations: int) -> NDArray[np.float32]:
    """Solve at half the size, where a pixel is known if any of its four is."""
    width, totals, counts = hole.shape[1], [], []
    for rows in bands(hole.shape):
        known = (~hole[rows]).astype(np.float32)
        padding = ((0, len(known) % 2), (0, width % 2))
        blocks = ((len(known) + 1) // 2, 2, (width + 1) // 2, 2)
        counts.append(np.pad(known, padding).reshape(blocks).sum((1, 3)))
        total = np.where(hole[rows, :, None], np.float32(0), values(rows))
        totals.append(np.pad(total, (*padding, (0, 0))).reshape(*blocks, -1).sum((1, 3)))
    count = np.concatenate(counts)
    means = np.asarray(np.concatenate(totals) / np.maximum(count, 1)[:, :, None], np.float32)
    for rows, solved in _harmonic(means.__getitem__, count == 0, iterations):
        means[rows] = solved  # what bands that follow read there, known pixels, stays
    return means


def _from_half(half: NDArray[np.float32], rows: slice, width: int) -> NDArray[np.float32]:
    """Bring rows of an image of half the size back to the whole: (h, W, C)."""
    near = slice(max(0, rows.start // 2 - 1), (rows.stop + 1) // 2 + 1)
    size = (2 * half.shape[1], 2 * len(half[near]))
    grown = cv2.resize(half[near], size, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    first = rows.start - 2 * near.start
    return grown.reshape(size[1], size[0], -1)[first : first + rows.stop - rows.start, :width]
