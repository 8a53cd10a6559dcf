"""Agreement: completions compared, pixel by pixel, with references laid over the target; needs no weights.

For bases whose samples are too soft for keypoints of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.masks import bounding_box, resize_mask
from realfill.registration import register
from realfill.scene import Scene

_SIDE_PX = 128  # longer side of the hole's bounding box when it is compared: what soft samples can show
_CONSENSUS = 0.5  # weight of the completions' mean beside the references, where there are any


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well a completion agrees with what is known of the hole.

    Attributes:
        total: peak signal-to-noise ratio in dB, of the hole, to the estimate of what it hides.
        per_reference: likewise to each reference where it covers the hole; 0 where it can't be laid over the target.
    """

    total: float
    per_reference: tuple[float, ...]


def compare(scene: Scene, images: Iterable[ImageArray]) -> list[Agreement]:
    """Compare completions of a scene with the best estimate of its hole.

    The estimate is the mean of the registered references, each weighted by the inverse of its mean squared error around
    the hole, and of the completions' own mean, with half of the weight; where no reference reaches, the latter alone.
    (Beyond the paper, which counts matched keypoints.)

    Args:
        scene: target, mask and references.
        images: completions, each (H, W, 3) uint8 of the target's size; read one at a time.
    """
    top, left, bottom, right = bounding_box(scene.mask)
    box = slice(top, bottom), slice(left, right)
    size = fit_within((bottom - top, right - left), _SIDE_PX)
    hole = resize_mask(scene.mask[box], size)
    fills = np.stack([resize(image[box], size).astype(np.float32) for image in images])
    layers = register(scene)
    warped = [resize(layer.image[box], size) for layer in layers]
    covered = [hole & ~resize_mask(~layer.covers[box] & scene.mask[box], size) for layer in layers]
    consensus = fills.mean(axis=0)
    total, weights = np.zeros_like(consensus), np.zeros((*size, 1), np.float32)
    for layer, image, covers in zip(layers, warped, covered, strict=True):
        weight = covers[:, :, None] / np.float32(max(layer.error, 1.0) ** 2)
        total, weights = total + weight * image, weights + weight
    shown = _CONSENSUS * consensus + (1 - _CONSENSUS) * total / np.maximum(weights, 1e-9)
    estimate = np.where(weights > 0, shown, consensus)
    found = []
    for fill in fills:
        each = [0.0] * len(scene.references)
        for layer, image, covers in zip(layers, warped, covered, strict=True):
            each[layer.reference] = _psnr(fill, image, covers) if covers.any() else 0.0
        found.append(Agreement(total=_psnr(fill, estimate, hole), per_reference=tuple(each)))
    return found


def reaches(agreements: Sequence[Agreement]) -> bool:
    """Tell whether any reference could be laid over the hole."""
    return any(any(a.per_reference) for a in agreements)


def _psnr(image: NDArray[np.float32], other: NDArray[np.float32], where: MaskArray) -> float:
    """Compute the peak signal-to-noise ratio in dB, at most 100."""
    error = float(((image - other)[where] ** 2).mean())
    return 10 * np.log10(255**2 / max(error, 255**2 / 1e10))
