"""Scores by keypoints: the number of keypoints matched between the references and the filled region."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from realfill.geometry.matching import Features, Matcher, Matches, outside
from realfill.geometry.smooth import hide
from realfill.io.images import ImageArray, MaskArray
from realfill.ranking.scores import scored
from realfill.results.completions import Completion, Completions

_GROUP_SIZE = 8  # completions whose features are held in memory


def score_by_keypoints(
    completions: Completions,
    references: Sequence[ImageArray],
    reference_masks: Sequence[MaskArray | None],
    matcher: Matcher,
    report: Callable[[int], None],
) -> list[Completion]:
    """Score completions by the number of keypoints in the hole that match a reference.

    Args:
        completions: the completions to score.
        references: each (H, W, 3) uint8.
        reference_masks: for each reference the part that is left out, (H, W) bool, or ``None``.
        matcher: finds the matches.
        report: called with the number of completions just finished, often 0; it may raise to end the work.

    Returns:
        The scored completions, best first. Ties are broken by the sum of confidences, then by the seed.
    """
    items: list[tuple[Completion, float]] = []
    for completion, in_hole in match_completions(completions, references, reference_masks, matcher, report):
        counts = [len(m) for m in in_hole]
        ranked = scored(completion, float(sum(counts)), [float(count) for count in counts], counts)
        items.append((ranked, float(sum(m.confidence.sum() for m in in_hole))))
        report(1)
    items.sort(key=lambda pair: (-(pair[0].score or 0), -pair[1], pair[0].seed))
    return [completion for completion, _ in items]


def match_completions(
    completions: Completions,
    references: Sequence[ImageArray],
    reference_masks: Sequence[MaskArray | None],
    matcher: Matcher,
    report: Callable[[int], None],
) -> Iterator[tuple[Completion, list[Matches]]]:
    """Match each completion with all references, and yield the matches in the hole, one set for each reference.

    The arguments are those of ``score_by_keypoints``; ``report`` is only asked whether to continue.
    """

    def extract(image: ImageArray) -> Features:
        report(0)
        return matcher.extract(image)

    reference_features = [extract(hide(*pair)) for pair in zip(references, reference_masks, strict=True)]
    for start in range(0, len(completions), _GROUP_SIZE):
        group = completions.items[start : start + _GROUP_SIZE]
        group_features = [extract(completion.image) for completion in group]
        pairs = [(r, c) for c in group_features for r in reference_features]
        matches = iter(matcher.match_pairs(pairs, lambda: report(0)))
        for completion in group:
            yield (
                completion,
                [
                    matches_in_hole(outside(next(matches), excluded), completions.scene.mask)
                    for excluded in reference_masks
                ],
            )


def matches_in_hole(matches: Matches, mask: MaskArray) -> Matches:
    """Keep the matches whose second keypoint lies in the hole.

    Args:
        matches: the matches of a reference with a completion.
        mask: (H, W) bool of the completion, True = hole.
    """
    x, y = np.rint(matches.keypoints1).astype(int).reshape(-1, 2).T
    return matches[mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)]]
