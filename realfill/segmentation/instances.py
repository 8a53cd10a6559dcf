"""Instances: the objects and people that a detector found in a photo, each with a number, a class and an outline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from realfill.io.images import MaskArray
from realfill.scene.masks import Box, bounding_box


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instance:
    """One object or person.

    Attributes:
        number: place in the order by area, from 0, the largest.
        name: class, for example ``person``.
        score: confidence of the detector in [0, 1]; 1 for a box or a click of the user.
        box: (top, left, bottom, right) in pixels; bottom and right are exclusive.
        cut: (bottom - top, right - left) bool, the outline within the box.
        size: (height, width) of the photo.
        detector: what found it, for example ``mask2former`` or ``hog``.
    """

    number: int
    name: str
    score: float
    box: Box
    cut: MaskArray
    size: tuple[int, int]
    detector: str

    @classmethod
    def of_mask(cls, mask: MaskArray, *, name: str, score: float, detector: str) -> Instance:
        """Make an instance, still without its number, from a mask of the photo's size, (H, W) bool, not empty."""
        box = bounding_box(mask)
        cut = mask[box[0] : box[2], box[1] : box[3]].copy()
        size = (mask.shape[0], mask.shape[1])
        return cls(number=0, name=name, score=score, box=box, cut=cut, size=size, detector=detector)

    @property
    def mask(self) -> MaskArray:
        """The outline in the photo, (H, W) bool. Made at each call, because large photos have many instances."""
        mask = np.zeros(self.size, bool)
        mask[self.place] = self.cut
        return mask

    @property
    def place(self) -> tuple[slice, slice]:
        """The box as indices of an array."""
        return slice(self.box[0], self.box[2]), slice(self.box[1], self.box[3])

    @property
    def area_px(self) -> int:
        """Number of pixels of the outline."""
        return int(self.cut.sum())

    def moved(self, offset: tuple[int, int], size: tuple[int, int]) -> Instance:
        """Return the instance of a tile in the photo.

        Args:
            offset: (top, left) of the tile in the photo.
            size: (height, width) of the photo.
        """
        top, left = offset
        box = (self.box[0] + top, self.box[1] + left, self.box[2] + top, self.box[3] + left)
        return replace(self, box=box, size=size)

    def overlap_px(self, other: Instance) -> int:
        """Count the pixels that two outlines share."""
        top, left = max(self.box[0], other.box[0]), max(self.box[1], other.box[1])
        bottom, right = min(self.box[2], other.box[2]), min(self.box[3], other.box[3])
        if top >= bottom or left >= right:
            return 0
        parts = [i.cut[top - i.box[0] : bottom - i.box[0], left - i.box[1] : right - i.box[1]] for i in (self, other)]
        return int((parts[0] & parts[1]).sum())

    def contains(self, point: tuple[float, float]) -> bool:
        """Tell whether a point (x, y) lies on the outline."""
        x, y = (int(n) for n in point)
        inside = self.box[0] <= y < self.box[2] and self.box[1] <= x < self.box[3]
        return inside and bool(self.cut[y - self.box[0], x - self.box[1]])

    def __repr__(self) -> str:
        top, left, bottom, right = self.box
        return f"{self.number}: {self.name}, score {self.score:.2f}, {right - left} x {bottom - top} at ({left}, {top})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instances(Sequence[Instance]):
    """The instances of a photo, largest first, with what found them.

    Attributes:
        items: the instances; ``items[i].number == i``.
        size: (height, width) of the photo.
        detector: what looked for them, for example ``mask2former`` or ``the offline detector``.
        threshold: the score from which instances count. It may have been lowered, see ``find_instances``.
    """

    items: tuple[Instance, ...]
    size: tuple[int, int]
    detector: str
    threshold: float

    @classmethod
    def ordered(cls, found: Iterable[Instance], *, size: tuple[int, int], detector: str, threshold: float) -> Instances:
        """Number instances by area, the largest first; equal areas from left to right."""
        by_area = sorted(found, key=lambda i: (-i.area_px, i.box[1], i.box[0], i.name))
        items = tuple(replace(instance, number=number) for number, instance in enumerate(by_area))
        return cls(items=items, size=size, detector=detector, threshold=threshold)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that occur, without repetition, in the order of the instances."""
        return tuple(dict.fromkeys(instance.name for instance in self.items))

    def of(self, classes: Sequence[str] | None) -> list[Instance]:
        """Select the instances of some classes, largest first. ``None``: of all classes."""
        return [i for i in self.items if classes is None or i.name in classes]

    def at(self, point: tuple[float, float]) -> Instance | None:
        """Find the instance at a point (x, y), the smallest of several; ``None`` if there is none."""
        hits = [i for i in self.items if i.contains(point)]
        return hits[-1] if hits else None

    def describe(self) -> str:
        """List the instances, one a line."""
        return "\n".join(repr(instance) for instance in self.items) or "no instances"

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Instance: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Instance, ...]: ...
    def __getitem__(self, index: int | slice) -> Instance | tuple[Instance, ...]:
        return self.items[index]

    def __repr__(self) -> str:
        count = f"{len(self.items)} instance{'s' if len(self.items) != 1 else ''}"
        return f"Instances({count}, found by {self.detector} at threshold {self.threshold:g})"
