"""Blending: put a sample into the hole of a window; known pixels do not change (paper, section 3.3).

The paper feathers the mask and mixes the sample with the target. That would change known pixels, or mix in the pixels
that are to be replaced. Here, ``poisson`` instead continues the difference between the two at the border of the hole
into the hole and adds it to the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.config import Blend
from realfill.io.bands import bands
from realfill.io.images import ImageArray, MaskArray
from realfill.io.profiles import to_depth
from realfill.scene.masks import bounding_box

_COARSE_PX = 128  # longer side of the coarsest level of the Poisson equation
_MARGIN = 32  # pixels above and below a band that are solved together with it
_ITERATIONS = 30  # conjugate gradients on the finest level; each coarser level takes twice as many iterations


def blend(
    known: ImageArray,
    mask: MaskArray,
    patch: NDArray[np.float32],
    *,
    method: Blend,
    dtype: type | np.dtype = np.uint8,
) -> NDArray:
    """Fill the hole with a sample.

    Args:
        known: (H, W, C) uint8, the window's box of the target. The pixels under the mask have no influence.
        mask: (H, W) bool, True = fill.
        patch: (H, W, C) float32 in [0, 255], the sample, in the size and the colours of ``known``.
        method: ``poisson`` or ``cut``.
        dtype: type of the result: uint8, or uint16 for a target of 16 bits, where 255 becomes 65535.

    Returns:
        (H, W, C), equal to ``known`` outside the mask.
    """
    result = to_depth(known, dtype).copy()
    peak = np.iinfo(dtype).max
    for region, correction in _corrections(known, mask, patch, method):
        filled = ((patch[region] + correction) * np.float32(peak / 255)).round().clip(0, peak).astype(dtype)
        np.copyto(result[region], filled, where=mask[region][:, :, None])
    return result


def _corrections(
    known: ImageArray, mask: MaskArray, patch: NDArray[np.float32], method: Blend
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32] | np.float32]]:
    """Yield regions that together contain the hole, and the correction of the sample in each."""
    all_columns = slice(0, mask.shape[1])
    if method == "cut" or mask.all():
        yield from (((rows, all_columns), np.float32(0)) for rows in bands(mask.shape))
    elif mask.any():
        top, left, bottom, right = bounding_box(mask)
        top, columns = max(0, top - 1), slice(max(0, left - 1), right + 1)

        def residual(rows: slice) -> NDArray[np.float32]:
            region = slice(top + rows.start, top + rows.stop), columns
            return known[region].astype(np.float32) - patch[region]

        for rows, solution in _harmonic(residual, mask[top : bottom + 1, columns]):
            yield (slice(top + rows.start, top + rows.stop), columns), solution


def _harmonic(
    values: Callable[[slice], NDArray[np.float32]], hole: MaskArray, iterations: int = _ITERATIONS
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Continue values into the hole by solving Laplace's equation, band by band.

    A sample plus the continued residual has the sample's gradients in the hole and equals the known pixels at its
    border. This solves the Poisson equation of Perez et al. 2003, "Poisson image editing". There is no constraint
    where the hole meets the edge of the image.

    A large image starts from the solution at half the size: cascadic multigrid (Bornemann & Deuflhard 1996). A level
    only corrects detail that the coarser level cannot represent. Such detail has a reach of a few pixels, so bands can
    be solved one by one.

    Args:
        values: returns rows of an image (H, W, C). Its values in the hole have no influence.
        hole: (H, W) bool, with at least one pixel outside.
        iterations: iterations of conjugate gradients on this level.

    Yields:
        A slice of rows, from top to bottom, and their solution (h, W, C), which equals ``values`` outside the hole.
    """
    small = max(hole.shape) <= _COARSE_PX
    half = None if small else _at_half(values, hole, 2 * iterations)
    iterations = 4 * max(hole.shape) if small else iterations
    for rows in bands(hole.shape):
        padded = slice(max(0, rows.start - _MARGIN), min(len(hole), rows.stop + _MARGIN))
        inside, known = hole[padded].copy(), values(padded)
        start = np.zeros_like(known) if half is None else _from_half(half, padded, hole.shape[1])
        known = np.where(inside[:, :, None], start, known)
        inside[0] &= padded.start == 0  # where the band is cut, the start counts as known
        inside[-1] &= padded.stop == len(hole)
        weight = inside.astype(np.float32)
        channels = [
            _conjugate_gradients(k * (1 - weight), s * weight, weight, iterations)
            for k, s in zip(np.moveaxis(known, 2, 0), np.moveaxis(start, 2, 0), strict=True)
        ]
        yield rows, np.stack(channels, axis=2)[rows.start - padded.start :][: rows.stop - rows.start]


def _conjugate_gradients(
    known: NDArray[np.float32], solution: NDArray[np.float32], inside: NDArray[np.float32], iterations: int
) -> NDArray[np.float32]:
    """Improve ``solution`` (H, W) in place until ``known + solution`` is harmonic in the hole; return that sum.

    ``known`` is 0 inside the hole, ``solution`` is 0 outside. Pixels are replicated at the edge of the image, so that
    it imposes no constraint.
    """

    def laplacian(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return inside * cv2.Laplacian(image, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE)

    right_side, residual = laplacian(known), laplacian(known + solution)
    norm, tolerance = _dot(residual, residual), 1e-8 * _dot(right_side, right_side)
    direction = residual.copy()
    for _ in range(iterations):
        if norm <= tolerance:
            break
        change = laplacian(direction)
        step = norm / _dot(direction, change)  # negative, because the Laplacian is negative definite
        solution -= step * direction
        residual -= step * change
        norm, previous_norm = _dot(residual, residual), norm
        direction *= norm / previous_norm
        direction += residual
    return known + solution


def _dot(one: NDArray[np.float32], two: NDArray[np.float32]) -> np.float32:
    return np.float32(np.vdot(one, two))


def _at_half(values: Callable[[slice], NDArray[np.float32]], hole: MaskArray, iterations: int) -> NDArray[np.float32]:
    """Solve at half the size, where a pixel is known if any of its four pixels is."""
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
    for rows, solution in _harmonic(means.__getitem__, count == 0, iterations):
        means[rows] = solution  # later bands read only known pixels here, which do not change
    return means


def _from_half(half: NDArray[np.float32], rows: slice, width: int) -> NDArray[np.float32]:
    """Enlarge an image of half the size and return some rows (h, W, C) of the result."""
    near = slice(max(0, rows.start // 2 - 1), (rows.stop + 1) // 2 + 1)
    size = (2 * half.shape[1], 2 * len(half[near]))
    grown = cv2.resize(half[near], size, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    first = rows.start - 2 * near.start
    return grown.reshape(size[1], size[0], -1)[first : first + rows.stop - rows.start, :width]
