"""Scene: reference photos, a target and a mask, checked once at the door."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from realfill.config import MAX_REFERENCES
from realfill.errors import OutputError, RealFillWarning, SceneError
from realfill.io.images import IMAGE_SUFFIXES, ImageArray, ImageLike, MaskArray, natural_key, read_image, read_photo
from realfill.io.photos import Photo
from realfill.io.writing import write_photo, write_png
from realfill.margins import Margins, Reach
from realfill.masks import dilate

MIN_SIDE_PX = 32
_OTHER_PHOTOS = frozenset((".arw", ".cr2", ".cr3", ".dng", ".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2"))
_FEW = 0.005  # share of a reference below which transparent pixels are passed over
_SOME = 200_000  # pixels are enough to tell a blank from a photo


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Scene:
    """Up to five reference photos, a target photo and the mask of what to fill in it (paper, section 3.1).

    References and target show roughly the same scene; they need not be aligned, nor of one size.

    Attributes:
        references: each (H, W, 3) uint8 sRGB.
        target: (H, W, 3) uint8 sRGB. What lies under the mask is kept, but no method sees it.
        mask: (H, W) bool, True = fill.
        original: the target in its file's own colours, depth and EXIF, which results go back into; no method sees it.
        history: what was done to the target, where it isn't a photo as it was taken; plain JSON values.
    """

    references: tuple[ImageArray, ...]
    target: ImageArray
    mask: MaskArray
    original: Photo
    history: Mapping[str, Any]

    def __init__(
        self, references: Sequence[ImageLike], target: ImageLike, mask: ImageLike | MaskArray | None = None
    ) -> None:
        """Read and check a scene.

        Args:
            references: up to five photos: paths, PIL images or arrays. Without any, a scene can be completed but not
                fitted.
            target: the photo to complete, likewise.
            mask: white (True, above half) = fill, of the target's size. ``None``: where the target is transparent.

        Raises:
            SceneError: what can't be used, and what to do about it.
        """
        self._set(*_read_parts(references, target, mask))

    def _set(
        self, references: tuple[ImageArray, ...], original: Photo, mask: MaskArray, target: ImageArray,
        history: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        values = (references, target, mask, original, dict(history or {}))
        for name, value in zip(("references", "target", "mask", "original", "history"), values, strict=True):
            object.__setattr__(self, name, value)

    @classmethod
    def _made(
        cls, references: tuple[ImageArray, ...], original: Photo, mask: MaskArray, target: ImageArray,
        history: Mapping[str, Any] | None = None,
    ) -> Scene:  # fmt: skip
        """Put together parts that were checked."""
        scene = object.__new__(cls)
        scene._set(references, original, mask, target, history)
        return scene

    @property
    def known(self) -> ImageArray:
        """The target with the hole blanked to zero: all that any method may see of it, (H, W, 3) uint8."""
        return np.where(self.mask[:, :, None], np.uint8(0), self.target)

    def blanked(self) -> Scene:
        """Blank what lies under the mask for good."""
        original = self.original.blanked(self.mask)
        return self._made(self.references, original, self.mask, self.known, self.history)

    def retargeted(self, original: Photo, mask: MaskArray, history: Mapping[str, Any]) -> Scene:
        """Take the same references for another target: how a part of a completion is filled anew.

        Args:
            original: the other target.
            mask: (H, W) bool of its size, True = fill.
            history: what was done to it; added to this scene's.
        """
        return self._made(self.references, original, mask, original.srgb(), {**self.history, **history})

    def with_references(self, num_references: int) -> Scene:
        """Keep the first references only.

        Raises:
            SceneError: there are fewer.
        """
        if len(self.references) < num_references:
            raise SceneError(f"the scene has {len(self.references)} references; asked for: {num_references}")
        return self._made(self.references[:num_references], self.original, self.mask, self.target, self.history)

    def dilated(self, radius_px: int) -> Scene:
        """Grow the mask by ``radius_px`` pixels in every direction, where it cuts too close to what it should remove.

        Raises:
            SceneError: no known pixel would be left.
            ValueError: the radius is below 0.
        """
        if radius_px < 0:
            raise ValueError(f"the mask is to be grown by {radius_px} pixels; legal: 0 or more")
        if radius_px == 0:
            return self
        mask = dilate(self.mask, radius_px)
        if mask.all() and not self.mask.all():
            raise SceneError(f"the mask, grown by {radius_px} pixels, covers the whole target; grow it less")
        history = {**self.history, "dilations_px": [*self.history.get("dilations_px", ()), radius_px]}
        return self._made(self.references, self.original, mask, self.target, history)

    @classmethod
    def canvas(cls, size: tuple[int, int], references: Sequence[ImageLike] = ()) -> Scene:
        """Make an empty scene: nothing is known, everything is to be filled.

        Args:
            size: (height, width) in pixels, each at least 32.
            references: up to five photos, to rank by.

        Raises:
            SceneError: the size or a photo can't be used.
        """
        if min(size) < MIN_SIDE_PX:
            raise SceneError(f"the canvas is {size[1]} x {size[0]} pixels; legal: at least {MIN_SIDE_PX} on each side")
        blank = Photo(pixels=np.zeros((*size, 3), np.uint8))
        return cls._made(_read_references(references, depth=1), blank, np.ones(size, bool), blank.pixels)

    @classmethod
    def outpaint(
        cls,
        references: Sequence[ImageLike],
        target: ImageLike,
        mask: ImageLike | MaskArray | None = None,
        *,
        margin: Reach = 0,
        left: Reach | None = None,
        right: Reach | None = None,
        top: Reach | None = None,
        bottom: Reach | None = None,
        aspect: float | tuple[float, float] | None = None,
        anchor: float = 0.5,
    ) -> Scene:
        """Lay the target on a larger canvas, whose new pixels are to be filled.

        Whole numbers are pixels, fractions shares of the target: ``left=100``, ``left=0.3``.

        Args:
            references: as for ``Scene``; so are target and mask.
            target: its pixels stay exact.
            mask: what to fill inside of the target too; may be empty. ``None``: where the target is transparent.
            margin: by how much each side grows that isn't given.
            left: by how much this side grows; likewise the others.
            right: likewise.
            top: likewise.
            bottom: likewise.
            aspect: in place of sides: the canvas's width over height, or (width, height), which the shorter way grows
                to.
            anchor: for ``aspect``: share of what is added that lies left of the target or above it; 0.5: centred.

        Raises:
            SceneError: nothing grows; a number is illegal; the canvas is above 178 million pixels; or as for ``Scene``.
        """
        photos = _read_references(references, depth=1)
        photo = read_photo(target, "the target")
        size = photo.pixels.shape[:2]
        _check_size(photo.pixels, "the target")
        sides = (margin or None, left, right, top, bottom)
        if aspect is None:
            margins = Margins.of_sides(size, margin=margin, left=left, right=right, top=top, bottom=bottom)
        elif any(side is not None for side in sides):
            raise SceneError("both an aspect and sides that grow are given; legal: one of the two")
        else:
            margins = Margins.of_aspect(size, aspect, anchor=anchor)
        return cls._made(photos, *_lay_out(photo, mask, margins), {"outpaint": margins.to_dict()})

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Scene:
        """Read a folder in RealBench's layout: ``ref/*``, ``target/target.png``, ``target/mask.png``.

        Any image format will do; without a mask file, the target's transparent pixels are filled. A folder without
        ``ref`` gives a scene without references.

        Raises:
            SceneError: a part is missing or can't be used.
        """
        return cls._made(*_read_parts(*find_parts(directory)))

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the scene in RealBench's layout, losslessly; the target in its own colours and depth.

        Raises:
            OutputError: the folder already holds a scene.
        """
        folder = Path(directory)
        if (folder / "target").exists() or (folder / "ref").exists():
            raise OutputError(f"{str(folder)!r} already holds a scene; choose another folder or remove it first")
        (folder / "target").mkdir(parents=True)
        (folder / "ref").mkdir()
        for i, reference in enumerate(self.references):
            write_png(folder / "ref" / f"{i}.png", reference)
        write_photo(folder / "target" / "target.png", self.original)
        write_png(folder / "target" / "mask.png", np.repeat(self.mask[:, :, None], 3, axis=2).astype(np.uint8) * 255)

    def __repr__(self) -> str:
        return (
            f"Scene({len(self.references)} references, target {_size(self.target)}, "
            f"hole {self.mask.mean():.1%} of the pixels)"
        )


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


def read_mask(source: ImageLike | MaskArray) -> MaskArray:
    """Read a mask: (H, W) bool, True = fill.

    Args:
        source: a bool array; or an image: white (above half) = fill; in one of only 0 and 1, 1 = fill. In an
            image of one colour with an alpha channel, transparent = fill.

    Raises:
        SceneError: the file or array can't be read.
    """
    if isinstance(source, np.ndarray) and np.issubdtype(source.dtype, np.integer) and source.max(initial=0) == 1:
        source = source.astype(bool)
    image, transparent = read_image(source, "the mask")
    opaque = image if transparent is None else image[~transparent]
    if transparent is not None and (not opaque.size or (opaque == opaque[0]).all()):
        return transparent
    return image.max(axis=2) > (0 if image.max() == 1 else 127)


def _read_parts(
    references: Sequence[ImageLike], target: ImageLike, mask: ImageLike | MaskArray | None
) -> tuple[tuple[ImageArray, ...], Photo, MaskArray, ImageArray]:
    photos = _read_references(references, depth=2)
    photo = read_photo(target, "the target")
    if mask is None and photo.transparent is None:
        raise SceneError("there is no mask, and the target has no transparent pixels; give a mask, white = fill")
    hole = read_mask(mask) if mask is not None else photo.transparent
    assert hole is not None
    _check_size(photo.pixels, "the target")
    image = photo.srgb()
    _check_mask(hole, image)
    return photos, photo, hole, image


def _lay_out(photo: Photo, mask: ImageLike | MaskArray | None, margins: Margins) -> tuple[Photo, MaskArray, ImageArray]:
    """Lay a photo on a larger canvas: what is around it is hole, and so is what its own mask says."""
    grown = photo.padded(**margins.to_dict())
    image = grown.srgb()
    hole = np.ones(image.shape[:2], bool)
    height, width = photo.pixels.shape[:2]
    place = slice(margins.top, margins.top + height), slice(margins.left, margins.left + width)
    inner = photo.transparent if mask is None else read_mask(mask)
    if inner is not None and (inner.any() or inner.shape != (height, width)):
        _check_mask(inner, image[place])
    hole[place] = False if inner is None else inner
    return grown, hole, image


def _read_references(references: Sequence[ImageLike], *, depth: int) -> tuple[ImageArray, ...]:
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
        _check_size(photo, f"reference {i}")
        if transparent is not None and transparent.mean() > _FEW:
            warnings.warn(
                f"reference {i} is transparent in {transparent.mean():.0%} of its pixels; their colours are learnt all "
                "the same. Crop to what is opaque, or flatten it",
                RealFillWarning,
                stacklevel=depth + 2,
            )
        photos.append(photo)
    return tuple(photos)


def _check_size(image: ImageArray, what: str) -> None:
    if min(image.shape[:2]) < MIN_SIDE_PX:
        raise SceneError(f"{what} is {_size(image)} pixels; legal: at least {MIN_SIDE_PX} on each side")


def _check_mask(mask: MaskArray, target: ImageArray) -> None:
    if mask.shape != target.shape[:2]:
        hint = "the target was turned by its EXIF rotation" if mask.shape == target.shape[1::-1] else "resize the mask"
        raise SceneError(
            f"the mask is {_size(mask)} pixels and the target {_size(target)}; legal: the same size; {hint}"
        )
    if not mask.any():
        raise SceneError("the mask is empty: nothing to fill; white (True) marks what to fill")
    if mask.all():
        raise SceneError(
            "the mask covers the whole target: no known pixel is left; leave some black, or take variants() for that"
        )
    blank_outside, blank_inside = _is_uniform(target, ~mask), _is_uniform(target, mask)
    if not blank_inside and (blank_outside or mask.mean() > 0.5):
        warnings.warn(
            f"the mask hides {mask.mean():.0%} of the target, and what it hides looks like a photo"
            f"{' while the rest is blank' if blank_outside else ''}; is it inverted? White (True) marks what to fill",
            RealFillWarning,
            stacklevel=4,
        )


def _is_uniform(image: ImageArray, where: MaskArray) -> bool:
    step = 1 + int(where.sum()) // _SOME
    pixels = image.reshape(-1, 3)[::step][where.reshape(-1)[::step]]
    return float(np.abs(pixels.astype(np.int16) - np.median(pixels, axis=0)).mean()) < 1


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def find_image(folder: Path, stem: str) -> Path | None:
    """Find an image by its name without suffix, a PNG before others; ``None``: there is none."""
    found = sorted(p for p in folder.glob(f"{stem}.*") if _is_image(p) and p.stem == stem)
    return next((p for p in found if p.suffix.lower() == ".png"), found[0] if found else None)
