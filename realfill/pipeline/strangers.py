"""Instances of the removed classes where nobody should be: strangers in the references, and a rest in the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realfill.errors import SceneError, warn
from realfill.io.images import ImageLike, MaskArray, read_image
from realfill.results.completion import Completion
from realfill.scene.masks import dilate
from realfill.segmentation.detection import Detector, find_instances
from realfill.segmentation.instances import Instance, Instances
from realfill.segmentation.selection import GROWTH_WITH_REFERENCES, mask_from

_REST_SHARE, _NEAR_PX = 0.5, 4  # share of an instance that lies in the hole or this near to it, to count as a rest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strangers:
    """The instances that are hidden in a reference.

    Attributes:
        count: their number.
        mask: their pixels, (H, W) bool; ``None`` if there are none.
    """

    count: int = 0
    mask: MaskArray | None = None


def find_strangers(
    references: Sequence[ImageLike], classes: Sequence[str], detector: str | Detector, *, first: int = 0
) -> list[Strangers]:
    """Find in each reference the instances of the removed classes, which are then hidden there.

    Args:
        references: the references.
        classes: the removed classes.
        detector: see ``load_detector``.
        first: the number of the first of these references, for messages.
    """
    hidden: list[Strangers] = []
    for number, reference in enumerate(references, first):
        instances = find_instances(read_image(reference, f"reference {number}")[0], detector=detector, classes=classes)
        try:
            hidden.append(_hide(instances.of(classes), instances))
        except SceneError as error:
            warn(f"nothing is hidden in reference {number}: {error}")
            hidden.append(Strangers())
    return hidden


def _hide(people: Sequence[Instance], instances: Instances) -> Strangers:
    """Hide some instances of a reference, with a margin: a hidden pixel costs less than a pasted arm."""
    if not people:
        return Strangers()
    reading = mask_from(instances, numbers=[person.number for person in people], growth=GROWTH_WITH_REFERENCES)
    return Strangers(count=len(people), mask=reading.mask)


def choose(
    items: Sequence[Completion], classes: Sequence[str], detector: str | Detector
) -> tuple[Completion, MaskArray]:
    """Choose the candidate with the smallest rest, the earlier of equal ones; return it with its rest."""
    rests = [find_rest(item, classes, detector) for item in items]
    best = min(range(len(items)), key=lambda i: int(rests[i].sum()))
    return items[best], rests[best]


def find_rest(completion: Completion, classes: Sequence[str], detector: str | Detector) -> MaskArray:
    """Find the boxes of instances of the removed classes that the result still shows in the hole, (H, W) bool."""
    hole = dilate(completion.scene.mask, _NEAR_PX)
    rest = np.zeros(hole.shape, bool)
    for instance in find_instances(completion.image, detector=detector, classes=classes).of(classes):
        if (hole[instance.place] & instance.cut).sum() >= _REST_SHARE * instance.area_px:
            rest[instance.place] = True
    return rest
