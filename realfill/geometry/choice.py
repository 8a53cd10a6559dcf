"""Choice: which layer fills which pixel of the hole, by a labelling of least energy.

Each pixel pays the expected error of its layer. Neighbours with different layers pay for the seam between them, by how
much the layers differ there (graph-cut textures, Kwatra et al. 2003). The energy is minimised by tree-reweighted
message passing, which is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.images import MaskArray

_SEAM = 3.0  # cost of a seam for each unit of difference between the layers
_STEP = 2.0  # cost of any seam
_UNIT = 10.0  # levels that count as one unit
_SWEEPS = 10


def choose(
    costs: Sequence[NDArray],
    images: Sequence[NDArray],
    hole: MaskArray,
    *,
    check: Callable[[], None] = lambda: None,
) -> NDArray:
    """Choose a layer for each pixel.

    Args:
        costs: expected error of each layer, (h, w).
        images: each layer, (h, w, 3) in [0, 255].
        hole: (h, w) bool; pixels outside are chosen for free and pay for no seam.
        check: called between sweeps; it may raise an exception.

    Returns:
        (h, w): the layers' numbers; outside the hole the cheapest layer's.
    """
    data = np.stack(costs, axis=-1) / _UNIT
    if data.shape[-1] == 1 or not hole.any():
        return data.argmin(axis=-1)
    rows, columns = (np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    labels = data.argmin(axis=-1)
    own = np.where(hole[box][..., None], data[box], 0).astype(np.float32)
    shown = np.stack([image[box] for image in images], axis=2) / np.float32(_UNIT)
    labels[box] = _minimise(own, shown, hole[box], check)
    return labels


def energy(
    labels: NDArray,
    costs: Sequence[NDArray],
    images: Sequence[NDArray],
    hole: MaskArray,
) -> float:
    """Compute the energy that ``choose`` minimises, for a labelling (h, w)."""
    data = np.stack(costs, axis=-1) / _UNIT
    whole = slice(None), slice(None)
    apart = _differences(images, whole)
    total = float(np.take_along_axis(data, labels[..., None], axis=-1)[..., 0][hole].sum())
    for near, far in (((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
                      ((slice(None, -1),), (slice(1, None),))):  # fmt: skip
        a, b, both = labels[near], labels[far], hole[near] & hole[far]
        seam = sum(
            np.take_along_axis(np.take_along_axis(apart[s], a[..., None, None], 2), b[..., None, None], 3)[..., 0, 0]
            for s in (near, far)
        )
        total += float(np.where(a == b, 0, _SEAM * seam / 2 + _STEP)[both].sum())
    return total


def _differences(images: Sequence[NDArray], box: tuple[slice, slice]) -> NDArray:
    """Return (h, w, L, L): how much each two layers differ at each pixel."""
    stack = np.stack([image[box] for image in images], axis=2) / np.float32(_UNIT)
    count = stack.shape[2]
    apart = np.zeros((*stack.shape[:2], count, count), np.float32)
    for a in range(count):
        for b in range(a):
            apart[..., a, b] = apart[..., b, a] = np.abs(stack[:, :, a] - stack[:, :, b]).mean(axis=-1)
    return apart


def _minimise(data: NDArray, images: NDArray, hole: MaskArray, check: Callable[[], None]) -> NDArray:
    """Find a labelling of low energy by sequential tree-reweighted message passing (TRW-S, Kolmogorov 2006).

    Pixels are visited diagonal by diagonal, first from the top left, then from the bottom right: those of one diagonal
    do not depend on each other.

    Args:
        data: (h, w, L), the cost of each label.
        images: (h, w, L, C), what each label shows.
        hole: (h, w) bool; seams outside cost nothing.
        check: called between sweeps.

    Returns:
        (h, w) labels.
    """
    grid = _Diagonals(data.shape[:2])
    cost, shown, inside = grid.shear(data), grid.shear(images), grid.shear(hole)  # (D, L, h), (D, L, C, h), (D, h)
    # messages that arrive from the left, from above, from the right, from below
    left, above, right, below = (np.zeros_like(cost) for _ in range(4))
    links = [
        [
            (here, there, _seam(shown[d, ..., here], shown[d + 1, ..., there], inside[d, here] & inside[d + 1, there]))
            for here, there in grid.neighbours(d)
        ]
        for d in range(len(cost) - 1)
    ]
    forward, backward = (left, above), (right, below)  # the first of each along rows, the second along columns
    for _ in range(_SWEEPS):
        check()
        for d, edges in enumerate(links):
            belief = np.float32(0.5) * (cost[d] + left[d] + above[d] + right[d] + below[d])
            for (here, there, pair), to, back in zip(edges, forward, backward, strict=True):
                message = ((belief - back[d])[:, None, here] + pair).min(axis=0)
                to[d + 1, :, there] = message - message.min(axis=0)
        check()
        for d in range(len(links) - 1, -1, -1):
            belief = np.float32(0.5) * (cost[d + 1] + left[d + 1] + above[d + 1] + right[d + 1] + below[d + 1])
            for (here, there, pair), to, back in zip(links[d], backward, forward, strict=True):
                message = ((belief - back[d + 1])[None, :, there] + pair).min(axis=1)
                to[d, :, here] = message - message.min(axis=0)
    labels = np.zeros((cost.shape[0], cost.shape[2]), int)
    arrived = np.zeros_like(cost)  # costs of the seams to neighbours that have their label
    for d in range(len(cost)):
        labels[d] = (cost[d] + arrived[d] + right[d] + below[d]).argmin(axis=0)
        for here, there, pair in links[d] if d < len(links) else ():
            arrived[d + 1, :, there] += pair[labels[d, here], :, np.arange(pair.shape[2])].T
    return grid.unshear(labels)


def _seam(here: NDArray, there: NDArray, inside: NDArray) -> NDArray:
    """Return the cost (L, L, n) between n pixels and their neighbours, which show (L, C, n); outside it is 0."""
    apart = np.zeros((), np.float32)
    for shown in (here, there):
        for c in range(shown.shape[1]):
            apart = apart + np.abs(shown[:, None, c] - shown[None, :, c])
    different = 1 - np.eye(here.shape[0], dtype=np.float32)[..., None]
    return different * (np.float32(_SEAM / 2 / here.shape[1]) * apart + np.float32(_STEP)) * inside


class _Diagonals:
    """An image sheared so that its diagonals are rows: pixel (y, x) lies at (y + x, y)."""

    def __init__(self, size: tuple[int, ...]) -> None:
        self._y, self._x = np.mgrid[: size[0], : size[1]]
        self._height, self._width = size[:2]

    def shear(self, values: NDArray) -> NDArray:
        """Shear (h, w, ...) to (h + w - 1, ..., h); 0 where there is no pixel."""
        sheared = np.zeros((self._height + self._width - 1, self._height, *values.shape[2:]), values.dtype)
        sheared[self._y + self._x, self._y] = values
        return np.ascontiguousarray(np.moveaxis(sheared, 1, -1))

    def unshear(self, values: NDArray) -> NDArray:
        """Undo ``shear`` of an image (h, w)."""
        return values[self._y + self._x, self._y]

    def neighbours(self, d: int) -> list[tuple[slice, slice]]:
        """Return the rows of a diagonal's pixels, and of their neighbours on the next one: to the right, and below."""
        first, last = max(0, d - self._width + 1), min(d, self._height - 1)  # of the diagonal
        beside, below = max(first, d - self._width + 2), min(last, self._height - 2)
        right = slice(beside, last + 1)
        return [(right, right), (slice(first, below + 1), slice(first + 1, below + 2))]


def enlarge(labels: NDArray, size: tuple[int, ...]) -> NDArray:
    """Enlarge labels to (height, width)."""
    return cv2.resize(labels.astype(np.uint8), size[1::-1], interpolation=cv2.INTER_NEAREST).astype(np.int64)
