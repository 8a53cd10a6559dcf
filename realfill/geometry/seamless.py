"""Seamless blending of chosen layers with the known pixels, by a screened Poisson equation (Bhat et al. 2008).

The equation is solved for a correction: what must be added to the chosen layers so that their gradients stay, the known
pixels follow at the hole's border, and the layers' own values come back further away. The correction is smooth except
beside seams and the border. It is therefore solved at a small size first, and at the full size only near those.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from realfill.compute.threads import in_threads
from realfill.geometry.smooth import continue_into
from realfill.io.images import MaskArray

_REACH = 0.08  # distance over which a difference at the border fades, as a share of the longer side
_ITERATIONS = 300
_TOLERANCE = 1e-4  # of the residual's norm
_COARSEST_PX = 96
_NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def screen_weight(side: int) -> float:
    """Return the weight of the layers' own values, for a photo with this longer side in pixels."""
    return 1 / (_REACH * side) ** 2


def correct(
    images: NDArray, labels: NDArray, known: NDArray, hole: MaskArray, *, check: Callable[[], None] = lambda: None
) -> NDArray:
    """Solve for the correction of the whole hole, from coarse to fine.

    Args:
        images: (L, H, W, 3) float32 in [0, 255], the layers.
        labels: (H, W): the layer of each pixel of the hole.
        known: (H, W, 3) in [0, 255].
        hole: (H, W) bool.
        check: called between colours; it may raise an exception.

    Returns:
        (H, W, 3) float32; continued smoothly outside the hole, for enlarging.
    """
    height, width = hole.shape
    start = None
    if max(hole.shape) > _COARSEST_PX and min(hole.shape) > 8:
        size = (width // 2, height // 2)
        small_hole = cv2.resize(hole.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 0
        coarse = correct(
            np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]),
            cv2.resize(labels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST),
            cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA),
            small_hole,
            check=check,
        )
        start = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    found = solve(images, labels, known, hole, screen=screen_weight(max(hole.shape)), start=start, check=check)
    return continue_into(found, ~hole)


def solve(
    images: NDArray,
    labels: NDArray,
    known: NDArray,
    hole: MaskArray,
    *,
    screen: float,
    start: NDArray | None = None,
    free: MaskArray | None = None,
    check: Callable[[], None] = lambda: None,
) -> NDArray:
    """Solve the screened Poisson equation for the correction, by conjugate gradients.

    Between two pixels of the same layer the gradient is the layer's, across a seam the mean of both layers', and
    between the hole and a known pixel that of the hole's layer.

    Args:
        images: (L, H, W, 3) float32 in [0, 255], the layers.
        labels: (H, W): the layer of each pixel of the hole.
        known: (H, W, 3) in [0, 255]; read outside the hole.
        hole: (H, W) bool.
        screen: weight of the layers' own values.
        start: (H, W, 3) float32, an estimate of the correction.
        free: (H, W) bool: the pixels of the hole that are solved for; the others keep ``start``. ``None``: all.
        check: called between colours; it may raise an exception.

    Returns:
        (H, W, 3) float32, 0 outside the hole.
    """
    result = np.zeros((*hole.shape, 3), np.float32) if start is None else np.where(hole[..., None], start, 0)
    free = hole if free is None else free & hole
    y, x = np.nonzero(free)
    if not len(y):
        return result
    number = np.full(hole.shape, -1, np.int32)
    number[y, x] = np.arange(len(y))
    own, mine = labels[y, x], images[labels[y, x], y, x]
    right, diagonal = np.zeros((len(y), 3), np.float32), np.full(len(y), screen, np.float32)
    rows, columns = [], []
    for dy, dx in _NEIGHBOURS:
        there = np.flatnonzero((y + dy >= 0) & (y + dy < hole.shape[0]) & (x + dx >= 0) & (x + dx < hole.shape[1]))
        at = y[there] + dy, x[there] + dx
        diagonal[there] += 1
        in_hole, linked, other = hole[at], number[at], labels[at]
        layer_there = images[own[there], *at]
        seam = in_hole & (other != own[there])
        here, beyond = there[seam], (at[0][seam], at[1][seam])
        jump = layer_there[seam] + mine[here] - images[other[seam], *beyond] - images[other[seam], y[here], x[here]]
        right[here] -= jump / 2
        right[there[~in_hole]] += known[at][~in_hole] - layer_there[~in_hole]
        fixed = in_hole & (linked < 0)
        right[there[fixed]] += result[at][fixed]
        rows.append(there[linked >= 0])
        columns.append(linked[linked >= 0])
    row, column = np.concatenate(rows), np.concatenate(columns)
    links = coo_array((-np.ones(len(row), np.float32), (row, column)), shape=(len(y), len(y))).tocsr()
    begin = result[y, x]

    def solved(colour: int) -> NDArray:  # one at a time, which is far quicker than columns of a matrix
        return _conjugate_gradients(links, diagonal, right[:, colour].copy(), begin[:, colour].copy())

    result[y, x] = np.stack(in_threads(solved, range(3), lambda _: check()), axis=-1)
    return result


def _conjugate_gradients(links: csr_array, diagonal: NDArray, right: NDArray, start: NDArray) -> NDArray:
    """Solve ``(links + diagonal) x = right``, (N,)."""
    x = start.astype(np.float32)
    residual = right - (links @ x + diagonal * x)
    direction, length = residual.copy(), _square(residual)
    limit = _TOLERANCE**2 * max(_square(right), 1e-12)
    for _ in range(_ITERATIONS):
        if length <= limit:
            break
        product = links @ direction + diagonal * direction
        step = np.float32(length / max(float(np.sum(direction * product, dtype=np.float64)), 1e-30))
        x += step * direction
        residual -= step * product
        before, length = length, _square(residual)
        direction = residual + np.float32(length / max(before, 1e-30)) * direction
    return x


def _square(values: NDArray) -> float:
    return float(np.sum(values * values, dtype=np.float64))
