"""Random crops of photos with random masks, and the noise of a training step (paper, section 3.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from realfill.compute.devices import send
from realfill.config import FitSettings
from realfill.io.images import ImageArray, MaskArray, resize
from realfill.scene.masks import dilate, random_mask, resize_mask

_MIN_KNOWN_SHARE = 0.05  # a crop with a smaller share of known pixels is drawn again
_MAX_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingImage:
    """A photo to train on, and how it is cropped.

    Attributes:
        image: (H, W, 3) uint8; unknown pixels are blank.
        known: (H, W) bool, the known pixels; ``None``: all pixels are known.
        crop_sides_px: smallest and largest side of a crop, in this photo's pixels. Sides are drawn log-uniformly.
        reach_px: crops up to this side may extend beyond the photo, where nothing is known. They show a small photo at
            the scale of a larger window. Other crops stay within the photo's shorter side.
        share: relative frequency of crops from this photo.
        mirror: flip half of the crops horizontally. Not meant for scenes, which have a left and a right.
        hole: crops are centred on the hole and hide it; ``None``: crops lie anywhere and have random masks.
        reference: index of the reference that the photo shows; -1: none.
    """

    image: ImageArray
    known: MaskArray | None = None
    crop_sides_px: tuple[float, float]
    reach_px: float = 0.0
    share: float = 1.0
    mirror: bool = False
    hole: Hole | None = None
    reference: int = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hole:
    """The target's hole, in a photo that shows what belongs there.

    Attributes:
        mask: (H, W) bool of the photo, True = fill.
        boxes: boxes around the parts of the hole: (top, left, bottom, right), the last two exclusive.
    """

    mask: MaskArray
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """A batch of crops with their masks.

    Attributes:
        images: (B, H, W, 3) uint8; unknown pixels have no meaning.
        known: (B, H, W) bool: the known pixels.
        learnt: (B, H, W) bool: the pixels that count in the loss.
        hidden: (B, H, W) bool: the pixels that the model must fill, including all unknown ones.
        references: (B,) int: index of the reference that each crop shows; -1: none.
        categories: (B,) int: what each crop hides, as an index into ``CATEGORIES``; ``None``: crops have no category.
        stages: (B,) int: the stage of filling at whose scale each crop is; ``None``: crops have no stage.
        hints: (B, H, W, 4) uint8: the hints among the hidden pixels, as RGB and confidence; a confidence of 0 means
            that there is none, and 255 that the pixel counts as known. ``None``: crops have no hints.
    """

    images: NDArray[np.uint8]
    known: NDArray[np.bool_]
    learnt: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    references: NDArray[np.int64]
    categories: NDArray[np.int64] | None = None
    stages: NDArray[np.int64] | None = None
    hints: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> Crops:
        values = {name: getattr(self, name) for name in Crops.__slots__}
        return Crops(**{name: value[rows] for name, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noising:
    """The random draws that each use of a crop needs.

    Attributes:
        prompted: (B,) bool: whether the crop is trained with the prompt, or with an empty one.
        quantiles: (B,) in [0, 1]: position on the noise schedule, 1 = most noise.
        noise: (2, B, C, h, w) standard normal: the first samples the VAE's posterior, the second is the noise that is
            added to the latents.
    """

    prompted: torch.Tensor
    quantiles: torch.Tensor
    noise: torch.Tensor

    def __getitem__(self, rows: slice) -> Noising:
        return Noising(prompted=self.prompted[rows], quantiles=self.quantiles[rows], noise=self.noise[:, rows])

    def to(self, device: torch.device) -> Noising:
        """Copy to a device."""
        return Noising(**{name: send(getattr(self, name), device) for name in Noising.__slots__})


def shrink_photo(photo: TrainingImage, resolution: int) -> TrainingImage:
    """Shrink a photo that is much larger than its crops need, so that memory and time do not grow with its size.

    The result has twice the scale of the smallest crops. Crops of it are the same up to rounding.

    Args:
        photo: the photo.
        resolution: side in pixels of the crops at the model's input.
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
    """Derive the random generators of a step from the seed and the step alone, so that a resumed fit draws the same."""
    rng = np.random.default_rng([seed, step])
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def draw_crops(
    photos: Sequence[TrainingImage], settings: FitSettings, resolution: int, num_crops: int, rng: np.random.Generator
) -> Crops:
    """Draw independent random crops with random masks.

    Unknown pixels, such as the target's hole, are hidden from the model together with the random mask. They do not
    count in the loss, and neither do known pixels within ``hole_margin_px`` of them.

    Args:
        photos: the photos to crop from.
        settings: the recipe.
        resolution: side in pixels of the crops at the model's input.
        num_crops: number of crops.
        rng: source of all randomness.
    """
    shares = np.array([p.share for p in photos])
    images, known, hidden, references = [], [], [], []
    for choice in rng.choice(len(photos), num_crops, p=shares / shares.sum()):
        image, known_mask, mask = random_crop(photos[choice], resolution, rng)
        if mask is None:
            mask = random_mask(
                image.shape[:2], rng, num_rectangles=settings.num_rectangles, rectangle_size=settings.rectangle_size,
                shapes=settings.mask_shapes, complement_share=settings.complement_share,
            )  # fmt: skip
        hide_all = rng.random() < settings.mask_dropout
        references.append(photos[choice].reference)
        images.append(image)
        known.append(known_mask)
        hidden.append(mask | hide_all | ~known_mask)
    learnt = [k if k.all() else ~dilate(~k, settings.hole_margin_px) for k in known]
    return Crops(
        images=np.stack(images), known=np.stack(known), learnt=np.stack(learnt), hidden=np.stack(hidden),
        references=np.array(references, np.int64),
    )  # fmt: skip


def draw_noising(
    settings: FitSettings, shape: tuple[int, int, int], rng: np.random.Generator, generator: torch.Generator
) -> Noising:
    """Draw noise, noise levels and prompt dropout for a batch of latents of shape (C, h, w)."""
    return Noising(
        prompted=torch.from_numpy(rng.random(settings.batch_size) >= settings.prompt_dropout),
        quantiles=torch.from_numpy(1 - rng.random(settings.batch_size) ** settings.noise_bias).float(),
        noise=torch.randn((2, settings.batch_size, *shape), generator=generator),
    )


def random_crop(
    photo: TrainingImage, resolution: int, rng: np.random.Generator
) -> tuple[ImageArray, MaskArray, MaskArray | None]:
    """Cut a random square and resize it to the model's input.

    Returns:
        The crop; its known pixels, which average known pixels only; and its hole, whose pixels average at least one
        pixel of the photo's hole, or ``None`` if the photo has no hole.
    """
    limit = max(min(photo.image.shape[:2]), photo.reach_px)
    num_tries = 0
    while True:
        side = math.exp(rng.uniform(*np.log(photo.crop_sides_px)))
        side = max(1, round(min(side, limit)))
        source, destination = _overlap(_draw_corner(photo, side, rng), side, photo.image.shape, resolution)
        known = np.zeros((resolution, resolution), bool)
        size = known[destination].shape
        known[destination] = True if photo.known is None else ~resize_mask(~photo.known[source], size)
        num_tries += 1
        if known.mean() >= _MIN_KNOWN_SHARE or num_tries == _MAX_TRIES:
            break
    image = np.zeros((resolution, resolution, 3), np.uint8)
    image[destination] = resize(photo.image[source], size)
    hole = None
    if photo.hole is not None:
        hole = np.zeros_like(known)
        hole[destination] = resize_mask(photo.hole.mask[source], size)
    if photo.mirror and rng.random() < 0.5:
        return image[:, ::-1], known[:, ::-1], hole[:, ::-1] if hole is not None else None
    return image, known, hole


def _overlap(
    corner: tuple[int, int], side: int, size: tuple[int, ...], resolution: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of a photo that a square covers, and the part of the resized square that shows it."""
    source, destination = [], []
    for start, length in zip(corner, size[:2], strict=True):
        first, last = max(0, start), min(length, start + side)
        source.append(slice(first, last))
        low, high = (round((edge - start) * resolution / side) for edge in (first, last))
        destination.append(slice(min(low, resolution - 1), max(high, low + 1)))
    return (source[0], source[1]), (destination[0], destination[1])


def _draw_corner(photo: TrainingImage, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the top left corner of a square: anywhere, or with a point of the hole as near to its centre as possible.

    Along each axis the square lies within the photo, or the photo within the square if that is larger.
    """
    rooms = [n - side for n in photo.image.shape[:2]]
    if photo.hole is None:
        y, x = (int(np.sign(room or 1) * rng.integers(abs(room) + 1)) for room in rooms)
        return y, x
    top, left, bottom, right = photo.hole.boxes[int(rng.integers(len(photo.hole.boxes)))]
    centre = rng.uniform(top, bottom), rng.uniform(left, right)
    y, x = (
        int(np.clip(round(c - side / 2), min(0, room), max(0, room))) for c, room in zip(centre, rooms, strict=True)
    )
    return y, x
