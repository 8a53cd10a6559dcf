"""Masks from instances: who goes, who stays, and how far the mask reaches beyond the outline.

**Dilation.** A mask that follows the outline tightly leaves a halo: the soft edge of whatever was removed. So each
outline is grown by 1 % of the longer side of its box, at least 2 and at most 24 pixels, unless ``dilation_px`` says
otherwise. Where references show what is behind, a pixel too much costs next to nothing, and a forgotten edge spreads
its colour into what is taken from them: there an outline grows by 5 %, at most 120 pixels (``GROWTH_WITH_REFERENCES``).

**Gaps.** A grown outline loses the gaps that it encloses, alone or with one edge of the photo, and that have less than
2 % of its pixels, such as a collar, a strap or a glove: what is left of somebody there would spread its colour into the
hole. A larger gap, such as the view between an arm and the body, stays.

**What a person carries.** Detectors find a backpack or a suitcase as an instance of its own. With ``carried=True`` it
is removed with its owner, if all of this holds: its class is one that people carry; its outline touches the owner's,
grown by the owner's dilation; at least half of it lies in the owner's box grown by a tenth; it is smaller than the
owner; and of all people it touches, it overlaps with the owner most. What belongs to somebody who stays, stays.

**Shadows.** With ``ground_contact=True`` the mask also covers a flat ellipse where the instance stands: three quarters
of its width to either side of the lowest tenth of its outline, and a twelfth of its height up and down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

import cv2
import numpy as np

from realfill.errors import NothingToRemoveError, SceneError
from realfill.io.images import MaskArray
from realfill.scene.mask_reading import MaskReading
from realfill.scene.masks import dilate
from realfill.segmentation.instances import Instance, Instances
from realfill.segmentation.outline import without_gaps

CARRIED = frozenset({
    "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork",
    "knife", "spoon", "banana", "apple", "sandwich", "orange", "hot dog", "donut", "laptop", "cell phone", "book",
    "teddy bear", "hair drier", "toothbrush", "scissors", "remote", "bicycle",
})  # fmt: skip
"""COCO's classes that people hold or wear."""

GROWTH, GROWTH_WITH_REFERENCES = 0.01, 0.05
"""Growth of an outline as a share of the longer side of its box, without and with references."""

_MIN_DILATION_PX, _MAX_DILATION_PX = 2, 24  # the latter for GROWTH, and in proportion for more
_GAP_SHARE = 0.02
_IN_BOX_SHARE, _BOX_GROWTH = 0.5, 0.1
_CONTACT_SHARE, _SHADOW_WIDTH, _SHADOW_HEIGHT = 0.1, 0.75, 1 / 12


def mask_from(
    instances: Instances,
    *,
    classes: Sequence[str] | None = None,
    numbers: Iterable[int] | None = None,
    keep: Iterable[int] = (),
    dilation_px: int | None = None,
    growth: float = GROWTH,
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
        growth: how far an outline grows by its size, as a share of the longer side of its box.
        carried: also remove what those who go hold or wear.
        ground_contact: also cover the ground where they stand, for their shadows.

    Returns:
        The mask, and the description of what it covers. ``erase`` and ``Scene`` take it as it is.

    Raises:
        NothingToRemoveError: there is no instance of ``classes``, or all of them stay.
        SceneError: there is no instance to remove, or the mask covers the whole photo.
        ValueError: a number does not exist, or the dilation is negative.
    """
    if dilation_px is not None and dilation_px < 0:
        raise ValueError(f"dilation_px is {dilation_px}; legal: 0 or more")
    stays = of_numbers(instances, keep, "keep")
    chosen = instances.of(classes) if numbers is None else of_numbers(instances, numbers, "numbers")
    goes = [i for i in chosen if i not in stays]
    _require_any(instances, chosen, goes, classes if numbers is None else None)
    radii = {i.number: default_dilation_px(i, growth) if dilation_px is None else dilation_px for i in instances}
    things = _carried(instances, goes, radii) if carried else []
    goes += [thing for thing in things if thing not in goes and thing not in stays]
    mask = np.zeros(instances.size, bool)
    for instance in goes:
        _add(mask, instance, radii[instance.number], ground_contact=ground_contact)
    for instance in stays:
        mask[instance.place] &= ~instance.cut
    if mask.all():
        raise SceneError(
            "the mask covers the whole photo, so no known pixel is left; legal: fewer instances, less dilation"
        )
    if not mask.any():
        raise SceneError("nothing is left to remove, because those who stay cover it; legal: fewer numbers in keep")
    return MaskReading(mask=mask, source=_describe(goes, radii, ground_contact=ground_contact), is_outline=True)


def default_dilation_px(instance: Instance, growth: float = GROWTH) -> int:
    """Return the pixels by which an outline is grown: a share of its longer side, for 1 % from 2 to 24."""
    top, left, bottom, right = instance.box
    grown = round(growth * max(bottom - top, right - left))
    return min(round(_MAX_DILATION_PX * growth / GROWTH), max(_MIN_DILATION_PX, grown))


def of_numbers(instances: Instances, numbers: Iterable[int], what: str) -> list[Instance]:
    """Select instances by their numbers.

    Args:
        instances: the instances of a photo.
        numbers: from 0; a repeated one counts once.
        what: the argument or option, for the error message.

    Raises:
        ValueError: there is no instance of that number.
    """
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
    """Check that something goes. With ``classes``, a photo that shows nothing to remove is an error of its own."""
    if goes:
        return
    error = NothingToRemoveError if classes else SceneError
    if chosen:
        raise error(
            f"everything that was found is kept ({', '.join(repr(i) for i in chosen)}); legal: fewer numbers in keep"
        )
    what = " or ".join(classes) if classes else "instance"
    others = f"; found instead: {', '.join(instances.names)}" if instances.names else ""
    raise error(
        f"{instances.detector} finds no {what} at the threshold {instances.threshold:g}{others}. Mark it with a box or "
        "a click, lower the threshold, or use another detector"
    )


def _carried(instances: Instances, goes: list[Instance], radii: Mapping[int, int]) -> list[Instance]:
    """Find what those who go carry, by the rule at the top of this module."""
    people = [i for i in instances if i.name not in CARRIED]
    found = []
    for thing in instances:
        if thing.name not in CARRIED:
            continue
        touch = {i.number: _touch_px(i, thing, radii[i.number]) for i in people if _holds(i, thing)}
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


def _add(mask: MaskArray, instance: Instance, radius_px: int, *, ground_contact: bool) -> None:
    """Add a grown outline without its gaps to a mask, in place."""
    place, grown = _grown(instance, radius_px)
    rows, columns = place
    height, width = instance.size
    at_edge = (rows.start == 0, columns.start == 0, rows.stop == height, columns.stop == width)
    mask[place] |= without_gaps(grown, share=_GAP_SHARE, closed=at_edge)
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


def _describe(goes: list[Instance], radii: Mapping[int, int], *, ground_contact: bool) -> str:
    parts = [f"{i.name} {i.number} (grown by {radii[i.number]} px, found by {i.detector})" for i in goes[:8]]
    more = f" and {len(goes) - 8} more" if len(goes) > 8 else ""
    return f"{', '.join(parts)}{more}{', with the ground where they stand' if ground_contact else ''}"
