"""Alignment: how a reference lies to the target, from matched keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_THRESHOLD = 0.02  # of the second image's longer side: parallax passes, a wrong match doesn't
_MIN_INLIERS = 8
_MIN_SHARE = 0.25  # of the matches
_MAX_SCALE = 8.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Similarity:
    """A turn, a change of scale and a shift that bring points of the target to where a photo shows them.

    Attributes:
        matrix: (2, 3) float64; photo's (x, y) = matrix @ (x, y, 1) of the target.
    """

    matrix: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """The photo's pixels to one of the target's."""
        return float(np.sqrt(np.linalg.det(self.matrix[:, :2])))

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """Bring a point of the target into the photo."""
        there = self.matrix @ (x, y, 1.0)
        return float(there[0]), float(there[1])

    def inverse(self, x: float, y: float) -> tuple[float, float]:
        """Bring a point of the photo into the target."""
        there = np.linalg.solve(self.matrix[:, :2], (x, y) - self.matrix[:, 2])
        return float(there[0]), float(there[1])


def find_similarity(
    target_points: NDArray[np.float32], photo_points: NDArray[np.float32], size: tuple[int, int]
) -> Similarity | None:
    """Find the similarity that most matches agree on, by RANSAC.

    Args:
        target_points: (K, 2), (x, y) pixels.
        photo_points: (K, 2), what they were matched with.
        size: (height, width) of the photo.

    Returns:
        ``None`` where too few matches agree on one to be believed.
    """
    if len(target_points) < _MIN_INLIERS:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        target_points, photo_points, method=cv2.RANSAC, ransacReprojThreshold=_THRESHOLD * max(size), maxIters=5000
    )
    if matrix is None or inliers.sum() < max(_MIN_INLIERS, _MIN_SHARE * len(target_points)):
        return None
    found = Similarity(matrix=np.asarray(matrix, np.float64))
    return found if 1 / _MAX_SCALE < found.scale < _MAX_SCALE else None


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
