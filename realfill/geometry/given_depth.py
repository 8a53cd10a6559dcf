"""Depth from elsewhere, for example of a network or a scanner, brought to the scale of the reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.errors import SceneError
from realfill.geometry.cameras import Camera
from realfill.io.images import ImageArray

DepthEstimator: TypeAlias = Callable[[ImageArray], NDArray]
"""Takes the target, (H, W, 3) uint8, zero in the hole; returns its depth, (H, W), above 0, in any unit."""

_MIN_POINTS = 8
_ROUNDS = 20


def given_depth(estimate: DepthEstimator, known: ImageArray, camera: Camera, points: NDArray) -> NDArray:
    """Ask for the depth of the target and align it with the reconstruction.

    Networks know depth up to a scale, and many know its inverse up to a scale and a shift. Scale and shift of the
    inverse are therefore fitted to the reconstruction's points, robustly against points that lie elsewhere.

    Args:
        estimate: returns the depth.
        known: (H, W, 3) uint8, the target, zero in the hole.
        camera: the camera of the target.
        points: (N, 3), the reconstruction's points.

    Returns:
        (H, W) float32, the depth in the reconstruction's unit.

    Raises:
        SceneError: the depth has another size, or is not above 0 and finite.
    """
    depth = np.asarray(estimate(known), np.float64)
    if depth.shape != known.shape[:2]:
        raise SceneError(f"the depth has the shape {depth.shape}; legal: {known.shape[:2]}, that of the target")
    if not (np.isfinite(depth) & (depth > 0)).all():
        raise SceneError("the depth has values that are not finite or not above 0; legal: the distance from the camera")
    pixels, far = camera.project(points)
    height, width = depth.shape
    seen = (far > 0) & (pixels >= 0).all(axis=1) & (pixels[:, 0] <= width - 1) & (pixels[:, 1] <= height - 1)
    x, y = pixels[seen].astype(np.float32).T
    inverse = 1 / depth
    given = cv2.remap(inverse.astype(np.float32), x, y, cv2.INTER_LINEAR).ravel().astype(np.float64)
    scale, shift = _fit_line(given, 1 / far[seen]) if seen.sum() >= _MIN_POINTS else (1.0, 0.0)
    least = 1e-3 * float(np.median(scale * inverse + shift))
    return (1 / np.maximum(scale * inverse + shift, max(least, 1e-9))).astype(np.float32)


def _fit_line(values: NDArray, goals: NDArray) -> tuple[float, float]:
    """Fit ``goals = scale * values + shift`` by reweighted least squares of absolute errors; the scale is above 0."""
    ratio = float(np.median(goals / values))
    scale, shift, weights = ratio, 0.0, np.ones(len(values))
    for _ in range(_ROUNDS):
        mean, goal = np.average(values, weights=weights), np.average(goals, weights=weights)
        variance = np.average((values - mean) ** 2, weights=weights)
        if variance < 1e-6 * mean**2:  # a flat depth says nothing of the shift
            return ratio, 0.0
        scale = float(np.average((values - mean) * (goals - goal), weights=weights) / variance)
        shift = float(goal - scale * mean)
        errors = np.abs(goals - scale * values - shift)
        weights = 1 / np.maximum(errors, 1e-3 * float(np.median(goals)))
    return (scale, shift) if scale > 0 else (ratio, 0.0)
