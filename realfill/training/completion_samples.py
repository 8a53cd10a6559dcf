"""Random crops with random holes, and the patches around them that the local discriminator sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from realfill.io.images import ImageArray, resize, to_tensor
from realfill.training.completion_config import CompletionTrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """A batch of crops with holes.

    Attributes:
        images: (B, 3, S, S) in [0, 1].
        holes: (B, 1, S, S) bool, True = fill. Each image has a hole of its own size.
        corners: (B, 2), top and left of a patch of S / 2 pixels that contains the hole.
        other_corners: (B, 2), the same for another hole, drawn alike: where to look at a real image.
    """

    images: torch.Tensor
    holes: torch.Tensor
    corners: NDArray[np.int64]
    other_corners: NDArray[np.int64]


def shrink_for_crops(photo: ImageArray, config: CompletionTrainingConfig) -> ImageArray:
    """Shrink a photo to the shorter side of the largest crop; never enlarge it."""
    factor = round(config.crop_scale * config.resolution) / min(photo.shape[:2])
    if factor >= 1:
        return photo
    return resize(photo, (round(photo.shape[0] * factor), round(photo.shape[1] * factor)))


def draw_samples(photos: Sequence[ImageArray], config: CompletionTrainingConfig, rng: np.random.Generator) -> Samples:
    """Draw a batch of crops, half of them mirrored, each with a hole and a patch of its own.

    Args:
        photos: (h, w, 3) uint8 each.
        config: the recipe.
        rng: source of all randomness.
    """
    crops = [_crop(photos[i], config, rng) for i in rng.integers(len(photos), size=config.batch_size)]
    drawn = [_hole_and_corner(config, rng) for _ in crops]
    others = [_hole_and_corner(config, rng) for _ in crops]
    return Samples(
        images=to_tensor(np.stack(crops)),
        holes=torch.from_numpy(np.stack([hole for hole, _ in drawn]))[:, None],
        corners=np.array([corner for _, corner in drawn]),
        other_corners=np.array([corner for _, corner in others]),
    )


def cut_patches(images: torch.Tensor, corners: NDArray[np.int64]) -> torch.Tensor:
    """Cut a patch of half the side out of each image: (B, C, S, S) and (B, 2) to (B, C, S / 2, S / 2)."""
    side = images.shape[-1] // 2
    patches = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(images, corners.tolist(), strict=True)]
    return torch.stack(patches)


def _crop(photo: ImageArray, config: CompletionTrainingConfig, rng: np.random.Generator) -> ImageArray:
    shorter, side = min(photo.shape[:2]), config.resolution
    length = min(shorter, round(rng.uniform(side, config.crop_scale * side)))
    y, x = (rng.integers(n - length + 1) for n in photo.shape[:2])
    crop = resize(photo[y : y + length, x : x + length], (side, side))
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _hole_and_corner(
    config: CompletionTrainingConfig, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Draw a rectangular hole, and the corner of a patch that contains it."""
    side = config.resolution
    low, high = (max(1, round(share * side)) for share in config.hole_size)
    lengths = rng.integers(low, high + 1, size=2)
    starts = [int(rng.integers(side - length + 1)) for length in lengths]
    hole = np.zeros((side, side), bool)
    hole[starts[0] : starts[0] + lengths[0], starts[1] : starts[1] + lengths[1]] = True
    corner = [
        int(rng.integers(max(0, start + length - side // 2), min(start, side - side // 2) + 1))
        for start, length in zip(starts, lengths, strict=True)
    ]
    return hole, (corner[0], corner[1])
