"""The photos of a flow: the target and the references, each checked when it is given, or a scene that is ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from realfill.app.flow.uploads import named
from realfill.config.fit import MAX_REFERENCES
from realfill.errors import SceneError
from realfill.io.images import ImageArray, ImageLike, MaskArray, fit_within, read_image, resize
from realfill.scene.checking import check_size
from realfill.scene.mask_reading import MaskReading
from realfill.scene.reading import find_photos
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class NamedPhoto:
    """A photo that can be read.

    Attributes:
        name: what the user calls it.
        source: what ``Scene`` reads.
        size: (height, width) in pixels, upright.
        preview: (h, w, 3) uint8, small; ``None`` where the interface keeps pictures of its own.
        transparent: (H, W) bool, its transparent pixels; ``None`` if there are none.
    """

    name: str
    source: ImageLike
    size: tuple[int, int]
    preview: ImageArray | None = None
    transparent: MaskArray | None = None

    @classmethod
    def read(cls, source: ImageLike, name: str, what: str, *, preview_px: int) -> NamedPhoto:
        """Read a photo once, to check it.

        Raises:
            SceneError: it cannot be read, or is too small.
        """
        image, transparent = named(name, source, lambda: read_image(source, what))
        check_size(image, f"{what} {name!r}")
        size = (image.shape[0], image.shape[1])
        preview = resize(image, fit_within(size, preview_px))
        return cls(name=name, source=source, size=size, preview=preview, transparent=transparent)


class Photos:
    """The target and the references.

    Attributes:
        target: the photo to complete; ``None`` before it is chosen.
        references: other photos of the place.
        scene: a scene that was given as a whole and whose photos these are, or ``None``.
    """

    def __init__(self, *, preview_px: int = 1000, thumbnail_px: int = 160) -> None:
        """Start without photos.

        Args:
            preview_px: longer side of the preview of the target.
            thumbnail_px: longer side of the previews of references.
        """
        self._preview_px, self._thumbnail_px = preview_px, thumbnail_px
        self.target: NamedPhoto | None = None
        self.references: list[NamedPhoto] = []
        self.scene: Scene | None = None

    def set_target(self, source: ImageLike, name: str | None = None) -> None:
        """Choose the photo to complete; references that were chosen by hand stay.

        Raises:
            SceneError: it cannot be read.
        """
        target = NamedPhoto.read(source, name or _name(source, "the photo"), "the target", preview_px=self._preview_px)
        if self.scene is not None:
            self.references, self.scene = [], None
        self.target = target

    def add_references(self, sources: Sequence[ImageLike] | str | PathLike[str]) -> None:
        """Add references: photos, or the path of a photo or of a folder of photos. All or none are added.

        Raises:
            SceneError: one cannot be read, or there are more than thirty.
        """
        if isinstance(sources, str | PathLike):
            path = Path(sources).expanduser()
            sources = find_photos(path) if path.is_dir() else [path]
        first = len(self.references)
        self.add_named([(_name(source, f"reference {first + i}"), source) for i, source in enumerate(sources)])

    def add_named(self, photos: Sequence[tuple[str, ImageLike]]) -> None:
        """Add references with their names.

        Raises:
            SceneError: as for ``add_references``.
        """
        self._require_own()
        count = len(self.references) + len(photos)
        if count > MAX_REFERENCES:
            raise SceneError(
                f"{count} references are chosen; legal: up to {MAX_REFERENCES}. Choose those that show what is missing"
            )
        self.references += [
            NamedPhoto.read(source, name, "the reference", preview_px=self._thumbnail_px) for name, source in photos
        ]

    def remove_reference(self, photo: NamedPhoto) -> None:
        """Remove a reference."""
        self._require_own()
        self.references.remove(photo)

    def remove_references(self) -> None:
        """Remove all references."""
        self._require_own()
        self.references = []

    def use(self, scene: Scene) -> None:
        """Take the photos of a scene."""
        self.scene = scene
        self.target = NamedPhoto.read(scene.target, "the scene's target", "the target", preview_px=self._preview_px)
        self.references = [
            NamedPhoto.read(image, f"reference {i}", "the reference", preview_px=self._thumbnail_px)
            for i, image in enumerate(scene.references)
        ]

    def make_scene(
        self, hole: MaskReading | None, margins: Mapping[str, int], hidden: Sequence[MaskArray | None] | None = None
    ) -> Scene:
        """Make the scene.

        Args:
            hole: what is missing in the target; ``None``: nothing.
            margins: pixels by which the canvas grows: ``left``, ``right``, ``top`` and ``bottom``.
            hidden: for each reference what is left out in it, (H, W) bool, or ``None``. A scene that was given as a
                whole keeps its own.

        Raises:
            SceneError: there is no target or nothing is missing, or a part cannot be used.
        """
        if self.target is None:
            raise SceneError("there is no photo to complete; choose one first")
        grows = any(margins.values())
        if self.scene is not None and not grows:
            return self._of_scene(self.scene, hole)
        if hole is None and not grows:
            raise SceneError("nothing is marked as missing; mark it first")
        references = [photo.source for photo in self.references]
        if not grows:
            return Scene(references, self.target.source, hole, reference_masks=hidden)
        self._require_plain()
        empty = MaskReading(mask=np.zeros(self.target.size, bool), source="nothing")
        sides: dict[str, Any] = dict(margins)
        return Scene.outpaint(references, self.target.source, hole or empty, **sides, reference_masks=hidden)

    def _of_scene(self, scene: Scene, hole: MaskReading | None) -> Scene:
        if hole is None:
            raise SceneError("nothing is marked as missing; mark it first")
        return scene if hole.mask is scene.mask else scene.remasked(hole)

    def _require_own(self) -> None:
        if self.scene is not None:
            raise SceneError("the photos are those of a scene; choose a target of your own first")

    def _require_plain(self) -> None:
        """Check that a larger canvas loses nothing: the target of a ready scene is known here in 8-bit sRGB only."""
        original = self.scene.original if self.scene is not None else None
        if original is not None and (original.pixels.dtype != np.uint8 or original.icc_profile or original.exif):
            raise SceneError(
                "the canvas of a scene that is given as a whole cannot grow here, because depth, profile or EXIF of "
                "its target would be lost; make it with Scene.outpaint"
            )


def _name(source: ImageLike, otherwise: str) -> str:
    return Path(source).name if isinstance(source, str | PathLike) else otherwise
