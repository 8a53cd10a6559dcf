"""Agreement: completions compared, pixel by pixel, with references laid over the target; needs no weights.

For bases whose samples are too soft for keypoints of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.masks import bounding_box, resize_mask
from realfill.registration import register

_HOLE_PX = 128  # longer side of the hole's bounding box when it is compared: what soft samples can show
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
    figure says something beside those of completions of the same scene only. (Beyond the paper, which counts matched
    keypoints.)

    Args:
        known: (H, W, 3) uint8, the target; not read in the hole.
        mask: (H, W) bool, True = the hole.
        references: each (h, w, 3) uint8.
        images: completions, each (H, W, 3) uint8; read one at a time.
    """
    top, left, bottom, right = bounding_box(mask)
    size = fit_within((bottom - top, right - left), _HOLE_PX)
    hole = resize_mask(mask[top:bottom, left:right], size)
    fills = np.stack([resize(image[top:bottom, left:right], size).astype(np.float32) for image in images])
    longest, wanted = max(mask.shape), max(mask.shape) * _HOLE_PX / max(bottom - top, right - left)
    whole = fit_within(mask.shape, int(min(longest, np.clip(wanted, *_TARGET_PX))))
    scale = whole[0] / mask.shape[0], whole[1] / mask.shape[1]
    box = (
        slice(math.floor(top * scale[0]), math.ceil(bottom * scale[0])),
        slice(math.floor(left * scale[1]), math.ceil(right * scale[1])),
    )
    small = resize_mask(mask, whole)
    layers = register(resize(known, whole), small, references)
    warped = [resize(layer.image[box], size).astype(np.float32) for layer in layers]
    covered = [hole & ~resize_mask(~layer.covers[box] & small[box], size) for layer in layers]
    total, weights = np.zeros((*size, 3), np.float32), np.zeros((*size, 1), np.float32)
    for layer, image, covers in zip(layers, warped, covered, strict=True):
        weight = covers[:, :, None] / np.float32(max(layer.error, 1.0) ** 2)
        total, weights = total + weight * image, weights + weight
    shown, seen = (total / np.maximum(weights, 1e-9)).astype(np.float32), (weights > 0)[:, :, 0]
    found = []
    for i, fill in enumerate(fills):
        others = np.delete(fills, i, axis=0)
        if len(others):
            mean = others.mean(axis=0)
            estimate = np.where(seen[:, :, None], _CONSENSUS * mean + (1 - _CONSENSUS) * shown, mean)
            figure = _psnr(fill, estimate.astype(np.float32), hole)
        else:
            figure = _psnr(fill, shown, hole & seen)
        each: list[float | None] = [None] * len(references)
        for layer, image, covers in zip(layers, warped, covered, strict=True):
            each[layer.reference] = _psnr(fill, image, covers)
        found.append(Agreement(total=figure, per_reference=tuple(each)))
    return found


def _psnr(image: NDArray[np.float32], other: NDArray[np.float32], where: MaskArray) -> float | None:
    """Compute the peak signal-to-noise ratio in dB, at most 100; ``None`` where there is nothing to compare."""
    if not where.any():
        return None
    error = float(((image - other)[where] ** 2).mean())
    return 10 * math.log10(255**2 / max(error, 255**2 / 1e10))
