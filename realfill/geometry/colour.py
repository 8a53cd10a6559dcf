"""Colour: a warped reference's colours brought to the target's, by a robust 3 x 4 matrix."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray

_ITERATIONS = 8
_SAMPLES = 20_000
_RIDGE = 2e-3  # pull of the matrix towards the channels' own lines
_LINE_LIMIT, _MATRIX_LIMIT = 2.0, 1.5  # of the median error, from which pixels count less


def fit_colours(image: ImageArray, known: ImageArray, overlap: MaskArray) -> NDArray:
    """Fit the matrix that brings the colours of an image to the target's.

    First a line for each channel, then a matrix between channels that stays near these lines; both by iteratively
    reweighted least squares, so that what differs between the images does not count.

    Args:
        image: (H, W, 3) uint8, the warped reference.
        known: (H, W, 3) uint8, the target.
        overlap: (H, W) bool: where they are compared.

    Returns:
        (4, 3) float32: a row for each channel of the image, and the offset, in levels of 255.
    """
    lines = [_fit_line(image[..., c][overlap], known[..., c][overlap]) for c in range(3)]
    gain, mean, target_mean = (np.array(values) for values in zip(*lines, strict=True))
    aligned = image * gain.astype(np.float32) + (target_mean - gain * mean).astype(np.float32)
    step = max(1, int(overlap.sum()) // _SAMPLES)
    source, target = (
        cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 2)[overlap][::step].astype(float) / 255
        for picture in (aligned, known)
    )
    source = np.c_[source, np.ones(len(source))]
    ridge = _RIDGE * len(source) * np.diag([1, 1, 1, 0.1])
    identity = np.eye(4)[:, :3]
    weight = np.ones(len(source))
    matrix = identity
    for _ in range(_ITERATIONS):
        weighted = source * weight[:, None]
        matrix = np.linalg.solve(weighted.T @ source + ridge, weighted.T @ target + ridge @ identity)
        error = np.abs(source @ matrix - target).mean(axis=1)
        limit = _MATRIX_LIMIT * max(float(np.median(error)), 0.004)
        weight = limit / np.maximum(error, limit)
    offset = (target_mean - gain * mean) @ matrix[:3] + 255 * matrix[3]
    return np.vstack([gain[:, None] * matrix[:3], offset]).astype(np.float32)


def apply_colours(image: NDArray, colours: NDArray) -> NDArray:
    """Apply a matrix of ``fit_colours`` to an image (H, W, 3) in [0, 255]; the result is float32 in [0, 255]."""
    mixed = image.reshape(-1, 3).astype(np.float32) @ colours[:3] + colours[3]
    return mixed.clip(0, 255, out=mixed).reshape(image.shape)


def _fit_line(values: NDArray, target: NDArray) -> tuple[float, float, float]:
    """Fit ``target = gain (values - mean) + target_mean``; the gain is at least 0."""
    x, y = values.astype(float), target.astype(float)
    weight, gain, mean, target_mean = np.ones(len(x)), 1.0, 0.0, 0.0
    for _ in range(_ITERATIONS):
        mean, target_mean = float(np.average(x, weights=weight)), float(np.average(y, weights=weight))
        variance = float(np.average((x - mean) ** 2, weights=weight))
        covariance = float(np.average((x - mean) * (y - target_mean), weights=weight))
        gain = max(0.0, covariance / max(variance, 1e-6))
        error = np.abs(y - target_mean - gain * (x - mean))
        limit = _LINE_LIMIT * max(float(np.median(error)), 0.5)
        weight = limit / np.maximum(error, limit)
    return gain, mean, target_mean
