"""Agreement: completions compared, pixel by pixel, with references laid over the target; needs no weights.

For bases whose samples are too soft for keypoints of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.masks import Box, bounding_box, resize_mask, separate_holes
from realfill.registration import Registered, register

_HOLE_PX = 128  # longer side of the hole's bounding box when it is compared: what soft samples can show
_APART = 2.0  # how many times as long as that of each hole the box of all has to be for holes to be compared apart
_CELLS = 64  # to the longer side of that box, when holes are told apart
_TARGET_PX = (1024, 2048)  # longer side of the target when references are laid over it: at least, at most
_CONSENSUS = 0.5  # weight of the other completions' mean beside the references, where there are both


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well a completion agrees with what is known of the hole.

    Attributes:
        total: peak signal-to-noise ratio in dB, of the hole, to the estimate of what it hides; ``None``: there is none.
        per_reference: likewise to each reference where it covers the hole; ``None`` where it can't be laid over it.
    """

    total: float | None
    per_reference: tuple[float | None, ...]


def compare(
    known: ImageArray, mask: MaskArray, references: Sequence[ImageArray], images: Iterable[ImageArray]
) -> list[Agreement]:
    """Compare completions with the best estimate of what the hole hides.

    The estimate is the mean of the registered references, each weighted by the inverse of its mean squared error around
    the hole, and of all other completions, with half of the weight; where no reference reaches, the latter alone. So a
    figure says something beside those of completions of the same scene only. Holes that lie far apart are looked at
    each at its own scale; squared errors are summed over all of them. (Beyond the paper, which counts matched
    keypoints.)

    Args:
        known: (H, W, 3) uint8, the target; not read in the hole.
        mask: (H, W) bool, True = the hole.
        references: each (h, w, 3) uint8.
        images: completions, each (H, W, 3) uint8; read one at a time.
    """
    views = [_View.of(mask, box) for box in _boxes(mask)]
    fills = [[view.see(image) for view in views] for image in images]
    for i, view in enumerate(views):
        view.fills = np.stack([each[i] for each in fills])
    longest = max(mask.shape)
    wanted = max(longest * _HOLE_PX / max(view.box[2] - view.box[0], view.box[3] - view.box[1]) for view in views)
    whole = fit_within(mask.shape, int(min(longest, np.clip(wanted, *_TARGET_PX))))
    small = resize_mask(mask, whole)
    layers = register(resize(known, whole), small, references)
    for view in views:
        view.lay(layers, small, mask.shape)
    found = []
    for i in range(len(fills)):
        each: list[float | None] = [None] * len(references)
        for n, layer in enumerate(layers):
            each[layer.reference] = _psnr(view.error_to_layer(i, n) for view in views)
        found.append(Agreement(total=_psnr(view.error(i) for view in views), per_reference=tuple(each)))
    return found


def _boxes(mask: MaskArray) -> list[Box]:
    """Find what is compared by itself: all of the hole, but for holes that lie far apart for their size."""
    whole = bounding_box(mask)
    boxes = separate_holes(mask, max(1, _longer_side(whole) // _CELLS))
    return boxes if _longer_side(whole) > _APART * max(map(_longer_side, boxes)) else [whole]


def _longer_side(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


@dataclass(slots=True, kw_only=True, eq=False)
class _View:
    """A box around a hole, and what completions and references show there, at the size at which they are compared.

    Attributes:
        box: in the target's pixels.
        hole: (h, w) bool.
        weight: the hole's pixels in the target to one of these.
        fills: (N, h, w, 3) of the completions.
        warped: (h, w, 3) of each layer.
        covered: (h, w) bool of each: where it covers the hole.
        shown: (h, w, 3), the weighted mean of the layers.
        seen: (h, w) bool: where there is any.
    """

    box: Box
    hole: MaskArray
    weight: float
    fills: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.float32))
    warped: list[NDArray[np.float32]] = field(default_factory=list)
    covered: list[MaskArray] = field(default_factory=list)
    shown: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    seen: MaskArray = field(default_factory=lambda: np.zeros((0, 0), bool))

    @classmethod
    def of(cls, mask: MaskArray, box: Box) -> _View:
        top, left, bottom, right = box
        own = mask[top:bottom, left:right]
        hole = resize_mask(own, fit_within(own.shape, _HOLE_PX))
        return cls(box=box, hole=hole, weight=float(own.sum() / hole.sum()))

    def see(self, image: ImageArray) -> NDArray[np.float32]:
        top, left, bottom, right = self.box
        return resize(image[top:bottom, left:right], self.hole.shape).astype(np.float32)

    def lay(self, layers: Sequence[Registered], small_mask: MaskArray, target_size: tuple[int, ...]) -> None:
        """Look at references that were laid over the target, shrunk from ``target_size`` to the size of a mask."""
        scale = small_mask.shape[0] / target_size[0], small_mask.shape[1] / target_size[1]
        top, left, bottom, right = self.box
        box = (
            slice(math.floor(top * scale[0]), math.ceil(bottom * scale[0])),
            slice(math.floor(left * scale[1]), math.ceil(right * scale[1])),
        )
        shape = self.hole.shape
        self.warped = [resize(layer.image[box], shape).astype(np.float32) for layer in layers]
        self.covered = [self.hole & ~resize_mask(~layer.covers[box] & small_mask[box], shape) for layer in layers]
        total, weights = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 1), np.float32)
        for layer, image, covers in zip(layers, self.warped, self.covered, strict=True):
            weight = covers[:, :, None] / np.float32(max(layer.error, 1.0) ** 2)
            total, weights = total + weight * image, weights + weight
        self.shown, self.seen = (total / np.maximum(weights, 1e-9)).astype(np.float32), (weights > 0)[:, :, 0]

    def error(self, index: int) -> tuple[float, float]:
        """Sum a completion's squared errors to the estimate; and the weights of what was compared."""
        fill, others = self.fills[index], np.delete(self.fills, index, axis=0)
        if not len(others):
            return self._error(fill, self.shown, self.hole & self.seen)
        mean = others.mean(axis=0)
        estimate = np.where(self.seen[:, :, None], _CONSENSUS * mean + (1 - _CONSENSUS) * self.shown, mean)
        return self._error(fill, estimate.astype(np.float32), self.hole)

    def error_to_layer(self, index: int, layer: int) -> tuple[float, float]:
        """Do the same to a reference, where it covers the hole."""
        return self._error(self.fills[index], self.warped[layer], self.covered[layer])

    def _error(self, image: NDArray[np.float32], other: NDArray[np.float32], where: MaskArray) -> tuple[float, float]:
        if not where.any():
            return 0.0, 0.0
        weight = self.weight * float(where.sum())
        return float(((image - other)[where] ** 2).mean()) * weight, weight


def _psnr(errors: Iterable[tuple[float, float]]) -> float | None:
    """Compute the peak signal-to-noise ratio in dB, at most 100; ``None`` where there is nothing to compare."""
    total, weights = (sum(values) for values in zip(*errors, strict=True))
    return 10 * math.log10(255**2 / max(total / weights, 255**2 / 1e10)) if weights else None
