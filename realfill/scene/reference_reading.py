"""Reading references, and the masks of the parts of them that are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike

import numpy as np
from PIL import Image

from realfill.config import MAX_REFERENCES
from realfill.errors import SceneError, warn
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_photo
from realfill.scene.checking import MIN_TRANSPARENT_SHARE, check_size, describe_size
from realfill.scene.mask_reading import read_mask

_MANY = 1000  # an endless iterable is not read further


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class References:
    """The references of a scene, all tuples of the same length.

    Attributes:
        images: each (H, W, 3) uint8 sRGB, zero under its mask.
        masks: for each reference the part that is left out, (H, W) bool; ``None``: nothing.
        focals: for each reference the focal length in pixels that EXIF states, or ``None``.
    """

    images: tuple[ImageArray, ...]
    masks: tuple[MaskArray | None, ...]
    focals: tuple[float | None, ...]


def read_references(
    references: Iterable[ImageLike], masks: Iterable[ImageLike | MaskArray | None] | None = None
) -> References:
    """Read and check references.

    Args:
        references: the photos.
        masks: for each photo the part to leave out, in any of the forms of ``realfill.scene.mask_reading``, or
            ``None``.

    Raises:
        SceneError: there are too many, or a photo or a mask cannot be used.
    """
    sources = _listed(references, "references", "photo")
    if len(sources) > MAX_REFERENCES:
        count = f"{len(sources)} references" if len(sources) < _MANY else f"{_MANY} references or more"
        raise SceneError(f"there are {count}; legal: up to {MAX_REFERENCES}; keep those that show the hole")
    mask_sources = [None] * len(sources) if masks is None else _listed(masks, "reference_masks", "mask")
    if len(mask_sources) != len(sources):
        raise SceneError(
            f"there are {len(mask_sources)} reference_masks and {len(sources)} references; legal: one for each "
            "reference, None where nothing is left out"
        )
    images, excluded, focals = [], [], []
    for i, (source, mask_source) in enumerate(zip(sources, mask_sources, strict=True)):
        image, focal = _read_reference(source, f"reference {i}", is_masked=mask_source is not None)
        mask = None if mask_source is None else _read_excluded(mask_source, image, i)
        images.append(image if mask is None else np.where(mask[:, :, None], np.uint8(0), image))
        excluded.append(mask)
        focals.append(focal)
    return References(images=tuple(images), masks=tuple(excluded), focals=tuple(focals))


def _listed(values: Iterable, name: str, item: str) -> Sequence:
    is_single = isinstance(values, str | bytes | PathLike | Image.Image)
    if is_single or (isinstance(values, np.ndarray) and values.ndim < (4 if item == "photo" else 3)):
        raise SceneError(f"{name} is a single {item}; legal: a list or another iterable of {item}s")
    if not isinstance(values, Iterable):
        raise SceneError(f"{name} is a {type(values).__name__}; legal: a list or another iterable of {item}s")
    return list(islice(values, _MANY))


def _read_reference(source: ImageLike, what: str, *, is_masked: bool) -> tuple[ImageArray, float | None]:
    photo = read_photo(source, what)
    image, transparent = photo.srgb(), photo.fainter_than(0.5)
    check_size(image, what)
    if transparent is not None and transparent.mean() > MIN_TRANSPARENT_SHARE and not is_masked:
        warn(
            f"{what} is transparent in {100 * transparent.mean():.0f} % of its pixels, and the model learns their "
            "colours too. Crop it to its opaque part, flatten it, or leave the part out with a reference mask"
        )
    return image, photo.focal_px


def _read_excluded(source: ImageLike | MaskArray, image: ImageArray, number: int) -> MaskArray | None:
    """Read the mask of a reference; ``None`` if it is empty."""
    what = f"the mask of reference {number}"
    try:
        mask = read_mask(source, image).mask
    except SceneError as error:
        raise SceneError(str(error).replace("the mask", what, 1)) from error
    if mask.shape != image.shape[:2]:
        is_turned = mask.shape == image.shape[1::-1]
        hint = "the EXIF rotation of the photo was undone; turn the mask too" if is_turned else "resize the mask"
        raise SceneError(
            f"{what} is {describe_size(mask)} pixels and the photo {describe_size(image)}; legal: the same size; {hint}"
        )
    if mask.all():
        raise SceneError(
            f"{what} covers the whole photo; legal: white (True) marks the part to leave out. Remove the photo if "
            "nothing of it is to be used"
        )
    return mask if mask.any() else None
