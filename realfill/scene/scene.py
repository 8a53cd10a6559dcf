"""The ``Scene``: reference photos, a target photo and a mask, checked when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from realfill.errors import OutputError, SceneError
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_photo
from realfill.io.metadata import exif_of_focal, without_location
from realfill.io.photos import Photo
from realfill.io.writing import write_photo, write_png
from realfill.scene.checking import MIN_SIDE_PX, check_mask, check_size, describe_size
from realfill.scene.mask_reading import MaskLike, MaskReading
from realfill.scene.masks import Box, dilate
from realfill.scene.outpainting import MAX_CANVAS_PX, Aspect, Length, Margins
from realfill.scene.reading import Parts, find_parts, find_reference_masks, read_on_canvas, read_parts
from realfill.scene.reference_reading import read_references


@dataclass(frozen=True, slots=True, init=False, eq=False, weakref_slot=True)
class Scene:
    """Up to thirty reference photos, a target photo, and a mask of the pixels to fill in it (paper, section 3.1).

    References and target show roughly the same scene. They need not be aligned or have the same size.

    Attributes:
        references: each (H, W, 3) uint8 sRGB, zero under its mask.
        target: (H, W, 3) uint8 sRGB. The pixels under the mask are kept, but no method sees them.
        mask: (H, W) bool, True = fill.
        mask_source: description of the pixels taken as the hole, for example "the white pixels of the mask".
        reference_masks: for each reference the part that is left out, (H, W) bool, or ``None``. Nothing learns from it,
            is matched in it or shows it.
        frame: (top, left, bottom, right) of the photo on the canvas that ``outpaint`` puts it on, the last two
            exclusive; ``None``: the target is a photo as it is.
        focal_lengths: the focal lengths in pixels that EXIF states, the target's first; ``None`` where it states none.
        original: the target in the colours, depth and metadata of its file. Results are written back into it; no
            method sees it.
        history: earlier changes to the target (outpainting, dilation, an earlier completion), as plain JSON values.
        whole_hole: (H, W) bool. The mask, or the larger mask of which it is a part that is filled again. The windows
            are chosen around it, so that the part is seen at the scale for which an adapter was fitted.
    """

    references: tuple[ImageArray, ...]
    reference_masks: tuple[MaskArray | None, ...]
    focal_lengths: tuple[float | None, ...]
    frame: Box | None
    target: ImageArray
    mask: MaskArray
    mask_source: str
    original: Photo
    history: Mapping[str, Any]
    whole_hole: MaskArray

    def __init__(
        self,
        references: Iterable[ImageLike],
        target: ImageLike,
        mask: MaskLike | None = None,
        *,
        reference_masks: Iterable[ImageLike | MaskArray | None] | None = None,
    ) -> None:
        """Read and check a scene.

        Args:
            references: an iterable of up to thirty photos, as paths, PIL images or arrays. A scene without references
                can be completed but not fitted.
            target: the photo to complete, as a path, a PIL image or an array.
            mask: an image of the target's size, in any of the forms that ``realfill.scene.mask_reading`` lists, for
                example white = fill. ``None`` fills the transparent pixels of the target.
            reference_masks: for each reference the part to leave out, such as a passer-by: an image of its size in any
                of these forms, white = leave out, or ``None``.

        Raises:
            SceneError: a part cannot be used; the message gives the reason and the fix.
        """
        self._set(read_parts(references, target, mask, reference_masks))

    def _set(self, parts: Parts, history: Mapping[str, Any] | None = None) -> None:
        values = {f.name: getattr(parts, f.name) for f in fields(parts)}
        for name, value in {**values, "history": dict(history or {}), "whole_hole": parts.mask}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def _of_parts(cls, parts: Parts, history: Mapping[str, Any] | None = None) -> Scene:
        """Make a scene from parts that are already checked."""
        scene = object.__new__(cls)
        scene._set(parts, history)
        return scene

    def _with(self, **changes: Any) -> Scene:
        """Return a scene in which some attributes are replaced by values that are already checked."""
        scene = object.__new__(type(self))
        for f in fields(self):
            object.__setattr__(scene, f.name, changes.get(f.name, getattr(self, f.name)))
        return scene

    @property
    def known(self) -> ImageArray:
        """The target with the hole set to zero, (H, W, 3) uint8: the only view of it that a method may use."""
        return np.where(self.mask[:, :, None], np.uint8(0), self.target)

    def blanked(self) -> Scene:
        """Return a scene in which the pixels under the mask are zero in the original too."""
        return self._with(original=self.original.blanked(self.mask), target=self.known)

    def retargeted(
        self, original: Photo, mask: MaskArray, history: Mapping[str, Any], *, whole_hole: MaskArray
    ) -> Scene:
        """Return a scene with the same references and another target, for example to fill a part of a completion again.

        Args:
            original: the other target.
            mask: (H, W) bool of its size, True = fill.
            history: its history, which is added to the history of this scene.
            whole_hole: (H, W) bool, the hole of which the mask is a part.
        """
        return self._with(
            original=original, mask=mask, target=original.srgb(), history={**self.history, **history},
            focal_lengths=(original.focal_px, *self.focal_lengths[1:]), whole_hole=whole_hole,
            mask_source="a part of the hole",
        )  # fmt: skip

    def remasked(self, reading: MaskReading) -> Scene:
        """Return a scene with another mask of the target's size, which hides some pixels and leaves some.

        Raises:
            SceneError: the mask cannot be used.
        """
        check_mask(reading.mask, self.target, is_outline=reading.is_outline)
        return self._with(mask=reading.mask, whole_hole=reading.mask, mask_source=reading.source)

    def without_location(self) -> Scene:
        """Return a scene whose results state no place: the GPS data of the target's EXIF are dropped."""
        exif = without_location(self.original.exif)
        return self._with(original=dataclasses.replace(self.original, exif=exif))

    def with_references(self, num_references: int) -> Scene:
        """Return a scene with only the first references.

        Raises:
            SceneError: the number is negative or larger than the number of references.
        """
        if not 0 <= num_references <= len(self.references):
            raise SceneError(f"num_references is {num_references}; legal: from 0 to {len(self.references)}")
        return self.with_chosen_references(range(num_references))

    def with_chosen_references(self, chosen: Iterable[int]) -> Scene:
        """Return a scene with some of the references, in the given order, counted from 0."""
        numbers = list(chosen)
        return self._with(
            references=tuple(self.references[i] for i in numbers),
            reference_masks=tuple(self.reference_masks[i] for i in numbers),
            focal_lengths=(self.focal_lengths[0], *(self.focal_lengths[i + 1] for i in numbers)),
        )

    def dilated(self, radius_px: int) -> Scene:
        """Return a scene whose mask is grown by ``radius_px`` pixels in every direction.

        This helps if the mask is too close to the object that it should remove.

        Raises:
            SceneError: no known pixel would be left.
            ValueError: the radius is negative.
        """
        if radius_px < 0:
            raise ValueError(f"radius_px is {radius_px}; legal: 0 or more")
        if radius_px == 0:
            return self
        mask = dilate(self.mask, radius_px)
        if mask.all() and not self.mask.all():
            raise SceneError(f"the mask, grown by {radius_px} pixels, covers the whole target; legal: a smaller radius")
        history = {**self.history, "dilations_px": [*self.history.get("dilations_px", ()), radius_px]}
        source = f"{self.mask_source}, grown by {radius_px} pixels"
        return self._with(mask=mask, history=history, whole_hole=self.whole_hole | mask, mask_source=source)

    @classmethod
    def canvas(cls, size: tuple[int, int], references: Iterable[ImageLike] = ()) -> Scene:
        """Make a scene without a known pixel: the mask covers the whole target.

        Args:
            size: (height, width) in pixels, each at least 32, at most 178 million pixels in all.
            references: up to thirty photos, for ranking.

        Raises:
            SceneError: the size or a photo cannot be used.
        """
        if min(size) < MIN_SIDE_PX:
            raise SceneError(f"the canvas is {size[1]} x {size[0]} pixels; legal: at least {MIN_SIDE_PX} on each side")
        if size[0] * size[1] > MAX_CANVAS_PX:
            raise SceneError(
                f"the canvas is {size[1]} x {size[0]} pixels; legal: at most {MAX_CANVAS_PX // 10**6} million in all"
            )
        blank = Photo(pixels=np.zeros((*size, 3), np.uint8))
        everything = np.ones(size, bool)
        return cls._of_parts(Parts.of(read_references(references), blank, blank.pixels, everything, "the whole canvas"))

    @classmethod
    def outpaint(
        cls,
        references: Iterable[ImageLike],
        target: ImageLike,
        mask: MaskLike | None = None,
        *,
        margin: Length = 0,
        left: Length | None = None,
        right: Length | None = None,
        top: Length | None = None,
        bottom: Length | None = None,
        aspect: Aspect | None = None,
        anchor: float = 0.5,
        reference_masks: Iterable[ImageLike | MaskArray | None] | None = None,
    ) -> Scene:
        """Put the target on a larger canvas. The hole is everything around it.

        A side grows by pixels, ``left=100`` or ``left="100px"``, or by a share of the target, ``left="30%"``.

        Args:
            references: an iterable of up to thirty photos, as paths, PIL images or arrays.
            target: the photo; its pixels stay exactly the same.
            mask: pixels to fill inside the target too; it may be empty. ``None`` fills the transparent pixels of the
                target.
            margin: the growth of every side that is not given.
            left: the growth to the left; a share refers to the width.
            right: the growth to the right; a share refers to the width.
            top: the growth at the top; a share refers to the height.
            bottom: the growth at the bottom; a share refers to the height.
            aspect: instead of sides, the aspect of the canvas: width over height, (width, height), or "16:9". The side
                that is too short grows.
            anchor: with ``aspect``, the share of the new pixels that lies to the left of the target or above it; 0.5
                centres the target.
            reference_masks: for each reference the part to leave out, or ``None``.

        Raises:
            SceneError: an argument is illegal, no side grows, the canvas is larger than 178 million pixels, or a part
                of the scene cannot be used.
        """
        photo = read_photo(target, "the target")
        size = photo.pixels.shape[:2]
        check_size(photo.pixels, "the target")
        if aspect is None:
            margins = Margins.of_sides(size, margin=margin, left=left, right=right, top=top, bottom=bottom)
        elif margin or any(side is not None for side in (left, right, top, bottom)):
            raise SceneError("both an aspect and sides that grow are given; legal: one of the two")
        else:
            margins = Margins.of_aspect(size, aspect, anchor=anchor)
        parts = read_on_canvas(references, photo, mask, margins, reference_masks)
        return cls._of_parts(parts, {"outpaint": margins.to_dict()})

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Scene:
        """Read a folder in the layout of RealBench: ``ref/*``, ``target/target.png``, ``target/mask.png``.

        The files may have any image format. Without a mask, the transparent pixels of the target are filled. Without
        ``ref``, the scene has no references. ``ref_masks/NAME.*`` marks the part of ``ref/NAME.*`` to leave out.

        Raises:
            SceneError: a part is missing or cannot be used.
        """
        references, target, mask = find_parts(directory)
        return cls._of_parts(read_parts(references, target, mask, find_reference_masks(directory, references)))

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the scene losslessly in the layout of RealBench, the target in its own colours and depth.

        ``history`` and ``whole_hole`` are not saved. References are zero under their masks, which are saved too.

        Raises:
            OutputError: the folder already holds a scene, or the disk is full.
        """
        folder = Path(directory)
        if (folder / "target").exists() or (folder / "ref").exists():
            raise OutputError(f"{str(folder)!r} already holds a scene; choose another folder or remove it first")
        (folder / "target").mkdir(parents=True)
        (folder / "ref").mkdir()
        for i, (reference, focal) in enumerate(zip(self.references, self.focal_lengths[1:], strict=True)):
            exif = None if focal is None else exif_of_focal(focal, reference.shape)
            write_photo(folder / "ref" / f"{i}.png", Photo(pixels=reference, exif=exif))
        write_photo(folder / "target" / "target.png", self.original)
        write_png(folder / "target" / "mask.png", _white(self.mask))
        masks = {i: mask for i, mask in enumerate(self.reference_masks) if mask is not None}
        if masks:
            (folder / "ref_masks").mkdir()
        for i, mask in masks.items():
            write_png(folder / "ref_masks" / f"{i}.png", _white(mask))

    def __repr__(self) -> str:
        count = f"{len(self.references)} reference{'s' if len(self.references) != 1 else ''}"
        return f"Scene({count}, target {describe_size(self.target)}, hole {100 * self.mask.mean():.1f} % of the pixels)"


def _white(mask: MaskArray) -> ImageArray:
    """Paint a mask white on black, (H, W, 3)."""
    return np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
