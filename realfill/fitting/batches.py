"""Batches: random crops of photos with random masks, and the noise to remove from them (paper, section 3.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from realfill.config import FitConfig
from realfill.io.images import ImageArray, MaskArray, resize
from realfill.masks import dilate, random_mask, resize_mask

_MIN_KNOWN, _MOST_TRIES = 0.05, 20  # share of known pixels below which a crop is drawn anew, so often


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingImage:
    """A photo to learn from.

    Attributes:
        image: (H, W, 3) uint8; what isn't known is blank.
        known: (H, W) bool; ``None``: all of it.
        crop_sides_px: least and greatest side of a crop in this photo's pixels, drawn evenly on a logarithmic scale.
        reach_px: side up to which crops may reach beyond the photo's edges, where nothing is known: they show it at the
            scale of a window that is larger than the photo. All crops lie within the photo's shorter side or this.
        share: how often crops come from it, in proportion to the others' shares.
        mirror: turn every other crop's left to right. Not for a scene, where left is left.
        hole: crops lie around it, and it is what is hidden in them; ``None``: they lie anywhere, under random masks.
    """

    image: ImageArray
    known: MaskArray | None = None
    crop_sides_px: tuple[float, float]
    reach_px: float = 0.0
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
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """Crops and their masks, as they were drawn.

    Attributes:
        images: (B, H, W, 3) uint8; what isn't known is not to be looked at.
        known: (B, H, W) bool.
        learnt: (B, H, W) bool: the pixels that count in the loss.
        hidden: (B, H, W) bool: the pixels that the model isn't shown, all unknown ones among them.
    """

    images: NDArray[np.uint8]
    known: NDArray[np.bool_]
    learnt: NDArray[np.bool_]
    hidden: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> Crops:
        return Crops(**{name: getattr(self, name)[rows] for name in Crops.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noising:
    """What is drawn afresh at each use of a crop.

    Attributes:
        prompted: (B,) bool: whether it comes with the prompt.
        quantiles: (B,) in [0, 1]: how much noise.
        noise: (2, B, C, h, w) standard normal: for the VAE's posterior, and what is to be removed.
    """

    prompted: torch.Tensor
    quantiles: torch.Tensor
    noise: torch.Tensor

    def __getitem__(self, rows: slice) -> Noising:
        return Noising(prompted=self.prompted[rows], quantiles=self.quantiles[rows], noise=self.noise[:, rows])


def reduced(photo: TrainingImage, resolution: int) -> TrainingImage:
    """Shrink a photo once to twice the scale that its smallest crops are used at, if it is larger.

    Crops are drawn as before, up to rounding; memory and time no longer grow with the photo.

    Args:
        photo: what is cropped from, anywhere.
        resolution: side in pixels of the crops as the model sees them.
    """
    height, width = photo.image.shape[:2]
    factor = min(photo.crop_sides_px[0], height, width) / (2 * resolution)
    if factor < 2:
        return photo
    size = (round(height / factor), round(width / factor))
    return dataclasses.replace(
        photo,
        image=resize(photo.image, size),
        known=None if photo.known is None else ~resize_mask(~photo.known, size),
        crop_sides_px=(photo.crop_sides_px[0] / factor, photo.crop_sides_px[1] / factor),
        reach_px=photo.reach_px / factor,
    )


def step_rng(seed: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """Derive a step's randomness from the seed and the step alone, so that a resumed run draws the same."""
    rng = np.random.default_rng([seed, step])
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def draw_crops(
    photos: Sequence[TrainingImage], config: FitConfig, resolution: int, num_crops: int, rng: np.random.Generator
) -> Crops:
    """Draw independent random crops with random masks.

    The target is trained on what it shows: its hole is hidden from the model together with the random mask, and only
    known pixels, ``hole_margin_px`` away from the hole, count in the loss.

    Args:
        photos: what to crop from.
        config: resolved.
        resolution: side in pixels of the crops as the model sees them.
        num_crops: how many.
        rng: where all randomness comes from.
    """
    shares = np.array([p.share for p in photos])
    images, known, hidden = [], [], []
    for choice in rng.choice(len(photos), num_crops, p=shares / shares.sum()):
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
    learnt = [k if k.all() else ~dilate(~k, config.hole_margin_px) for k in known]
    return Crops(images=np.stack(images), known=np.stack(known), learnt=np.stack(learnt), hidden=np.stack(hidden))


def draw_noising(
    config: FitConfig, shape: tuple[int, int, int], rng: np.random.Generator, generator: torch.Generator
) -> Noising:
    """Draw what each use of a crop draws afresh, for a step's batch of latents of a shape (C, h, w)."""
    return Noising(
        prompted=torch.from_numpy(rng.random(config.batch_size) >= config.prompt_dropout),
        quantiles=torch.from_numpy(1 - rng.random(config.batch_size) ** config.noise_bias).float(),
        noise=torch.randn((2, config.batch_size, *shape), generator=generator),
    )


def _random_crop(
    photo: TrainingImage, resolution: int, rng: np.random.Generator
) -> tuple[ImageArray, MaskArray, MaskArray | None]:
    """Cut a square at random and bring it to the model's size, with what is known of it and where the hole is.

    A pixel is known if all that it averages is, and of the hole if any is. Beyond the photo's edges nothing is known.
    """
    limit = max(min(photo.image.shape[:2]), photo.reach_px)
    tries = 0
    while True:
        side = math.exp(rng.uniform(*np.log(photo.crop_sides_px)))
        side = max(1, round(min(side, limit)))
        box, place = _overlap(_place(photo, side, rng), side, photo.image.shape, resolution)
        known = np.zeros((resolution, resolution), bool)
        known[place] = True if photo.known is None else ~resize_mask(~photo.known[box], known[place].shape)
        tries += 1
        if known.mean() >= _MIN_KNOWN or tries == _MOST_TRIES:
            break
    image = np.zeros((resolution, resolution, 3), np.uint8)
    image[place] = resize(photo.image[box], known[place].shape)
    hole = None
    if photo.hole is not None:
        hole = np.zeros_like(known)
        hole[place] = resize_mask(photo.hole.mask[box], hole[place].shape)
    if photo.mirror and rng.random() < 0.5:
        return image[:, ::-1], known[:, ::-1], hole[:, ::-1] if hole is not None else None
    return image, known, hole


def _overlap(
    corner: tuple[int, int], side: int, size: tuple[int, ...], resolution: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Tell which part of a photo a square shows, and where in the square at the model's size it comes to lie."""
    box, place = [], []
    for start, length in zip(corner, size[:2], strict=True):
        first, last = max(0, start), min(length, start + side)
        box.append(slice(first, last))
        low, high = (round((edge - start) * resolution / side) for edge in (first, last))
        place.append(slice(min(low, resolution - 1), max(high, low + 1)))
    return (box[0], box[1]), (place[0], place[1])


def _place(photo: TrainingImage, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a square's top left corner: anywhere, or so that a point of the hole is in its middle if that can be.

    The square lies within the photo, or along a way that it is larger the photo within it.
    """
    rooms = [n - side for n in photo.image.shape[:2]]
    if photo.hole is None:
        y, x = (int(np.sign(room or 1) * rng.integers(abs(room) + 1)) for room in rooms)
        return y, x
    top, left, bottom, right = photo.hole.boxes[int(rng.integers(len(photo.hole.boxes)))]
    middle = rng.uniform(top, bottom), rng.uniform(left, right)
    y, x = (
        int(np.clip(round(c - side / 2), min(0, room), max(0, room))) for c, room in zip(middle, rooms, strict=True)
    )
    return y, x
