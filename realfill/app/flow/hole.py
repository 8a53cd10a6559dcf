"""The hole: what is missing in a photo, put together from strokes, boxes, instances and a mask file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np

from realfill.errors import SceneError
from realfill.io.files import whole_file
from realfill.io.images import MaskArray, resize
from realfill.scene.mask_reading import MaskReading
from realfill.scene.mask_sources import combine, mask_of_boxes
from realfill.scene.masks import Box
from realfill.segmentation.detection import PEOPLE
from realfill.segmentation.instances import Instance, Instances
from realfill.segmentation.selection import mask_from

MAX_GROW_PX = 200
_RULES = ("everyone_but", "shadows", "grow_px")  # the attributes that are written as they are


class Hole:
    """The union of what the user marks, without what the user rubs out.

    Attributes:
        size: (height, width) of the photo.
        given: a mask from a file or from a scene, or ``None``.
        boxes: marked boxes.
        instances: the result of ``find_instances``; ``None`` before.
        chosen: numbers of the instances that are ticked.
        everyone_but: the ticked instances stay and all other people go; else the ticked ones go.
        shadows: also cover the ground where those who go stand.
        grow_px: pixels by which the union is grown.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Start without a hole in a photo of this size, (height, width)."""
        self.size = size
        self.instances: Instances | None = None
        self.clear()

    def clear(self) -> None:
        """Forget everything but the instances that were found."""
        self.given: MaskReading | None = None
        self.boxes: list[Box] = []
        self.chosen: frozenset[int] = frozenset()
        self.everyone_but = self.shadows = False
        self.grow_px = 0
        self._painted: MaskArray | None = None
        self._rubbed: MaskArray | None = None

    @property
    def marks_people(self) -> bool:
        """Whether people go who were found in the photo."""
        return bool(self.instances) and bool(self.chosen or self.everyone_but)

    def add_box(self, box: Box) -> None:
        """Mark a box, (top, left, bottom, right) in pixels.

        Raises:
            SceneError: it has no pixel in the photo.
        """
        mask_of_boxes([box], self.size)
        self.boxes.append(box)

    def add(self, mask: MaskArray) -> None:
        """Mark pixels, (H, W) bool, as the brush does."""
        self._painted = mask.copy() if self._painted is None else self._painted | mask
        if self._rubbed is not None:
            self._rubbed &= ~mask

    def remove(self, mask: MaskArray) -> None:
        """Take pixels away, (H, W) bool, as the rubber does."""
        self._rubbed = mask.copy() if self._rubbed is None else self._rubbed | mask
        if self._painted is not None:
            self._painted &= ~mask

    def paint(self, points: Sequence[tuple[float, float]], radius_px: float, *, rub_out: bool = False) -> None:
        """Draw a stroke.

        Args:
            points: (x, y) in pixels of the photo, at least one.
            radius_px: half of the brush's width.
            rub_out: take the stroke away from the hole instead of adding it.
        """
        stroke = np.zeros(self.size, np.uint8)
        line, radius = np.round(np.asarray(points, np.float64)).astype(np.int32), max(1, round(radius_px))
        cv2.polylines(stroke, [line.reshape(-1, 1, 2)], isClosed=False, color=1, thickness=2 * radius)
        for x, y in (line[0], line[-1]):
            cv2.circle(stroke, (int(x), int(y)), radius, 1, -1)
        (self.remove if rub_out else self.add)(stroke > 0)

    def drawing(self, size: tuple[int, int]) -> MaskArray:
        """Return the hole at the size of a picture of the photo, (h, w) bool, to be drawn on; see ``redraw``."""
        return _shrunk(self._mask(), size)

    def redraw(self, drawn: MaskArray) -> None:
        """Take over a drawing; where nothing changed, the hole keeps its full detail.

        Args:
            drawn: (h, w) bool, what ``drawing`` returned, with pixels added and removed.
        """
        if not drawn.any():
            self.clear()
            return
        changed = _enlarged(drawn != self.drawing((drawn.shape[0], drawn.shape[1])), self.size)
        marked = _enlarged(drawn, self.size)
        self.add(changed & marked)
        self.remove(changed & ~marked)

    def choose(self, numbers: Iterable[int], *, everyone_but: bool = False) -> None:
        """Tick instances by their numbers; what was rubbed out of those who go now is marked again.

        Args:
            numbers: the ticked instances.
            everyone_but: they stay and all other people go.

        Raises:
            ValueError: a number does not exist.
        """
        count, numbers = len(self.instances or ()), frozenset(numbers)
        wrong = sorted(number for number in numbers if not 0 <= number < count)
        if wrong:
            raise ValueError(f"the instance {wrong[0]} does not exist; legal: the numbers of those who were found")
        before = self._people_mask()
        self.chosen, self.everyone_but = numbers, everyone_but
        if self._rubbed is not None:
            self._rubbed &= ~(self._people_mask() & ~before)

    def toggle_at(self, point: tuple[float, float]) -> Instance:
        """Tick or untick the instance at a point (x, y).

        Raises:
            SceneError: nothing was looked for, or nothing was found there.
        """
        if self.instances is None:
            raise SceneError("nobody was looked for yet; press Find people first")
        found = self.instances.at(point)
        if found is None:
            raise SceneError("nobody was found at this place; legal: a numbered outline. Mark others with the brush")
        self.choose(self.chosen ^ {found.number}, everyone_but=self.everyone_but)
        return found

    def reading(self) -> MaskReading | None:
        """Put the hole together; ``None`` if nothing is marked.

        Raises:
            SceneError: nothing is left of it.
        """
        parts = [self.given] if self.given is not None else []
        if self.boxes:
            parts.append(mask_of_boxes(self.boxes, self.size))
        parts += self._people()
        if self._painted is not None and self._painted.any():
            parts.append(MaskReading(mask=self._painted, source="brush strokes"))
        if not parts:
            return None
        without = []
        if self._rubbed is not None and self._rubbed.any():
            without.append(MaskReading(mask=self._rubbed, source="what was rubbed out"))
        is_simple = len(parts) == 1 and not without and not self.grow_px
        return parts[0] if is_simple else combine(parts, without, grown_px=self.grow_px)

    def save(self, path: Path) -> None:
        """Write the hole, with the instances that were found, to a file."""
        people = self.instances
        given = self.given.mask if self.given is not None else None
        masks = {"given": given, "painted": self._painted, "rubbed": self._rubbed}
        arrays = {name: np.packbits(mask) for name, mask in masks.items() if mask is not None}
        facts: dict[str, Any] = {rule: getattr(self, rule) for rule in _RULES} | {
            "size": self.size, "boxes": self.boxes, "chosen": sorted(self.chosen),
            "source": self.given.source if self.given is not None else "",
        }  # fmt: skip
        if people is not None:
            arrays |= {f"cut {i.number}": i.cut for i in people}
            facts["found"] = [{"name": i.name, "score": i.score, "box": i.box, "detector": i.detector} for i in people]
            facts |= {"detector": people.detector, "threshold": people.threshold}
        with whole_file(path) as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Hole:
        """Read what ``save`` wrote.

        Raises:
            OSError: there is no such file.
            ValueError: it is damaged.
        """
        try:
            return cls._read(path)
        except (BadZipFile, EOFError, zlib.error, KeyError, TypeError) as error:
            raise ValueError(f"{str(path)!r} holds no hole, or a damaged one: {error}") from error

    @classmethod
    def _read(cls, path: Path) -> Hole:
        with path.open("rb") as stream, np.load(stream) as arrays:
            facts = json.loads(str(arrays["facts"]))
            hole = cls((facts["size"][0], facts["size"][1]))
            height, width = hole.size

            def unpacked(name: str) -> MaskArray | None:
                if name not in arrays:
                    return None
                return np.unpackbits(arrays[name], count=height * width).reshape(hole.size).astype(bool)

            given, hole._painted, hole._rubbed = unpacked("given"), unpacked("painted"), unpacked("rubbed")
            hole.given = None if given is None else MaskReading(mask=given, source=facts["source"])
            hole.boxes, hole.chosen = [tuple(box) for box in facts["boxes"]], frozenset(facts["chosen"])
            for rule in _RULES:
                setattr(hole, rule, facts[rule])
            if "found" in facts:
                items = tuple(
                    Instance(**{**i, "box": tuple(i["box"])}, number=n, cut=arrays[f"cut {n}"], size=hole.size)
                    for n, i in enumerate(facts["found"])
                )
                hole.instances = Instances(
                    items=items, size=hole.size, detector=facts["detector"], threshold=facts["threshold"]
                )
        return hole

    def _mask(self) -> MaskArray:
        """Return the hole, (H, W) bool; empty if nothing is marked or left."""
        try:
            reading = self.reading()
        except SceneError:
            reading = None
        return np.zeros(self.size, bool) if reading is None else reading.mask

    def _people(self) -> list[MaskReading]:
        """Return the mask of those who go; the pixels of other people stay."""
        if self.instances is None or not self.marks_people:
            return []
        people = {person.number for person in self.instances.of(PEOPLE)}
        stays = self.chosen if self.everyone_but else people - self.chosen
        numbers = None if self.everyone_but else sorted(self.chosen)
        return [
            mask_from(
                self.instances, classes=PEOPLE, numbers=numbers, keep=sorted(stays), carried=True,
                ground_contact=self.shadows,
            )
        ]  # fmt: skip

    def _people_mask(self) -> MaskArray:
        try:
            return next((reading.mask for reading in self._people()), np.zeros(self.size, bool))
        except SceneError:  # nobody is left who goes
            return np.zeros(self.size, bool)


def _shrunk(mask: MaskArray, size: tuple[int, int]) -> MaskArray:
    return resize(mask.astype(np.float32), size) > 0.5


def _enlarged(mask: MaskArray, size: tuple[int, int]) -> MaskArray:
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
