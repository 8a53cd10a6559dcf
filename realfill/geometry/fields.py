"""Warps: for each pixel of the target, the pixel of a reference that shows the same point.

By planes (homographies, refined by optical flow on known pixels) or by a depth map of the target and the cameras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.cameras import Camera
from realfill.geometry.smooth import continue_into
from realfill.io.images import ImageArray, MaskArray

Kind: TypeAlias = Literal["plane", "depth"]

_NUM_PLANES = 3
_MIN_INLIERS, _MIN_INLIER_SHARE = 10, 0.06  # of a plane, and of all matches of the pair
_PLANE_PX = 3.0  # largest error of a plane's inlier, at a longer side of 768 pixels
_PLANE_REFERENCE_PX = 0.7  # the same in pixels of a reference, which are large where it is much smaller
_MAX_AREA = 400.0  # largest change of area, either way: a scale of 1/20 to 20
_FRAME_PX = 3  # the outermost pixels of photos are often dark or smeared
_TEAR_PX, _LARGEST_TEAR = 5, 4.0  # side of the window in which a tear counts, and the largest that counts, in pixels
_OCCLUSION = 1.04  # ratio of depths from which the farther point is hidden


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WarpField:
    """Where a reference shows the target's pixels.

    Attributes:
        reference: its number, counted from 0.
        kind: ``plane`` or ``depth``.
        map: (H, W, 2) float32: x and y in the reference's own pixels, for each pixel of the target.
        valid_mask: (H, W) bool: where the map lies inside the reference and is not distorted beyond use.
        hidden: (H, W) bool: where something nearer hides the point in the reference.
        checked_map: the map to judge the warp by around the hole, found without the target's pixels there; ``None``:
            the map itself.
    """

    reference: int
    kind: Kind
    map: NDArray
    valid_mask: MaskArray
    hidden: MaskArray
    checked_map: NDArray | None = None

    def apply(self, image: ImageArray) -> ImageArray:
        """Warp the reference, (h, w, 3) uint8, to the target's view, (H, W, 3)."""
        return sample(image, self.map)

    def excluding(self, mask: MaskArray | None) -> WarpField:
        """Return the warp without the pixels that show, or mix in, a part of the reference, (h, w) bool."""
        if mask is None:
            return self
        reach = 2 * _spacing(self.map) + 1  # of interpolation after shrinking
        grown = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= reach
        x, y = self.map[..., 0], self.map[..., 1]
        shown = cv2.remap(grown.astype(np.uint8), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) > 0
        return replace(self, valid_mask=self.valid_mask & ~shown)


def sample(image: ImageArray, pixels: NDArray) -> ImageArray:
    """Look up an image (h, w, 3) at (H, W, 2) places, after shrinking it to their spacing."""
    spacing = _spacing(pixels)
    if spacing > 1.15:
        small: NDArray = cv2.resize(image, None, fx=1 / spacing, fy=1 / spacing, interpolation=cv2.INTER_AREA)
        scale = np.array([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]], np.float32)
        pixels, image = (pixels + np.float32(0.5)) * scale - np.float32(0.5), small.astype(np.uint8)
    warped = cv2.remap(
        image, np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1]), cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return warped.astype(np.uint8, copy=False)


def _spacing(pixels: NDArray, where: MaskArray | None = None) -> float:
    """Return the median distance between the places (H, W, 2) of neighbours, among some pixels (H, W) or all."""
    step_x, step_y = (np.linalg.norm(np.gradient(pixels[..., i]), axis=0) for i in (0, 1))
    steps = np.sqrt(step_x * step_y)
    return float(np.median(steps if where is None else steps[where]))


def tear_of(warp: WarpField) -> NDArray[np.float32]:
    """Return how far a warp is torn around each pixel, (H, W), from 0 to 4 pixels of the target; planes are not torn.

    A warp by depth is torn at the outline of a near thing, where neighbouring pixels come from places far apart. Its
    tear is the largest second difference of the map near the pixel, divided by the map's typical step.
    """
    bent = np.zeros(warp.map.shape[:2], np.float32)
    if warp.kind == "plane" or not warp.valid_mask.any():
        return bent
    for axis in (0, 1):
        inner = tuple(slice(1, -1) if n == axis else slice(None) for n in (0, 1))
        bent[inner] = np.maximum(bent[inner], np.abs(np.diff(warp.map, 2, axis=axis)).max(axis=2))
    largest = cv2.dilate(bent, np.ones((_TEAR_PX, _TEAR_PX))) / max(_spacing(warp.map, warp.valid_mask), 1e-6)
    return np.minimum(largest, _LARGEST_TEAR).astype(np.float32)


def find_homographies(matches: NDArray, size: tuple[int, ...]) -> list[NDArray]:
    """Find planes: homographies (3, 3) from the target to a reference, each among the matches the others leave.

    Args:
        matches: (K, 4): x and y in the target, x and y in the reference.
        size: (height, width) of the target.
    """
    homographies, rest = [], matches
    threshold = max(_PLANE_PX * max(size[:2]) / 768, _PLANE_REFERENCE_PX * _relative_scale(matches))
    while len(homographies) < _NUM_PLANES and len(rest) >= _MIN_INLIERS:
        matrix, inliers = cv2.findHomography(
            rest[:, 2:], rest[:, :2], cv2.USAC_MAGSAC, threshold, maxIters=10_000, confidence=0.9999
        )
        if matrix is None or abs(np.linalg.det(matrix)) < 1e-8:
            break
        agree = inliers.ravel() > 0
        if agree.sum() < max(_MIN_INLIERS, _MIN_INLIER_SHARE * len(matches)):
            break
        inverse = np.linalg.inv(matrix)
        homographies.append(inverse * np.sign(inverse[2] @ np.append(rest[agree, :2].mean(axis=0), 1)))
        rest = rest[~agree]
    return homographies


def _relative_scale(matches: NDArray) -> float:
    """Return the pixels of the target per pixel of the reference, by the spread of their matches."""
    if len(matches) < 2:
        return 1.0
    spread = [float(np.median(np.abs(m - np.median(m, axis=0)).sum(axis=1))) for m in (matches[:, :2], matches[:, 2:])]
    return spread[0] / max(spread[1], 1e-6)


def warp_by_plane(reference: int, matrix: NDArray, size: tuple[int, ...], shape: tuple[int, ...]) -> WarpField:
    """Build the warp of a homography.

    Args:
        reference: its number.
        matrix: (3, 3), from the target to the reference.
        size: (height, width) of the target.
        shape: (height, width) of the reference.
    """
    x, y = np.meshgrid(np.arange(size[1], dtype=float), np.arange(size[0], dtype=float))
    w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    front = w > 1e-9
    w = np.where(front, w, 1e-9)
    area = abs(np.linalg.det(matrix)) / w**3
    pixels = np.stack([
        (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / w,
        (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / w,
    ], axis=-1).clip(-1e6, 1e6).astype(np.float32)  # fmt: skip
    usable = front & (area > 1 / _MAX_AREA) & (area < _MAX_AREA) & (np.linalg.det(matrix) > 0)
    return WarpField(
        reference=reference, kind="plane", map=pixels, valid_mask=usable & inside(pixels, shape),
        hidden=np.zeros(size[:2], bool),
    )  # fmt: skip


def warp_by_points(reference: int, camera: Camera, points: NDArray, checked: NDArray) -> WarpField:
    """Build the warp of scene points; those behind nearer ones are marked as hidden.

    Args:
        reference: its number.
        camera: the reference's camera.
        points: (H, W, 3), what the target's pixels show (see ``points_of``).
        checked: the points to judge the warp by around the hole, found without the target's pixels there.
    """
    pixels, far = camera.project(points)
    pixels = _as_map(pixels)
    valid = (far > 0) & inside(pixels, camera.size)
    spacing = max(1.0, 3 * max(camera.size) / 768)
    cells = (pixels / spacing).astype(int)
    columns, rows = int(camera.size[1] / spacing) + 1, int(camera.size[0] / spacing) + 1
    index = np.where(
        valid, cells[..., 1].clip(0, rows - 1) * columns + cells[..., 0].clip(0, columns - 1), rows * columns
    )
    nearest = np.full(rows * columns + 1, np.inf)
    np.minimum.at(nearest, index.ravel(), np.where(valid, far, np.inf).ravel())
    behind = (far > nearest[index] * _OCCLUSION).astype(np.uint8)
    hidden = cv2.morphologyEx(behind, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    return WarpField(
        reference=reference, kind="depth", map=pixels, valid_mask=valid, hidden=hidden,
        checked_map=_as_map(camera.project(checked)[0]),
    )  # fmt: skip


def points_of(target: Camera, depth: NDArray, size: tuple[int, ...]) -> NDArray:
    """Return the scene points (H, W, 3) that the target's pixels show.

    Args:
        target: the target's camera.
        depth: (h, w) of the target, at any size.
        size: (height, width) of the target.
    """
    whole = cv2.resize(cv2.medianBlur(depth.astype(np.float32), 3), size[1::-1], interpolation=cv2.INTER_LINEAR)
    return target.unproject(grid_of(size), whole.astype(float))


def _as_map(pixels: NDArray) -> NDArray:
    """Limit places to what OpenCV can look up, in single precision."""
    return np.clip(pixels, -1e6, 1e6).astype(np.float32)


def refine_by_flow(warp: WarpField, warped: ImageArray, known: ImageArray, hole: MaskArray, reach: float) -> WarpField:
    """Correct a warp by the optical flow (DIS) between the warped reference and the known pixels.

    Flow counts where it agrees forth and back. It is continued smoothly into the hole, where it fades with the
    distance from the known pixels.

    Args:
        warp: the warp of a plane.
        warped: (H, W, 3) uint8, the warped reference in the target's colours.
        known: (H, W, 3) uint8, the target; not read in the hole.
        hole: (H, W) bool.
        reach: distance in pixels at which the correction has faded to 1/e.
    """
    shift = measure_shift(warped, known, hole, warp.valid_mask, reach, 0.04 * max(hole.shape))
    x, y = (axis.astype(np.float32) for axis in np.meshgrid(np.arange(hole.shape[1]), np.arange(hole.shape[0])))
    moved = cv2.remap(warp.map, x + shift[..., 0], y + shift[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    valid = cv2.remap(
        warp.valid_mask.astype(np.uint8), x + shift[..., 0], y + shift[..., 1], cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return replace(warp, map=moved, valid_mask=warp.valid_mask & (valid > 0))


def measure_shift(
    warped: ImageArray,
    known: ImageArray,
    hole: MaskArray,
    valid_mask: MaskArray,
    reach: float,
    largest: float,
    check: Callable[[], None] = lambda: None,
) -> NDArray:
    """Measure how far a warped reference is shifted against the known pixels, by optical flow (DIS).

    Args:
        warped: (H, W, 3) uint8, in the target's colours.
        known: (H, W, 3) uint8, the target; not read in the hole.
        hole: (H, W) bool.
        valid_mask: (H, W) bool, where the warped reference can be used.
        reach: distance in pixels from the known pixels at which the shift has faded to 1/e in the hole.
        largest: flow beyond this many pixels does not count.
        check: called between the steps; it may raise an exception.

    Returns:
        (H, W, 2) float32: where each pixel of the target lies in the warped reference, relative to the pixel itself.
    """
    inner = cv2.erode((~hole & valid_mask).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    if inner.sum() < 200:
        return np.zeros((*hole.shape, 2), np.float32)
    equalize = cv2.createCLAHE(2.0, (8, 8))
    target = np.where(hole[..., None], warped, known)
    one, other = (equalize.apply(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in (target, warped))
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    estimator.setVariationalRefinementIterations(5)
    check()
    flow = estimator.calc(one, other, None)
    check()
    back = estimator.calc(other, one, None)
    check()
    x, y = (axis.astype(np.float32) for axis in np.meshgrid(np.arange(hole.shape[1]), np.arange(hole.shape[0])))
    loop = flow + cv2.remap(back, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
    small = np.hypot(flow[..., 0], flow[..., 1]) < largest
    weight = (inner & (np.abs(loop).max(axis=2) < 1) & small).astype(np.float32)
    spread = cv2.GaussianBlur(weight, (0, 0), 3)
    smooth = cv2.GaussianBlur(flow * weight[..., None], (0, 0), 3) / np.maximum(spread, 1e-3)[..., None]
    open_ = spread <= 0.25
    smooth = continue_into(smooth, open_)
    smooth = np.where((hole | open_)[..., None], cv2.GaussianBlur(smooth, (0, 0), 4), smooth)
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5)
    return (smooth * np.exp(-((depth / reach) ** 2))[..., None]).astype(np.float32)


def inside(pixels: NDArray, shape: tuple[int, ...]) -> MaskArray:
    """Tell which of (..., 2) places lie inside an image, a frame of a few pixels left out."""
    return within(pixels[..., 0], shape[1]) & within(pixels[..., 1], shape[0])


def within(places: NDArray, length: int) -> MaskArray:
    """Tell which places along an axis lie inside an image that is so long, a frame of a few pixels left out."""
    return (places > _FRAME_PX) & (places < length - 1 - _FRAME_PX)


def grid_of(size: tuple[int, ...], small: tuple[int, ...] | None = None) -> NDArray:
    """Return the pixels (h, w, 2), x and y, of an image, or those that the pixels of a smaller copy stand for."""
    height, width = (small or size)[:2]
    x = (np.arange(width) + 0.5) * size[1] / width - 0.5
    y = (np.arange(height) + 0.5) * size[0] / height - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1)
