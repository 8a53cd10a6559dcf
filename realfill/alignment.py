"""Alignment: how a reference lies to the target, from matched keypoints."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_THRESHOLD = 0.02  # of the second image's longer side: parallax passes, a wrong match doesn't
_MIN_INLIERS = 8
_MIN_SHARE = 0.25  # of the matches
_MAX_SCALE = 8.0


def find_scale(
    target_points: NDArray[np.float32], photo_points: NDArray[np.float32], size: tuple[int, int]
) -> float | None:
    """Find at which scale a photo shows what the target shows, by the similarity that most matches agree on (RANSAC).

    Args:
        target_points: (K, 2), (x, y) pixels.
        photo_points: (K, 2), what they were matched with.
        size: (height, width) of the photo.

    Returns:
        The photo's pixels to one of the target's; ``None`` where too few matches agree to be believed.
    """
    if len(target_points) < _MIN_INLIERS:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        target_points, photo_points, method=cv2.RANSAC, ransacReprojThreshold=_THRESHOLD * max(size), maxIters=5000
    )
    if matrix is None or inliers.sum() < max(_MIN_INLIERS, _MIN_SHARE * len(target_points)):
        return None
    scale = float(np.sqrt(np.linalg.det(np.asarray(matrix, np.float64)[:, :2])))
    return scale if 1 / _MAX_SCALE < scale < _MAX_SCALE else None


def find_homography(
    points0: NDArray[np.float32], points1: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float64] | None:
    """Find the homography that most matches agree on, by MAGSAC++ (Barath et al. 2020).

    Args:
        points0: (K, 2), (x, y) pixels.
        points1: (K, 2), what they were matched with.
        size: (height, width) of the image that ``points1`` lie in.

    Returns:
        (3, 3) float64, from ``points0`` to ``points1``; ``None`` where too few matches agree on one to be believed, or
        it turns things over or changes scale beyond belief within those that agree.
    """
    if len(points0) < _MIN_INLIERS:
        return None
    matrix, inliers = cv2.findHomography(
        points0, points1, cv2.USAC_MAGSAC, _THRESHOLD / 2 * max(size), maxIters=5000, confidence=0.999
    )
    if matrix is None or inliers.sum() < max(_MIN_INLIERS, _MIN_SHARE * len(points0)):
        return None
    matrix = np.asarray(matrix, np.float64)
    x, y = points0[inliers[:, 0] > 0].astype(np.float64).T
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    area = np.linalg.det(matrix) / depth**3  # by how much it grows things there
    return matrix if (depth > 0).all() and _MAX_SCALE**-2 < area.min() <= area.max() < _MAX_SCALE**2 else None
