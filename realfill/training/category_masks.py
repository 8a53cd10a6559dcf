"""Masks of four kinds for the structure recipe: what a crop hides is foreground or background (PixelHacker)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from realfill.config import AdaptSettings, FitSettings
from realfill.io.images import ImageArray, MaskArray
from realfill.models.diffusion.structure import CATEGORIES, FOREGROUND
from realfill.scene.masks import dilate, random_mask
from realfill.segmentation.detection import Detector, find_instances
from realfill.segmentation.instances import Instance
from realfill.training.crops import Hole, TrainingImage, random_crop

KINDS = ("foreground object", "background object", "random background", "random background without an object")
"""The kinds of masks. The first hides foreground, the others hide background."""

_FOREGROUND, _BACKGROUND = CATEGORIES.index(FOREGROUND), 1 - CATEGORIES.index(FOREGROUND)
_MAX_INSTANCES = 20
_ROOM = 1.5  # side of the smallest crop around an object, as a multiple of the object's longer side
_GROWTH = 0.03  # of an outline, as a share of the crop's side, because the edge of an object is soft
_OUTLINE_SHARE = (0.2, 0.6)  # longer side of an outline that is laid elsewhere, as a share of the crop's
_LEAST_SHARE = 0.01  # of a crop that a mask hides
_MAX_TRIES = 10


class CategoryMasks:
    """Draws crops with masks of the four kinds. A photo without objects only has masks of the random kinds."""

    def __init__(self, detector: Detector, settings: AdaptSettings, fit: FitSettings) -> None:
        """Set up the masks.

        Args:
            detector: what finds the objects.
            settings: the classes that are foreground.
            fit: the shapes of random masks.

        Raises:
            ValueError: the detector does not know a class.
        """
        unknown = [name for name in settings.foreground_classes if name not in (*detector.classes, "*")]
        if unknown:
            raise ValueError(
                f"AdaptConfig.foreground_classes has {unknown[0]!r}, which the detector {detector.name!r} does not know"
                f"; legal: '*' or some of {', '.join(detector.classes)}"
            )
        self._detector, self._fit, self._foreground = detector, fit, settings.foreground_classes

    def find(self, image: ImageArray) -> tuple[Instance, ...]:
        """Find the objects in a photo, at most its 20 largest."""
        return find_instances(image, detector=self._detector, classes=self._foreground)[:_MAX_INSTANCES]

    def draw(
        self,
        photo: TrainingImage,
        instances: Sequence[Instance],
        kind: str,
        resolution: int,
        rngs: tuple[np.random.Generator, np.random.Generator],
    ) -> tuple[ImageArray, MaskArray, int]:
        """Draw a crop and its mask.

        Args:
            photo: the photo.
            instances: its objects.
            kind: one of ``KINDS``; if the photo has no object for it, another kind takes its place.
            resolution: side in pixels of the crop.
            rngs: generators of the crop and of the mask.

        Returns:
            The crop (resolution, resolution, 3), what it hides (resolution, resolution) bool, and the number of its
            category.
        """
        crop_rng, mask_rng = rngs
        front = [instance for instance in instances if self.is_foreground(instance)]
        if kind == "foreground object" and front:
            return *self._around(photo, _choose(front, mask_rng), resolution, crop_rng), _FOREGROUND
        back = [instance for instance in instances if not self.is_foreground(instance)]
        if kind == "background object" and back:
            return *self._around(photo, _choose(back, mask_rng), resolution, crop_rng), _BACKGROUND
        covered = np.zeros(photo.image.shape[:2], bool)
        for instance in front:
            covered[instance.place] |= instance.cut
        image, free, _ = random_crop(dataclasses.replace(photo, known=~covered), resolution, crop_rng)
        tries = (self._background(instances, kind, resolution, mask_rng) & free for _ in range(_MAX_TRIES))
        hidden = next((mask for mask in tries if mask.mean() >= _LEAST_SHARE), np.zeros_like(free))
        return image, hidden, _BACKGROUND

    def is_foreground(self, instance: Instance) -> bool:
        """Tell whether an object is of a foreground class."""
        return "*" in self._foreground or instance.name in self._foreground

    def _around(
        self, photo: TrainingImage, instance: Instance, resolution: int, rng: np.random.Generator
    ) -> tuple[ImageArray, MaskArray]:
        """Cut a crop around an object, with room beside it, that hides the object."""
        top, left, bottom, right = instance.box
        least = min(_ROOM * max(bottom - top, right - left), *photo.image.shape[:2])
        low, high = (max(side, least) for side in photo.crop_sides_px)
        y, x = (top + bottom) / 2, (left + right) / 2
        hole = Hole(mask=instance.mask, boxes=((y, x, y, x),))
        image, _, hidden = random_crop(
            dataclasses.replace(photo, hole=hole, crop_sides_px=(low, high)), resolution, rng
        )  # fmt: skip
        assert hidden is not None
        return image, dilate(np.ascontiguousarray(hidden), round(_GROWTH * resolution))

    def _background(
        self, instances: Sequence[Instance], kind: str, resolution: int, rng: np.random.Generator
    ) -> MaskArray:
        """Draw a mask of one of the background kinds: an object's outline that lies elsewhere, or random shapes."""
        outline = _lay(_choose(instances, rng), resolution, rng) if instances else np.zeros((resolution,) * 2, bool)
        if kind == "background object" and instances:
            return outline
        fit = self._fit
        shapes = random_mask(
            (resolution, resolution), rng, num_rectangles=fit.num_rectangles, rectangle_size=fit.rectangle_size,
            shapes=fit.mask_shapes, complement_share=fit.complement_share,
        )  # fmt: skip
        return shapes & ~outline if kind == "random background without an object" else shapes


def _choose(instances: Sequence[Instance], rng: np.random.Generator) -> Instance:
    return instances[int(rng.integers(len(instances)))]


def _lay(instance: Instance, resolution: int, rng: np.random.Generator) -> MaskArray:
    """Lay an outline anywhere in a crop, at a random size."""
    scale = rng.uniform(*_OUTLINE_SHARE) * resolution / max(instance.cut.shape)
    height, width = (max(1, round(n * scale)) for n in instance.cut.shape)
    cut = cv2.resize(instance.cut.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    mask = np.zeros((resolution, resolution), bool)
    y, x = rng.integers(resolution - height + 1), rng.integers(resolution - width + 1)
    mask[y : y + height, x : x + width] = cut
    return mask
