"""The training set of a fit: references and target, each at the scale and with the share that it is cropped with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from realfill.alignment import find_scale
from realfill.config import FitConfig, RankConfig
from realfill.filling.windows import Part
from realfill.fitting.batches import Hole, TrainingImage, reduced
from realfill.masks import bounding_box, dilate, resize_mask
from realfill.models.matcher import SiftMatcher
from realfill.registration import register
from realfill.scene import Scene

_HOLE_EDGE_PX = 6


def training_set(scene: Scene, parts: Sequence[Part], config: FitConfig, resolution: int) -> list[TrainingImage]:
    """Take the photos at the scales in which the hole will be filled: crops about as large as windows and tiles.

    Of the references' crops, ``aligned_share`` come from the references as they lie over the target, around the hole.

    Args:
        scene: with at least one reference.
        parts: of its hole, with the windows in which they will be filled.
        config: resolved.
        resolution: side in pixels of the crops as the model sees them; photos that are much larger are shrunk.

    Returns:
        The references as they are, those that lie over the target, and last the target.
    """
    finest, coarsest = (
        [np.sqrt(np.prod(p.windows[0].box_size)) / p.windows[0].scale * p.windows[i].scale for p in parts]
        for i in (-1, 0)
    )
    sides = (min(finest) * config.crop_scale[0], max(coarsest) * config.crop_scale[1])
    reach = max(coarsest)
    whole = TrainingImage(
        image=scene.known, known=~scene.mask, crop_sides_px=sides, reach_px=reach, share=config.target_share
    )
    target = reduced(whole, resolution)
    around = _registered(scene, parts, target) if config.aligned_share else []
    total = 1 - config.target_share
    aligned = total * config.aligned_share if around else 0.0
    photos = []
    for reference, scale in zip(scene.references, _scales(scene), strict=True):
        there = (sides[0] * scale, sides[1] * scale)
        share = (total - aligned) / len(scene.references)
        photo = TrainingImage(image=reference, crop_sides_px=there, reach_px=reach * scale, share=share)
        photos.append(reduced(photo, resolution))
    return [*photos, *(dataclasses.replace(photo, share=aligned / len(around)) for photo in around), target]


def _registered(scene: Scene, parts: Sequence[Part], target: TrainingImage) -> list[TrainingImage]:
    """Lay references over the target as it is learnt from, as far as crops around the hole can reach."""
    size, reach = target.image.shape[:2], math.ceil(target.crop_sides_px[1])
    y, x = size[0] / scene.mask.shape[0], size[1] / scene.mask.shape[1]
    top, left, bottom, right = bounding_box(scene.mask)
    region = (
        max(0, math.floor(top * y) - reach), max(0, math.floor(left * x) - reach),
        min(size[0], math.ceil(bottom * y) + reach), min(size[1], math.ceil(right * x) + reach),
    )  # fmt: skip
    corner = np.array([*region[:2], *region[:2]])
    boxes = tuple(tuple(np.array(part.hole) * (y, x, y, x) - corner) for part in parts)
    mask = resize_mask(scene.mask, size)[region[0] : region[2], region[1] : region[3]]
    return [
        TrainingImage(
            image=found.image.round().clip(0, 255).astype(np.uint8), known=found.covers,
            crop_sides_px=target.crop_sides_px, reach_px=target.reach_px, hole=Hole(mask=mask, boxes=boxes),
        )
        for found in register(scene.known, scene.mask, scene.references, size=size, region=region)
    ]  # fmt: skip


def _scales(scene: Scene) -> list[float]:
    """Find how large each reference shows what the target shows, by keypoints that need no weights."""
    matcher = SiftMatcher(RankConfig().resolve({}))
    target, near = matcher.extract(scene.known), dilate(scene.mask, _HOLE_EDGE_PX)
    found = []
    for reference in scene.references:
        matches = matcher.match(matcher.extract(reference), target)
        x, y = matches.keypoints1.round().astype(int).reshape(-1, 2).T
        real = ~near[y, x]  # the blank hole's edge is nothing to hold on to
        scale = find_scale(matches.keypoints1[real], matches.keypoints0[real], reference.shape[:2])
        if scale is None:  # as if it showed as much of the scene as the target does
            scale = float(np.sqrt(reference[:, :, 0].size / scene.mask.size))
        found.append(scale)
    return found
