"""Correspondences: verified keypoint matches between all pairs of photos of a scene, with the target's hole hidden.

RootSIFT everywhere, and RootSIFT on affine views (ASIFT, Morel & Yu 2009) between the target and each reference, which
finds more matches where the viewpoints differ. Pairs are verified by a fundamental matrix (MAGSAC++).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray

Pairs: TypeAlias = Mapping[tuple[int, int], NDArray]
"""For images i < j, (K, 4): x and y in image i, x and y in image j, in the images' own pixels."""

_PLAIN_PX, _PLAIN_LIMIT = 1536, 8000  # longer side at which keypoints are detected, and the largest number of them
_AFFINE_PX, _AFFINE_LIMIT = 640, 900  # the same for each affine view
_MAX_ENLARGEMENT = 2.0
_CONTRAST = 0.01
_MAX_RATIO = 0.8  # of Lowe's test
_SAME_POINT_PX = 4.0  # rivals closer than this are the same point, detected twice
_CHUNK = 1500  # rows of the similarity matrix that are held at a time
_MIN_MATCHES = 12
_EPIPOLAR_PX = 1.5
_MAX_PATCH_PX = 12.0  # radius of a descriptor's patch that must not reach into the hole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Keypoints:
    """Keypoints of an image.

    Attributes:
        points: (K, 2) float32, x and y in the image's own pixels; (0, 0) is the centre of the first pixel.
        descriptors: (K, 128) float32, RootSIFT.
    """

    points: NDArray
    descriptors: NDArray


def match_all(images: Sequence[ImageArray], hole: MaskArray) -> Pairs:
    """Match all pairs of images; the first is the target.

    Args:
        images: each (H, W, 3) uint8, the target first.
        hole: (H, W) bool of the target, True = fill. Keypoints near it are dropped.

    Returns:
        The matches that agree with a fundamental matrix, the surest first; none where fewer than 12 matches were found.
    """
    candidates: dict[tuple[int, int], list[NDArray]] = {}
    for affine in (False, True):
        keypoints = [detect(image, hole if i == 0 else None, affine=affine) for i, image in enumerate(images)]
        for i in range(len(images)):
            for j in range(i + 1, len(images)):
                if i == 0 or not affine:  # affine views are slow, and the references have each other's normal views
                    candidates.setdefault((i, j), []).append(match(keypoints[i], keypoints[j]))
    return {pair: _verified(np.concatenate(matches)) for pair, matches in candidates.items()}


def detect(image: ImageArray, hole: MaskArray | None = None, *, affine: bool = False) -> Keypoints:
    """Detect keypoints and describe them by RootSIFT.

    Args:
        image: (H, W, 3) uint8.
        hole: (H, W) bool; keypoints whose patch reaches into it are dropped.
        affine: detect them in affine views of the image, at a smaller size.
    """
    height, width = image.shape[:2]
    scale = min(_MAX_ENLARGEMENT, (_AFFINE_PX if affine else _PLAIN_PX) / max(height, width))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.cvtColor(cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation), cv2.COLOR_RGB2GRAY)
    detector: Any = cv2.SIFT_create(  # type: ignore[attr-defined]
        nfeatures=_AFFINE_LIMIT if affine else _PLAIN_LIMIT, contrastThreshold=_CONTRAST, enable_precise_upscale=True
    )
    if affine:
        detector = cv2.AffineFeature_create(detector, maxTilt=3, minTilt=0)  # type: ignore[attr-defined]
    found, descriptors = detector.detectAndCompute(grey, None)
    points = (np.array([k.pt for k in found], np.float32).reshape(-1, 2) + 0.5) / np.float32(scale) - np.float32(0.5)
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)).astype(np.float32)
    if hole is not None and len(points):
        radius = np.minimum(np.array([k.size for k in found], np.float32) / scale, _MAX_PATCH_PX) + 1
        distance = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 5)
        x, y = np.rint(points).astype(int).clip(0, [width - 1, height - 1]).T
        outside = distance[y, x] > radius
        points, descriptors = points[outside], descriptors[outside]
    return Keypoints(points=points, descriptors=descriptors)


def match(first: Keypoints, second: Keypoints) -> NDArray:
    """Match keypoints by mutual nearest descriptors and Lowe's ratio test.

    Returns:
        (K, 4): x and y in the first image, x and y in the second; the surest match first.
    """
    if min(len(first.points), len(second.points)) < 3:
        return np.zeros((0, 4), np.float32)
    best, ratio = np.zeros(len(first.points), int), np.ones(len(first.points), np.float32)
    reverse, reverse_score = np.zeros(len(second.points), int), np.full(len(second.points), -np.inf, np.float32)
    for start in range(0, len(first.points), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity = first.descriptors[rows] @ second.descriptors.T
        nearest = np.argpartition(-similarity, 2, axis=1)[:, :3]
        scores = np.take_along_axis(similarity, nearest, axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        nearest, scores = np.take_along_axis(nearest, order, 1), np.take_along_axis(scores, order, 1)
        distances = np.sqrt(np.maximum(2 - 2 * scores, 0))
        apart = np.linalg.norm(second.points[nearest] - second.points[nearest[:, :1]], axis=2) > _SAME_POINT_PX
        rival = np.where(apart, distances, np.inf).min(axis=1)
        rival = np.where(np.isfinite(rival), rival, distances[:, -1])
        best[rows], ratio[rows] = nearest[:, 0], distances[:, 0] / np.maximum(rival, 1e-6)
        column_best = similarity.argmax(axis=0)
        column_score = similarity[column_best, np.arange(len(second.points))]
        better = column_score > reverse_score
        reverse[better], reverse_score[better] = column_best[better] + start, column_score[better]
    mutual = np.linalg.norm(first.points[reverse[best]] - first.points, axis=1) < 2
    kept = np.flatnonzero(mutual & (ratio < _MAX_RATIO))
    kept = kept[np.argsort(ratio[kept], kind="stable")]
    matches = np.concatenate([first.points[kept], second.points[best[kept]]], axis=1)
    _, unique = np.unique(np.round(matches[:, :2] / 1.5).astype(int), axis=0, return_index=True)
    return matches[np.sort(unique)]


def _verified(matches: NDArray) -> NDArray:
    """Keep the matches that agree with a fundamental matrix."""
    if len(matches) < _MIN_MATCHES:
        return matches[:0]
    _, inliers = cv2.findFundamentalMat(
        matches[:, :2], matches[:, 2:], cv2.USAC_MAGSAC, _EPIPOLAR_PX, confidence=0.9999, maxIters=10_000
    )
    return matches[:0] if inliers is None else matches[inliers.ravel() > 0]
