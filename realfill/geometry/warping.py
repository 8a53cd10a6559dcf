"""Warps: references warped to the target view by homographies, with their colours fitted to the target's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.matching import Matches, fill_hole_smooth, match_references
from realfill.geometry.smooth import hide
from realfill.io.images import ImageArray, MaskArray, resize
from realfill.scene.masks import Box, dilate, resize_mask

_HOMOGRAPHY_THRESHOLD = 0.01  # largest error of an inlier, of the target's longer side; leaves room for some parallax
_SIMILARITY_THRESHOLD = 0.02  # largest error of an inlier, of the reference's longer side
_MIN_INLIERS = 8
_MIN_SIMILARITY_SHARE = 0.25  # least share of inliers among the matches, for a similarity
_MIN_HOMOGRAPHY_SHARE = 0.3  # least share for a homography, added to _MIN_INLIERS (Brown and Lowe)
_MAX_PLANES = 2  # homographies tried per reference
_MAX_SCALE = 8.0  # between photos of comparable size
_COMPARABLE_SIZE = 2.0  # largest ratio between the longer sides of photos of comparable size
_CUBIC_PX = 2  # reach of cubic interpolation
_BORDER_PX = 3  # the outermost pixels of photos are often dark or smeared
_MIN_OVERLAP_PX = 64
_MIN_CORRELATION = 0.25
_SURROUNDINGS = 0.1  # width of the hole's surroundings, of the target's longer side
_MAX_LINE_SAMPLES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Warp:
    """A reference warped to the target view.

    Attributes:
        reference: index of the reference.
        image: (H, W, 3) uint8, of the requested size or region; its colours are fitted to the target's.
        valid_mask: (H, W) bool, True where the image can be used.
        error: root mean square difference to the known pixels around the hole, in levels of 255.
    """

    reference: int
    image: ImageArray
    valid_mask: MaskArray
    error: float


def estimate_scale(matches: Matches, size: tuple[int, ...], target_size: tuple[int, ...]) -> float | None:
    """Estimate the scale of a reference relative to the target, from the similarity with the most inliers.

    Args:
        matches: keypoints of the reference matched with the target's.
        size: (height, width) of the reference.
        target_size: (height, width) of the target.

    Returns:
        Pixels of the reference per pixel of the target; ``None`` if there are too few inliers or the scale is not
        plausible.
    """
    if len(matches) < _MIN_INLIERS:
        return None
    similarity, inliers = cv2.estimateAffinePartial2D(
        matches.keypoints1, matches.keypoints0, method=cv2.RANSAC,
        ransacReprojThreshold=_SIMILARITY_THRESHOLD * max(size[:2]), maxIters=5000,
    )  # fmt: skip
    if similarity is None or inliers.sum() < max(_MIN_INLIERS, _MIN_SIMILARITY_SHARE * len(inliers)):
        return None
    scale = float(np.sqrt(np.linalg.det(np.asarray(similarity, np.float64)[:, :2])))
    low, high = _scale_limits(size, target_size)
    return scale if low < scale < high else None


def _scale_limits(size: tuple[int, ...], target_size: tuple[int, ...]) -> tuple[float, float]:
    """Return the least and the largest plausible scale, in pixels of a reference per pixel of the target.

    Photos of the same scene can have very different resolutions. The limits therefore hold between photos of comparable
    size, and widen by the ratio of their longer sides if the sizes are not comparable.
    """
    ratio = max(size[:2]) / max(target_size[:2])
    if 1 / _COMPARABLE_SIZE <= ratio <= _COMPARABLE_SIZE:
        ratio = 1.0
    return min(ratio, 1.0) / _MAX_SCALE, max(ratio, 1.0) * _MAX_SCALE


def warp_references(
    known: ImageArray,
    mask: MaskArray,
    references: Iterable[ImageArray],
    *,
    matches: Sequence[Matches] | None = None,
    reference_masks: Sequence[MaskArray | None] | None = None,
    size: tuple[int, int] | None = None,
    region: Box | None = None,
) -> list[Warp]:
    """Warp the references to the target view, leaving out those that cannot be aligned.

    Each reference is aligned by SIFT matches and a homography (MAGSAC++), which is accepted by the criterion of Brown
    and Lowe (Automatic Panoramic Image Stitching, IJCV 2007). Gain and bias are fitted per colour channel.

    Args:
        known: (H, W, 3) uint8, the target. Pixels under the mask have no influence.
        mask: (H, W) bool, True = hole.
        references: each (h, w, 3) uint8.
        matches: the result of ``match_references``; ``None``: the references are matched here.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``.
        size: (height, width) to which the target is resized first; ``None``: its own size.
        region: (top, left, bottom, right) of the resized target, the last two exclusive: the part to warp to. Memory
            depends on the region and not on the target. ``None``: the whole target.

    Returns:
        Warps in order of ``error``, at most one per reference.
    """
    whole_size = size or mask.shape
    top, left, bottom, right = region or (0, 0, *whole_size)
    box = slice(top, bottom), slice(left, right)
    hole_mask = resize_mask(mask, whole_size)[box]
    shift = np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    view = _View(
        known=fill_hole_smooth(resize(known, whole_size)[box], hole_mask), mask=hole_mask,
        surroundings_px=_SURROUNDINGS * max(whole_size), to_target=_scaling(whole_size, mask.shape) @ shift,
        target_size=mask.shape,
    )  # fmt: skip
    if matches is None:
        references = tuple(references)
        matches = match_references(known, mask, references, reference_masks)
    warps: list[Warp] = []
    for index, (reference, pairs) in enumerate(zip(references, matches, strict=True)):
        homographies = _find_homographies(pairs.keypoints0, pairs.keypoints1, mask.shape)
        excluded = reference_masks[index] if reference_masks is not None else None
        shown = hide(reference, excluded)
        candidates = [_warp_to_view(index, shown, homography, view, excluded) for homography in homographies]
        warps += sorted((w for w in candidates if w is not None), key=lambda w: w.error)[:1]
    return sorted(warps, key=lambda w: w.error)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _View:
    """The part of the target that references are warped to.

    Attributes:
        known: (H, W, 3) uint8, with the hole filled smoothly.
        mask: (H, W) bool, True = hole.
        surroundings_px: distance from the hole within which colours are fitted.
        to_target: (3, 3), from pixels of this view to pixels of the target.
        target_size: (height, width) of the target.
    """

    known: ImageArray
    mask: MaskArray
    surroundings_px: float
    to_target: NDArray[np.float64]
    target_size: tuple[int, ...]


def _scaling(size: tuple[int, ...], new_size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the (3, 3) matrix from pixels of an image to pixels of the same image resized to ``new_size``."""
    y, x = new_size[0] / size[0], new_size[1] / size[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _find_homographies(
    points: NDArray[np.float32], target_points: NDArray[np.float32], size: tuple[int, ...]
) -> list[NDArray[np.float64]]:
    """Find homographies (3, 3) from the target to a reference, one per plane with many inliers.

    The first has the most inliers. The next is found among the remaining matches, because the surroundings of the hole
    may lie at another depth than most of the scene.

    Args:
        points: (K, 2), (x, y) pixels in the reference.
        target_points: (K, 2), (x, y) pixels in the target, matched with ``points``.
        size: (height, width) of the target.
    """
    homographies: list[NDArray[np.float64]] = []
    while len(homographies) < _MAX_PLANES and len(points) > _MIN_INLIERS:
        matrix, inliers = cv2.findHomography(
            points, target_points, cv2.USAC_MAGSAC, _HOMOGRAPHY_THRESHOLD * max(size), maxIters=10_000,
            confidence=0.9999,
        )  # fmt: skip
        too_few = matrix is None or inliers.sum() < _MIN_INLIERS + _MIN_HOMOGRAPHY_SHARE * len(points)
        if too_few or abs(np.linalg.det(matrix)) < 1e-6:
            break
        is_inlier = inliers.ravel() > 0
        inverse = np.linalg.inv(matrix)
        centre = (*target_points[is_inlier].mean(axis=0), 1)
        homographies.append(inverse * np.sign(inverse[2] @ centre))  # w > 0 at the inliers
        points, target_points = points[~is_inlier], target_points[~is_inlier]
    return homographies


def _warp_to_view(
    index: int,
    reference: ImageArray,
    homography: NDArray[np.float64],
    view: _View,
    excluded: MaskArray | None = None,
) -> Warp | None:
    """Warp a reference by a homography from the target, and fit its colours to the known pixels around the hole.

    Returns:
        The warp; ``None`` if it does not reach the hole or does not look like the target.
    """
    known, mask = view.known, view.mask
    unit_area = float(np.linalg.det(view.to_target))
    least, largest = (unit_area * limit**2 for limit in _scale_limits(reference.shape, view.target_size))
    image, valid_mask = _warp(
        reference, homography @ view.to_target, mask.shape, areas=(least, largest), excluded=excluded
    )
    overlap = valid_mask & ~mask
    if not (valid_mask & mask).any() or overlap.sum() < _MIN_OVERLAP_PX:
        return None
    if _correlation(image, known, overlap) < _MIN_CORRELATION:
        return None
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    near = overlap & (distance <= max(4.0, view.surroundings_px))
    near = near if near.sum() >= _MIN_OVERLAP_PX else overlap
    levels = np.arange(256)
    for i in range(3):
        gain, bias = _fit_line(image[:, :, i][near], known[:, :, i][near])
        image[:, :, i] = (gain * levels + bias).round().clip(0, 255).astype(np.uint8)[image[:, :, i]]
    error = float(np.sqrt(((image[near].astype(np.float32) - known[near]) ** 2).mean()))
    return Warp(reference=index, image=image, valid_mask=valid_mask, error=error)


def _warp(
    reference: ImageArray,
    matrix: NDArray[np.float64],
    size: tuple[int, ...],
    *,
    areas: tuple[float, float],
    excluded: MaskArray | None = None,
) -> tuple[ImageArray, MaskArray]:
    """Warp a reference to a view of the target.

    Args:
        reference: (h, w, 3) uint8.
        matrix: (3, 3), from pixels of the view to the reference; w is above 0 on the near side of the horizon.
        size: (height, width) of the view.
        areas: least and largest number of the reference's pixels per pixel of the view.
        excluded: (h, w) bool, the part of the reference that is left out.

    Returns:
        The image, (height, width, 3), and its valid mask, (height, width): pixels that lie inside the reference, are
        not left out, not mirrored, not beyond the horizon, and neither shrunk nor enlarged too much.
    """
    height, width = size
    w = matrix[2, 0] * np.arange(width) + (matrix[2, 1] * np.arange(height) + matrix[2, 2])[:, None]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        area = np.linalg.det(matrix) / w**3  # pixels of the reference per pixel of the view
    usable = (w > 0) & (area > areas[0]) & (area < areas[1])
    if not usable.any():
        return np.zeros((height, width, 3), np.uint8), usable
    shrink = max(1.0, float(np.median(area[usable])) ** 0.5)  # shrunk first, because warping does not average
    small = resize(reference, (max(1, round(reference.shape[0] / shrink)), max(1, round(reference.shape[1] / shrink))))
    to_small = _scaling(reference.shape, small.shape) @ matrix
    inverse = cv2.WARP_INVERSE_MAP
    image = cv2.warpPerspective(
        small, to_small, (width, height), flags=inverse | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    inner = np.zeros(small.shape[:2], np.uint8)
    inner[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = 255
    if excluded is not None:
        inner[dilate(resize_mask(excluded, small.shape[:2]), _CUBIC_PX)] = 0
    inside = cv2.warpPerspective(inner, to_small, (width, height), flags=inverse | cv2.INTER_LINEAR) == 255
    return image.astype(np.uint8), usable & inside


def _correlation(image0: ImageArray, image1: ImageArray, mask: MaskArray) -> float:
    """Return the correlation of brightness, slightly blurred, within a mask; 0 if one of the images is flat."""
    grey0, grey1 = (cv2.GaussianBlur(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), (0, 0), 2)[mask] for i in (image0, image1))
    return float(np.corrcoef(grey0, grey1)[0, 1]) if min(grey0.std(), grey1.std()) > 0 else 0.0


def _fit_line(values: NDArray, goals: NDArray) -> tuple[float, float]:
    """Fit ``goals = gain * values + bias`` by iteratively reweighted least squares with Huber weights.

    Haze and a different sky need the bias, which OpenCV's exposure compensators do not have.

    Args:
        values: (K,).
        goals: (K,), with outliers where the images show different things.

    Returns:
        gain, at least 0, and bias.
    """
    step = max(1, len(values) // _MAX_LINE_SAMPLES)
    values, goals = values[::step].astype(np.float64), goals[::step].astype(np.float64)
    weights, gain, bias = np.ones(len(values)), 1.0, 0.0
    for _ in range(10):
        mean, goal_mean = np.average(values, weights=weights), np.average(goals, weights=weights)
        variance = np.average((values - mean) ** 2, weights=weights)
        covariance = np.average((values - mean) * (goals - goal_mean), weights=weights)
        gain = max(0.0, float(covariance / max(variance, 1e-6)))
        bias = float(goal_mean - gain * mean)
        errors = np.abs(goals - gain * values - bias)
        limit = 1.345 * 1.4826 * max(float(np.median(errors)), 0.5)
        weights = limit / np.maximum(errors, limit)
    return gain, bias
