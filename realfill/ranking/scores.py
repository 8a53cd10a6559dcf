"""Scores: what every way of scoring stores in a completion, the order that follows, and dB from squared errors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from realfill.results.completions import Completion


def scored(
    completion: Completion,
    score: float | None,
    per_reference: Sequence[float | None] = (),
    num_matches: Sequence[int] | None = None,
) -> Completion:
    """Store a score, and forget what an earlier ranking stored.

    Args:
        completion: the completion.
        score: higher is better; ``None``: nothing could be compared.
        per_reference: the score by each reference.
        num_matches: the number of matches with each reference; ``None``: keypoints were not matched.
    """
    counts = () if num_matches is None else tuple(num_matches)
    return dataclasses.replace(
        completion, score=score, scores_per_reference=tuple(per_reference), num_matches_per_reference=counts,
        num_matches=None if num_matches is None else sum(counts),
    )  # fmt: skip


def best_first(completions: Iterable[Completion]) -> list[Completion]:
    """Order completions by their scores, those without a score last; ties are broken by the seed."""
    return sorted(completions, key=lambda c: (math.inf if c.score is None else -c.score, c.seed))


def decibels(mean_squared_error: float) -> float:
    """Convert a mean squared error of 8-bit values to a peak signal-to-noise ratio in dB, at most 100."""
    return 10 * math.log10(255**2 / max(mean_squared_error, 255**2 / 1e10))
