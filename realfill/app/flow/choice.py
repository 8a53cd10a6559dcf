"""What is chosen: the photos, what is missing in the target, and the canvas. From it comes the scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np

from realfill.app.flow.hole import Hole
from realfill.app.flow.photos import NamedPhoto, Photos
from realfill.app.flow.uploads import named
from realfill.errors import SceneError
from realfill.io.images import ImageArray, ImageLike, read_image
from realfill.scene.mask_reading import MaskLike, MaskReading, read_mask
from realfill.scene.mask_sources import read_mask_for
from realfill.scene.scene import Scene

_NO_MARGINS: Mapping[str, int] = {"left": 0, "right": 0, "top": 0, "bottom": 0}


class Choice:
    """The photos and the hole that somebody chooses.

    Attributes:
        photos: the target and the references.
        hole: what is missing in the target; ``None`` before there is one. Call ``touch`` after changing it.
        margins: pixels by which the canvas grows on each side.
        version: a number that changes with every change.
    """

    def __init__(self) -> None:
        """Start without photos."""
        self.photos = Photos()
        self.hole: Hole | None = None
        self.margins = _NO_MARGINS
        self.version = 0
        self._scene: Scene | None = None

    def set_target(self, source: ImageLike, name: str | None = None) -> None:
        """Choose the photo to complete. Its transparent pixels, if there are any, are the hole until another is marked.

        Raises:
            SceneError: it cannot be read.
        """
        self.photos.set_target(source, name)
        target = self.target
        self.hole, self.margins = Hole(target.size), _NO_MARGINS
        if target.transparent is not None:
            self.hole.given = MaskReading(mask=target.transparent, source="the transparent pixels of the target")
        self.touch()

    def add_references(self, sources: Sequence[ImageLike] | str | PathLike[str]) -> None:
        """Add references; see ``Photos.add_references``."""
        self.photos.add_references(sources)
        self.touch()

    def remove_references(self) -> None:
        """Remove all references."""
        self.photos.remove_references()
        self.touch()

    def use_scene(self, scene: Scene) -> None:
        """Start from a scene, with its photos and its hole."""
        self.photos.use(scene)
        self.hole, self.margins = Hole(self.target.size), _NO_MARGINS
        self.hole.given = MaskReading(mask=scene.mask, source=scene.mask_source)
        self.touch()

    def set_mask(self, source: MaskLike, name: str = "the mask") -> None:
        """Take the hole from a mask: an image in any of the forms that ``Scene`` takes, or JSON outlines.

        Raises:
            SceneError: there is no target, or the mask cannot be used.
        """
        hole = self.require_hole()
        if isinstance(source, MaskReading) or (isinstance(source, np.ndarray) and source.dtype == np.bool_):
            reading = read_mask(source)
        else:
            image, photo_name = self.full_target(), self.target.name
            reading = named(name, source, lambda: read_mask_for(source, image, photo_name=photo_name))
        if reading.mask.shape != hole.size:
            raise SceneError(
                f"the mask is {reading.mask.shape[1]} x {reading.mask.shape[0]} pixels and the target {hole.size[1]} x "
                f"{hole.size[0]}; legal: the same size"
            )
        hole.given = reading
        self.touch()

    def set_margins(self, **margins: int) -> None:
        """Choose by how many pixels the canvas grows: ``left``, ``right``, ``top``, ``bottom``."""
        self.margins = {**_NO_MARGINS, **margins}
        self.touch()

    def touch(self) -> None:
        """Note that something else is chosen: the scene is made anew when it is needed."""
        self._scene = None
        self.version += 1

    @property
    def target(self) -> NamedPhoto:
        """The photo to complete.

        Raises:
            SceneError: none is chosen yet.
        """
        if self.photos.target is None:
            raise SceneError("there is no photo to complete; choose one first")
        return self.photos.target

    def require_hole(self) -> Hole:
        """Return the hole, to change it; call ``touch`` afterwards.

        Raises:
            SceneError: there is no target yet.
        """
        if self.hole is None:
            raise SceneError("there is no photo to complete; choose one first")
        return self.hole

    def full_target(self) -> ImageArray:
        """Read the target at its full size, (H, W, 3) uint8 sRGB.

        Raises:
            SceneError: none is chosen yet.
        """
        return read_image(self.target.source, "the target")[0]

    @property
    def current(self) -> Scene | None:
        """The scene if it was made since the last change, else ``None``."""
        return self._scene

    @property
    def scene(self) -> Scene:
        """The scene that is chosen. It stays the same object until something else is chosen.

        Raises:
            SceneError: something is missing or cannot be used.
        """
        if self._scene is None:
            self._scene = self.photos.make_scene(self.hole.reading() if self.hole else None, self.margins)
        return self._scene
