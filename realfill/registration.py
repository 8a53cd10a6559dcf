"""Registration: references are warped over the target, their colours brought to its own, without any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.config import RankConfig
from realfill.io.images import ImageArray, MaskArray, fit_within, resize, to_array, to_tensor
from realfill.masks import fill_smooth, resize_mask
from realfill.models.matcher import Matches, SiftMatcher

_FEATURES_PX = 1024  # longer side at which SIFT looks
_THRESHOLD = 0.01  # largest error of a homography's inlier, of the target's longer side: some parallax passes
_SCALE_THRESHOLD = 0.02  # likewise of a similarity's, of the reference's longer side
_MIN_INLIERS, _MIN_INLIER_SHARE = 8, 0.25  # of the matches that a similarity has to explain
_NUM_PLANES = 2  # homographies tried for each reference
_MAX_SCALE = 8.0
_FRAME_PX = 3  # the outermost pixels of photos are often dark or smeared
_MIN_OVERLAP_PX = 64
_MIN_CORRELATION = 0.25
_NEAR = 0.1  # of the target's longer side: how far the hole's surroundings reach
_LINE_SAMPLES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Registered:
    """A reference as it lies over the target.

    Attributes:
        reference: its place among the references.
        image: (H, W, 3) uint8, of the size or region that was asked for, its colours brought to the target's.
        covers: (H, W) bool, where it can be used.
        error: root mean square difference to the known pixels around the hole.
    """

    reference: int
    image: ImageArray
    covers: MaskArray
    error: float


def match_references(known: ImageArray, mask: MaskArray, references: Sequence[ImageArray]) -> list[Matches]:
    """Match the references with what is known of the target, by SIFT.

    Args:
        known: (H, W, 3) uint8, the target; not read under the mask.
        mask: (H, W) bool, True = the hole.
        references: each (h, w, 3) uint8.

    Returns:
        For each reference; ``keypoints0`` are its own, ``keypoints1`` the target's, none of them in the hole.
    """
    sift = SiftMatcher(RankConfig(matcher="sift", max_size_px=_FEATURES_PX).resolve({}))
    seen = fit_within(mask.shape, _FEATURES_PX)
    target = sift.extract(_smooth(resize(known, seen), resize_mask(mask, seen)))
    scale = np.array(mask.shape[::-1]) / seen[::-1]
    found = []
    for reference in references:
        matches = sift.match(sift.extract(reference), target)
        points = ((matches.keypoints1 + 0.5) * scale - 0.5).astype(np.float32)
        x, y = np.rint(points).astype(int).clip(0, np.array(mask.shape[::-1]) - 1).T
        real = ~mask[y, x]
        there, confidence = matches.keypoints0[real], matches.confidence[real]
        found.append(Matches(keypoints0=there, keypoints1=points[real], confidence=confidence))
    return found


def find_scale(matches: Matches, size: tuple[int, ...]) -> float | None:
    """Find at which scale a reference shows what the target shows, by the similarity that most matches agree on.

    Args:
        matches: of the reference with the target.
        size: (height, width) of the reference.

    Returns:
        The reference's pixels to one of the target's; ``None`` where too few matches agree to be believed.
    """
    if len(matches.keypoints0) < _MIN_INLIERS:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        matches.keypoints1, matches.keypoints0, method=cv2.RANSAC,
        ransacReprojThreshold=_SCALE_THRESHOLD * max(size[:2]), maxIters=5000,
    )  # fmt: skip
    if matrix is None or inliers.sum() < max(_MIN_INLIERS, _MIN_INLIER_SHARE * len(inliers)):
        return None
    scale = float(np.sqrt(np.linalg.det(np.asarray(matrix, np.float64)[:, :2])))
    return scale if 1 / _MAX_SCALE < scale < _MAX_SCALE else None


def register(
    known: ImageArray,
    mask: MaskArray,
    references: Sequence[ImageArray],
    *,
    matches: Sequence[Matches] | None = None,
    size: tuple[int, int] | None = None,
    region: tuple[int, int, int, int] | None = None,
) -> list[Registered]:
    """Lay the references over the target, best fitting first; those that can't be are left out.

    SIFT, a homography by MAGSAC++ and a line for each colour channel. The criterion for a homography is Brown
    and Lowe's (Automatic Panoramic Image Stitching, IJCV 2007).

    Args:
        known: (H, W, 3) uint8, the target; not read under the mask.
        mask: (H, W) bool, True = the hole.
        references: each (h, w, 3) uint8.
        matches: what ``match_references`` found; ``None``: it is asked.
        size: (height, width) that the target is shrunk to before they are laid over it; ``None``: its own.
        region: (top, left, bottom, right), the last two exclusive, of the target at that size: all that is wanted of
            it. Memory goes by this, not by the target. ``None``: all of it.
    """
    whole = size or mask.shape
    top, left, bottom, right = region or (0, 0, *whole)
    box = slice(top, bottom), slice(left, right)
    hole = resize_mask(mask, whole)[box]
    ground = _Ground(
        known=_smooth(resize(known, whole)[box], hole), mask=hole, reach=_NEAR * max(whole),
        to_target=_scaling(whole, mask.shape) @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]]),
    )  # fmt: skip
    found: list[Registered] = []
    matches = match_references(known, mask, references) if matches is None else matches
    for place, (reference, pairs) in enumerate(zip(references, matches, strict=True)):
        matrices = _find_homographies(pairs.keypoints0, pairs.keypoints1, mask.shape)
        layers = [_registered(place, reference, matrix, ground) for matrix in matrices]
        found += sorted((x for x in layers if x is not None), key=lambda x: x.error)[:1]
    return sorted(found, key=lambda x: x.error)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ground:
    """What references are laid over.

    Attributes:
        known: (H, W, 3) uint8, its hole filled smoothly, so that there are no edges of its own.
        mask: (H, W) bool.
        reach: pixels around the hole that colours are fitted on.
        to_target: (3, 3), from its pixels to the target's.
    """

    known: ImageArray
    mask: MaskArray
    reach: float
    to_target: NDArray[np.float64]


def _smooth(known: ImageArray, mask: MaskArray) -> ImageArray:
    return to_array(fill_smooth(to_tensor(known), torch.from_numpy(mask)[None, None])[0])


def _scaling(size: tuple[int, ...], other: tuple[int, ...]) -> NDArray[np.float64]:
    """Build the (3, 3) matrix from pixels of a size (height, width) to those of the same image at another."""
    y, x = other[0] / size[0], other[1] / size[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _find_homographies(
    points: NDArray[np.float32], target_points: NDArray[np.float32], size: tuple[int, ...]
) -> list[NDArray[np.float64]]:
    """Find homographies (3, 3) from the target to a reference, of planes that many matches agree on.

    The first is that of most matches; the next one is found among the matches that are left: what is around the hole
    may lie at another depth than most of the scene.

    Args:
        points: (K, 2), (x, y) pixels in the reference.
        target_points: (K, 2), what they were matched with.
        size: (height, width) of the target.
    """
    found: list[NDArray[np.float64]] = []
    while len(found) < _NUM_PLANES and len(points) > 8:
        matrix, inliers = cv2.findHomography(
            points, target_points, cv2.USAC_MAGSAC, _THRESHOLD * max(size), maxIters=10_000, confidence=0.9999
        )
        if matrix is None or inliers.sum() < 8 + 0.3 * len(points) or abs(np.linalg.det(matrix)) < 1e-6:
            break
        agree = inliers.ravel() > 0
        back = np.linalg.inv(matrix)
        found.append(back * np.sign(back[2] @ (*target_points[agree].mean(axis=0), 1)))  # w > 0 where it is trusted
        points, target_points = points[~agree], target_points[~agree]
    return found


def _registered(place: int, reference: ImageArray, matrix: NDArray[np.float64], ground: _Ground) -> Registered | None:
    """Warp a reference, by a homography from the target, and fit its colours to the known pixels around the hole.

    ``None``: it doesn't reach the hole, or doesn't look like the target.
    """
    known, mask = ground.known, ground.mask
    unit = float(np.linalg.det(ground.to_target))
    image, covers = _warp(reference, matrix @ ground.to_target, mask.shape, unit=unit)
    overlap = covers & ~mask
    if not (covers & mask).any() or overlap.sum() < _MIN_OVERLAP_PX:
        return None
    if _correlation(image, known, overlap) < _MIN_CORRELATION:
        return None
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    near = overlap & (distance <= max(4.0, ground.reach))
    near = near if near.sum() >= _MIN_OVERLAP_PX else overlap
    levels = np.arange(256)
    for i in range(3):
        gain, bias = _fit_line(image[:, :, i][near], known[:, :, i][near])
        image[:, :, i] = (gain * levels + bias).round().clip(0, 255).astype(np.uint8)[image[:, :, i]]
    error = float(np.sqrt(((image[near].astype(np.float32) - known[near]) ** 2).mean()))
    return Registered(reference=place, image=image, covers=covers, error=error)


def _warp(
    reference: ImageArray, matrix: NDArray[np.float64], size: tuple[int, ...], *, unit: float = 1.0
) -> tuple[ImageArray, MaskArray]:
    """Warp a reference to the target's view.

    Args:
        reference: (h, w, 3) uint8.
        matrix: (3, 3), from the target to the reference, w above 0 on the right side of the horizon.
        size: (height, width) of the target.
        unit: pixels of the target's file that each of these stands for.

    Returns:
        The image, (height, width, 3), and where it can be used: within the reference, not mirrored, not beyond the
        horizon, neither shrunk nor stretched too much.
    """
    height, width = size
    w = matrix[2, 0] * np.arange(width) + (matrix[2, 1] * np.arange(height) + matrix[2, 2])[:, None]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        area = np.linalg.det(matrix) / w**3  # of the reference's pixels for one of the target's
    usable = (w > 0) & (area > unit / _MAX_SCALE**2) & (area < unit * _MAX_SCALE**2)
    if not usable.any():
        return np.zeros((height, width, 3), np.uint8), usable
    shrink = max(1.0, float(np.median(area[usable])) ** 0.5)  # beforehand: warping doesn't average
    small = resize(reference, (max(1, round(reference.shape[0] / shrink)), max(1, round(reference.shape[1] / shrink))))
    there = _scaling(reference.shape, small.shape) @ matrix
    inverse = cv2.WARP_INVERSE_MAP
    image = cv2.warpPerspective(
        small, there, (width, height), flags=inverse | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    inner = np.zeros(small.shape[:2], np.uint8)
    inner[_FRAME_PX:-_FRAME_PX, _FRAME_PX:-_FRAME_PX] = 255
    inside = cv2.warpPerspective(inner, there, (width, height), flags=inverse | cv2.INTER_LINEAR) == 255
    return image.astype(np.uint8), usable & inside


def _correlation(image0: ImageArray, image1: ImageArray, where: MaskArray) -> float:
    """Correlate the brightness of two images, slightly blurred; 0 where one of them is flat."""
    grey0, grey1 = (cv2.GaussianBlur(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), (0, 0), 2)[where] for i in (image0, image1))
    return float(np.corrcoef(grey0, grey1)[0, 1]) if min(grey0.std(), grey1.std()) > 0 else 0.0


def _fit_line(values: NDArray, wanted: NDArray) -> tuple[float, float]:
    """Fit ``wanted = gain * values + bias`` by iterated least squares with Huber's weights.

    A bias beside the gain, which OpenCV's exposure compensators don't have: haze and another sky need it.

    Args:
        values: (K,).
        wanted: (K,), with outliers where the images show something else.

    Returns:
        gain, at least 0, and bias.
    """
    step = max(1, len(values) // _LINE_SAMPLES)
    values, wanted = values[::step].astype(np.float64), wanted[::step].astype(np.float64)
    weights, gain, bias = np.ones(len(values)), 1.0, 0.0
    for _ in range(10):
        mean, wanted_mean = np.average(values, weights=weights), np.average(wanted, weights=weights)
        variance = np.average((values - mean) ** 2, weights=weights)
        covariance = np.average((values - mean) * (wanted - wanted_mean), weights=weights)
        gain = max(0.0, float(covariance / max(variance, 1e-6)))
        bias = float(wanted_mean - gain * mean)
        errors = np.abs(wanted - gain * values - bias)
        limit = 1.345 * 1.4826 * max(float(np.median(errors)), 0.5)
        weights = limit / np.maximum(errors, limit)
    return gain, bias
