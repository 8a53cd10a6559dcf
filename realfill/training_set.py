"""The training set of a fit: references and target, each at the scales and with the shares that it is cropped with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realfill.config import FitConfig
from realfill.filling.windows import Box, Part
from realfill.fitting.batches import Hole, TrainingImage, reduced
from realfill.masks import bounding_box, resize_mask
from realfill.models.matcher import Matches
from realfill.registration import find_scale, match_references, register
from realfill.scene import Scene

_ALIKE = 1.2  # windows whose sides differ by less are learnt for together


def training_set(scene: Scene, parts: Sequence[Part], config: FitConfig, resolution: int) -> list[TrainingImage]:
    """Take the photos at the scales in which the hole will be filled: crops about as large as windows and tiles.

    Each photo comes once for each of these scales, all of which have the same share. Of the references' crops,
    ``aligned_share`` come from the references as they lie over the target, around the hole.

    Args:
        scene: with at least one reference.
        parts: of its hole, with the windows in which they will be filled.
        config: resolved.
        resolution: side in pixels of the crops as the model sees them; photos that are much larger are shrunk.

    Returns:
        For each scale, from fine to coarse: the references as they are, those that lie over the target, the target.
    """
    matches = match_references(scene.known, scene.mask, scene.references)
    views = _views(parts)
    found = []
    for view in views:
        share = len(view.holes) / sum(len(v.holes) for v in views)
        photos = _at_scale(scene, matches, view, config, resolution)
        found += [dataclasses.replace(photo, share=share * photo.share) for photo in photos]
    return found


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


def _at_scale(
    scene: Scene, matches: Sequence[Matches], view: _View, config: FitConfig, resolution: int
) -> list[TrainingImage]:
    sides = (view.sides_px[0] * config.crop_scale[0], view.sides_px[1] * config.crop_scale[1])
    reach = view.sides_px[1]
    whole = TrainingImage(
        image=scene.known, known=~scene.mask, crop_sides_px=sides, reach_px=reach, share=config.target_share
    )
    target = reduced(whole, resolution)
    around = _registered(scene, matches, view, target) if config.aligned_share else []
    total = 1 - config.target_share
    aligned = total * config.aligned_share if around else 0.0
    photos = []
    for reference, pairs in zip(scene.references, matches, strict=True):
        scale = find_scale(pairs, reference.shape)
        if scale is None:  # as if it showed as much of the scene as the target does
            scale = float(np.sqrt(reference[:, :, 0].size / scene.mask.size))
        there = (sides[0] * scale, sides[1] * scale)
        share = (total - aligned) / len(scene.references)
        photo = TrainingImage(image=reference, crop_sides_px=there, reach_px=reach * scale, share=share)
        photos.append(reduced(photo, resolution))
    return [*photos, *(dataclasses.replace(photo, share=aligned / len(around)) for photo in around), target]


def _registered(scene: Scene, matches: Sequence[Matches], view: _View, target: TrainingImage) -> list[TrainingImage]:
    """Lay references over the target as it is learnt from, as far as crops around the hole can reach."""
    size, reach = target.image.shape[:2], math.ceil(target.crop_sides_px[1])
    y, x = size[0] / scene.mask.shape[0], size[1] / scene.mask.shape[1]
    top, left, bottom, right = bounding_box(scene.mask)
    region = (
        max(0, math.floor(top * y) - reach), max(0, math.floor(left * x) - reach),
        min(size[0], math.ceil(bottom * y) + reach), min(size[1], math.ceil(right * x) + reach),
    )  # fmt: skip
    corner = np.array([*region[:2], *region[:2]])
    boxes = tuple(tuple(np.array(hole) * (y, x, y, x) - corner) for hole in view.holes)
    mask = resize_mask(scene.mask, size)[region[0] : region[2], region[1] : region[3]]
    return [
        TrainingImage(
            image=found.image, known=found.covers, crop_sides_px=target.crop_sides_px, reach_px=target.reach_px,
            hole=Hole(mask=mask, boxes=boxes),
        )
        for found in register(scene.known, scene.mask, scene.references, matches=matches, size=size, region=region)
    ]  # fmt: skip
