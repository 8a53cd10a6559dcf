"""Selection: of many references, the few from which a model learns the hole best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realfill.geometry.matching import Matches
from realfill.geometry.warping import warp_references
from realfill.io.images import ImageArray, MaskArray, fit_within
from realfill.scene.masks import resize_mask

_LONG_PX = 512  # longer side of the target at which coverage is measured
_MIN_GAIN = 0.01  # share of the hole below which one more reference adds nothing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """What a reference shows of the hole.

    Attributes:
        shown: (H, W) bool: the pixels of the hole that it shows; all False if it cannot be aligned.
        quality: how well it fits the known pixels, from 0 to 1; below 0.1 if it cannot be aligned.
    """

    shown: MaskArray
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen references.

    Attributes:
        references: their numbers, counted from 0, in the order of choice.
        covered: the share of the hole that they show together, after each choice.
        total: number of references to choose from.
    """

    references: tuple[int, ...]
    covered: tuple[float, ...]
    total: int

    def describe(self, use: str = "the fit learns from") -> str:
        """Return a line that says which references were chosen, and why.

        Args:
            use: the words before the numbers.
        """
        before = (0.0, *self.covered[:-1])
        parts = [
            f"{number} (+{100 * (after - earlier):.0f} %)" if after - earlier >= _MIN_GAIN else f"{number}"
            for number, earlier, after in zip(self.references, before, self.covered, strict=True)
        ]
        share = f"they show {100 * self.covered[-1]:.0f} % of the hole" if self.covered[-1] else "none can be aligned"
        return f"{use} {len(parts)} of {self.total} references, {', '.join(parts)}: {share}"


def choose_references(views: Sequence[View], hole: MaskArray, limit: int) -> Selection:
    """Choose the references that show most of the hole together, by a greedy set cover.

    Each choice adds the most pixels of the hole that no earlier one shows. Where the gains differ by less than 1 % of
    the hole, quality decides, and among references of the same quality the one that shows more.

    Args:
        views: the view of each reference.
        hole: (H, W) bool, True = fill.
        limit: largest number of references to choose.
    """
    pixels = max(int(hole.sum()), 1)
    missing, chosen, covered = hole.copy(), [], []
    while len(chosen) < min(limit, len(views)):
        rest = [i for i in range(len(views)) if i not in chosen]
        gains = {i: float((views[i].shown & missing).sum()) / pixels for i in rest}
        most = max(gains.values())
        best = max(
            (i for i in rest if gains[i] > most - _MIN_GAIN),
            key=lambda i: (views[i].quality, int((views[i].shown & hole).sum()), -i),
        )
        chosen.append(best)
        missing &= ~views[best].shown
        covered.append(1 - float(missing.sum()) / pixels)
    return Selection(references=tuple(chosen), covered=tuple(covered), total=len(views))


def survey(
    known: ImageArray,
    mask: MaskArray,
    references: Sequence[ImageArray],
    matches: Sequence[Matches],
    reference_masks: Sequence[MaskArray | None] | None = None,
) -> tuple[list[View], MaskArray]:
    """Find out what each reference shows of the hole, at a small size.

    Args:
        known: (H, W, 3) uint8, the target. Pixels under the mask have no influence.
        mask: (H, W) bool, True = hole.
        references: each (h, w, 3) uint8.
        matches: the matches of each reference with the target.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``.

    Returns:
        The views of the references, and the hole at the size of the views.
    """
    size = fit_within(mask.shape, _LONG_PX)
    hole = resize_mask(mask, size)
    views = [View(shown=np.zeros(size, bool), quality=0.1 * len(m) / (len(m) + 100)) for m in matches]
    for warp in warp_references(known, mask, references, matches=matches, reference_masks=reference_masks, size=size):
        quality = 0.1 + 0.9 / (1 + warp.error / 20)
        views[warp.reference] = View(shown=warp.valid_mask & hole, quality=quality)
    return views, hole
