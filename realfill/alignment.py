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
