"""Depth: the inverse depth of every pixel of the target, by a plane sweep whose result is refined to surfaces.

The sweep chooses one of many parallel planes for each pixel (semi-global matching). Then, at its own size and at the
working size, each pixel chooses between planes of its surroundings. What at most one reference shows of the hole takes
its depth from within that reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.cameras import Camera
from realfill.geometry.carrying import carry_in
from realfill.geometry.comparison import Comparison, Costs, Levels
from realfill.geometry.fields import grid_of
from realfill.geometry.surfaces import Surface, candidates, choose_surface
from realfill.io.images import ImageArray, MaskArray

_LONG_PX = 256  # longer side at which the sweep runs
_NUM_PLANES = 48
_NEAREST = 1.5  # largest label of a plane, as a share of theirs
_SMALL_STEP, _LARGE_STEP = 0.04, 1.5  # costs of a step by one label, and by more, between neighbours
# rounds of choosing between planes: how far away they are looked for, and labels by which a pixel's own one is raised
# and lowered
_ROUNDS = ((16, 0.0), (10, 0.0), (6, 0.0), (3, 0.0))
_CARRIED_ROUNDS = ((10, 0.0), (3, 0.0))  # once depth was carried in
_FINE_ROUNDS = ((8, 0.5), (4, 0.25), (2, 0.12))
_FINE_PX = 768  # longer side at which the last of them run
_SURROUNDINGS, _MARGIN_PX = 0.1, 7  # how far around the hole depth is refined: share of the longer side, and pixels
_SURE = 0.15  # matching cost below which a depth is believed
_LEAST_WEIGHT = 0.02  # of a label that fits badly, when planes are fitted
_CARRIED_COST, _CARRIED_LABELS = 0.5, 4.0  # largest cost against a depth that was carried in, and where it is reached


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthMap:
    """Depth of the target's pixels, in the scene's unit.

    Attributes:
        depth: (h, w) float32 at a size of its own.
        checked: float32 at a size of its own: a depth that is estimated as in the hole in a ring around it, where it
            can be compared with what the target shows; it is not refined at the working size.
    """

    depth: NDArray
    checked: NDArray


def sweep(
    cameras: Mapping[int, Camera],
    points: NDArray,
    known: ImageArray,
    hole: MaskArray,
    references: Sequence[ImageArray],
    *,
    check: Callable[[], None] = lambda: None,
) -> DepthMap:
    """Estimate the depth of every pixel of the target.

    The planes of the sweep are parallel, in inverse depth, to the plane that fits the scene points near the hole best.
    In and around the hole, the result is refined to surfaces, and depth is carried in where at most one reference shows
    anything.

    Args:
        cameras: image number to camera; 0 is the target, n the reference n - 1.
        points: (N, 3) scene points.
        known: (H, W, 3) uint8, the target; not read in the hole.
        hole: (H, W) bool.
        references: each (h, w, 3) uint8.
        check: called between comparisons and directions of the aggregations; it may raise an exception.
    """
    levels = _levels(cameras[0], points, hole)
    size = _fit(hole.shape, _LONG_PX)
    photos = cameras, references, known, hole, levels
    whole = Comparison(*photos, size)
    costs = whole.costs(range(_NUM_PLANES), check)
    carry = partial(carry_in, cameras, references, pixels=whole.pixels, scale=whole.scale, check=check)
    solved, ringed = (_swept(costs, check, hidden) for hidden in (None, whole.ring))
    if hole.any():
        box = _box_around(hole, size)
        part = Comparison(*photos, size, box)
        solved, ringed = (
            _with_carried(_refined(part, found, box, _ROUNDS, check, hidden), whole, part, box, carry, check, hidden)
            for found, hidden in ((solved, None), (ringed, part.ring))
        )
    checked = levels.inverse_of(np.where(whole.around, ringed.surface.label, solved.surface.label), whole.pixels)
    if hole.any() and max(hole.shape) > _LONG_PX:
        size = _fit(hole.shape, min(_FINE_PX, max(hole.shape)))
        box = _box_around(hole, size)
        solved = _refined(Comparison(*photos, size, box), solved.enlarged(size), box, _FINE_ROUNDS, check)
    return DepthMap(
        depth=(1 / levels.inverse_of(solved.surface.label, grid_of(hole.shape, size))).astype(np.float32),
        checked=(1 / checked).astype(np.float32),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """What was found so far.

    Attributes:
        surface: the plane of each pixel, (h, w).
        cost: (h, w) float32, the matching cost, where pixels can be compared.
        blind: (h, w) bool: pixels that cannot.
        carried: (h, w), the label that was carried in for such a pixel; NaN where none was.
    """

    surface: Surface
    cost: NDArray
    blind: MaskArray
    carried: NDArray

    def enlarged(self, size: tuple[int, int]) -> _Solution:
        cost, blind, carried = (
            cv2.resize(a.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            for a in (self.cost, self.blind, self.carried)
        )
        return _Solution(self.surface.enlarged(size), cost, blind > 0, carried)

    def part(self, box: tuple[slice, slice]) -> _Solution:
        return _Solution(self.surface.part(box), self.cost[box], self.blind[box], self.carried[box])

    def replaced(self, box: tuple[slice, slice], part: _Solution) -> _Solution:
        """Return a copy with a part of it replaced."""

        def put(values: NDArray, own: NDArray) -> NDArray:
            values = values.copy()
            values[box] = own
            return values

        old, new = self.surface, part.surface
        surface = Surface(
            put(old.label, new.label), put(old.slope_x, new.slope_x), put(old.slope_y, new.slope_y)
        )  # fmt: skip
        return _Solution(
            surface, put(self.cost, part.cost), put(self.blind, part.blind), put(self.carried, part.carried)
        )  # fmt: skip


def _fit(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the (height, width) with this longer side."""
    scale = max(size) / side
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


def _box_around(hole: MaskArray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of the hole and its surroundings, in a photo of another size."""
    margin = round(_SURROUNDINGS * max(size)) + _MARGIN_PX
    spans = []
    for axis, length in enumerate(size):
        marked = np.flatnonzero(hole.any(axis=1 - axis)) * length / hole.shape[axis]
        spans.append(slice(max(0, int(marked.min()) - margin), min(length, int(marked.max()) + margin + 1)))
    return spans[0], spans[1]


def _swept(costs: Costs, check: Callable[[], None], hidden: MaskArray | None) -> _Solution:
    """Choose a label for each pixel, as if all planes were parallel."""
    cost, blind = costs.combined(hidden)
    label = _best_label(semi_global(cost, check))
    chosen = np.take_along_axis(cost, np.rint(label).astype(int)[..., None], axis=2)[..., 0]
    return _Solution(Surface.flat(label), chosen, blind, np.full(label.shape, np.nan, np.float32))


def _with_carried(
    found: _Solution,
    whole: Comparison,
    part: Comparison,
    box: tuple[slice, slice],
    carry: Callable[[NDArray, MaskArray], NDArray],
    check: Callable[[], None],
    hidden: MaskArray | None,
) -> _Solution:
    """Let what at most one reference shows take its depth from within that reference."""
    if not found.blind.any():
        return found
    depth = 1 / whole.levels.inverse_of(found.surface.label, whole.pixels)
    sure = ~found.blind & (found.cost < _SURE)
    answer = whole.levels.labels_of(1 / carry(depth, sure), whole.pixels).astype(np.float32)
    carried = np.where(found.blind, answer, np.float32(np.nan))
    surface = replace(found.surface, label=np.where(np.isfinite(carried), carried, found.surface.label))
    return _refined(part, replace(found, surface=surface, carried=carried), box, _CARRIED_ROUNDS, check, hidden)


def _refined(
    comparison: Comparison,
    found: _Solution,
    box: tuple[slice, slice],
    rounds: Sequence[tuple[int, float]],
    check: Callable[[], None],
    hidden: MaskArray | None = None,
) -> _Solution:
    """Let each pixel of a part choose between planes around it, several times; the rest stays."""
    now = found.part(box)
    for radius, step in rounds:
        weight = np.where(now.blind, 0, np.clip(1 - 2 * now.cost, 0, 1)).clip(_LEAST_WEIGHT)
        options = candidates(now.surface, weight, radius, step)
        costs, blind = comparison.costs([o.label for o in options], check).combined(hidden)
        guess = _cost_of_carried(np.stack([o.label for o in options], axis=-1), now.carried)
        surface, cost = choose_surface(np.where(blind[..., None], guess, costs), options, check)
        surface = replace(surface, label=np.minimum(surface.label, np.float32(_NEAREST * _NUM_PLANES)))
        now = _Solution(surface, cost, blind, now.carried)
    return found.replaced(box, now)


def _cost_of_carried(labels: NDArray, carried: NDArray) -> NDArray:
    """Return what labels (h, w, K) cost where a label (h, w) was carried in; 0 where none was."""
    far = np.minimum(np.abs(labels - carried[..., None]) / _CARRIED_LABELS, 1)
    return np.nan_to_num(_CARRIED_COST * far).astype(np.float32)


def semi_global(cost: NDArray, check: Callable[[], None] = lambda: None) -> NDArray:
    """Aggregate costs (H, W, L) along eight directions (Hirschmüller 2008); ``check`` is called between them."""
    total = np.zeros_like(cost)
    for transposed in (False, True):
        volume, result = (cost.transpose(1, 0, 2), total.transpose(1, 0, 2)) if transposed else (cost, total)
        for order in (range(len(volume)), range(len(volume) - 1, -1, -1)):
            for shift in (0,) if transposed else (0, 1, -1):
                check()
                path = None
                for row in order:
                    if path is None:
                        path = volume[row].copy()
                    else:
                        before = np.roll(path, shift, axis=0) if shift else path
                        if shift:
                            before[0 if shift == 1 else -1] = 0
                        best = before.min(axis=1, keepdims=True)
                        step = np.minimum(before, best + _LARGE_STEP)
                        step[:, 1:] = np.minimum(step[:, 1:], before[:, :-1] + _SMALL_STEP)
                        step[:, :-1] = np.minimum(step[:, :-1], before[:, 1:] + _SMALL_STEP)
                        path = volume[row] + step - best
                    result[row] += path
    return total / 8


def _levels(camera: Camera, points: NDArray, hole: MaskArray) -> Levels:
    """Fit a plane in inverse depth to the points near the hole, and set the labels to the range around it."""
    height, width = hole.shape
    xy, depth = camera.project(points)
    near = (depth > 1e-6) & (np.abs((xy + 0.5) / (width, height) - 0.5).max(axis=1) < 0.6)
    xy, inverse = xy[near], 1 / depth[near]
    distance = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 5)
    at = np.rint(xy).astype(int).clip(0, [width - 1, height - 1])
    weight = np.exp(-distance[at[:, 1], at[:, 0]] / (0.15 * max(hole.shape))) + 0.02
    design = np.c_[xy, np.ones(len(xy))]
    robust, plane = weight, np.zeros(3)
    for _ in range(20):
        root = np.sqrt(robust)
        plane = np.linalg.lstsq(design * root[:, None], inverse * root, rcond=None)[0]
        error = np.abs(inverse - design @ plane)
        robust = weight / np.maximum(error / (1.4826 * np.median(error) + 1e-9), 1)
    offset = inverse - design @ plane
    order = np.argsort(offset)
    share = np.cumsum(weight[order]) / weight.sum()
    low, high = (float(offset[order][min(np.searchsorted(share, s), len(order) - 1)]) for s in (0.01, 0.99))
    margin = 0.15 * (high - low) + 1e-6
    first, last = low - margin, high + margin
    return Levels(plane, first, (last - first) / (_NUM_PLANES - 1), max(1e-3 * float(np.median(inverse)), 1e-6))


def _best_label(cost: NDArray) -> NDArray[np.float32]:
    """Return the cheapest label of each pixel, with a parabola through its neighbours."""
    best = cost.argmin(axis=2).clip(1, cost.shape[2] - 2)
    before, at, after = (np.take_along_axis(cost, (best + n)[..., None], 2)[..., 0] for n in (-1, 0, 1))
    shift = (0.5 * (before - after) / np.maximum(before - 2 * at + after, 1e-6)).clip(-0.5, 0.5)
    return (best + shift).astype(np.float32)
