"""Scene: reference photos, a target and a mask, checked once at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from realfill.errors import OutputError, SceneError
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_photo
from realfill.io.photos import Photo
from realfill.io.writing import write_photo, write_png
from realfill.margins import MAX_CANVAS_PX, Margins, Reach
from realfill.masks import dilate
from realfill.scene_parts import (
    MIN_SIDE_PX,
    check_size,
    describe_size,
    find_parts,
    lay_out,
    read_parts,
    read_references,
)


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
        whole_hole: (H, W) bool, the mask itself, or the larger one of which it is a part that is filled anew: it
            decides on the windows, so that a part is seen at the scale that an adapter was fitted for.
    """

    references: tuple[ImageArray, ...]
    target: ImageArray
    mask: MaskArray
    original: Photo
    history: Mapping[str, Any]
    whole_hole: MaskArray

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
        self._set(*read_parts(references, target, mask))

    def _set(
        self, references: tuple[ImageArray, ...], original: Photo, mask: MaskArray, target: ImageArray,
        history: Mapping[str, Any] | None = None, whole_hole: MaskArray | None = None,
    ) -> None:  # fmt: skip
        values = {
            "references": references, "target": target, "mask": mask, "original": original,
            "history": dict(history or {}), "whole_hole": mask if whole_hole is None else whole_hole,
        }  # fmt: skip
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def _made(
        cls, references: tuple[ImageArray, ...], original: Photo, mask: MaskArray, target: ImageArray,
        history: Mapping[str, Any] | None = None, whole_hole: MaskArray | None = None,
    ) -> Scene:  # fmt: skip
        """Put together parts that were checked."""
        scene = object.__new__(cls)
        scene._set(references, original, mask, target, history, whole_hole)
        return scene

    @property
    def known(self) -> ImageArray:
        """The target with the hole blanked to zero: all that any method may see of it, (H, W, 3) uint8."""
        return np.where(self.mask[:, :, None], np.uint8(0), self.target)

    def blanked(self) -> Scene:
        """Blank what lies under the mask for good."""
        original = self.original.blanked(self.mask)
        return self._made(self.references, original, self.mask, self.known, self.history, self.whole_hole)

    def retargeted(
        self, original: Photo, mask: MaskArray, history: Mapping[str, Any], *, whole_hole: MaskArray
    ) -> Scene:
        """Take the same references for another target: how a part of a completion is filled anew.

        Args:
            original: the other target.
            mask: (H, W) bool of its size, True = fill.
            history: what was done to it; added to this scene's.
            whole_hole: (H, W) bool: what the mask is a part of.
        """
        return self._made(self.references, original, mask, original.srgb(), {**self.history, **history}, whole_hole)

    def with_references(self, num_references: int) -> Scene:
        """Keep the first references only.

        Raises:
            SceneError: there are fewer, or the number is negative.
        """
        if not 0 <= num_references <= len(self.references):
            raise SceneError(f"the scene has {len(self.references)} references; asked for: {num_references}")
        kept = self.references[:num_references]
        return self._made(kept, self.original, self.mask, self.target, self.history, self.whole_hole)

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
        return self._made(self.references, self.original, mask, self.target, history, self.whole_hole | mask)

    @classmethod
    def canvas(cls, size: tuple[int, int], references: Sequence[ImageLike] = ()) -> Scene:
        """Make an empty scene: nothing is known, everything is to be filled.

        Args:
            size: (height, width) in pixels, each at least 32; at most 178 million in all.
            references: up to five photos, to rank by.

        Raises:
            SceneError: the size or a photo can't be used.
        """
        if min(size) < MIN_SIDE_PX:
            raise SceneError(f"the canvas is {size[1]} x {size[0]} pixels; legal: at least {MIN_SIDE_PX} on each side")
        if size[0] * size[1] > MAX_CANVAS_PX:
            raise SceneError(
                f"the canvas is {size[1]} x {size[0]} pixels; legal: at most {MAX_CANVAS_PX // 10**6} million in all"
            )
        blank = Photo(pixels=np.zeros((*size, 3), np.uint8))
        return cls._made(read_references(references, depth=1), blank, np.ones(size, bool), blank.pixels)

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
        photos = read_references(references, depth=1)
        photo = read_photo(target, "the target")
        size = photo.pixels.shape[:2]
        check_size(photo.pixels, "the target")
        sides = (margin or None, left, right, top, bottom)
        if aspect is None:
            margins = Margins.of_sides(size, margin=margin, left=left, right=right, top=top, bottom=bottom)
        elif any(side is not None for side in sides):
            raise SceneError("both an aspect and sides that grow are given; legal: one of the two")
        else:
            margins = Margins.of_aspect(size, aspect, anchor=anchor)
        return cls._made(photos, *lay_out(photo, mask, margins), {"outpaint": margins.to_dict()})

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Scene:
        """Read a folder in RealBench's layout: ``ref/*``, ``target/target.png``, ``target/mask.png``.

        Any image format will do; without a mask file, the target's transparent pixels are filled. A folder without
        ``ref`` gives a scene without references.

        Raises:
            SceneError: a part is missing or can't be used.
        """
        return cls._made(*read_parts(*find_parts(directory)))

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the scene in RealBench's layout, losslessly; the target in its own colours and depth.

        Its history isn't kept, nor the whole hole of a part: read back, a scene that redoes a part has only that hole.

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
            f"Scene({len(self.references)} references, target {describe_size(self.target)}, "
            f"hole {self.mask.mean():.1%} of the pixels)"
        )
