"""What is chosen: the photos, what is missing in the target, and the canvas. From it comes the scene."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from os import PathLike
from weakref import WeakKeyDictionary

import numpy as np

from realfill.app.flow.hole import Hole
from realfill.app.flow.photos import NamedPhoto, Photos
from realfill.app.flow.uploads import named
from realfill.errors import SceneError
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_image
from realfill.scene.mask_reading import MaskLike, MaskReading, read_mask
from realfill.scene.mask_sources import read_mask_for
from realfill.scene.outpainting import Margins
from realfill.scene.scene import Scene
from realfill.segmentation.detection import find_instances
from realfill.segmentation.selection import mask_from

_NO_MARGINS: Mapping[str, int] = {"left": 0, "right": 0, "top": 0, "bottom": 0}
_MOST_GROWTH = 2.0  # of a side of the canvas, as a share of the photo


class Choice:
    """The photos and the hole that somebody chooses.

    Attributes:
        photos: the target and the references.
        hole: what is missing in the target; ``None`` before there is one. Call ``touch`` after changing it.
        margins: pixels by which the canvas grows on each side.
        hides_strangers: if people are chosen to go, hide all people in the references, so that nobody is taken or
            learnt from them.
        hidden: the people that were found in references, (H, W) bool for each; ``None`` where there are none.
    """

    def __init__(self, photos: Photos | None = None) -> None:
        """Start with photos, or without any."""
        self.photos = photos or Photos()
        self.hole: Hole | None = None
        self.margins = _NO_MARGINS
        self.hides_strangers = True
        self.hidden: WeakKeyDictionary[NamedPhoto, MaskArray | None] = WeakKeyDictionary()
        self._scene: Scene | None = None
        self._lock = threading.Lock()

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

    def use_example(self) -> None:
        """Start from the demo's scene."""
        from realfill.app.demo import demo_scene  # noqa: PLC0415 - an interface appears at once without it

        self.use_scene(demo_scene()[0])

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

    def set_margins(self, **shares: float) -> None:
        """Choose by which shares of the photo the canvas grows: ``left``, ``right``, ``top``, ``bottom``.

        Raises:
            SceneError: there is no target, or a side grows too much.
        """
        height, width = self.target.size
        if not all(0 <= share <= _MOST_GROWTH for share in shares.values()):
            raise SceneError(f"a side grows by up to {100 * _MOST_GROWTH:.0f} % of the photo")
        lengths = {"left": width, "right": width, "top": height, "bottom": height}
        margins = {side: round(shares.get(side, 0.0) * length) for side, length in lengths.items()}
        if any(margins.values()):
            Margins.of_sides(self.target.size, margin=0, **margins)  # checks them
        self.margins = margins
        self.touch()

    def toggle_at(self, point: tuple[float, float]) -> str:
        """Let the person at a point (x, y) go or stay; mark the thing at it, which GrabCut outlines, if it is nobody.

        Returns:
            What was done, in a few words.

        Raises:
            SceneError: there is no target, the point lies outside of it, or nothing can be outlined there.
        """
        hole = self.require_hole()
        person = hole.instances.at(point) if hole.instances is not None else None
        if person is not None:
            hole.toggle_at(point)
            said = f"{person.name} {person.number} {'goes' if self._goes(person.number) else 'stays'}"
        else:
            found = find_instances(self.full_target(), clicks=[point])
            if not found:
                raise SceneError("nothing can be outlined at this place; use the brush")
            hole.add(mask_from(found).mask)
            said = "the thing is marked"
        self.touch()
        return said

    def touch(self) -> None:
        """Note that something else is chosen: the scene is made anew when it is needed."""
        self._scene = None

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

    def require_ready(self) -> None:
        """Check that there is something to fill.

        Raises:
            SceneError: there is no target, or nothing is marked.
        """
        if self.require_hole().reading() is None and not any(self.margins.values()):
            raise SceneError("nothing is marked as missing; mark it first")

    @property
    def strangers_to_find(self) -> list[tuple[int, NamedPhoto]]:
        """The references, with their numbers, in which people are to be hidden and have not been looked for."""
        if not self._hides:
            return []
        return [(i, photo) for i, photo in enumerate(self.photos.references) if photo not in self.hidden]

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
        with self._lock:
            scene = self._scene
            if scene is None:
                hidden = [self.hidden.get(photo) for photo in self.photos.references] if self._hides else None
                reading = self.hole.reading() if self.hole else None
                scene = self._scene = self.photos.make_scene(reading, self.margins, hidden)
            return scene

    @property
    def _hides(self) -> bool:
        """Whether people are hidden in the references; a scene that was given as a whole stays as it is."""
        marks_people = self.hole is not None and self.hole.marks_people
        return self.hides_strangers and marks_people and self.photos.scene is None

    def _goes(self, number: int) -> bool:
        hole = self.require_hole()
        return (number in hole.chosen) != hole.everyone_but
