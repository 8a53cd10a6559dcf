"""Scores by verified keypoints: matches count where geometry says that both keypoints show the same point.

A completion that repeats a texture, or shows the right thing in the wrong place, has many matches, but they do not
agree with the warps of the references. (Beyond the paper, which counts all matches.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.fields import WarpField
from realfill.geometry.matching import Matcher, Matches
from realfill.geometry.working import rescale
from realfill.io.images import ImageArray, MaskArray
from realfill.ranking.keypoints import match_completions
from realfill.ranking.scores import best_first, scored
from realfill.results.completions import Completion, Completions

_CELLS = 25  # about as many cells as the hole is divided into
_MIN_CELL_PX = 4.0
_TOLERANCE, _MIN_TOLERANCE_PX = 0.01, 3.0  # largest distance from the warp, as a share of the target's longer side


def score_by_verified_keypoints(
    completions: Completions,
    references: Sequence[ImageArray],
    reference_masks: Sequence[MaskArray | None],
    matcher: Matcher,
    warps: Sequence[WarpField],
    report: Callable[[int], None],
    *,
    reference_sizes: Sequence[tuple[int, int]] = (),
) -> list[Completion]:
    """Score completions by the matches in the hole that agree with the warps of the references.

    Args:
        completions: the completions to score.
        references: each (h, w, 3) uint8.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``.
        matcher: finds the matches.
        warps: where the references show the target's pixels, by cameras and depth or by planes; any number for each.
            The target may be shrunk in them.
        report: called with the number of completions just finished, often 0; it may raise to end the work.
        reference_sizes: (height, width) of each reference in whose pixels the warps are. Empty: the references' own.

    Returns:
        The scored completions, best first. The score is the number of cells of the hole in which at least one match
        is expected to be right (see ``expected_cells``). Ties are broken by the seed.
    """
    mask = completions.scene.mask
    sizes = list(reference_sizes) or [(r.shape[0], r.shape[1]) for r in references]
    own_warps = [[w for w in warps if w.reference == n] for n in range(len(references))]
    items = []
    for completion, in_hole in match_completions(completions, references, reference_masks, matcher, report):
        agreeing = [
            m[agree_with_warps(_shrink(m, (reference.shape, mask.shape), size, own), own)]
            for m, reference, size, own in zip(in_hole, references, sizes, own_warps, strict=True)
        ]
        cells = [expected_cells([m], mask) for m in agreeing]
        items.append(scored(completion, expected_cells(agreeing, mask), cells, [len(m) for m in agreeing]))
        report(1)
    return best_first(items)


def agree_with_warps(matches: Matches, warps: Sequence[WarpField]) -> NDArray[np.bool_]:
    """Tell which matches agree with at least one warp.

    Args:
        matches: the matches of a reference with a completion, in the pixels of the warps.
        warps: the warps of this reference, each with a map of (H, W) pixels.

    Returns:
        (K,) bool: the reference's keypoint lies where a warp puts the completion's, to 1 % of the target's longer side
        as the reference shows it, or 3 pixels.
    """
    agree = np.zeros(len(matches), bool)
    if not len(matches):
        return agree
    across, down = np.ascontiguousarray(matches.keypoints1.T, np.float32)[:, :, None]
    x, y = np.rint(matches.keypoints1).astype(int).T
    for warp in warps:
        height, width = warp.valid_mask.shape
        rows, columns = y.clip(0, height - 1), x.clip(0, width - 1)
        places = np.ascontiguousarray(warp.map, np.float32)
        expected = cv2.remap(places, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        tolerance = max(_MIN_TOLERANCE_PX, _TOLERANCE * max(height, width)) * _magnification(warp)
        near = np.linalg.norm(expected - matches.keypoints0, axis=1) <= tolerance
        agree |= near & warp.valid_mask[rows, columns]
    return agree


def expected_cells(matches: Sequence[Matches], mask: MaskArray) -> float:
    """Return the expected number of the hole's cells that hold at least one right match.

    The confidence of a match counts as the probability that it is right, so many matches in one place are worth little
    more than one, and matches spread over the hole are worth more.

    Args:
        matches: the matches of each reference in the hole.
        mask: (H, W) bool.
    """
    side = max(_MIN_CELL_PX, float(np.sqrt(mask.sum() / _CELLS)))
    wrong: dict[tuple[int, int], float] = {}
    for own in matches:
        cells = np.floor(own.keypoints1 / side).astype(int)
        for (column, row), confidence in zip(cells, own.confidence, strict=True):
            place = (int(column), int(row))
            wrong[place] = wrong.get(place, 1.0) * (1 - float(confidence))
    return float(sum(1 - share for share in wrong.values()))


def _shrink(
    matches: Matches, shapes: tuple[tuple[int, ...], tuple[int, ...]], size: tuple[int, int], warps: Sequence[WarpField]
) -> Matches:
    """Move matches from the photos' own pixels to those of the warps.

    Args:
        matches: the matches of a reference with a completion.
        shapes: the shapes of the reference and the completion.
        size: (height, width) of the reference in the warps.
        warps: the warps of this reference, all of one size.
    """
    if not warps:
        return matches
    points = np.concatenate([matches.keypoints0, matches.keypoints1], axis=1)
    moved = rescale({(0, 1): points}, shapes, [size, warps[0].valid_mask.shape])[0, 1]
    return dataclasses.replace(matches, keypoints0=moved[:, :2], keypoints1=moved[:, 2:])


def _magnification(warp: WarpField) -> float:
    """Return how many pixels of the reference show one pixel of the target, at least 1, in the middle of the warp."""
    steps = np.linalg.norm(np.diff(warp.map, axis=1), axis=2)[warp.valid_mask[:, 1:]]
    return max(1.0, float(np.median(steps))) if len(steps) else 1.0
