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
from realfill.geometry.fields import grid_of, inside
from realfill.io.images import ImageArray, MaskArray

_LONG_PX = 256  # longer side at which the sweep runs
_NUM_PLANES = 48
_WINDOW = 7
_SMALL_STEP, _LARGE_STEP = 0.3, 1.5  # costs of a step by one label, and by more, between neighbours
_NOISE = 30.0  # variance below which structure does not count
_SURE = 0.15  # matching cost below which a depth is believed
_CARRIED_COST, _CARRIED_LABELS = 0.5, 4.0  # largest cost against a depth that was carried in, and where it is reached
_SPREAD, _COLOUR_SIGMA = 20_000.0, 6.0  # of the fast global smoother
_SLOPE_RIDGE = 1e-3  # of the fitted planes, as a share of the image side squared
_MIN_SAMPLES, _LEAST_SHARE = 200, 1e-4
_RING = 0.06  # width of the known ring around the hole that is hidden to check the depth, as a share of the longer side
_UNKNOWN_COST = 0.6  # of a depth at which a pixel leaves the photos
_AGREEMENT = 0.2  # weight of the agreement between references where the target itself is known


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthMap:
    """Depth of the target's pixels, in the scene's unit.

    Attributes:
        depth: (h, w) float32 at the size of the sweep.
        cost: (h, w) float32: matching cost of the chosen depth, from 0 to 1.
        checked: (h, w) float32: the same as ``depth``, but estimated as in the hole in a ring around it, where it can
            be compared with what the target shows.
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
) -> DepthMap:
    """Estimate the depth of every pixel of the target.

    The planes are parallel, in inverse depth, to the plane that fits the scene points near the hole best.

    Args:
        cameras: image number to camera; 0 is the target, n the reference n - 1.
        points: (N, 3) scene points.
        known: (H, W, 3) uint8, the target; not read in the hole.
        hole: (H, W) bool.
        references: each (h, w, 3) uint8.
    """
    size = hole.shape
    scale = max(size) / _LONG_PX
    small = (max(1, round(size[0] / scale)), max(1, round(size[1] / scale)))
    covered = cv2.resize(hole.astype(np.float32), small[::-1], interpolation=cv2.INTER_AREA) < 0.01
    seen = cv2.blur(covered.astype(np.float32), (_WINDOW, _WINDOW)) > 0.999
    target = cv2.resize(_grey(known), small[::-1], interpolation=cv2.INTER_AREA)
    base, low, high, least = _range(cameras[0], points, hole, small)
    pixels = grid_of(size, small)
    views = _shrunk(cameras, references, pixels, base, least, scale)
    offsets = np.linspace(low, high, _NUM_PLANES)
    between, with_target = (np.full((*small, _NUM_PLANES), np.nan, np.float32) for _ in range(2))
    target_stats = _statistics(target)
    for label, offset in enumerate(offsets):
        scene = cameras[0].unproject(pixels, 1 / np.maximum(base + offset, least))
        warped = []
        for camera, grey in views:
            place, depth = camera.project(scene)
            scale_x, scale_y = grey.shape[1] / camera.size[1], grey.shape[0] / camera.size[0]
            at = ((place + 0.5) * (scale_x, scale_y) - 0.5).clip(-1e4, 1e4).astype(np.float32)
            image = cv2.remap(grey, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            warped.append((image, _statistics(image), (depth > 0) & inside(place, camera.size)))
        with_target[..., label] = _best_half([
            np.where(valid & seen, (1 - _correlation(target, target_stats, image, stats)) / 2, np.nan)
            for image, stats, valid in warped
        ])  # fmt: skip
        pairs = [
            np.where(one[2] & two[2], (1 - _correlation(one[0], one[1], two[0], two[1])) / 2, np.nan)
            for n, one in enumerate(warped)
            for two in warped[:n]
        ]
        if pairs:
            between[..., label] = _best_half(pairs)
    around = covered & (cv2.distanceTransform(covered.astype(np.uint8), cv2.DIST_L2, 5) < _RING * max(small))
    ring = seen & around
    carry = partial(_carry_in, cameras, references, pixels=pixels, scale=scale)
    levels = _Levels(base, offsets, least)
    volumes = _Volumes(with_target, between, carry if views else None)
    solved, check = volumes.solve(levels), volumes.solve(levels, hidden=ring)
    return DepthMap(
        depth=(1 / solved.inverse).astype(np.float32),
        cost=solved.cost.astype(np.float32),
        checked=np.where(around, 1 / check.inverse, 1 / solved.inverse).astype(np.float32),
    )


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

    def solve(self, levels: _Levels, *, hidden: MaskArray | None = None) -> _Solution:
        """Choose a depth for each pixel; what at most one reference shows takes its depth from within that reference.

        Args:
            levels: the planes.
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
        inverse, label = _choose(semi_global(cost), levels.base, levels.offsets, levels.least)
        if blind.any() and self.carry is not None:
            trust = ~blind & (np.take_along_axis(cost, label[..., None], axis=2)[..., 0] < _SURE)
            wanted = levels.labels_of(1 / self.carry(1 / inverse, trust))
            distance = np.abs(np.arange(_NUM_PLANES) - wanted[..., None])
            guess = _CARRIED_COST * np.minimum(distance / _CARRIED_LABELS, 1)
            usable = blind & np.isfinite(wanted)
            cost = np.where(usable[..., None], np.nan_to_num(guess), cost).astype(np.float32)
            inverse, label = _choose(semi_global(cost), levels.base, levels.offsets, levels.least)
        chosen = np.where(blind, 1, np.take_along_axis(cost, label[..., None], axis=2)[..., 0])
        return _Solution(inverse, label, chosen)


def _carry_in(
    cameras: Mapping[int, Camera],
    references: Sequence[ImageArray],
    depth: NDArray,
    trust: MaskArray,
    pixels: NDArray,
    scale: float,
) -> NDArray:
    """Estimate the depth of what only one photo shows: known depth spreads within the references along their colours.

    What the target and a reference both show has a depth. In the reference's own view it is interpolated to what lies
    in the hole, where it stops at edges of the reference (fast global smoother, Min et al. 2014), and is then seen from
    the target. The nearest of several references' answers counts.

    Returns:
        (h, w) depth in the target's view; NaN where no reference answers.
    """
    small = depth.shape
    scene = cameras[0].unproject(pixels, depth)
    nearest = np.full(small[0] * small[1] + 1, np.inf)
    for image, camera in sorted(cameras.items()):
        if image == 0:
            continue
        reference = references[image - 1]
        shrink = max(1.0, max(reference.shape[:2]) / (1.5 * _LONG_PX))
        size = (max(1, round(reference.shape[1] / shrink)), max(1, round(reference.shape[0] / shrink)))
        guide = np.asarray(cv2.resize(reference, size, interpolation=cv2.INTER_AREA), np.uint8)
        place, far = camera.project(scene)
        at = np.rint((place + 0.5) * (size[0] / camera.size[1], size[1] / camera.size[0]) - 0.5).astype(int)
        usable = trust & (far > 0) & (at >= 0).all(axis=2) & (at[..., 0] < size[0]) & (at[..., 1] < size[1])
        samples, weight = np.zeros(size[::-1], np.float32), np.zeros(size[::-1], np.float32)
        order = np.argsort(-far[usable])  # nearer points last, so that they win
        y, x = at[usable][order].T[::-1]
        samples[y, x], weight[y, x] = 1 / far[usable][order], 1
        if weight.sum() < _MIN_SAMPLES:
            continue
        inverse, share = _extrapolate(samples, weight, guide)
        sure = share > _LEAST_SHARE
        own = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1)
        own = (own + 0.5) * (camera.size[1] / size[0], camera.size[0] / size[1]) - 0.5
        points = camera.unproject(own, 1 / np.maximum(inverse, 1e-9))
        seen, front = cameras[0].project(points)
        cell = np.rint((seen + 0.5) / scale - 0.5).astype(int)
        ok = sure & (front > 0) & (cell >= 0).all(axis=2) & (cell[..., 0] < small[1]) & (cell[..., 1] < small[0])
        index = np.where(ok, cell[..., 1] * small[1] + cell[..., 0], small[0] * small[1])
        np.minimum.at(nearest, index.ravel(), np.where(ok, front, np.inf).ravel())
    answer = nearest[:-1].reshape(small)
    filled = cv2.medianBlur(np.where(np.isfinite(answer), answer, 0).astype(np.float32), 3)
    return np.where(np.isfinite(answer), answer, np.where(filled > 0, filled, np.nan))


def _extrapolate(values: NDArray, weight: NDArray, guide: ImageArray) -> tuple[NDArray, NDArray]:
    """Continue sparse values over an image by planes that are fitted within regions of like colour.

    The moments of a weighted linear regression are spread by an edge-aware filter (fast global smoother, Min et al.
    2014), so that each pixel has a regression over the samples that belong to its surface.

    Args:
        values: (h, w), read where ``weight`` is above 0.
        weight: (h, w).
        guide: (h, w, 3) uint8, whose edges bound the surfaces.

    Returns:
        The values, (h, w), and how much weight reached each pixel.
    """
    height, width = values.shape
    x, y = (axis.astype(np.float32) for axis in np.meshgrid(np.arange(width), np.arange(height)))
    scale = np.float32(max(height, width))
    x, y = x / scale, y / scale
    low, high = values[weight > 0].min(), values[weight > 0].max()
    z = np.where(weight > 0, (values - low) / max(high - low, 1e-12), 0).astype(np.float32)

    def spread(moment: NDArray) -> NDArray:
        return cv2.ximgproc.fastGlobalSmootherFilter(guide, weight * moment, _SPREAD, _COLOUR_SIGMA)

    share = spread(np.ones_like(x))
    total = np.maximum(share, 1e-12)
    mx, my, mz = (spread(m) / total for m in (x, y, z))
    xx, xy, yy = spread(x * x) / total - mx * mx, spread(x * y) / total - mx * my, spread(y * y) / total - my * my
    xz, yz = spread(x * z) / total - mx * mz, spread(y * z) / total - my * mz
    xx, yy = xx + _SLOPE_RIDGE, yy + _SLOPE_RIDGE
    determinant = xx * yy - xy * xy
    slope_x, slope_y = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
    plane = (mz + slope_x * (x - mx) + slope_y * (y - my)).clip(0, 1)
    result = np.where(weight > 0, values, low + plane * (high - low))
    return result.astype(np.float32), share


def semi_global(cost: NDArray) -> NDArray:
    """Aggregate costs (H, W, L) along eight directions (Hirschmüller 2008)."""
    total = np.zeros_like(cost)
    for transposed in (False, True):
        volume, result = (cost.transpose(1, 0, 2), total.transpose(1, 0, 2)) if transposed else (cost, total)
        for order in (range(len(volume)), range(len(volume) - 1, -1, -1)):
            for shift in (0,) if transposed else (0, 1, -1):
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


def _correlation(
    one: NDArray,
    one_stats: tuple[NDArray, NDArray],
    two: NDArray,
    two_stats: tuple[NDArray, NDArray],
) -> NDArray:
    """Correlate two images in a window around each pixel; windows that hold only noise correlate with nothing."""
    covariance = cv2.blur(one * two, (_WINDOW, _WINDOW)) - one_stats[0] * two_stats[0]
    return covariance / np.sqrt((one_stats[1] + _NOISE) * (two_stats[1] + _NOISE))


def _best_half(costs: Sequence[NDArray]) -> NDArray:
    """Average the better half of costs (N, h, w), since what is hidden in a view matches nowhere; NaN without any."""
    ordered = np.sort(np.stack(costs), axis=0)
    count = (~np.isnan(ordered)).sum(axis=0)
    half = np.maximum((count + 1) // 2, 1)
    sums = np.take_along_axis(np.nancumsum(ordered, axis=0), half[None] - 1, axis=0)[0]
    return np.where(count > 0, sums / half, np.nan).astype(np.float32)
