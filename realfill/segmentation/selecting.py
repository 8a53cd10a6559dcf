"""From a ``SelectionConfig`` to a mask: by hand, or by a detector with a rule for who stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from realfill.config.selection import SelectionConfig
from realfill.errors import SceneError
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_photo
from realfill.io.photos import Photo
from realfill.scene.mask_reading import MaskReading
from realfill.scene.mask_sources import combine, mask_of_boxes, mask_of_colour, mask_of_polygons, read_mask_for
from realfill.scene.masks import Box
from realfill.segmentation.detection import Detector, find_instances
from realfill.segmentation.instances import Instances
from realfill.segmentation.selection import GROWTH, mask_from, of_numbers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selected:
    """What a selection says about a photo.

    Attributes:
        reading: the mask and its description.
        instances: what was found or marked; ``None`` if nothing was looked for.
        protected: (H, W) bool, pixels of those who stay; ``None`` if nobody was told to.
    """

    reading: MaskReading
    instances: Instances | None = None
    protected: MaskArray | None = None


def select(
    photo: ImageLike,
    config: SelectionConfig,
    *,
    detector: Detector | None = None,
    growth: float = GROWTH,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
) -> Selected:
    """Make the mask that a selection describes.

    Args:
        photo: a path, a PIL image or an array.
        config: the selection.
        detector: a loaded detector, for many photos. ``None``: it is loaded by its name in ``config``.
        growth: how far outlines grow where ``config.grow_px`` is open; see ``mask_from``.
        device: where a network computes. ``None``: the best available.
        local_files_only: do not download weights.

    Raises:
        NothingToRemoveError: the detector finds nothing to remove, or everything that it finds stays.
        SceneError: the photo or the mask cannot be used, or nothing is left.
        ValueError: a number, a point or a box is illegal.
        BaseModelError: the detector cannot be loaded.
    """
    opened = read_photo(photo, "the photo")
    image = opened.srgb()
    chosen = detector if detector is not None else config.detector
    without = [] if config.without is None else [read_mask_for(config.without, image, photo_name=_name(photo))]
    if config.by_hand:
        return _by_hand(
            photo, opened, image, config, chosen, without, device, growth, local_files_only=local_files_only
        )
    instances = find_instances(
        image, detector=chosen, classes=config.drop, threshold=config.threshold, device=device,
        local_files_only=local_files_only,
    )  # fmt: skip
    keep = _kept(instances, config)
    of_numbers(instances, config.only, "SelectionConfig.only")
    reading = mask_from(
        instances, classes=config.drop, numbers=config.only or None, keep=keep, dilation_px=config.grow_px,
        growth=growth, carried=config.carried, ground_contact=config.shadows,
    )  # fmt: skip
    stays = [instances[number].mask for number in keep] + [r.mask for r in without]
    return Selected(
        reading=combine([reading], without) if without else reading,
        instances=instances,
        protected=np.logical_or.reduce(stays) if stays else None,
    )


def numbers_of(text: str, what: str, count: int | None = None) -> tuple[float, ...]:
    """Read numbers separated by commas.

    Args:
        text: for example ``512,300``.
        what: the option, for the error message.
        count: how many there must be. ``None``: an even number, at least six.

    Raises:
        ValueError: the text has another form.
    """
    forms = {2: "x,y", 4: "left,top,right,bottom"}
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    is_legal = len(values) == count if count is not None else len(values) >= 6 and len(values) % 2 == 0
    if not is_legal or not np.isfinite(values).all():
        form = "x,y,x,y,x,y" if count is None else forms[count]
        raise ValueError(f"SelectionConfig.{what} is {text!r}; legal: {form} in pixels")
    return values


def _by_hand(
    photo: ImageLike,
    opened: Photo,
    image: ImageArray,
    config: SelectionConfig,
    detector: str | Detector,
    without: Sequence[MaskReading],
    device: str | torch.device | None,
    growth: float,
    *,
    local_files_only: bool,
) -> Selected:
    size = (image.shape[0], image.shape[1])
    parts = _drawn(photo, opened, image, config)
    grown = [combine([part], grown_px=config.grow_px or 0) for part in parts]
    instances = None
    if config.box or config.click:
        instances = find_instances(
            image, detector=detector, boxes=[_box(text, "box") for text in config.box],
            clicks=[_point(text, "click") for text in config.click], device=device, local_files_only=local_files_only,
        )  # fmt: skip
        grown.append(mask_from(instances, dilation_px=config.grow_px, growth=growth, ground_contact=config.shadows))
    reading = combine(grown, without)
    if reading.mask.shape != size:
        raise SceneError("the mask has another size than the photo; legal: the same size")
    if reading.mask.all():
        raise SceneError(
            "the mask covers the whole photo, so no known pixel is left; legal: a mask that leaves some of the photo"
        )
    protected = np.logical_or.reduce([r.mask for r in without]) if without else None
    return Selected(reading=reading, instances=instances, protected=protected)


def _drawn(photo: ImageLike, opened: Photo, image: ImageArray, config: SelectionConfig) -> list[MaskReading]:
    """Collect the masks that are given as they are."""
    size = (image.shape[0], image.shape[1])
    parts = []
    if config.mask is not None:
        parts.append(read_mask_for(config.mask, image, photo_name=_name(photo)))
    if config.fill_box:
        parts.append(mask_of_boxes([_box(text, "fill_box") for text in config.fill_box], size))
    if config.polygon:
        polygons = [np.reshape(numbers_of(text, "polygon"), (-1, 2)).tolist() for text in config.polygon]
        parts.append(mask_of_polygons(polygons, size))
    if config.colour is not None:
        parts.append(mask_of_colour(image, config.colour))
    if config.transparent:
        if opened.transparent is None:
            raise SceneError("the photo has no transparent pixels; use a PNG or TIFF with an erased part")
        parts.append(MaskReading(mask=opened.transparent, source="the transparent pixels of the photo"))
    return parts


def _kept(instances: Instances, config: SelectionConfig) -> list[int]:
    """Collect the numbers of those who stay."""
    keep = [instance.number for instance in of_numbers(instances, config.keep, "SelectionConfig.keep")]
    candidates = instances.of(config.drop)
    if config.keep_largest and candidates:
        keep.append(candidates[0].number)
    for text in config.keep_at:
        point = _point(text, "keep_at")
        instance = instances.at(point)
        if instance is None:
            listed = "; ".join(repr(i) for i in instances) or "nothing was found"
            raise ValueError(
                f"SelectionConfig.keep_at is {text!r}, where no instance is; legal: a point on one ({listed})"
            )
        keep.append(instance.number)
    return list(dict.fromkeys(keep))


def _point(text: str, what: str) -> tuple[float, float]:
    x, y = numbers_of(text, what, 2)
    return x, y


def _box(text: str, what: str) -> Box:
    left, top, right, bottom = (round(n) for n in numbers_of(text, what, 4))
    return top, left, bottom, right


def _name(photo: ImageLike) -> str | None:
    return Path(photo).name if isinstance(photo, str | PathLike) else None
