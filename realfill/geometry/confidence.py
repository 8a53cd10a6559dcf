"""Confidence: by how many levels each pixel of a layer is expected to err, and how far it can be trusted.

A pixel errs in two ways. It is misplaced by a fraction of a pixel or more, which costs much where the image is steep
and nothing in a clear sky; or the layer shows something else there. Both grow with the misfit around the hole, with the
difference to other references, in structure and in colour, and with the distance from the known pixels. What a single
reference shows has a depth that nothing confirms, so that it errs more, and its misplacement grows faster with that
distance. At the outline of a near thing, where neighbouring pixels come from places far apart in the reference, either
side may have the depth of the other; and what something nearer hides in the reference is rarely what the target would
show. Finally, where a layer contradicts the known pixels at the hole's border or another layer at a seam, blending must
correct it, and pixels that were corrected much are wrong more often.

The numbers below follow regressions of absolute errors on planted scenes with one and with three references; those of
tears and hidden pixels were chosen on 81 other ones, and that of colours on 72. The weight of contradicting references
and that of the correction were rounded after a look at six real scenes too. When colours were added, all others but
that of hidden pixels were lowered by 17 to 25 % after another look at these six, for what another reference confirms;
for the rest they stayed.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SCALE = 15.0  # levels of expected error at which confidence has fallen to 1/e
_LEAST_PX = 0.03  # misplacement of a pixel that fits in all respects
_PX_PER_COST = 0.025  # for each unit of misfit and of difference to other references
_PX_PER_DISTANCE = 10.0  # for each longer side of the target between an unconfirmed pixel and the known pixels
_FREE_MISFIT, _LEVELS_PER_MISFIT = 6.0, 0.4  # chance of other content: where it begins, and levels for each unit
_LEVELS_PER_VOTE = 0.25  # the same for each unit of difference to other references
_LEVELS_PER_LEVEL = 0.16  # for each level by which the colours of the reference that is nearest in colour differ
_LEVELS_PER_DISTANCE = 15.0  # and for each longer side of the target
_LEVELS_IF_TORN = 4.0  # where the warp is torn by one pixel; it grows with the root of the tear
_LEVELS_IF_HIDDEN = 16.0  # enough for a pixel never to be photographed by default
_LEVELS_PER_CORRECTION = 0.4  # for each level that blending adds to a pixel or takes from it
_UNCONFIRMED = 1.25  # factor on the error of what no other reference shows
_SLOPE_PX = 7  # window in which slopes are averaged
_STEEPEST = 25.0  # levels per pixel


def expected_error(
    image: NDArray,
    misfit: NDArray,
    vote: NDArray,
    colour: NDArray,
    distance: NDArray,
    tear: NDArray,
    hidden: NDArray,
) -> NDArray[np.float32]:
    """Estimate the absolute error of each pixel of a layer, before it is blended.

    Args:
        image: (H, W, 3) in [0, 255], the layer.
        misfit: (h, w): how badly the layer fits the known pixels, continued into the hole (see ``layers.differ``).
        vote: (h, w): the least difference to another reference; infinite where no other shows the pixel.
        colour: (h, w): the least mean absolute difference to another reference's colours, in levels; infinite where no
            other shows the pixel.
        distance: (h, w): to the known pixels, as a share of the target's longer side.
        tear: (h, w): how far the warp is torn around each pixel, in pixels of the target (see ``fields.tear_of``).
        hidden: (h, w) bool: where something nearer hides the point in the reference.

    Returns:
        (h, w) in levels of 255.
    """
    slope = cv2.resize(slope_of(image), misfit.shape[::-1], interpolation=cv2.INTER_AREA).clip(0, _STEEPEST)
    confirmed = np.isfinite(vote)
    vote = np.where(confirmed, vote, 0)
    misplaced = _LEAST_PX + _PX_PER_COST * (misfit + vote)
    misplaced = misplaced + np.where(confirmed, 0, _PX_PER_DISTANCE * distance)
    other = _LEVELS_PER_MISFIT * np.maximum(misfit - _FREE_MISFIT, 0) + _LEVELS_PER_DISTANCE * distance
    other = other + _LEVELS_PER_VOTE * np.maximum(vote - _FREE_MISFIT, 0)
    other = other + _LEVELS_PER_LEVEL * np.where(confirmed, colour, 0)
    other = other + _LEVELS_IF_TORN * np.sqrt(tear) + _LEVELS_IF_HIDDEN * hidden
    return ((slope * misplaced + other) * np.where(confirmed, 1, _UNCONFIRMED)).astype(np.float32)


def after_correction(error: NDArray, correction: NDArray) -> NDArray[np.float32]:
    """Add what the correction of a blended pixel says about its error.

    Args:
        error: (h, w), the result of ``expected_error`` for the layer that each pixel comes from.
        correction: (H, W, 3), the result of ``seamless.correct``, in levels.

    Returns:
        (h, w) in levels of 255.
    """
    corrected = cv2.resize(np.abs(correction).mean(axis=2), error.shape[::-1], interpolation=cv2.INTER_AREA)
    return (error + _LEVELS_PER_CORRECTION * corrected).astype(np.float32)


def slope_of(image: NDArray) -> NDArray[np.float32]:
    """Return how steep an image (H, W, 3) is around each pixel, (H, W) in levels per pixel."""
    picture = image.astype(np.float32)
    across, down = cv2.Sobel(picture, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(picture, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(cv2.blur(np.hypot(across, down).mean(axis=2), (_SLOPE_PX, _SLOPE_PX)), np.float32)


def confidence_of(error: NDArray) -> NDArray[np.float32]:
    """Return the confidence, from 0 to 1, in pixels with an expected error in levels."""
    return np.exp(-error / SCALE).astype(np.float32)


def error_of(confidence: NDArray) -> NDArray[np.float64]:
    """Return the expected error in levels, at most 255, that a confidence stands for."""
    return np.minimum(-SCALE * np.log(np.maximum(confidence.astype(np.float64), 1e-12)), 255.0)
