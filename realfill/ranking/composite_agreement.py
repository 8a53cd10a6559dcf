"""Scores by agreement with the composite: the filled pixels against what geometry puts there, where it is trusted.

Needs no matcher.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray
from realfill.ranking.scores import best_first, decibels, scored
from realfill.results.completions import Completion, Completions

_BLUR = 0.004  # standard deviation of the blur before comparison, as a share of the longer side
_MIN_TRUST = 0.01  # mean confidence in the hole below which a composite says nothing


def score_by_composite(
    completions: Completions, composite: ImageArray, confidence: NDArray, report: Callable[[int], None]
) -> list[Completion]:
    """Score completions by their similarity to the composite, where it is trusted.

    Args:
        completions: the completions to score.
        composite: (H, W, 3) uint8, of the same target.
        confidence: (H, W) in [0, 1].
        report: called with the number of completions just finished; it may raise to end the work.

    Returns:
        The scored completions, best first, those without a score last. Ties are broken by the seed.
    """
    items = []
    for completion in completions:
        items.append(scored(completion, agreement(completion.image, composite, confidence, completions.scene.mask)))
        report(1)
    return best_first(items)


def agreement(image: ImageArray, composite: ImageArray, confidence: NDArray, mask: MaskArray) -> float | None:
    """Compute the peak signal-to-noise ratio in dB of an image against a composite, each pixel weighted by confidence.

    Both are blurred slightly, since a composite may be off by a pixel or two where it is right.

    Args:
        image: (H, W, 3) uint8.
        composite: (H, W, 3) uint8.
        confidence: (H, W) in [0, 1].
        mask: (H, W) bool; only these pixels count.

    Returns:
        At most 100; ``None`` if the composite is not trusted anywhere.
    """
    weight = np.where(mask, confidence, 0).astype(np.float64)
    if not mask.any() or weight[mask].mean() < _MIN_TRUST:
        return None
    sigma = max(0.5, _BLUR * max(mask.shape))
    difference = cv2.GaussianBlur(image.astype(np.float32) - composite.astype(np.float32), (0, 0), sigma)
    error = float(((difference**2).mean(axis=2) * weight).sum() / weight.sum())
    return decibels(error)
