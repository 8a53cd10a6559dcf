"""Registration: models that generate a whole image shift it by some pixels; the known pixels show by how much."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray
from realfill.scene.masks import dilate, fill_smooth

_MAX_SHARE = 0.05  # a shift by a larger share of the longer side is a mistake
_LEAST_PX = 0.05  # smaller shifts are left alone, because resampling blurs
_MIN_KNOWN = 0.02  # smallest share of known pixels to register to
_BORDER_PX = 4  # known pixels this close to the hole are left out, because the model changes them
_BLUR_PX = 5  # width of the blur with which shifts are refined
_ITERATIONS, _PRECISION = 100, 1e-4
_MIN_SIMILARITY = 0.5  # least correlation with the known pixels after the shift is undone
_FLAT = 1e-3  # product of standard deviations in levels of 255, below which nothing can be compared


def register(
    sample: NDArray[np.float32], image: ImageArray, hole: MaskArray
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Move a sample so that its known side lies on the known pixels.

    The shift is first found by phase correlation and then refined on the known pixels (Evangelidis & Psarakis 2008).

    Args:
        sample: (H, W, 3) float32 in [0, 255].
        image: (H, W, 3) uint8. The pixels in the hole have no influence.
        hole: (H, W) bool, True = fill.

    Returns:
        The registered sample, and the shift (down, right) in pixels that the sample had. Without a shift, or if none
        can be measured, the sample itself and (0, 0).
    """
    shift = _measure(sample, image, hole)
    if max(map(abs, shift)) < _LEAST_PX:
        return sample, (0.0, 0.0)
    return _moved(sample, shift), shift


def _measure(sample: NDArray[np.float32], image: ImageArray, hole: MaskArray) -> tuple[float, float]:
    """Measure by how many pixels a sample is shifted down and right; (0, 0) if that cannot be measured."""
    known = ~dilate(hole, _BORDER_PX)
    if known.mean() < _MIN_KNOWN:
        return 0.0, 0.0
    truth, shown = (
        np.ascontiguousarray(i.mean(axis=2), np.float32) for i in (np.where(known[:, :, None], image, 0), sample)
    )
    window = cv2.createHanningWindow((hole.shape[1], hole.shape[0]), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(_filled(truth, ~known), _filled(shown, ~known), window)
    down, right = max(((0.0, 0.0), (y, x)), key=lambda s: _similarity(truth, shown, known, s))
    matrix = np.array([[1, 0, -right], [0, 1, -down]], np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, _PRECISION)
    try:
        _, matrix = cv2.findTransformECC(
            shown, _filled(truth, ~known), matrix, cv2.MOTION_TRANSLATION, criteria, known.astype(np.uint8), _BLUR_PX
        )
    except cv2.error:  # it does not converge, for instance on a flat image
        return 0.0, 0.0
    shift = -float(matrix[1, 2]), -float(matrix[0, 2])
    plausible = max(map(abs, shift)) <= _MAX_SHARE * max(hole.shape)
    similar, unmoved = (_similarity(truth, shown, known, s) for s in (shift, (0.0, 0.0)))
    return shift if plausible and similar >= _MIN_SIMILARITY and similar > unmoved else (0.0, 0.0)


def _filled(grey: NDArray[np.float32], hidden: MaskArray) -> NDArray[np.float32]:
    """Continue an image (H, W) smoothly into the hidden pixels, which have no influence."""
    return fill_smooth(torch.from_numpy(grey)[None, None], torch.from_numpy(hidden)[None, None])[0, 0].numpy()


def _similarity(
    truth: NDArray[np.float32], shown: NDArray[np.float32], known: MaskArray, shift: tuple[float, float]
) -> float:
    """Return the correlation of the known pixels with the sample after a shift is undone; 0 for flat images."""
    height, width = known.shape
    top, left = (math.ceil(abs(s)) for s in shift)
    inner = np.zeros_like(known)
    inner[top : height - top, left : width - left] = True  # the rest is repeated from the edges
    inner &= known
    if not inner.any():
        return 0.0
    one, two = truth[inner], _moved(shown, shift)[inner]
    spread = one.std() * two.std()
    return float(((one - one.mean()) * (two - two.mean())).mean() / spread) if spread > _FLAT else 0.0


def _moved(image: NDArray[np.float32], shift: tuple[float, float]) -> NDArray[np.float32]:
    """Undo a shift (down, right) by cubic interpolation; edges are repeated."""
    matrix = np.array([[1, 0, shift[1]], [0, 1, shift[0]]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = (image.shape[1], image.shape[0])
    moved = cv2.warpAffine(np.ascontiguousarray(image), matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return moved.astype(np.float32, copy=False)
