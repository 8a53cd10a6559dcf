"""Batches: random crops of photos with random masks, and the noise to remove from them (paper, section 3.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from realfill.alignment import Similarity
from realfill.config import FitConfig
from realfill.images import ImageArray, MaskArray, resize
from realfill.masks import dilate, random_mask, resize_mask

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
        aligned: where the target's hole lies in this photo, if that is known.
    """

    image: ImageArray
    known: MaskArray | None = None
    crop_sides_px: tuple[float, float]
    share: float = 1.0
    mirror: bool = False
    aligned: AlignedHole | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlignedHole:
    """The target's hole, and how a photo lies to the target.

    Attributes:
        mask: (H, W) bool of the target, True = fill.
        similarity: from the target's pixels to the photo's. Crops aren't turned: only its scale and place are used.
        box: around the hole: (top, left, bottom, right), the last two exclusive.
    """

    mask: MaskArray
    similarity: Similarity
    box: tuple[int, int, int, int]


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
        photo: what is cropped from.
        resolution: side in pixels of the crops as the model sees them.
    """
    height, width = photo.image.shape[:2]
    factor = min(photo.crop_sides_px[0], height, width) / (2 * resolution)
    if factor < 2:
        return photo
    size = (round(height / factor), round(width / factor))
    aligned = photo.aligned
    if aligned is not None:
        rows, columns = size[0] / height, size[1] / width
        scale = np.array([[columns, 0, columns / 2 - 0.5], [0, rows, rows / 2 - 0.5], [0, 0, 1]])  # pixel centres stay
        matrix = (scale @ np.vstack([aligned.similarity.matrix, [0, 0, 1]]))[:2]
        aligned = dataclasses.replace(aligned, similarity=Similarity(matrix=matrix))
    return dataclasses.replace(
        photo,
        image=resize(photo.image, size),
        known=None if photo.known is None else ~resize_mask(~photo.known, size),
        crop_sides_px=(photo.crop_sides_px[0] / factor, photo.crop_sides_px[1] / factor),
        aligned=aligned,
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
        if photo.aligned is not None and rng.random() < config.aligned_share:
            image, mask = _aligned_crop(photo, photo.aligned, resolution, rng)
            seen = np.ones_like(mask)
        else:
            image, seen = _random_crop(photo, resolution, rng)
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


def _random_crop(photo: TrainingImage, resolution: int, rng: np.random.Generator) -> tuple[ImageArray, MaskArray]:
    """Cut a square at random and bring it to the model's size; a pixel is known if all that it averages is."""
    size = (resolution, resolution)
    box, known = (slice(None), slice(None)), np.ones(size, bool)
    for _ in range(20):
        side = math.exp(rng.uniform(*np.log(photo.crop_sides_px)))
        side = max(1, round(min(side, *photo.image.shape[:2])))
        y, x = (int(rng.integers(n - side + 1)) for n in photo.image.shape[:2])
        box = slice(y, y + side), slice(x, x + side)
        if photo.known is not None:
            known = ~resize_mask(~photo.known[box], size)
        if known.mean() >= _MIN_KNOWN:
            break
    image = resize(photo.image[box], size)
    return (image[:, ::-1], known[:, ::-1]) if photo.mirror and rng.random() < 0.5 else (image, known)


def _aligned_crop(
    photo: TrainingImage, hole: AlignedHole, resolution: int, rng: np.random.Generator
) -> tuple[ImageArray, MaskArray]:
    """Cut a square where the photo shows the hole's surroundings; the second value is the hole as it lies in it."""
    height, width = photo.image.shape[:2]
    top, left, bottom, right = hole.box
    scale = hole.similarity.scale
    side = max(1, round(min(math.exp(rng.uniform(*np.log(photo.crop_sides_px))), height, width)))
    # a point of the hole at the centre, as far as the photo reaches
    x, y = hole.similarity(rng.uniform(left, right), rng.uniform(top, bottom))
    corner = [int(np.clip(round(c - side / 2), 0, n - side)) for c, n in ((x, width), (y, height))]
    image = resize(photo.image[corner[1] : corner[1] + side, corner[0] : corner[0] + side], (resolution, resolution))
    x, y = hole.similarity.inverse(corner[0] + side / 2, corner[1] + side / 2)
    own = max(1, round(side / scale))  # the same square in the target's pixels
    box = [int(np.clip(round(c - own / 2), -own, n)) for c, n in zip((y, x), hole.mask.shape, strict=True)]
    cut = np.zeros((own, own), bool)
    rows, columns = (slice(max(0, b), max(0, b + own)) for b in box)
    inside = hole.mask[rows, columns]
    y, x = rows.start - box[0], columns.start - box[1]
    cut[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return image, resize_mask(cut, (resolution, resolution))
