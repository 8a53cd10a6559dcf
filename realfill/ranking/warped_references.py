"""Scores by warped references: the similarity of the filled pixels to references warped to the target view.

Needs no weights. Suits small base models, whose samples are too soft for keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from realfill.geometry.matching import Matches, match_references
from realfill.geometry.warping import Warp, warp_references
from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.ranking.scores import best_first, decibels, scored
from realfill.results.completions import Completion, Completions
from realfill.scene.masks import Box, bounding_box, resize_mask, separate_holes

_HOLE_PX = 128  # longer side of the hole's bounding box when compared; soft samples show no more detail
_FAR_APART = 2.0  # holes are compared one by one if the box of all is this many times as long as that of the longest
_CELLS = 64  # number of cells along the longer side of that box by which holes are separated
_TARGET_PX = (1024, 2048)  # least and largest longer side to which the target is shrunk before references are warped
_CONSENSUS = 0.5  # weight of the mean of the other completions beside the references, where there are both


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """The similarity of a completion to the estimated content of the hole.

    Attributes:
        score: peak signal-to-noise ratio of the hole in dB, against the estimate of its content; ``None`` if there is
            no estimate.
        score_per_reference: the same against each warped reference, where it covers the hole; ``None`` for a reference
            that could not be aligned.
    """

    score: float | None
    score_per_reference: tuple[float | None, ...]


def score_by_warped_references(
    completions: Completions,
    references: Sequence[ImageArray],
    reference_masks: Sequence[MaskArray | None],
    matches: Sequence[Matches] | None,
    report: Callable[[int], None],
) -> list[Completion]:
    """Score completions by their similarity to the warped references and to each other.

    Args:
        completions: the completions to score.
        references: each (h, w, 3) uint8.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``.
        matches: the keypoints that each reference shares with the target; ``None``: they are matched here.
        report: called with the number of completions just finished, often 0; it may raise to end the work.

    Returns:
        The scored completions, best first, those without a score last. Ties are broken by the seed.
    """
    scene = completions.scene
    images = (completion.image for completion in completions)
    similarities = compare(
        scene.known, scene.mask, references, images, reference_masks=reference_masks, matches=matches, report=report
    )
    pairs = zip(completions, similarities, strict=True)
    return best_first(scored(completion, found.score, found.score_per_reference) for completion, found in pairs)


def compare(
    known: ImageArray,
    mask: MaskArray,
    references: Sequence[ImageArray],
    images: Iterable[ImageArray],
    *,
    reference_masks: Sequence[MaskArray | None] | None = None,
    matches: Sequence[Matches] | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> list[Similarity]:
    """Compare completions with the best estimate of the hole's content.

    The estimate is the mean of the warped references, each weighted by the inverse of its mean squared error around
    the hole, and of the mean of all other completions, which has half of the weight. Where no reference reaches, the
    latter counts alone. A score therefore depends on the other completions it was computed with. Holes that lie far
    apart are compared each at its own scale, and their squared errors are added. (Beyond the paper, which counts
    matched keypoints.)

    Args:
        known: (H, W, 3) uint8, the target. Pixels under the mask have no influence.
        mask: (H, W) bool, True = hole.
        references: each (h, w, 3) uint8.
        images: the completions, each (H, W, 3) uint8; read one at a time.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``.
        matches: the keypoints that each reference shares with the target; ``None``: they are matched here.
        report: called with the number of completions just read, often 0; it may raise to end the work.

    Returns:
        The similarity of each completion.
    """
    regions = [_Region.around(mask, box) for box in _boxes(mask)]
    whole_size = _target_size((mask.shape[0], mask.shape[1]), regions)
    if matches is None:
        matches = match_references(known, mask, _reported(references, report), reference_masks)
    warps = warp_references(
        known, mask, _reported(references, report), matches=matches, reference_masks=reference_masks, size=whole_size
    )
    small_mask = resize_mask(mask, whole_size)
    for region in regions:
        region.add_warps(warps, small_mask, mask.shape)
    num_images = 0
    for image in images:
        for region in regions:
            region.fills.append(region.crop(image))
        num_images += 1
        report(1)
    similarities = []
    for i in range(num_images):
        scores: list[float | None] = [None] * len(references)
        for n, warp in enumerate(warps):
            scores[warp.reference] = _psnr(region.error_to_warp(i, n) for region in regions)
        score = _psnr(region.error(i) for region in regions)
        similarities.append(Similarity(score=score, score_per_reference=tuple(scores)))
    return similarities


def _reported(references: Sequence[ImageArray], report: Callable[[int], None]) -> Iterator[ImageArray]:
    for reference in references:
        report(0)
        yield reference


def _boxes(mask: MaskArray) -> list[Box]:
    """Choose the boxes to compare: the whole hole, or each hole if they lie far apart for their size."""
    whole = bounding_box(mask)
    boxes = separate_holes(mask, max(1, _longer_side(whole) // _CELLS))
    return boxes if _longer_side(whole) > _FAR_APART * max(map(_longer_side, boxes)) else [whole]


def _longer_side(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _target_size(size: tuple[int, int], regions: Sequence[_Region]) -> tuple[int, int]:
    """Choose the size of the target to which references are warped, so that each hole has the pixels it needs."""
    longest = max(size)
    needed = max(longest * _HOLE_PX / _longer_side(region.box) for region in regions)
    return fit_within(size, int(min(longest, np.clip(needed, *_TARGET_PX))))


@dataclass(slots=True, kw_only=True, eq=False)
class _Region:
    """The bounding box of a hole, and the completions and references in it, at the size of the comparison.

    Attributes:
        box: (top, left, bottom, right) in pixels of the target.
        hole_mask: (h, w) bool, True = hole.
        weight: pixels of the hole in the target per pixel of ``hole_mask``.
        fills: (h, w, 3) float32 of each completion.
        warped: (h, w, 3) float32 of each warp.
        valid_masks: (h, w) bool of each warp: where it covers the hole.
        mean: (h, w, 3) float32, the weighted mean of the warps.
        covered: (h, w) bool: where there is such a mean.
    """

    box: Box
    hole_mask: MaskArray
    weight: float
    fills: list[NDArray[np.float32]] = field(default_factory=list)
    warped: list[NDArray[np.float32]] = field(default_factory=list)
    valid_masks: list[MaskArray] = field(default_factory=list)
    mean: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    covered: MaskArray = field(default_factory=lambda: np.zeros((0, 0), bool))

    @classmethod
    def around(cls, mask: MaskArray, box: Box) -> _Region:
        top, left, bottom, right = box
        cropped = mask[top:bottom, left:right]
        hole_mask = resize_mask(cropped, fit_within(cropped.shape, _HOLE_PX))
        return cls(box=box, hole_mask=hole_mask, weight=float(cropped.sum() / hole_mask.sum()))

    def crop(self, image: ImageArray) -> NDArray[np.float32]:
        """Crop an image of the target's size to the box and resize it for the comparison."""
        top, left, bottom, right = self.box
        return resize(image[top:bottom, left:right], self.hole_mask.shape).astype(np.float32)

    def add_warps(self, warps: Sequence[Warp], small_mask: MaskArray, target_size: tuple[int, ...]) -> None:
        """Crop warps to the box; they and ``small_mask`` have the size to which the target was shrunk."""
        scale = small_mask.shape[0] / target_size[0], small_mask.shape[1] / target_size[1]
        top, left, bottom, right = self.box
        box = (
            slice(math.floor(top * scale[0]), math.ceil(bottom * scale[0])),
            slice(math.floor(left * scale[1]), math.ceil(right * scale[1])),
        )
        shape = self.hole_mask.shape
        self.warped = [resize(w.image[box], shape).astype(np.float32) for w in warps]
        self.valid_masks = [
            self.hole_mask & ~resize_mask(~w.valid_mask[box] & small_mask[box], shape) for w in warps
        ]  # fmt: skip
        total, weights = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 1), np.float32)
        for warp, image, valid_mask in zip(warps, self.warped, self.valid_masks, strict=True):
            weight = valid_mask[:, :, None] / np.float32(max(warp.error, 1.0) ** 2)
            total, weights = total + weight * image, weights + weight
        self.mean, self.covered = (total / np.maximum(weights, 1e-9)).astype(np.float32), (weights > 0)[:, :, 0]

    def error(self, index: int) -> tuple[float, float]:
        """Return a completion's squared error against the estimate, summed, and the weight of the pixels compared."""
        fill, others = self.fills[index], self.fills[:index] + self.fills[index + 1 :]
        if not others:
            return self._error(fill, self.mean, self.hole_mask & self.covered)
        mean = np.stack(others).mean(axis=0)
        estimate = np.where(self.covered[:, :, None], _CONSENSUS * mean + (1 - _CONSENSUS) * self.mean, mean)
        return self._error(fill, estimate.astype(np.float32), self.hole_mask)

    def error_to_warp(self, index: int, warp: int) -> tuple[float, float]:
        """Return a completion's summed squared error against one warp, and the weight of the pixels compared."""
        return self._error(self.fills[index], self.warped[warp], self.valid_masks[warp])

    def _error(self, image: NDArray[np.float32], other: NDArray[np.float32], mask: MaskArray) -> tuple[float, float]:
        if not mask.any():
            return 0.0, 0.0
        weight = self.weight * float(mask.sum())
        return float(((image - other)[mask] ** 2).mean()) * weight, weight


def _psnr(errors: Iterable[tuple[float, float]]) -> float | None:
    """Compute the peak signal-to-noise ratio in dB, at most 100; ``None`` if nothing was compared."""
    total, weights = (sum(values) for values in zip(*errors, strict=True))
    return decibels(total / weights) if weights else None
