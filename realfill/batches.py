"""Batches: random crops of photos with random masks, what a training step sees (paper, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from realfill.config import FitConfig
from realfill.images import ImageArray, MaskArray, resize, to_tensor
from realfill.masks import dilate, fill_smooth, random_mask, resize_mask

_MIN_KNOWN = 0.05  # share of known pixels below which a crop is drawn anew


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingImage:
    """A photo to learn from.

    Attributes:
        image: (H, W, 3) uint8; what isn't known is blank.
        known: (H, W) bool; ``None``: all of it.
        crop_sides_px: least and greatest side of a crop in this photo's pixels, drawn evenly on a logarithmic scale.
        share: how often crops come from it, in proportion to the others' shares.
        mirror: turn every other crop's left to right. Not for a scene, where left is left.
        hole: crops lie around it, and it is what is hidden in them; ``None``: they lie anywhere, under random masks.
    """

    image: ImageArray
    known: MaskArray | None = None
    crop_sides_px: tuple[float, float]
    share: float = 1.0
    mirror: bool = False
    hole: Hole | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hole:
    """What shall be filled, in a photo that shows what belongs there.

    Attributes:
        mask: (H, W) bool of the photo, True = fill.
        boxes: around its parts: (top, left, bottom, right), the last two exclusive.
    """

    mask: MaskArray
    boxes: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What one step sees.

    Attributes:
        images: (B, 3, H, W) float in [0, 1]; what isn't known is filled smoothly.
        learnt: (B, 1, H, W) bool: the pixels that count in the loss.
        hidden: (B, 1, H, W) bool: the pixels that the model isn't shown, all unknown ones among them.
        prompted: (B,) bool: whether a crop comes with the prompt.
        quantiles: (B,) in [0, 1]: how much noise.
    """

    images: torch.Tensor
    learnt: torch.Tensor
    hidden: torch.Tensor
    prompted: torch.Tensor
    quantiles: torch.Tensor


def step_rng(seed: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """Derive a step's randomness from the seed and the step alone, so that a resumed run draws the same."""
    rng = np.random.default_rng([seed, step])
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def draw_batch(photos: Sequence[TrainingImage], config: FitConfig, resolution: int, rng: np.random.Generator) -> Batch:
    """Draw independent random crops with random masks.

    The target is trained on what it shows: its hole is hidden from the model together with the random mask, and only
    known pixels, ``hole_margin_px`` away from the hole, count in the loss.

    Args:
        photos: what to crop from.
        config: resolved.
        resolution: side in pixels of the crops as the model sees them.
        rng: where all randomness comes from.
    """
    shares = np.array([p.share for p in photos])
    images, known, hidden = [], [], []
    for choice in rng.choice(len(photos), config.batch_size, p=shares / shares.sum()):
        photo = photos[choice]
        image, seen, mask = _random_crop(photo, resolution, rng)
        if mask is None:
            mask = random_mask(
                image.shape[:2], rng, num_rectangles=config.num_rectangles, rectangle_size=config.rectangle_size
            )
        everything = rng.random() < config.mask_dropout
        images.append(image)
        known.append(seen)
        hidden.append(mask | everything | ~seen)
    learnt = np.stack([~dilate(~k, config.hole_margin_px) for k in known])[:, None]
    unknown = torch.from_numpy(~np.stack(known)[:, None])
    return Batch(
        images=fill_smooth(to_tensor(np.stack(images)), unknown),
        learnt=torch.from_numpy(learnt),
        hidden=torch.from_numpy(np.stack(hidden)[:, None]),
        prompted=torch.from_numpy(rng.random(config.batch_size) >= config.prompt_dropout),
        quantiles=torch.from_numpy(1 - rng.random(config.batch_size) ** config.noise_bias).float(),
    )


def _random_crop(
    photo: TrainingImage, resolution: int, rng: np.random.Generator
) -> tuple[ImageArray, MaskArray, MaskArray | None]:
    """Cut a square at random and bring it to the model's size, with what is known of it and where the hole is.

    A pixel is known if all that it averages is, and of the hole if any is.
    """
    size = (resolution, resolution)
    box, known = (slice(None), slice(None)), np.ones(size, bool)
    for _ in range(20):
        side = math.exp(rng.uniform(*np.log(photo.crop_sides_px)))
        side = max(1, round(min(side, *photo.image.shape[:2])))
        y, x = _place(photo, side, rng)
        box = slice(y, y + side), slice(x, x + side)
        if photo.known is not None:
            known = ~resize_mask(~photo.known[box], size)
        if known.mean() >= _MIN_KNOWN:
            break
    image = resize(photo.image[box], size)
    hole = resize_mask(photo.hole.mask[box], size) if photo.hole is not None else None
    if photo.mirror and rng.random() < 0.5:
        return image[:, ::-1], known[:, ::-1], hole[:, ::-1] if hole is not None else None
    return image, known, hole


def _place(photo: TrainingImage, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a square's top left corner: anywhere, or so that a point of the hole is in its middle if that can be."""
    size = photo.image.shape[:2]
    if photo.hole is None:
        y, x = (int(rng.integers(n - side + 1)) for n in size)
        return y, x
    top, left, bottom, right = photo.hole.boxes[int(rng.integers(len(photo.hole.boxes)))]
    middle = rng.uniform(top, bottom), rng.uniform(left, right)
    y, x = (int(np.clip(round(c - side / 2), 0, n - side)) for c, n in zip(middle, size, strict=True))
    return y, x
