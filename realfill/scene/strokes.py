"""Strokes that were painted on a copy of the target, found by the difference to it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.errors import SceneError
from realfill.io.bands import bands
from realfill.io.images import ImageArray, MaskArray
from realfill.scene.colours import describe_colour, most_frequent, sample

_PAINT_ERROR = 24  # largest difference, in 8-bit levels, between a painted pixel and the mix of paint and target
# Differences, in 8-bit levels, that coding noise does not reach and that paint clearly exceeds
_MIN_CHANGE, _CLEAR_CHANGE = 12, 48


def find_strokes(image: ImageArray, target: ImageArray) -> tuple[MaskArray, NDArray[np.float32]]:
    """Find strokes of one colour, opaque or translucent, that were painted on a copy of the target.

    Args:
        image: (H, W, 3) uint8, the painted copy.
        target: (H, W, 3) uint8.

    Returns:
        The mask of the strokes and their colour.

    Raises:
        SceneError: nothing was painted, or the changes have many colours.
    """
    difference = cv2.absdiff(image, target).max(axis=2)
    noise = float(np.median(sample(difference.reshape(-1))))
    # In a lossless copy only painted pixels differ, and few of them by little
    is_exact = np.count_nonzero(difference) > 3 * np.count_nonzero((difference > 0) & (difference <= 3)) and noise == 0
    changed = difference > (2 if is_exact else max(_MIN_CHANGE, 4 * noise + 8))
    inner = cv2.erode(changed.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # without smooth edges
    inner = inner if inner.any() else changed
    if not inner.any():
        raise SceneError(
            "the mask shows the target itself, with nothing painted on it; legal: a copy of the target with strokes "
            "over what to fill, or an image that is white where to fill"
        )
    paint = _find_paint(sample(image[inner]), sample(target[inner]))
    error = np.empty(image.shape[:2], np.float32)
    opacity = np.empty_like(error)
    for rows in bands(image.shape):
        opacity[rows], error[rows] = _unmix(image[rows], target[rows], paint)
    is_paint = error <= _PAINT_ERROR
    core = inner & is_paint & (difference > (_MIN_CHANGE if is_exact else _CLEAR_CHANGE))
    if is_paint[inner].mean() < 0.8 or core.sum() < 0.2 * inner.sum():
        raise SceneError(
            f"the mask shows the target with changes in many colours, in {100 * changed.mean():.1f} % of its pixels; "
            "legal: a copy of the target with strokes of one colour"
        )
    mask = _components_with(changed, core, 1 if is_exact else 16)
    others = np.count_nonzero(inner & ~mask & (difference > _CLEAR_CHANGE))
    if others > 0.01 * np.count_nonzero(core):
        raise SceneError(
            f"the mask shows the target with strokes of the colour {describe_colour(paint)}, and with other changes in "
            f"{100 * others / mask.size:.1f} % of its pixels; paint with one colour"
        )
    if np.median(opacity[core]) > 0.9:
        mask |= _gaps(mask, np.abs(image - paint).max(axis=2) <= _PAINT_ERROR)
    return mask, paint


def _find_paint(colours: NDArray[np.uint8], below: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Find the colour of the paint: the most frequent one if it is opaque, else from the fit of a common opacity."""
    image, target = colours.astype(np.float32), below.astype(np.float32)
    centred = target - target.mean(axis=0)
    variance = max(float((centred**2).sum()), float(len(target)))
    weight = min(max(float((centred * (image - image.mean(axis=0))).sum()) / variance, 0.0), 0.95)
    translucent = (np.median(image - weight * target, axis=0) / (1 - weight)).clip(0, 255)
    candidates = [most_frequent(colours), translucent.astype(np.float32)]
    return max(candidates, key=lambda paint: float((_unmix(colours, below, paint)[1] <= _PAINT_ERROR).mean()))


def _unmix(
    image: NDArray[np.uint8], target: NDArray[np.uint8], paint: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Explain pixels (..., 3) as paint over the target: the opacity of the paint, and the error in levels."""
    change, full = image.astype(np.float32) - target, paint - target.astype(np.float32)
    opacity = ((change * full).sum(axis=-1) / np.maximum((full**2).sum(axis=-1), 1)).clip(0, 1)
    return opacity, np.abs(change - opacity[..., None] * full).max(axis=-1)


def _components_with(changed: MaskArray, core: MaskArray, min_px: int) -> MaskArray:
    """Keep the connected components of changed pixels that contain paint; the others are coding noise."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(changed.astype(np.uint8), connectivity=8)
    labels = np.asarray(labels, np.int32)
    keep = np.zeros(len(stats), bool)
    keep[np.unique(labels[core & changed])] = True
    keep &= stats[:, cv2.CC_STAT_AREA] >= min_px
    keep[0] = False
    return keep[labels]


def _gaps(mask: MaskArray, is_paint: MaskArray) -> MaskArray:
    """Find pixels in and between strokes where the target itself has the colour of the paint."""
    radius = max(2, round(0.01 * min(mask.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel, borderValue=0) > 0
    gaps = closed & is_paint
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~(mask | gaps)).astype(np.uint8), connectivity=4)
    labels = np.asarray(labels, np.int32)
    painted = np.bincount(labels.reshape(-1), weights=is_paint.reshape(-1), minlength=len(stats))
    enclosed = (stats[:, 0] > 0) & (stats[:, 1] > 0)
    enclosed &= (stats[:, 0] + stats[:, 2] < mask.shape[1]) & (stats[:, 1] + stats[:, 3] < mask.shape[0])
    enclosed &= painted > 0.95 * stats[:, cv2.CC_STAT_AREA]
    enclosed[0] = False
    return gaps | enclosed[labels]
