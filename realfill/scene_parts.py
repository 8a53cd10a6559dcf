"""A scene's parts: photos and masks found, read and checked, with what is wrong said at the door."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realfill.config import MAX_REFERENCES
from realfill.errors import RealFillWarning, SceneError
from realfill.io.images import IMAGE_SUFFIXES, ImageArray, ImageLike, MaskArray, natural_key, read_image, read_photo
from realfill.io.photos import Photo
from realfill.margins import Margins
from realfill.masks import bounding_box, dilate

MIN_SIDE_PX = 32
_OTHER_PHOTOS = frozenset((".arw", ".cr2", ".cr3", ".dng", ".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2"))
_FEW = 0.005  # share of a photo below which transparent pixels are passed over
_SOME = 200_000  # pixels are enough to tell a blank from a photo
_MIXED, _MIXED_LEVELS = 0.07, 2  # of their distance from the hole's colour border pixels lack such a share, and so much
_MIN_BORDER_PX = 100


def find_parts(directory: str | PathLike[str]) -> tuple[list[Path], Path, Path | None]:
    """Find a scene's files in RealBench's layout: references, in natural order, target, and mask if there is one.

    Raises:
        SceneError: there is no folder or no target.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise SceneError(f"there is no folder {str(folder)!r}; a scene is a folder with ref/, target/target.png ...")
    target = find_image(folder / "target", "target")
    if target is None:
        raise SceneError(f"{str(folder)!r} has no target/target.png; legal: ref/*, target/target.png, target/mask.png")
    files = list((folder / "ref").glob("*"))
    references = sorted((p for p in files if _is_image(p)), key=natural_key)
    skipped = sorted(p.name for p in files if p.suffix.lower() in _OTHER_PHOTOS)
    if skipped:
        warnings.warn(
            f"these photos in {str(folder / 'ref')!r} can't be read and are left out: {', '.join(skipped)}. Save them "
            "as PNG or JPEG", RealFillWarning, stacklevel=3,
        )  # fmt: skip
    return references, target, find_image(folder / "target", "mask")


def find_image(folder: Path, stem: str) -> Path | None:
    """Find an image by its name without suffix, a PNG before others; ``None``: there is none."""
    found = sorted(p for p in folder.glob(f"{stem}.*") if _is_image(p) and p.stem == stem)
    return next((p for p in found if p.suffix.lower() == ".png"), found[0] if found else None)


def read_mask(source: ImageLike | MaskArray) -> MaskArray:
    """Read a mask: (H, W) bool, True = fill.

    Args:
        source: a bool array; or an image: white (above half) = fill; in one of only 0 and 1, 1 = fill. In an
            image of one colour with an alpha channel, transparent = fill; but where less than half of it is opaque and
            white, as strokes on a layer are, these are filled.

    Raises:
        SceneError: the file or array can't be read.
    """
    if isinstance(source, np.ndarray) and np.issubdtype(source.dtype, np.integer) and source.max(initial=0) == 1:
        source = source.astype(bool)
    image, transparent = read_image(source, "the mask")
    opaque = image if transparent is None else image[~transparent]
    if transparent is not None and (not opaque.size or (opaque == opaque[0]).all()):
        if not 0 < opaque.shape[0] < transparent.size / 2 or opaque[0].min() <= 127:
            return transparent
        warnings.warn(
            f"the mask is white in {1 - transparent.mean():.0%} and transparent elsewhere: what is white is filled. If "
            "that should be what is transparent, save the mask without transparency, white = fill",
            RealFillWarning,
            stacklevel=3,
        )
        return ~transparent
    return image.max(axis=2) > (0 if image.max() == 1 else 127)


def read_parts(
    references: Sequence[ImageLike], target: ImageLike, mask: ImageLike | MaskArray | None
) -> tuple[tuple[ImageArray, ...], Photo, MaskArray, ImageArray]:
    """Read and check all of a scene: references, the target as its file holds it, the mask, the target in sRGB.

    Raises:
        SceneError: a part is missing or can't be used.
    """
    photos = read_references(references, depth=2)
    photo = read_photo(target, "the target")
    hole = read_mask(mask) if mask is not None else _erased(photo)
    if hole is None:
        raise SceneError("there is no mask, and the target has no transparent pixels; give a mask, white = fill")
    check_size(photo.pixels, "the target")
    image = photo.srgb()
    _check_mask(hole, image)
    _check_known(photo, hole)
    return photos, photo, hole, image


def lay_out(photo: Photo, mask: ImageLike | MaskArray | None, margins: Margins) -> tuple[Photo, MaskArray, ImageArray]:
    """Lay a photo on a larger canvas: what is around it is hole, and so is what its own mask says."""
    grown = photo.padded(**margins.to_dict())
    image = grown.srgb()
    hole = np.ones(image.shape[:2], bool)
    height, width = photo.pixels.shape[:2]
    place = slice(margins.top, margins.top + height), slice(margins.left, margins.left + width)
    inner = _erased(photo) if mask is None else read_mask(mask)
    if inner is not None and (inner.any() or inner.shape != (height, width)):
        _check_mask(inner, image[place])
    hole[place] = False if inner is None else inner
    _check_known(grown, hole)
    return grown, hole, image


def read_references(references: Sequence[ImageLike], *, depth: int) -> tuple[ImageArray, ...]:
    """Read and check references; ``depth``: calls between this one and the user's, whose line a warning names."""
    if isinstance(references, str | PathLike | np.ndarray | Image.Image):
        raise SceneError("references is a single photo; legal: a list of photos")
    if len(references) > MAX_REFERENCES:
        raise SceneError(
            f"there are {len(references)} references; legal: up to {MAX_REFERENCES}; keep those that show the hole"
        )
    photos = []
    for i, reference in enumerate(references):
        photo, transparent = read_image(reference, f"reference {i}")
        check_size(photo, f"reference {i}")
        if transparent is not None and transparent.mean() > _FEW:
            warnings.warn(
                f"reference {i} is transparent in {transparent.mean():.0%} of its pixels; their colours are learnt all "
                "the same. Crop to what is opaque, or flatten it",
                RealFillWarning,
                stacklevel=depth + 2,
            )
        photos.append(photo)
    return tuple(photos)


def check_size(image: NDArray, what: str) -> None:
    """Make sure that an image, (H, W, C), is large enough.

    Raises:
        SceneError: it isn't; ``what`` is what the message calls it.
    """
    if min(image.shape[:2]) < MIN_SIDE_PX:
        raise SceneError(f"{what} is {describe_size(image)} pixels; legal: at least {MIN_SIDE_PX} on each side")


def _erased(photo: Photo) -> MaskArray | None:
    """Take as the hole what isn't opaque; in a photo that is nowhere, what is less than half so."""
    hole = photo.transparent
    return photo.fainter_than(0.5) if hole is not None and hole.all() else hole


def _check_mask(mask: MaskArray, target: ImageArray) -> None:
    if mask.shape != target.shape[:2]:
        hint = "the target was turned by its EXIF rotation" if mask.shape == target.shape[1::-1] else "resize the mask"
        raise SceneError(
            f"the mask is {describe_size(mask)} pixels and the target {describe_size(target)}; legal: the same size; "
            f"{hint}"
        )
    if not mask.any():
        raise SceneError("the mask is empty: nothing to fill; white (True) marks what to fill")
    if mask.all():
        raise SceneError(
            "the mask covers the whole target: no known pixel is left; leave some black, or take variants() for that"
        )
    blank_outside, blank_inside = _is_uniform(target, ~mask), _is_uniform(target, mask)
    if blank_inside and _is_mixed_at_the_border(target, mask):
        warnings.warn(
            "the target's pixels right beside the hole look mixed with the blank under it, as resizing leaves them; "
            "they would stay, and colour what is filled. Grow the mask: scene.dilated(2), --dilation-px 2",
            RealFillWarning,
            stacklevel=4,
        )
    if not blank_inside and (blank_outside or mask.mean() > 0.5):
        warnings.warn(
            f"the mask hides {mask.mean():.0%} of the target, and what it hides looks like a photo"
            f"{' while the rest is blank' if blank_outside else ''}; is it inverted? White (True) marks what to fill",
            RealFillWarning,
            stacklevel=4,
        )


def _check_known(target: Photo, mask: MaskArray) -> None:
    clear = 0.0 if target.transparent is None else float((target.transparent & ~mask).mean())
    if clear > _FEW:
        warnings.warn(
            f"{clear:.0%} of the target is transparent outside of the mask; their colours count as known. Add them "
            "to the mask, or crop to what is opaque",
            RealFillWarning,
            stacklevel=4,
        )


def _is_uniform(image: ImageArray, where: MaskArray) -> bool:
    step = 1 + int(where.sum()) // _SOME
    pixels = image.reshape(-1, 3)[::step][where.reshape(-1)[::step]]
    return float(np.abs(pixels.astype(np.int16) - np.median(pixels, axis=0)).mean()) < 1


def _is_mixed_at_the_border(target: ImageArray, mask: MaskArray) -> bool:
    """Whether the first known pixel is nearer to the hole's one colour than the second, by more than photos vary."""
    top, left, bottom, right = bounding_box(mask)
    near = slice(max(0, top - 4), bottom + 4), slice(max(0, left - 4), right + 4)
    target, mask = target[near], mask[near]
    step = 1 + int(mask.sum()) // _SOME
    colour = target.reshape(-1, 3)[::step][mask.reshape(-1)[::step]].mean(axis=0)
    grown = [mask, *(dilate(mask, radius) for radius in (1, 2, 3, 4))]
    rings = [outer & ~inner for inner, outer in pairwise(grown)]
    if min(ring.sum() for ring in rings) < _MIN_BORDER_PX:
        return False
    first, second, _, fourth = (float(np.abs(target[ring] - colour).mean()) for ring in rings)
    return second - first > max(_MIXED_LEVELS, _MIXED * second, 1.5 * abs(fourth - second))


def describe_size(image: NDArray) -> str:
    """Say width and height, as people do."""
    return f"{image.shape[1]} x {image.shape[0]}"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
