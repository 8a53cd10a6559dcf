"""Masks from instances: who goes, who stays, and how far the mask reaches beyond the outline.

**Dilation.** A mask that follows the outline tightly leaves a halo: the soft edge of whatever was removed. So each
outline is grown by 1 % of the longer side of its box, at least 2 and at most 24 pixels, unless ``dilation_px`` says
otherwise.

**What a person carries.** Detectors find a backpack or a suitcase as an instance of its own. With ``carried=True`` it
is removed with its owner, if all of this holds: its class is one that people carry; its outline touches the owner's,
grown by the owner's dilation; at least half of it lies in the owner's box grown by a tenth; it is smaller than the
owner; and of all people it touches, it overlaps with the owner most. What belongs to somebody who stays, stays.

**Shadows.** With ``ground_contact=True`` the mask also covers a flat ellipse where the instance stands: three quarters
of its width to either side of the lowest tenth of its outline, and a twelfth of its height up and down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

import cv2
import numpy as np

from realfill.errors import SceneError
from realfill.io.images import MaskArray
from realfill.scene.mask_reading import MaskReading
from realfill.scene.masks import dilate
from realfill.segmentation.instances import Instance, Instances

CARRIED = frozenset({
    "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork",
    "knife", "spoon", "banana", "apple", "sandwich", "orange", "hot dog", "donut", "laptop", "cell phone", "book",
    "teddy bear", "hair drier", "toothbrush", "scissors", "remote", "bicycle",
})  # fmt: skip
"""COCO's classes that people hold or wear."""

_DILATION_SHARE, _MIN_DILATION_PX, _MAX_DILATION_PX = 0.01, 2, 24
_IN_BOX_SHARE, _BOX_GROWTH = 0.5, 0.1
_CONTACT_SHARE, _SHADOW_WIDTH, _SHADOW_HEIGHT = 0.1, 0.75, 1 / 12


def mask_from(
    instances: Instances,
    *,
    classes: Sequence[str] | None = None,
    numbers: Iterable[int] | None = None,
    keep: Iterable[int] = (),
    dilation_px: int | None = None,
    carried: bool = False,
    ground_contact: bool = False,
) -> MaskReading:
    """Make a mask of the instances to remove. The rules are at the top of ``realfill.segmentation.selection``.

    Args:
        instances: the result of ``find_instances``.
        classes: the classes to remove. ``None``: all.
        numbers: the numbers of the instances to remove, of whatever class. ``None``: those of ``classes``.
        keep: the numbers of the instances that stay. Where the grown outlines of others reach into the outline of one
            that stays, its pixels stay.
        dilation_px: pixels by which every outline is grown. ``None``: by its size.
        carried: also remove what those who go hold or wear.
        ground_contact: also cover the ground where they stand, for their shadows.

    Returns:
        The mask, and the description of what it covers. ``erase`` and ``Scene`` take it as it is.

    Raises:
        SceneError: there is no instance to remove, or the mask covers the whole photo.
        ValueError: a number does not exist, or the dilation is negative.
    """
    if dilation_px is not None and dilation_px < 0:
        raise ValueError(f"dilation_px is {dilation_px}; legal: 0 or more")
    stays = _of_numbers(instances, keep, "keep")
    chosen = instances.of(classes) if numbers is None else _of_numbers(instances, numbers, "numbers")
    goes = [i for i in chosen if i not in stays]
    _require_any(instances, chosen, goes, classes)
    things = _carried(instances, goes, dilation_px) if carried else []
    goes += [thing for thing in things if thing not in goes and thing not in stays]
    mask = np.zeros(instances.size, bool)
    for instance in goes:
        _add(mask, instance, dilation_px, ground_contact=ground_contact)
    for instance in stays:
        mask[instance.place] &= ~instance.cut
    if mask.all():
        raise SceneError(
            "the mask covers the whole photo, so no known pixel is left; legal: fewer instances, less dilation"
        )
    if not mask.any():
        raise SceneError("nothing is left to remove, because those who stay cover it; legal: fewer numbers in keep")
    return MaskReading(mask=mask, source=_describe(goes, dilation_px, ground_contact=ground_contact))


def default_dilation_px(instance: Instance) -> int:
    """Return the pixels by which an outline is grown: 1 % of its longer side, from 2 to 24."""
    top, left, bottom, right = instance.box
    grown = round(_DILATION_SHARE * max(bottom - top, right - left))
    return min(_MAX_DILATION_PX, max(_MIN_DILATION_PX, grown))


def _of_numbers(instances: Instances, numbers: Iterable[int], what: str) -> list[Instance]:
    found = []
    for number in numbers:
        if not isinstance(number, Integral) or not 0 <= number < len(instances):
            legal = f"from 0 to {len(instances) - 1}" if len(instances) else "none, because there is no instance"
            listed = "; ".join(repr(i) for i in instances)
            raise ValueError(f"{what} names the instance {number}; legal: {legal}{f' ({listed})' if listed else ''}")
        if instances[number] not in found:
            found.append(instances[number])
    return found


def _require_any(
    instances: Instances, chosen: list[Instance], goes: list[Instance], classes: Sequence[str] | None
) -> None:
    if goes:
        return
    if chosen:
        raise SceneError(
            f"everything that was found is kept ({', '.join(repr(i) for i in chosen)}), so there is nothing to remove; "
            "legal: fewer numbers in keep"
        )
    what = " or ".join(classes) if classes else "instance"
    others = f"; found instead: {', '.join(instances.names)}" if instances.names else ""
    raise SceneError(
        f"{instances.detector} finds no {what} at the threshold {instances.threshold:g}{others}. Mark it with a box or "
        "a click, lower the threshold, or use another detector"
    )


def _dilation(instance: Instance, dilation_px: int | None) -> int:
    return default_dilation_px(instance) if dilation_px is None else dilation_px


def _carried(instances: Instances, goes: list[Instance], dilation_px: int | None) -> list[Instance]:
    """Find what those who go carry, by the rule at the top of this module."""
    people = [i for i in instances if i.name not in CARRIED]
    found = []
    for thing in instances:
        if thing.name not in CARRIED:
            continue
        touch = {i.number: _touch_px(i, thing, _dilation(i, dilation_px)) for i in people if _holds(i, thing)}
        owner = max(touch, key=lambda number: touch[number], default=None)
        if owner is not None and touch[owner] > 0 and any(i.number == owner for i in goes):
            found.append(thing)
    return found


def _holds(person: Instance, thing: Instance) -> bool:
    """Tell whether a thing is smaller than a person, and half of it lies in the person's box, grown by a tenth."""
    if thing.area_px >= person.area_px:
        return False
    top, left, bottom, right = person.box
    dy, dx = round(_BOX_GROWTH * (bottom - top)), round(_BOX_GROWTH * (right - left))
    rows = slice(max(0, top - dy - thing.box[0]), max(0, bottom + dy - thing.box[0]))
    columns = slice(max(0, left - dx - thing.box[1]), max(0, right + dx - thing.box[1]))
    return thing.cut[rows, columns].sum() >= _IN_BOX_SHARE * thing.area_px


def _touch_px(person: Instance, thing: Instance, radius_px: int) -> int:
    """Count the pixels of a thing within ``radius_px`` of a person's outline."""
    place, grown = _grown(person, radius_px)
    mask = np.zeros(person.size, bool)
    mask[place] = grown
    return int((mask[thing.place] & thing.cut).sum())


def _grown(instance: Instance, radius_px: int) -> tuple[tuple[slice, slice], MaskArray]:
    """Dilate an outline within the photo: the place and the pixels there."""
    top, left, bottom, right = instance.box
    height, width = instance.size
    outer = (
        max(0, top - radius_px),
        max(0, left - radius_px),
        min(height, bottom + radius_px),
        min(width, right + radius_px),
    )
    padding = [(top - outer[0], outer[2] - bottom), (left - outer[1], outer[3] - right)]
    return (slice(outer[0], outer[2]), slice(outer[1], outer[3])), dilate(np.pad(instance.cut, padding), radius_px)


def _add(mask: MaskArray, instance: Instance, dilation_px: int | None, *, ground_contact: bool) -> None:
    """Add a grown outline to a mask, in place."""
    place, grown = _grown(instance, _dilation(instance, dilation_px))
    mask[place] |= grown
    if ground_contact:
        top, left, bottom, right = instance.box
        rows = max(1, round(_CONTACT_SHARE * (bottom - top)))
        columns = np.flatnonzero(instance.cut[-rows:].any(axis=0))
        centre = (left + int(columns[0] + columns[-1]) // 2, bottom - 1)
        axes = (
            round(_SHADOW_WIDTH * (right - left)) + 1,
            max(_MIN_DILATION_PX, round(_SHADOW_HEIGHT * (bottom - top))),
        )
        shadow = cv2.ellipse(np.zeros(mask.shape, np.uint8), centre, axes, 0, 0, 360, 1, -1)
        mask |= shadow > 0


def _describe(goes: list[Instance], dilation_px: int | None, *, ground_contact: bool) -> str:
    parts = [f"{i.name} {i.number} (grown by {_dilation(i, dilation_px)} px, found by {i.detector})" for i in goes[:8]]
    more = f" and {len(goes) - 8} more" if len(goes) > 8 else ""
    return f"{', '.join(parts)}{more}{', with the ground where they stand' if ground_contact else ''}"
