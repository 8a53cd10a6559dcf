"""The hole: what is missing in a photo, put together from strokes, boxes, instances and a mask file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from realfill.errors import SceneError
from realfill.io.images import MaskArray
from realfill.scene.mask_reading import MaskReading
from realfill.scene.mask_sources import combine, mask_of_boxes
from realfill.scene.masks import Box
from realfill.segmentation.detection import PEOPLE
from realfill.segmentation.instances import Instance, Instances
from realfill.segmentation.selection import mask_from

MAX_GROW_PX = 200


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

    def add_box(self, box: Box) -> None:
        """Mark a box, (top, left, bottom, right) in pixels.

        Raises:
            SceneError: it has no pixel in the photo.
        """
        mask_of_boxes([box], self.size)
        self.boxes.append(box)

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
        painted = self._painted if self._painted is not None else np.zeros(self.size, bool)
        rubbed = self._rubbed if self._rubbed is not None else np.zeros(self.size, bool)
        drawn = stroke > 0
        self._painted = painted & ~drawn if rub_out else painted | drawn
        self._rubbed = rubbed | drawn if rub_out else rubbed & ~drawn

    def choose(self, numbers: Iterable[int], *, everyone_but: bool = False) -> None:
        """Tick instances by their numbers.

        Args:
            numbers: the ticked instances.
            everyone_but: they stay and all other people go.
        """
        self.chosen, self.everyone_but = frozenset(numbers), everyone_but

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
        self.chosen = self.chosen ^ {found.number}
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

    def _people(self) -> list[MaskReading]:
        if not self.instances or not (self.chosen or self.everyone_but):
            return []
        stays = sorted(self.chosen) if self.everyone_but else []
        numbers = None if self.everyone_but else sorted(self.chosen)
        return [
            mask_from(
                self.instances, classes=PEOPLE, numbers=numbers, keep=stays, carried=True, ground_contact=self.shadows
            )
        ]
