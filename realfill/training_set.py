"""The training set of a fit: references and target, each at the scales and with the shares that it is cropped with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realfill.config import FitConfig
from realfill.filling.windows import Part
from realfill.fitting.batches import Hole, TrainingImage, reduced
from realfill.io.images import ImageArray, MaskArray
from realfill.masks import Box, resize_mask
from realfill.models.matcher import Matches
from realfill.registration import find_scale, match_references, register
from realfill.scene import Scene

_ALIKE = 1.2  # windows whose sides differ by less are learnt for together


def training_set(scene: Scene, parts: Sequence[Part], config: FitConfig, resolution: int) -> list[TrainingImage]:
    """Take the photos at the scales in which the hole will be filled: crops about as large as windows and tiles.

    Each photo comes once for each of these scales, whose shares go by how many windows and stages have them. Of the
    references' crops, ``aligned_share`` come from the references as they lie over the target, around the hole.

    Args:
        scene: with at least one reference.
        parts: of its hole, with the windows in which they will be filled.
        config: resolved.
        resolution: side in pixels of the crops as the model sees them; photos that are much larger are shrunk.

    Returns:
        For each scale, from fine to coarse: the references as they are, those that lie over the target, the target.
    """
    known = scene.known
    matches = match_references(known, scene.mask, scene.references)
    photos = _Photos(
        known=known, mask=scene.mask, references=scene.references, matches=matches,
        scales=[_scale(*pair, scene.mask.size) for pair in zip(scene.references, matches, strict=True)],
    )  # fmt: skip
    views = _views(parts)
    found = []
    for view in views:
        share = len(view.holes) / sum(len(v.holes) for v in views)
        seen = _at_scale(photos, view, config, resolution)
        found += [dataclasses.replace(photo, share=share * photo.share) for photo in seen]
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Photos:
    """A scene's photos as they are.

    Attributes:
        known: (H, W, 3) uint8, the target, blank in the hole.
        mask: (H, W) bool, True = the hole.
        references: each (h, w, 3) uint8.
        matches: of each reference with the target.
        scales: of each, its pixels to one of the target's.
    """

    known: ImageArray
    mask: MaskArray
    references: Sequence[ImageArray]
    matches: Sequence[Matches]
    scales: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """A scale in which the hole will be filled.

    Attributes:
        sides_px: least and greatest side of its windows or tiles, in the target's pixels.
        holes: around the parts of the hole that are filled in it.
    """

    sides_px: tuple[float, float]
    holes: tuple[Box, ...]


def _views(parts: Sequence[Part]) -> list[_View]:
    """Find the scales of windows and of the tiles of later stages, fine to coarse; those alike are one."""
    windows = [(math.sqrt(math.prod(p.windows[0].size)) * w.scale, p.hole) for p in parts for w in p.windows]
    groups: list[list[tuple[float, Box]]] = []
    for side, hole in sorted(windows):
        if not groups or side > _ALIKE * groups[-1][0][0]:
            groups.append([])
        groups[-1].append((side, hole))
    return [_View(sides_px=(group[0][0], group[-1][0]), holes=tuple(hole for _, hole in group)) for group in groups]


def _scale(reference: ImageArray, matches: Matches, num_pixels: int) -> float:
    """Find how large a reference shows what the target shows; else as if it showed as much of the scene."""
    found = find_scale(matches, reference.shape)
    return found if found is not None else float(np.sqrt(reference[:, :, 0].size / num_pixels))


def _at_scale(photos: _Photos, view: _View, config: FitConfig, resolution: int) -> list[TrainingImage]:
    sides = (view.sides_px[0] * config.crop_scale[0], view.sides_px[1] * config.crop_scale[1])
    reach = view.sides_px[1]
    whole = TrainingImage(
        image=photos.known, known=~photos.mask, crop_sides_px=sides, reach_px=reach, share=config.target_share
    )
    target = reduced(whole, resolution)
    around = _registered(photos, view, target) if config.aligned_share else []
    total = 1 - config.target_share
    aligned = total * config.aligned_share if around else 0.0
    share = (total - aligned) / len(photos.references)
    plain = [
        reduced(
            TrainingImage(
                image=reference, crop_sides_px=(sides[0] * scale, sides[1] * scale), reach_px=reach * scale, share=share
            ),
            resolution,
        )
        for reference, scale in zip(photos.references, photos.scales, strict=True)
    ]
    return [*plain, *(dataclasses.replace(photo, share=aligned / len(around)) for photo in around), target]


def _registered(photos: _Photos, view: _View, target: TrainingImage) -> list[TrainingImage]:
    """Lay references over the target as it is learnt from, as far as crops around the view's holes can reach."""
    size, reach = target.image.shape[:2], math.ceil(target.crop_sides_px[1])
    y, x = size[0] / photos.mask.shape[0], size[1] / photos.mask.shape[1]
    holes = np.array(view.holes) * (y, x, y, x)
    (top, left), (bottom, right) = np.floor(holes[:, :2].min(axis=0)), np.ceil(holes[:, 2:].max(axis=0))
    region = (
        max(0, int(top) - reach), max(0, int(left) - reach),
        min(size[0], int(bottom) + reach), min(size[1], int(right) + reach),
    )  # fmt: skip
    boxes = tuple(tuple(hole - [*region[:2], *region[:2]]) for hole in holes)
    mask = resize_mask(photos.mask, size)[region[0] : region[2], region[1] : region[3]]
    layers = register(
        photos.known, photos.mask, photos.references, matches=photos.matches, size=size, region=region
    )  # fmt: skip
    return [
        TrainingImage(
            image=layer.image, known=layer.covers, crop_sides_px=target.crop_sides_px, reach_px=target.reach_px,
            hole=Hole(mask=mask, boxes=boxes),
        )
        for layer in layers
    ]  # fmt: skip
