"""Scene: reference photos, a target and a mask, checked once at the door."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from realfill.config import MAX_REFERENCES
from realfill.errors import OutputError, RealFillWarning, SceneError
from realfill.images import IMAGE_SUFFIXES, ImageArray, ImageLike, MaskArray, natural_key, read_image, write_png
from realfill.masks import dilate

MIN_SIDE_PX = 32


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Scene:
    """Up to five reference photos, a target photo and the mask of what to fill in it (paper, section 3.1).

    References and target show roughly the same scene; they need not be aligned, nor of one size.

    Attributes:
        references: each (H, W, 3) uint8 sRGB.
        target: (H, W, 3) uint8 sRGB. What lies under the mask is kept, but no method sees it.
        mask: (H, W) bool, True = fill.
    """

    references: tuple[ImageArray, ...]
    target: ImageArray
    mask: MaskArray

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

    def _set(self, references: tuple[ImageArray, ...], target: ImageArray, mask: MaskArray) -> None:
        for name, value in (("references", references), ("target", target), ("mask", mask)):
            object.__setattr__(self, name, value)

    @classmethod
    def _made(cls, references: tuple[ImageArray, ...], target: ImageArray, mask: MaskArray) -> Scene:
        """Put together parts that were checked."""
        scene = object.__new__(cls)
        scene._set(references, target, mask)
        return scene

    @property
    def known(self) -> ImageArray:
        """The target with the hole blanked to zero: all that any method may see of it, (H, W, 3) uint8."""
        return np.where(self.mask[:, :, None], np.uint8(0), self.target)

    def blanked(self) -> Scene:
        """Blank what lies under the mask for good."""
        return self._made(self.references, self.known, self.mask)

    def with_references(self, num_references: int) -> Scene:
        """Keep the first references only.

        Raises:
            SceneError: there are fewer.
        """
        if len(self.references) < num_references:
            raise SceneError(f"the scene has {len(self.references)} references; asked for: {num_references}")
        return self._made(self.references[:num_references], self.target, self.mask)

    def dilated(self, radius_px: int) -> Scene:
        """Grow the mask by ``radius_px`` pixels in every direction.

        Raises:
            SceneError: no known pixel would be left.
        """
        if radius_px == 0:
            return self
        mask = dilate(self.mask, radius_px)
        if mask.all() and not self.mask.all():
            raise SceneError(f"the mask, grown by {radius_px} pixels, covers the whole target; grow it less")
        return self._made(self.references, self.target, mask)

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
        return cls._made(_read_references(references), np.zeros((*size, 3), np.uint8), np.ones(size, bool))

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Scene:
        """Read a folder in RealBench's layout: ``ref/*``, ``target/target.png``, ``target/mask.png``.

        Any image format will do; without a mask file, the target's transparent pixels are filled. A folder without
        ``ref`` gives a scene without references.

        Raises:
            SceneError: a part is missing or can't be used.
        """
        folder = Path(directory)
        if not folder.is_dir():
            raise SceneError(
                f"there is no folder {str(folder)!r}; a scene is a folder with ref/, target/target.png ..."
            )
        target = find_image(folder / "target", "target")
        if target is None:
            raise SceneError(
                f"{str(folder)!r} has no target/target.png; legal: ref/*, target/target.png, target/mask.png"
            )
        references = sorted((p for p in (folder / "ref").glob("*") if _is_image(p)), key=natural_key)
        return cls._made(*_read_parts(references, target, find_image(folder / "target", "mask")))

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the scene in RealBench's layout, losslessly.

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
        write_png(folder / "target" / "target.png", self.target)
        write_png(folder / "target" / "mask.png", np.repeat(self.mask[:, :, None], 3, axis=2).astype(np.uint8) * 255)

    def __repr__(self) -> str:
        return (
            f"Scene({len(self.references)} references, target {_size(self.target)}, "
            f"hole {self.mask.mean():.1%} of the pixels)"
        )


def read_mask(source: ImageLike | MaskArray) -> MaskArray:
    """Read a mask: (H, W) bool, True = fill.

    Args:
        source: a bool array; or an image: white (above half) = fill. An array of only 0 and 1 is read as bool. In an
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
    return image.max(axis=2) > 127


def _read_parts(
    references: Sequence[ImageLike], target: ImageLike, mask: ImageLike | MaskArray | None
) -> tuple[tuple[ImageArray, ...], ImageArray, MaskArray]:
    photos = _read_references(references)
    image, transparent = read_image(target, "the target")
    if mask is None and transparent is None:
        raise SceneError("there is no mask, and the target has no transparent pixels; give a mask, white = fill")
    hole = read_mask(mask) if mask is not None else transparent
    assert hole is not None
    _check_size(image, "the target")
    _check_mask(hole, image)
    return photos, image, hole


def _read_references(references: Sequence[ImageLike]) -> tuple[ImageArray, ...]:
    if isinstance(references, str | PathLike | np.ndarray | Image.Image):
        raise SceneError("references is a single photo; legal: a list of photos")
    if len(references) > MAX_REFERENCES:
        raise SceneError(
            f"there are {len(references)} references; legal: up to {MAX_REFERENCES}; keep those that show the hole"
        )
    photos = tuple(read_image(r, f"reference {i}")[0] for i, r in enumerate(references))
    for i, photo in enumerate(photos):
        _check_size(photo, f"reference {i}")
    return photos


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
    blank_outside = _is_uniform(target[~mask])
    if (mask.mean() > 0.5 and not _is_uniform(target[mask])) or (blank_outside and not _is_uniform(target[mask])):
        warnings.warn(
            f"the mask hides {mask.mean():.0%} of the target, and what it hides looks like a photo"
            f"{' while the rest is blank' if blank_outside else ''}; is it inverted? White (True) marks what to fill",
            RealFillWarning,
            stacklevel=4,
        )


def _is_uniform(pixels: np.ndarray) -> bool:
    return float(np.abs(pixels.astype(np.int16) - np.median(pixels, axis=0)).mean()) < 1


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def find_image(folder: Path, stem: str) -> Path | None:
    """Find an image by its name without suffix, a PNG before others; ``None``: there is none."""
    found = sorted(p for p in folder.glob(f"{stem}.*") if _is_image(p) and p.stem == stem)
    return next((p for p in found if p.suffix.lower() == ".png"), found[0] if found else None)
