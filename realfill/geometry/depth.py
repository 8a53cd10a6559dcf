"""Depth: the inverse depth of every pixel of the target, by a plane sweep and semi-global matching.

Known pixels are compared with the references; the hole's pixels by how well the references agree with each other.
What at most one reference shows of the hole takes its depth from within that reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.cameras import Camera
from realfill.geometry.carrying import carry_in
from realfill.geometry.fields import grid_of, inside
from realfill.io.images import ImageArray, MaskArray

_LONG_PX = 256  # longer side at which the sweep runs
_NUM_PLANES = 48
_FINE_PX = 768  # longer side at which the depth is refined
_SURROUNDINGS = 0.1  # how far around the hole it is, as a share of that side
_FINE_LABELS, _FINE_STEP = 4, 0.3  # labels tried on either side, and their distance as a share of the sweep's
_WINDOW = 7
_SMALL_STEP, _LARGE_STEP = 0.3, 1.5  # costs of a step by one label, and by more, between neighbours
_NOISE = 30.0  # variance below which structure does not count
_SURE = 0.15  # matching cost below which a depth is believed
_CARRIED_COST, _CARRIED_LABELS = 0.5, 4.0  # largest cost against a depth that was carried in, and where it is reached
_RING = 0.06  # width of the known ring around the hole that is hidden to check the depth, as a share of the longer side
_UNKNOWN_COST = 0.6  # of a depth at which a pixel leaves the photos
_AGREEMENT = 0.2  # weight of the agreement between references where the target itself is known


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthMap:
    """Depth of the target's pixels, in the scene's unit.

    Attributes:
        depth: (h, w) float32 at a size of its own.
        cost: (h, w) float32 at that size: matching cost of the chosen depth, from 0 to 1.
        checked: float32 at a size of its own: a depth that is estimated as in the hole in a ring around it, where it
            can be compared with what the target shows; it is not refined.
    """

    depth: NDArray
    cost: NDArray
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

    The planes are parallel, in inverse depth, to the plane that fits the scene points near the hole best. At a larger
    size, the depth in and around the hole is then refined by planes near the one that was found.

    Args:
        cameras: image number to camera; 0 is the target, n the reference n - 1.
        points: (N, 3) scene points.
        known: (H, W, 3) uint8, the target; not read in the hole.
        hole: (H, W) bool.
        references: each (h, w, 3) uint8.
        check: called between planes and directions of the aggregation; it may raise an exception.
    """
    small = _fit(hole.shape, _LONG_PX)
    base, low, high, least = _range(cameras[0], points, hole, small)
    levels = _Levels(base, np.linspace(low, high, _NUM_PLANES), least)
    stage = _Stage(cameras, references, known, hole, small)
    carry = partial(carry_in, cameras, references, pixels=stage.pixels, scale=stage.scale)
    volumes = stage.compare(levels, check=check, carry=carry)
    solved = volumes.solve(levels, check=check)
    ringed = volumes.solve(levels, check=check, hidden=stage.ring)
    refined, side = solved, min(_FINE_PX, max(hole.shape))
    if side > _LONG_PX and hole.any():
        size = _fit(hole.shape, side)
        box = _box_around(hole, size)
        refined = _refine(_Stage(cameras, references, known, hole, size, box), levels, solved, size, box, check)
    return DepthMap(
        depth=(1 / refined.inverse).astype(np.float32),
        cost=refined.cost.astype(np.float32),
        checked=(1 / np.where(stage.around, ringed.inverse, solved.inverse)).astype(np.float32),
    )


def _fit(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the (height, width) with this longer side."""
    scale = max(size) / side
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


class _Stage:
    """A part of the target at one size of the sweep, and the references that are compared with it.

    Attributes:
        scale: the target's pixels for each pixel of this size.
        pixels: (h, w, 2), the target's pixels that the pixels of this size stand for.
        seen: (h, w) bool: pixels whose window lies outside the hole.
        around: (h, w) bool: pixels outside the hole in a ring around it.
        ring: (h, w) bool: those of it that are also seen.
    """

    def __init__(
        self,
        cameras: Mapping[int, Camera],
        references: Sequence[ImageArray],
        known: ImageArray,
        hole: MaskArray,
        size: tuple[int, int],
        box: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        self._cameras, self._references = cameras, references
        self.scale = max(hole.shape) / max(size)
        self.pixels = grid_of(hole.shape, size)[box]
        self._target = cv2.resize(_grey(known), size[::-1], interpolation=cv2.INTER_AREA)[box].copy()
        self._target_stats = _statistics(self._target)
        outside = cv2.resize(hole.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) < 0.01
        self.seen = (cv2.blur(outside.astype(np.float32), (_WINDOW, _WINDOW)) > 0.999)[box]
        distance = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, 5)
        self.around = (outside & (distance < _RING * max(size)))[box]
        self.ring = self.seen & self.around

    def compare(
        self,
        levels: _Levels,
        *,
        check: Callable[[], None],
        carry: Callable[[NDArray, MaskArray], NDArray] | None = None,
    ) -> _Volumes:
        """Compare the target with the references, and these with each other, at each plane."""
        size, count = levels.base.shape, len(levels.offsets)
        views = _shrunk(self._cameras, self._references, self.pixels, levels.base, levels.least, self.scale)
        between, with_target = (np.full((*size, count), np.nan, np.float32) for _ in range(2))
        for label, offset in enumerate(levels.offsets):
            check()
            scene = self._cameras[0].unproject(self.pixels, 1 / np.maximum(levels.base + offset, levels.least))
            warped = []
            for camera, grey in views:
                place, depth = camera.project(scene)
                scale_x, scale_y = grey.shape[1] / camera.size[1], grey.shape[0] / camera.size[0]
                at = ((place + 0.5) * (scale_x, scale_y) - 0.5).clip(-1e4, 1e4).astype(np.float32)
                image = cv2.remap(grey, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                warped.append((image, _statistics(image), (depth > 0) & inside(place, camera.size)))
            with_target[..., label] = _best_half([
                np.where(valid & self.seen, _mismatch(self._target, self._target_stats, image, stats), np.nan)
                for image, stats, valid in warped
            ])  # fmt: skip
            pairs = [
                np.where(one[2] & two[2], _mismatch(one[0], one[1], two[0], two[1]), np.nan)
                for n, one in enumerate(warped)
                for two in warped[:n]
            ]
            if pairs:
                between[..., label] = _best_half(pairs)
        return _Volumes(with_target, between, carry if views else None)


def _box_around(hole: MaskArray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of the hole and its surroundings, in a photo of another size."""
    margin = round(_SURROUNDINGS * max(size)) + _WINDOW
    spans = []
    for axis, length in enumerate(size):
        marked = np.flatnonzero(hole.any(axis=1 - axis)) * length / hole.shape[axis]
        spans.append(slice(max(0, int(marked.min()) - margin), min(length, int(marked.max()) + margin + 1)))
    return spans[0], spans[1]


def _refine(
    stage: _Stage,
    levels: _Levels,
    solved: _Solution,
    size: tuple[int, int],
    box: tuple[slice, slice],
    check: Callable[[], None],
) -> _Solution:
    """Search again in a part of a larger size, a few labels around a solution, which stays elsewhere."""
    inverse, cost, label = (
        cv2.resize(values.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        for values in (cv2.medianBlur(solved.inverse.astype(np.float32), 3), solved.cost, solved.label)
    )
    step = _FINE_STEP * (levels.offsets[-1] - levels.offsets[0]) / (len(levels.offsets) - 1)
    fine = _Levels(inverse[box], np.arange(-_FINE_LABELS, _FINE_LABELS + 1) * step, levels.least)
    found = stage.compare(fine, check=check).solve(fine, check=check)
    inverse[box], cost[box] = found.inverse, found.cost
    return _Solution(inverse, label, cost)


@dataclass(frozen=True, slots=True, eq=False)
class _Levels:
    """The planes of the sweep: a base (h, w) in inverse depth, offsets (L,), and the least inverse depth."""

    base: NDArray
    offsets: NDArray
    least: float

    def labels_of(self, inverse: NDArray) -> NDArray:
        """Return the labels, with fractions, of inverse depths (h, w)."""
        share = (inverse - self.base - self.offsets[0]) / (self.offsets[-1] - self.offsets[0])
        return share * (len(self.offsets) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """Inverse depth, label and matching cost of each pixel, each (h, w)."""

    inverse: NDArray
    label: NDArray
    cost: NDArray


@dataclass(frozen=True, slots=True, eq=False)
class _Volumes:
    """Matching costs (h, w, L) with the target and between references, NaN where there are none."""

    with_target: NDArray
    between: NDArray
    carry: Callable[[NDArray, MaskArray], NDArray] | None

    def solve(self, levels: _Levels, *, check: Callable[[], None], hidden: MaskArray | None = None) -> _Solution:
        """Choose a depth for each pixel; what at most one reference shows takes its depth from within that reference.

        Args:
            levels: the planes.
            check: called between directions.
            hidden: pixels (h, w) at which the target counts as unknown.
        """
        with_target = self.with_target
        if hidden is not None:
            with_target = np.where(hidden[..., None], np.float32(np.nan), with_target)
        mixed = np.where(
            np.isnan(self.between), with_target, (1 - _AGREEMENT) * with_target + _AGREEMENT * self.between
        )
        cost = np.where(np.isnan(mixed), self.between, mixed)
        blind = np.asarray(np.isnan(cost).all(axis=2))
        cost = np.where(blind[..., None], 0, np.where(np.isnan(cost), _UNKNOWN_COST, cost)).astype(np.float32)
        inverse, label = _choose(semi_global(cost, check), levels.base, levels.offsets, levels.least)
        if blind.any() and self.carry is not None:
            trust = ~blind & (np.take_along_axis(cost, label[..., None], axis=2)[..., 0] < _SURE)
            wanted = levels.labels_of(1 / self.carry(1 / inverse, trust))
            distance = np.abs(np.arange(cost.shape[2]) - wanted[..., None])
            guess = _CARRIED_COST * np.minimum(distance / _CARRIED_LABELS, 1)
            usable = blind & np.isfinite(wanted)
            cost = np.where(usable[..., None], np.nan_to_num(guess), cost).astype(np.float32)
            inverse, label = _choose(semi_global(cost, check), levels.base, levels.offsets, levels.least)
        chosen = np.where(blind, 1, np.take_along_axis(cost, label[..., None], axis=2)[..., 0])
        return _Solution(inverse, label, chosen)


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


def _range(
    camera: Camera, points: NDArray, hole: MaskArray, small: tuple[int, int]
) -> tuple[NDArray, float, float, float]:
    """Fit a plane in inverse depth to the points near the hole; return it, the sweep's range, and a lower bound."""
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
    pixels = grid_of(hole.shape, small)
    base = plane[0] * pixels[..., 0] + plane[1] * pixels[..., 1] + plane[2]
    return base, low - margin, high + margin, max(1e-3 * float(np.median(inverse)), 1e-6)


def _shrunk(
    cameras: Mapping[int, Camera],
    references: Sequence[ImageArray],
    pixels: NDArray,
    base: NDArray,
    least: float,
    scale: float,
) -> list[tuple[Camera, NDArray]]:
    """Shrink each reference to the resolution at which the small target shows the scene."""
    row, column = base.shape[0] // 2, base.shape[1] // 2
    depth = 1 / max(float(base[row, column]), least)
    middle = cameras[0].unproject(pixels[row, column], np.array(depth))
    views = []
    for image, camera in sorted(cameras.items()):
        if image == 0:
            continue
        far = float(camera.project(middle)[1])
        shrink = max(1.0, camera.focal / cameras[0].focal * scale * depth / max(far, 1e-6))
        grey = _grey(references[image - 1])
        shrink = float(min(shrink, max(grey.shape) / 16))
        views.append((camera, cv2.resize(grey, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)))
    return views


def _choose(cost: NDArray, base: NDArray, offsets: NDArray, least: float) -> tuple[NDArray, NDArray]:
    """Take the cheapest label of each pixel, with a parabola through its neighbours; return inverse depth and label."""
    best = cost.argmin(axis=2).clip(1, len(offsets) - 2)
    before, at, after = (np.take_along_axis(cost, (best + n)[..., None], 2)[..., 0] for n in (-1, 0, 1))
    shift = (0.5 * (before - after) / np.maximum(before - 2 * at + after, 1e-6)).clip(-0.5, 0.5)
    inverse = base + offsets[0] + (offsets[-1] - offsets[0]) * (best + shift) / (len(offsets) - 1)
    return np.maximum(inverse, least), best


def _grey(image: ImageArray) -> NDArray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _statistics(image: NDArray) -> tuple[NDArray, NDArray]:
    """Return mean and variance in a window around each pixel."""
    mean = cv2.blur(image, (_WINDOW, _WINDOW))
    return mean, np.maximum(cv2.blur(image * image, (_WINDOW, _WINDOW)) - mean * mean, 0)


def _mismatch(
    one: NDArray,
    one_stats: tuple[NDArray, NDArray],
    two: NDArray,
    two_stats: tuple[NDArray, NDArray],
) -> NDArray:
    """Return how little two images correlate in a window around each pixel, from 0 to 1; of mere noise 0.5."""
    covariance = cv2.blur(one * two, (_WINDOW, _WINDOW)) - one_stats[0] * two_stats[0]
    return (1 - covariance / np.sqrt((one_stats[1] + _NOISE) * (two_stats[1] + _NOISE))) / 2


def _best_half(costs: Sequence[NDArray]) -> NDArray:
    """Average the better half of costs (N, h, w), since what is hidden in a view matches nowhere; NaN without any."""
    ordered = np.sort(np.stack(costs), axis=0)
    count = (~np.isnan(ordered)).sum(axis=0)
    half = np.maximum((count + 1) // 2, 1)
    sums = np.take_along_axis(np.nancumsum(ordered, axis=0), half[None] - 1, axis=0)[0]
    return np.where(count > 0, sums / half, np.nan).astype(np.float32)
