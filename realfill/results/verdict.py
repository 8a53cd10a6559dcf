"""Verdict: whether a completion shows what was there, judged by what the references say about the hole.

The judgement rests on an expected error for each pixel of the hole. For a pixel of the composite it follows from its
confidence; for one that differs from the composite, also from that difference; where no reference reaches, it is what a
guess usually costs in surroundings of this contrast. The numbers below were chosen on planted scenes
(``examples/verdict.py``), whose truth is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray, fit_within

VerdictKind: TypeAlias = Literal["authentic", "doubtful", "unsupported"]

AUTHENTIC_LEVELS = 12.0
"""Mean absolute error of the hole, of 255 levels, up to which ``authentic`` is right."""
UNSUPPORTED_LEVELS = 30.0
"""Mean absolute error of the hole from which ``unsupported`` is right."""
UNSUPPORTED_COVERAGE = 0.2
"""Share of the hole that references show below which ``unsupported`` is right, whatever the error."""

_LEVELS_SCALE = 15.0  # a confidence is exp(-expected error / 15), see geometry.confidence
_LEAST_LEVELS = 2.0  # expected error of any pixel: noise
_MOST_LEVELS = 60.0  # expected error of the worst pixel of a composite
_GUESS_SHARE = 0.85  # expected error of a guess, as a share of the surroundings' contrast
_SHOWN = 0.1  # confidence from which a reference counts as showing a pixel
_AUTHENTIC_BELOW = 9.0  # expected levels; less than AUTHENTIC_LEVELS, since a false "authentic" is the worst mistake
_AUTHENTIC_COVERAGE = 0.7
_CONTRADICTED = 20.0  # see geometry.agreement
_SAME_LEVELS = 10.0  # difference up to which a pixel is what a reference shows
_MOSTLY = 0.5  # share from which invention or contradiction is named as the cause
_JUDGED_PX = 768  # longer side to which larger images are shrunk
_SURROUNDINGS = 0.06  # their width, as a share of the longer side


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judgement of a completion.

    Attributes:
        kind: ``authentic``: close to what was there; ``doubtful``: partly, or perhaps; ``unsupported``: the references
            do not show the hole, or the completion is not what they show.
        reason: why, in a sentence.
        expected_error: estimated mean absolute error of the hole, of 255 levels.
        coverage: share of the hole that references show with a confidence of at least 0.1, in [0, 1].
        contradicted: share of what they show that another reference contradicts, in [0, 1].
        invented: share of the hole that differs from what the references show by more than 10 levels, or that none
            shows, in [0, 1].
    """

    kind: VerdictKind
    reason: str
    expected_error: float
    coverage: float
    contradicted: float
    invented: float


def judge(
    image: ImageArray,
    mask: MaskArray,
    *,
    composite: ImageArray,
    confidence: NDArray,
    source: NDArray,
    contradiction: NDArray | None = None,
) -> Verdict:
    """Judge a completion by a composite of the same target.

    Args:
        image: (H, W, 3) uint8, the completion. Pixels that differ from the composite by more than 10 levels
            count as invented.
        mask: (H, W) bool, the hole.
        composite: (H, W, 3) uint8.
        confidence: (H, W) in [0, 1], of the composite.
        source: (H, W), number of the reference that each pixel of the composite comes from; negative: none.
        contradiction: (H, W), how much the references contradict the composite (see ``geometry.agreement``), infinite
            where only one shows a pixel; ``None``: unknown. The reason names it, and the confidence takes it into
            account already.

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask is empty, so there is nothing to judge; legal: a mask with a hole")
    shown = mask & (source >= 0) & (confidence >= _SHOWN)
    distance = np.abs(image[mask].astype(np.float64) - composite[mask]).mean(axis=1)
    differs = (distance > _SAME_LEVELS) | (source[mask] < 0)
    errors = _expected_errors_when_small(image, mask, composite, confidence, source)
    compared = shown if contradiction is None else shown & np.isfinite(contradiction)
    contradicted = 0.0
    if contradiction is not None and compared.any():
        contradicted = float(np.mean(contradiction[compared] > _CONTRADICTED))
    coverage, error = float(shown[mask].mean()), float(errors.mean())
    kind = _kind(coverage, error)
    invented = float(differs.mean())
    return Verdict(
        kind=kind, reason=_reason(kind, coverage, error, contradicted, invented), expected_error=error,
        coverage=coverage, contradicted=contradicted, invented=invented,
    )  # fmt: skip


def _expected_errors_when_small(
    image: ImageArray, mask: MaskArray, composite: ImageArray, confidence: NDArray, source: NDArray
) -> NDArray[np.float64]:
    """Estimate the errors of ``expected_errors`` at the size at which composites are computed, which bounds memory."""
    size = fit_within(mask.shape, _JUDGED_PX)
    if size == mask.shape:
        return expected_errors(image, mask, composite=composite, confidence=confidence, source=source)
    small, shown = (
        np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        for values in (composite, image)
    )
    trust = np.asarray(cv2.resize(confidence, size[::-1], interpolation=cv2.INTER_AREA))
    hole, place = (
        np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST))
        for values in (mask.astype(np.uint8), source)
    )
    if not hole.any():  # the hole is thinner than a pixel of the small image
        return expected_errors(image, mask, composite=composite, confidence=confidence, source=source)
    return expected_errors(shown, hole > 0, composite=small, confidence=trust, source=place)


def expected_errors(
    image: ImageArray, mask: MaskArray, *, composite: ImageArray, confidence: NDArray, source: NDArray
) -> NDArray[np.float64]:
    """Estimate the absolute error of each pixel of the hole, (K,) of 255 levels; the arguments are those of ``judge``.

    A pixel of the composite is off by what its confidence says. For one that differs from the composite, the composite
    is right with a probability that falls with this error; then the difference counts, else the cost of a guess. The
    result lies between the composite's own error and the sum of that and the difference.
    """
    own = errors_of_composite(confidence[mask])
    guess = max(_LEAST_LEVELS, _GUESS_SHARE * contrast_around(image, mask))
    distance = np.abs(image[mask].astype(np.float64) - composite[mask]).mean(axis=1)
    right = np.clip(1 - own / UNSUPPORTED_LEVELS, 0, 1)
    differing = np.clip(right * distance + (1 - right) * guess, own, own + distance)
    return np.where(source[mask] >= 0, differing, guess)


def errors_of_composite(confidence: NDArray) -> NDArray[np.float64]:
    """Convert the confidence in a composite to the absolute error that it stands for, in levels of 255."""
    levels = -_LEVELS_SCALE * np.log(np.clip(confidence.astype(np.float64), 1e-6, 1))
    return np.clip(levels, _LEAST_LEVELS, _MOST_LEVELS)


def contrast_around(image: ImageArray, mask: MaskArray) -> float:
    """Return the mean absolute deviation, in levels, of the known pixels around the hole; 64 if there are none."""
    width = max(2, round(_SURROUNDINGS * max(mask.shape)))
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    known = image[(distance > 0) & (distance <= width)].astype(np.float64)
    return float(np.abs(known - known.mean(axis=0)).mean()) if len(known) else 64.0


def _kind(coverage: float, error: float) -> VerdictKind:
    if coverage < UNSUPPORTED_COVERAGE or error > UNSUPPORTED_LEVELS:
        return "unsupported"
    return "authentic" if error <= _AUTHENTIC_BELOW and coverage >= _AUTHENTIC_COVERAGE else "doubtful"


def _reason(kind: VerdictKind, coverage: float, error: float, contradicted: float, invented: float) -> str:
    """Explain a verdict in a sentence."""
    shows = f"the references clearly show {100 * coverage:.0f} % of the hole"
    expected = f"its pixels are expected to be off by {error:.0f} of 255 levels"
    if kind == "authentic":
        return f"{shows}, and {expected}"
    if coverage < UNSUPPORTED_COVERAGE:
        return f"{shows}, and the rest is invented"
    if coverage < _AUTHENTIC_COVERAGE and error <= _AUTHENTIC_BELOW:
        cause = f"none shows the other {100 * (1 - coverage):.0f} %"
    elif invented > _MOSTLY:
        cause = f"{100 * invented:.0f} % of the result differs from what they show"
    elif contradicted > _MOSTLY:
        cause = f"they contradict each other in {100 * contradicted:.0f} % of that"
    else:
        cause = "they fit the pixels around it badly"
    return f"{shows}, but {cause}, so {expected}"
