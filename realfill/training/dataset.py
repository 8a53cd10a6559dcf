"""The training set of a scene: references and target, with the scales and shares of their crops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realfill.config import FitSettings
from realfill.geometry.matching import Matches
from realfill.geometry.warping import estimate_scale, warp_references
from realfill.io.images import ImageArray, MaskArray
from realfill.scene.masks import Box, resize_mask
from realfill.scene.scene import Scene
from realfill.scene.windows import Part
from realfill.training.crops import Hole, TrainingImage, shrink_photo

_SAME_SCALE = 1.2  # windows whose sides differ by a smaller factor share a scale


def training_set(
    scene: Scene,
    parts: Sequence[Part],
    settings: FitSettings,
    resolution: int,
    *,
    matches: Sequence[Matches],
) -> list[TrainingImage]:
    """Prepare a scene's photos for crops at the scales at which the hole will be filled.

    Each photo occurs once per scale, with a share in proportion to the number of windows and stages at that scale. A
    share ``warped_share`` of the references' crops comes from references warped to the target view, around the hole.

    Args:
        scene: a scene with at least one reference.
        parts: the parts of the scene's hole, with their windows.
        settings: the recipe.
        resolution: side in pixels of the crops at the model's input; much larger photos are shrunk.
        matches: the matches of each reference with the target.

    Returns:
        For each scale, from fine to coarse: the references, the warped references, and the target.
    """
    photos = _Photos(
        known=scene.known, mask=scene.mask, references=scene.references, reference_masks=scene.reference_masks,
        matches=matches,
        scales=[_relative_scale(*pair, scene.mask.shape) for pair in zip(scene.references, matches, strict=True)],
    )  # fmt: skip
    scales = _find_scales(parts)
    num_holes = sum(len(scale.holes) for scale in scales)
    return [
        dataclasses.replace(photo, share=len(scale.holes) / num_holes * photo.share)
        for scale in scales
        for photo in _photos_at_scale(photos, scale, settings, resolution)
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Photos:
    """A scene's photos in full size.

    Attributes:
        known: (H, W, 3) uint8: the target, blank in the hole.
        mask: (H, W) bool, True = the hole.
        references: each (h, w, 3) uint8.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``.
        matches: the matches of each reference with the target.
        scales: pixels of each reference per pixel of the target.
    """

    known: ImageArray
    mask: MaskArray
    references: Sequence[ImageArray]
    reference_masks: Sequence[MaskArray | None]
    matches: Sequence[Matches]
    scales: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """A scale at which the hole will be filled.

    Attributes:
        sides_px: smallest and largest side of its windows or tiles, in the target's pixels.
        holes: boxes around the parts of the hole that are filled at this scale.
    """

    sides_px: tuple[float, float]
    holes: tuple[Box, ...]


def _find_scales(parts: Sequence[Part]) -> list[_Scale]:
    """Group windows, and the tiles of later stages, by their scale, from fine to coarse."""
    windows = [(math.sqrt(math.prod(p.windows[0].size)) * w.scale, p.hole) for p in parts for w in p.windows]
    groups: list[list[tuple[float, Box]]] = []
    for side, hole in sorted(windows):
        if not groups or side > _SAME_SCALE * groups[-1][0][0]:
            groups.append([])
        groups[-1].append((side, hole))
    return [_Scale(sides_px=(group[0][0], group[-1][0]), holes=tuple(hole for _, hole in group)) for group in groups]


def _relative_scale(reference: ImageArray, matches: Matches, target_size: tuple[int, ...]) -> float:
    """Return the reference's pixels per pixel of the target; without matches, assume that both show as much."""
    scale = estimate_scale(matches, reference.shape, target_size)
    return scale if scale is not None else float(np.sqrt(reference[:, :, 0].size / math.prod(target_size)))


def _photos_at_scale(
    photos: _Photos, scale: _Scale, settings: FitSettings, resolution: int
) -> list[TrainingImage]:  # fmt: skip
    """Prepare all photos for one scale, with shares that add up to 1."""
    sides = (scale.sides_px[0] * settings.crop_scale[0], scale.sides_px[1] * settings.crop_scale[1])
    reach = scale.sides_px[1]
    target = TrainingImage(
        image=photos.known, known=~photos.mask, crop_sides_px=sides, reach_px=reach, share=settings.target_share
    )
    target = shrink_photo(target, resolution)
    warped = _warp_references(photos, scale, target) if settings.warped_share else []
    total = 1 - settings.target_share
    warped_total = total * settings.warped_share if warped else 0.0
    share = (total - warped_total) / len(photos.references)
    each = zip(photos.references, photos.reference_masks, photos.scales, strict=True)
    references = [
        TrainingImage(
            image=image, known=None if excluded is None else ~excluded,
            crop_sides_px=(sides[0] * zoom, sides[1] * zoom), reach_px=reach * zoom, share=share, reference=index,
        )
        for index, (image, excluded, zoom) in enumerate(each)
    ]  # fmt: skip
    return [
        *(shrink_photo(photo, resolution) for photo in references),
        *(dataclasses.replace(photo, share=warped_total / len(warped)) for photo in warped),
        target,
    ]


def _warp_references(photos: _Photos, scale: _Scale, target: TrainingImage) -> list[TrainingImage]:
    """Warp references to the shrunk target's view, within the region that crops around the hole can reach."""
    size, reach = target.image.shape[:2], math.ceil(target.crop_sides_px[1])
    y, x = size[0] / photos.mask.shape[0], size[1] / photos.mask.shape[1]
    holes = np.array(scale.holes) * (y, x, y, x)
    (top, left), (bottom, right) = np.floor(holes[:, :2].min(axis=0)), np.ceil(holes[:, 2:].max(axis=0))
    region = (
        max(0, int(top) - reach), max(0, int(left) - reach),
        min(size[0], int(bottom) + reach), min(size[1], int(right) + reach),
    )  # fmt: skip
    boxes = tuple(tuple(hole - [*region[:2], *region[:2]]) for hole in holes)
    mask = resize_mask(photos.mask, size)[region[0] : region[2], region[1] : region[3]]
    warps = warp_references(
        photos.known, photos.mask, photos.references, matches=photos.matches, reference_masks=photos.reference_masks,
        size=size, region=region,
    )  # fmt: skip
    return [
        TrainingImage(
            image=warp.image, known=warp.valid_mask, crop_sides_px=target.crop_sides_px, reach_px=target.reach_px,
            hole=Hole(mask=mask, boxes=boxes), reference=warp.reference,
        )
        for warp in warps
    ]  # fmt: skip
