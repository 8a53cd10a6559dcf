"""Scores by keypoints: the number of keypoints matched between the references and the filled region."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from realfill.geometry.matching import Features, Matcher, Matches
from realfill.io.images import ImageArray, MaskArray
from realfill.results.completions import Completion, Completions

_GROUP_SIZE = 8  # completions whose features are held in memory


def score_by_keypoints(
    completions: Completions, references: Sequence[ImageArray], matcher: Matcher, report: Callable[[int], None]
) -> list[Completion]:
    """Score completions by the number of keypoints in the hole that match a reference.

    Args:
        completions: the completions to score.
        references: each (H, W, 3) uint8.
        matcher: finds the matches.
        report: called with the number of completions just finished, often 0; it may raise to end the work.

    Returns:
        The scored completions, best first. Ties are broken by the sum of confidences, then by the seed.
    """

    def extract(image: ImageArray) -> Features:
        report(0)
        return matcher.extract(image)

    reference_features = [extract(reference) for reference in references]
    scored: list[tuple[Completion, float]] = []
    for start in range(0, len(completions), _GROUP_SIZE):
        group = completions.items[start : start + _GROUP_SIZE]
        group_features = [extract(completion.image) for completion in group]
        pairs = [(r, c) for c in group_features for r in reference_features]
        matches = iter(matcher.match_pairs(pairs, lambda: report(0)))
        for completion in group:
            in_hole = [matches_in_hole(next(matches), completions.scene.mask) for _ in references]
            counts = tuple(len(m) for m in in_hole)
            scored.append((_with_counts(completion, counts), float(sum(m.confidence.sum() for m in in_hole))))
            report(1)
    scored.sort(key=lambda pair: (-(pair[0].score or 0), -pair[1], pair[0].seed))
    return [completion for completion, _ in scored]


def matches_in_hole(matches: Matches, mask: MaskArray) -> Matches:
    """Keep the matches whose second keypoint lies in the hole.

    Args:
        matches: between a reference and a completion.
        mask: (H, W) bool of the completion, True = hole.
    """
    x, y = np.rint(matches.keypoints1).astype(int).reshape(-1, 2).T
    return matches[mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)]]


def _with_counts(completion: Completion, counts: tuple[int, ...]) -> Completion:
    return dataclasses.replace(
        completion, score=float(sum(counts)), num_matches=sum(counts), num_matches_per_reference=counts,
        scores_per_reference=tuple(float(count) for count in counts),
    )  # fmt: skip
