"""Photos of a folder, for training on many of them: listed, split into parts, and read when a step needs them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from realfill.config import AdaptSettings, FitSettings
from realfill.errors import SceneError, warn
from realfill.io.images import ImageArray, MaskArray, read_image
from realfill.io.recognition import find_fault
from realfill.scene.masks import random_mask
from realfill.segmentation.instances import Instance
from realfill.training.category_masks import KINDS, CategoryMasks
from realfill.training.crops import Crops, TrainingImage, random_crop, shrink_photo

_CACHE_BYTES = 1 << 30
_MIN_SIDE_PX = 64  # smaller photos are icons
_MASKS, _ORDER = 1, 2  # the purpose of a generator is part of its seed
_NUM_NAMED = 5
_MAX_DRAWN = 1000  # crops at a time: a gigabyte at 512 pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoParts:
    """Files to train on, to validate on and to test on; crops of one photo are in one part."""

    training: tuple[Path, ...]
    validation: tuple[Path, ...]
    test: tuple[Path, ...]


def list_photos(photos: Path | Sequence[Path]) -> list[Path]:
    """List the photos of a folder, at any depth, or check a list of files.

    Files that are no photos or are smaller than 64 pixels are left out, with a warning that names them.

    Raises:
        SceneError: the folder does not exist, or holds no photos.
    """
    if isinstance(photos, Path):
        if not photos.is_dir():
            raise SceneError(f"{str(photos)!r} is not a folder; legal: a folder of photos")
        paths = sorted(p for p in photos.rglob("*") if p.is_file() and not p.name.startswith("."))
    else:
        paths = list(photos)
    faults = {path: find_fault(path) or _find_smallness(path) for path in paths}
    if others := [f"{path.name} ({fault})" for path, fault in faults.items() if fault is not None]:
        more = f" and {len(others) - _NUM_NAMED} more" if len(others) > _NUM_NAMED else ""
        warn(f"these files are left out: {', '.join(others[:_NUM_NAMED])}{more}")
    found = [path for path, fault in faults.items() if fault is None]
    if not found:
        raise SceneError(f"{str(photos)!r} holds no photos; legal: a folder with at least three, as JPEG, PNG or TIFF")
    return found


def split_photos(paths: Sequence[Path], shares: tuple[float, float, float]) -> PhotoParts:
    """Split photos into three parts by a hash of their names, so that more photos change the parts of few.

    Files whose names differ only in a last ``-0``, ``-1`` and so on are crops of one photo and stay together.

    Args:
        paths: the files.
        shares: shares of the parts, which add up to 1.

    Raises:
        SceneError: there are fewer than three photos.
    """
    names = {path: re.sub(r"-\d{1,2}$", "", path.stem) for path in paths}
    order = sorted(set(names.values()), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if len(order) < len(shares):
        raise SceneError(
            f"there are {len(order)} photos; legal: at least three, to train on, to validate on and to test on"
        )
    num_validation, num_test = (max(1, round(len(order) * share)) for share in shares[1:])
    num_others = min(num_validation + num_test, len(order) - 1)
    num_test = min(num_test, num_others - 1)
    test, validation = set(order[:num_test]), set(order[num_test:num_others])
    return PhotoParts(
        training=tuple(p for p in paths if names[p] not in test | validation),
        validation=tuple(p for p in paths if names[p] in validation),
        test=tuple(p for p in paths if names[p] in test),
    )


class PhotoFolder:
    """Photos with a fixed number of masks each, drawn in epochs. Only a bounded number of photos is held in memory."""

    def __init__(
        self,
        paths: Sequence[Path],
        settings: AdaptSettings,
        fit: FitSettings,
        resolution: int,
        masks: CategoryMasks | None = None,
    ) -> None:
        """Set up without reading a photo.

        Args:
            paths: the files.
            settings: masks and crops.
            fit: settings of the training loop.
            resolution: side in pixels of the crops at the model's input.
            masks: what draws masks by category. ``None``: all masks are random.
        """
        self._paths, self._settings, self._fit, self._resolution = tuple(paths), settings, fit, resolution
        self._masks = masks
        self._instances: dict[int, tuple[Instance, ...]] = {}  # found once, because that takes longer than reading
        longest_px = 2 * resolution * 2 ** (settings.num_stages - 1) / settings.crop_share[0]
        num_cached = max(8, int(_CACHE_BYTES / (3 * 1.5 * longest_px**2)))
        self._read = functools.lru_cache(maxsize=num_cached)(self._read_photo)

    @property
    def num_items(self) -> int:
        """Number of pairs of a photo and a mask."""
        return len(self._paths) * self._settings.masks_per_photo

    def count_with_objects(self, num_steps: int) -> int:
        """Count the photos with a foreground object.

        Args:
            num_steps: the number of steps whose photos count. Those that were drawn before a training was resumed are
                looked at again.
        """
        if self._masks is None:
            return 0
        numbers = range(min(num_steps * self._fit.batch_size, self.num_items))
        drawn = {self._training_image(index)[0] for index in {self._item(number)[0] for number in numbers}}
        return sum(any(map(self._masks.is_foreground, self._find(index))) for index in drawn)

    def draw_batch(self, step: int, rng: np.random.Generator) -> Crops:
        """Draw the crops of a step. Each epoch shows each photo with each of its masks once, in a new order.

        Args:
            step: the step, counted from 0.
            rng: the step's generator.
        """
        size = self._fit.batch_size
        items = [self._item(number) for number in range(step * size, (step + 1) * size)]
        return self._crops(items, rng)

    def draw_all(self, seed: int, *, masks_per_photo: int = 1) -> Crops:
        """Draw photos, each once with each of its first masks, up to 1,000 crops; only the seed decides the result."""
        num_photos = min(len(self._paths), _MAX_DRAWN)
        num_masks = min(masks_per_photo, max(1, _MAX_DRAWN // num_photos))
        items = [(photo, mask) for photo in range(num_photos) for mask in range(num_masks)]
        return self._crops(items, np.random.default_rng([seed, _MASKS]))

    def _item(self, number: int) -> tuple[int, int]:
        """Return photo and mask of the draw with a number, counted over all epochs."""
        epoch, place = divmod(number, self.num_items)
        order = _permutation(self.num_items, self._fit.seed, epoch)
        return divmod(int(order[place]), self._settings.masks_per_photo)

    def _crops(self, items: Sequence[tuple[int, int]], rng: np.random.Generator) -> Crops:
        drawn = [self._crop(index, number, rng) for index, number in items]
        images, hidden, categories, stages = zip(*drawn, strict=True)
        known = np.ones((len(items), self._resolution, self._resolution), bool)
        crops = Crops(
            images=np.stack(images), known=known, learnt=known, hidden=np.stack(hidden),
            references=np.full(len(items), -1, np.int64),
        )  # fmt: skip
        if not self._settings.is_structured:
            return crops
        return dataclasses.replace(crops, categories=np.array(categories), stages=np.array(stages))

    def _crop(self, index: int, number: int, rng: np.random.Generator) -> tuple[ImageArray, MaskArray, int, int]:
        """Draw a crop of a photo with one of its masks: the crop, what it hides, its category and its stage."""
        side, fit = self._resolution, self._fit
        index, photo = self._training_image(index)
        stage = _stage_of(number, self._settings.num_stages)
        photo = dataclasses.replace(photo, crop_sides_px=self._crop_sides_px(photo, stage))
        mask_rng = np.random.default_rng([fit.seed, index, number, _MASKS])
        if self._masks is not None:
            kind = KINDS[number % len(KINDS)]
            image, hidden, category = self._masks.draw(photo, self._find(index), kind, side, (rng, mask_rng))
            return image, hidden, category, stage
        hidden = random_mask(
            (side, side), mask_rng, num_rectangles=fit.num_rectangles, rectangle_size=fit.rectangle_size,
            shapes=fit.mask_shapes, complement_share=fit.complement_share,
        )  # fmt: skip
        return random_crop(photo, side, rng)[0], hidden, 0, stage

    def _find(self, index: int) -> tuple[Instance, ...]:
        """Find the objects in an intact photo, once."""
        if index not in self._instances and self._masks is not None:
            self._instances[index] = self._masks.find(self._training_image(index)[1].image)
        return self._instances[index]

    def _crop_sides_px(self, photo: TrainingImage, stage: int) -> tuple[float, float]:
        """Halve the sides of crops at each stage, but not below the photo's own resolution."""
        least = min(self._resolution, *photo.crop_sides_px)
        low, high = (max(side / 2**stage, least) for side in photo.crop_sides_px)
        return low, high

    def _training_image(self, index: int) -> tuple[int, TrainingImage]:
        """Read a photo, and return its index; a damaged one is named once, and the next one takes its place."""
        for later in range(len(self._paths)):
            place = (index + later) % len(self._paths)
            if (photo := self._read(place)) is not None:
                return place, photo
        raise SceneError(f"none of {len(self._paths)} photos can be read; legal: intact photos")

    def _read_photo(self, index: int) -> TrainingImage | None:
        path = self._paths[index]
        try:
            image = read_image(path, path.name)[0]
        except SceneError as error:
            warn(f"{path.name} is left out: {error}")
            return None
        finest = self._resolution * 2 ** (self._settings.num_stages - 1)
        return shrink_photo(_to_crop(image, self._settings), finest)


def _stage_of(number: int, num_stages: int) -> int:
    """Return the stage of a photo's mask: all stages take turns, and in time each meets every kind of mask."""
    return (number + number // math.lcm(num_stages, len(KINDS))) % num_stages


def _to_crop(image: ImageArray, settings: AdaptSettings) -> TrainingImage:
    shorter = min(image.shape[:2])
    low, high = (share * shorter for share in settings.crop_share)
    return TrainingImage(image=image, crop_sides_px=(low, high), mirror=settings.mirror)


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, _ORDER]).permutation(length)


def _find_smallness(path: Path) -> str | None:
    """Return the reason if a photo is too small to learn from."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # reading it reports the damage
    too_small = min(width, height) < _MIN_SIDE_PX
    return f"{width} x {height} pixels, fewer than {_MIN_SIDE_PX} a side" if too_small else None


def steps_per_epoch(num_items: int, batch_size: int) -> int:
    """Number of optimizer steps that show each item once; the last batch of an epoch may reach into the next."""
    return math.ceil(num_items / batch_size)
