"""Carrying depth into a hole: what only one reference shows takes its depth from within that reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.cameras import Camera
from realfill.io.images import ImageArray, MaskArray

_GUIDE_PX = 384  # longer side at which a reference guides
_SPREAD, _COLOUR_SIGMA = 20_000.0, 6.0  # of the fast global smoother
_SLOPE_RIDGE = 1e-3  # of the fitted planes, as a share of the image side squared
_MIN_SAMPLES, _LEAST_SHARE = 200, 1e-4


def carry_in(
    cameras: Mapping[int, Camera],
    references: Sequence[ImageArray],
    depth: NDArray,
    trust: MaskArray,
    pixels: NDArray,
    scale: float,
    check: Callable[[], None] = lambda: None,
) -> NDArray:
    """Estimate the depth of what only one photo shows: known depth spreads within the references along their colours.

    What the target and a reference both show has a depth. In the reference's own view it is interpolated to what lies
    in the hole, where it stops at edges of the reference (fast global smoother, Min et al. 2014), and is then seen from
    the target. The nearest of several references' answers counts.

    Args:
        cameras: image number to camera; 0 is the target, n the reference n - 1.
        references: each (h, w, 3) uint8.
        depth: (h, w), of the target's pixels.
        trust: (h, w) bool, where that depth counts.
        pixels: (h, w, 2), the target's pixels that the pixels of this size stand for.
        scale: the target's pixels for each pixel of this size.
        check: called before each reference; it may raise an exception.

    Returns:
        (h, w) depth in the target's view; NaN where no reference answers.
    """
    small = depth.shape
    scene = cameras[0].unproject(pixels, depth)
    nearest = np.full(small[0] * small[1] + 1, np.inf)
    for image, camera in sorted(cameras.items()):
        if image == 0:
            continue
        check()
        reference = references[image - 1]
        shrink = max(1.0, max(reference.shape[:2]) / (_GUIDE_PX))
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
