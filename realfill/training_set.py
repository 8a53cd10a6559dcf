"""The training set of a fit: references and target, each at the scale and with the share that it is cropped with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realfill.alignment import find_scale
from realfill.config import FitConfig, RankConfig
from realfill.filling.windows import Part
from realfill.fitting.batches import Hole, TrainingImage
from realfill.masks import dilate
from realfill.models.matcher import SiftMatcher
from realfill.registration import register
from realfill.scene import Scene

_HOLE_EDGE_PX = 6


def training_set(scene: Scene, parts: Sequence[Part], config: FitConfig) -> list[TrainingImage]:
    """Take the photos at the scales in which the hole will be filled: crops about as large as windows and tiles.

    Of the references' crops, ``aligned_share`` come from the references as they lie over the target, around the hole.

    Args:
        scene: with at least one reference.
        parts: of its hole, with the windows in which they will be filled.
        config: resolved.

    Returns:
        The references as they are, those that lie over the target, and last the target.
    """
    finest, coarsest = (
        [np.sqrt(np.prod(p.windows[0].box_size)) / p.windows[0].scale * p.windows[i].scale for p in parts]
        for i in (-1, 0)
    )
    sides = (min(finest) * config.crop_scale[0], max(coarsest) * config.crop_scale[1])
    registered = register(scene.known, scene.mask, scene.references) if config.aligned_share else []
    total = 1 - config.target_share
    aligned = total * config.aligned_share if registered else 0.0
    photos = []
    for reference, scale in zip(scene.references, _scales(scene), strict=True):
        there = (sides[0] * scale, sides[1] * scale)
        share = (total - aligned) / len(scene.references)
        photos.append(TrainingImage(image=reference, crop_sides_px=there, share=share))
    hole = Hole(mask=scene.mask, boxes=tuple(part.hole for part in parts))
    for found in registered:
        image = found.image.round().clip(0, 255).astype(np.uint8)
        share = aligned / len(registered)
        photos.append(TrainingImage(image=image, known=found.covers, crop_sides_px=sides, share=share, hole=hole))
    target = TrainingImage(image=scene.known, known=~scene.mask, crop_sides_px=sides, share=config.target_share)
    return [*photos, target]


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
