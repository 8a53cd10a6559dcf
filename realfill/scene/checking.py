"""Checks of photos and masks: errors for input that cannot be used, warnings for input that looks like a mistake."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from realfill.errors import SceneError, warn
from realfill.io.images import ImageArray, MaskArray
from realfill.io.photos import Photo
from realfill.scene.masks import bounding_box, dilate

MIN_SIDE_PX = 32
MIN_TRANSPARENT_SHARE = 0.005  # a smaller share of transparent pixels causes no warning
_MAX_SAMPLES = 200_000  # pixels that suffice to tell a blank area from a photo
_MIN_MIXED_SHARE, _MIN_MIXED_LEVELS = (
    0.07,
    2,
)  # least difference by which border pixels are nearer to the colour in the hole
_MIN_BORDER_PX = 100


def check_size(image: NDArray, what: str) -> None:
    """Check that an image (H, W, C) is large enough.

    Args:
        image: the image.
        what: the role of the image in the scene, for the error message.

    Raises:
        SceneError: a side is shorter than 32 pixels.
    """
    if min(image.shape[:2]) < MIN_SIDE_PX:
        raise SceneError(f"{what} is {describe_size(image)} pixels; legal: at least {MIN_SIDE_PX} on each side")


def check_arrays(
    known: NDArray, hole: MaskArray, references: Sequence[NDArray], masks: Sequence[MaskArray | None]
) -> None:
    """Check arrays that come without a ``Scene``.

    Args:
        known: (H, W, 3) uint8 or uint16.
        hole: (H, W) bool.
        references: each (h, w, 3) uint8 or uint16.
        masks: for each reference (h, w) bool, or ``None``.

    Raises:
        SceneError: an array has another shape or type.
    """
    if len(masks) != len(references):
        raise SceneError(f"there are {len(masks)} masks of references; legal: {len(references)}, one for each")
    photos = [("the target", known, hole)]
    photos += [(f"reference {i}", *pair) for i, pair in enumerate(zip(references, masks, strict=True))]
    for what, image, mask in photos:
        if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.size):
            raise SceneError(f"{what} has the shape {np.shape(image)}; legal: (H, W, 3)")
        if image.dtype not in (np.uint8, np.uint16):
            raise SceneError(f"{what} is an array of {image.dtype}; legal: uint8 or uint16")
        if mask is not None and (getattr(mask, "dtype", None) != np.bool_ or mask.shape != image.shape[:2]):
            raise SceneError(f"the mask of {what} has the shape {np.shape(mask)}; legal: {image.shape[:2]}, of bool")


def check_mask(mask: MaskArray, target: ImageArray, *, is_outline: bool = False) -> None:
    """Check a mask against the target.

    Args:
        mask: (H, W) bool, True = fill.
        target: (H, W, 3) uint8 sRGB.
        is_outline: whether a detector has drawn the mask, so that it is not inverted.

    Raises:
        SceneError: the sizes differ, or the mask is empty or covers the whole target.
    """
    if mask.shape != target.shape[:2]:
        is_turned = mask.shape == target.shape[1::-1]
        hint = "the EXIF rotation of the target was undone; turn the mask too" if is_turned else "resize the mask"
        raise SceneError(
            f"the mask is {describe_size(mask)} pixels and the target {describe_size(target)}; legal: the same size; "
            f"{hint}"
        )
    if not mask.any():
        raise SceneError("the mask is empty, so there is nothing to fill; legal: white (True) marks what to fill")
    if mask.all():
        raise SceneError(
            "the mask covers the whole target, so no known pixel is left; legal: black (False) marks what to keep. "
            "To generate whole images, use variants()"
        )
    blank_outside, blank_inside = _is_uniform(target, ~mask), _is_uniform(target, mask)
    if blank_inside and _is_mixed_at_the_border(target, mask):
        warn(
            "the known pixels next to the hole look mixed with the blank area in it, as after resizing; they would "
            "stay and discolour the completion. Grow the mask: scene.dilated(2) or --dilation-px 2"
        )
    if not is_outline and not blank_inside and (blank_outside or mask.mean() > 0.5):
        warn(
            f"the mask hides {100 * mask.mean():.0f} % of the target, and the hidden part looks like a photo"
            f"{' while the rest is blank' if blank_outside else ''}; is the mask inverted? White (True) marks what to "
            "fill"
        )


def check_known(target: Photo, mask: MaskArray) -> None:
    """Warn if the target is transparent outside of the mask."""
    share = 0.0 if target.transparent is None else float((target.transparent & ~mask).mean())
    if share > MIN_TRANSPARENT_SHARE:
        warn(
            f"{100 * share:.0f} % of the target is transparent outside of the mask; the colours of these pixels count "
            "as known. Add them to the mask, or crop the target to its opaque part"
        )


def describe_size(image: NDArray) -> str:
    """Format the size of an image as width x height."""
    return f"{image.shape[1]} x {image.shape[0]}"


def _is_uniform(image: ImageArray, where: MaskArray) -> bool:
    step = 1 + int(where.sum()) // _MAX_SAMPLES
    pixels = image.reshape(-1, 3)[::step][where.reshape(-1)[::step]]
    return float(np.abs(pixels.astype(np.int16) - np.median(pixels, axis=0)).mean()) < 1


def _is_mixed_at_the_border(target: ImageArray, mask: MaskArray) -> bool:
    """Tell whether the first known pixel is nearer to the hole's colour than the second, by more than photos vary."""
    top, left, bottom, right = bounding_box(mask)
    near = slice(max(0, top - 4), bottom + 4), slice(max(0, left - 4), right + 4)
    target, mask = target[near], mask[near]
    step = 1 + int(mask.sum()) // _MAX_SAMPLES
    colour = target.reshape(-1, 3)[::step][mask.reshape(-1)[::step]].mean(axis=0)
    grown = [mask, *(dilate(mask, radius) for radius in (1, 2, 3, 4))]
    rings = [outer & ~inner for inner, outer in pairwise(grown)]
    if min(ring.sum() for ring in rings) < _MIN_BORDER_PX:
        return False
    first, second, _, fourth = (float(np.abs(target[ring] - colour).mean()) for ring in rings)
    return second - first > max(_MIN_MIXED_LEVELS, _MIN_MIXED_SHARE * second, 1.5 * abs(fourth - second))
