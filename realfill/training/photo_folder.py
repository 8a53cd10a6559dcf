"""Photos of a folder, for training on many of them: listed, split into parts, and read when a step needs them."""

from __future__ import annotations

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
from realfill.io.images import ImageArray, read_image
from realfill.io.recognition import find_fault
from realfill.scene.masks import random_mask
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

    def __init__(self, paths: Sequence[Path], settings: AdaptSettings, fit: FitSettings, resolution: int) -> None:
        """Set up without reading a photo.

        Args:
            paths: the files.
            settings: masks and crops.
            fit: settings of the training loop.
            resolution: side in pixels of the crops at the model's input.
        """
        self._paths, self._settings, self._fit, self._resolution = tuple(paths), settings, fit, resolution
        longest_px = 2 * resolution / settings.crop_share[0]
        num_cached = max(8, int(_CACHE_BYTES / (3 * 1.5 * longest_px**2)))
        self._read = functools.lru_cache(maxsize=num_cached)(self._read_photo)

    @property
    def num_items(self) -> int:
        """Number of pairs of a photo and a mask."""
        return len(self._paths) * self._settings.masks_per_photo

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
        side, fit = self._resolution, self._fit
        images, hidden = [], []
        for index, number in items:
            images.append(random_crop(self._training_image(index), side, rng)[0])
            mask_rng = np.random.default_rng([fit.seed, index, number, _MASKS])
            hidden.append(
                random_mask(
                    (side, side), mask_rng, num_rectangles=fit.num_rectangles, rectangle_size=fit.rectangle_size,
                    shapes=fit.mask_shapes, complement_share=fit.complement_share,
                )
            )  # fmt: skip
        known = np.ones((len(items), side, side), bool)
        return Crops(
            images=np.stack(images), known=known, learnt=known, hidden=np.stack(hidden),
            references=np.full(len(items), -1, np.int64),
        )  # fmt: skip

    def _training_image(self, index: int) -> TrainingImage:
        """Read a photo; a damaged one is named once, and the next one takes its place."""
        for later in range(len(self._paths)):
            if (photo := self._read((index + later) % len(self._paths))) is not None:
                return photo
        raise SceneError(f"none of {len(self._paths)} photos can be read; legal: intact photos")

    def _read_photo(self, index: int) -> TrainingImage | None:
        path = self._paths[index]
        try:
            image = read_image(path, path.name)[0]
        except SceneError as error:
            warn(f"{path.name} is left out: {error}")
            return None
        return shrink_photo(_to_crop(image, self._settings), self._resolution)


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
