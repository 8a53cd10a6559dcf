"""Rendering: the chosen layers at the photo's full size, tile by tile; memory depends on a tile, not on the photo."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.alignment import FullLayer, Part
from realfill.geometry.edges import SmoothLabels, settle
from realfill.geometry.sampling import enlarge
from realfill.geometry.seamless import screen_weight, solve
from realfill.io.images import MaskArray

_TILE_PX = 768
_EDGE = 2.5  # width of the zone beside borders where the correction is solved at full size, in small pixels
_MARGIN_PX = 8  # around the pixels for which a layer is sampled
_OPEN = 255  # label of a pixel that is not settled yet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What is to be rendered.

    Attributes:
        layers: the layers; label n is the n-th, and the next label is ``rest``.
        rest: (h, w, 3) float32 in [0, 255] at the working size, for pixels that no layer shows.
        labels: (h, w) at the working size or half of it: the label of each pixel of the hole.
        small_hole: (h, w) bool, the hole at the size of ``labels``.
        correction: (h, w, 3) float32 at the working size, the solution of ``seamless.correct``.
        preview: (h, w, 3) float32 in [0, 255]: the corrected layers at the working size.
        size: (H, W), the full size.
    """

    layers: Sequence[FullLayer]
    rest: NDArray
    labels: NDArray
    small_hole: MaskArray
    correction: NDArray
    preview: NDArray
    size: tuple[int, int]


def blank_labels(size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return labels (H, W) of which none is settled."""
    return np.full(size[:2], _OPEN, np.uint8)


def render(
    image: NDArray, labels: NDArray[np.uint8], hole: MaskArray, plan: Plan, check: Callable[[float], None] | None = None
) -> None:
    """Fill a hole with the layers of a plan.

    Args:
        image: (H, W, 3) uint8 or uint16, the photo; the hole is filled in place.
        labels: (H, W), the result of ``blank_labels``; set to the label of each pixel of the hole.
        hole: (H, W) bool.
        plan: what is rendered.
        check: called with the share of finished tiles before each tile. It may raise an exception; the tiles before are
            finished then, and the others untouched.
    """
    smooth = SmoothLabels(plan.labels, plan.small_hole, hole.shape)
    scale = max(1.0, max(hole.shape) / max(plan.rest.shape[:2]))
    halo = math.ceil(4 * scale) + 12
    places = list(tiles(hole))
    for number, tile in enumerate(places):
        if check is not None:
            check(number / len(places))
        rows, columns = (
            slice(max(0, span.start - halo), min(side, span.stop + halo))
            for span, side in zip(tile, hole.shape, strict=True)
        )
        inner = tuple(slice(t.start - o.start, t.stop - o.start) for t, o in zip(tile, (rows, columns), strict=True))
        filled, chosen = _render_part(image, hole, labels, (rows, columns), plan, smooth, scale)
        inside = hole[tile]
        image[tile][inside] = filled[inner][inside]
        labels[tile][inside] = chosen[inner][inside]


def fill_rest(image: NDArray, labels: NDArray[np.uint8], hole: MaskArray, plan: Plan) -> None:
    """Enlarge the preview where ``render`` has not come to; the arguments are those of ``render``."""
    peak = np.iinfo(image.dtype).max
    for tile in tiles(hole & (labels == _OPEN)):
        open_ = hole[tile] & (labels[tile] == _OPEN)
        shown = enlarge(plan.preview, hole.shape, *tile) * np.float32(peak / 255)
        image[tile][open_] = shown.round().clip(0, peak).astype(image.dtype)[open_]
        rows, columns = (
            (np.arange(span.start, span.stop) * small // full)
            for span, small, full in zip(tile, plan.labels.shape, hole.shape, strict=True)
        )
        labels[tile][open_] = plan.labels[rows][:, columns].astype(np.uint8)[open_]


def tiles(hole: MaskArray) -> Iterator[Part]:
    """Yield the tiles that contain any of a hole, from top to bottom."""
    for top in range(0, hole.shape[0], _TILE_PX):
        for left in range(0, hole.shape[1], _TILE_PX):
            tile = slice(top, min(top + _TILE_PX, hole.shape[0])), slice(left, min(left + _TILE_PX, hole.shape[1]))
            if hole[tile].any():
                yield tile


def _render_part(
    image: NDArray, hole: MaskArray, done: NDArray[np.uint8], part: Part, plan: Plan, smooth: SmoothLabels, scale: float
) -> tuple[NDArray, NDArray]:
    """Render a part of the photo with what is finished beside it; return its pixels and labels."""
    unit = np.iinfo(image.dtype).max / 255
    known = image[part] / np.float32(unit)
    inside, finished = hole[part], done[part] != _OPEN
    likely = smooth.enlarge(*part)
    present = np.concatenate([likely.first[inside], likely.second[inside], done[part][finished]])
    numbers = [int(n) for n in np.unique(present)]
    table = np.zeros(_OPEN + 1, np.uint8)
    table[numbers] = np.arange(len(numbers))
    stack, valid = _sample(
        plan, numbers, part, [np.where(inside, label, _OPEN) for label in (likely.first, likely.second, done[part])]
    )
    likely = type(likely)(first=table[likely.first], second=table[likely.second], lead=likely.lead)
    settled = np.where(finished, table[done[part]].astype(int), -1)
    labels = settle(likely, stack, inside, settled)
    y, x = np.ogrid[: labels.shape[0], : labels.shape[1]]
    for other in (likely.second, likely.first):
        wrong = ~valid[labels, y, x] & valid[other, y, x] & ~finished
        labels = np.where(wrong, other, labels)
    chosen = stack[labels, y, x]
    start = enlarge(plan.correction, hole.shape, *part)
    start = np.where(finished[..., None], known - chosen, start)
    zone = _zone(inside, labels, likely.lead, math.ceil(_EDGE * scale) + 2)
    correction = solve(
        stack, labels, known, inside, screen=screen_weight(max(hole.shape)), start=start, free=zone & ~finished
    )
    filled = ((chosen + correction) * np.float32(unit)).round().clip(0, np.iinfo(image.dtype).max).astype(image.dtype)
    return filled, np.array(numbers, np.uint8)[labels]


def _sample(plan: Plan, numbers: Sequence[int], part: Part, labels: Sequence[NDArray]) -> tuple[NDArray, NDArray]:
    """Sample layers where any of some labels, (h, w) each, asks for them, and a few pixels around.

    Returns:
        (L, h, w, 3) float32 in [0, 255], 0 elsewhere; (L, h, w) bool: what the references show.
    """
    shape = labels[0].shape
    stack, valid = np.zeros((len(numbers), *shape, 3), np.float32), np.zeros((len(numbers), *shape), bool)
    for place, number in enumerate(numbers):
        wanted = np.any([one == number for one in labels], axis=0)
        rows, columns = (
            slice(max(0, int(at[0]) - _MARGIN_PX), int(at[-1]) + 1 + _MARGIN_PX)
            for at in (np.flatnonzero(wanted.any(axis=axis)) for axis in (1, 0))
        )
        rows, columns = slice(rows.start, min(rows.stop, shape[0])), slice(columns.start, min(columns.stop, shape[1]))
        box = (
            slice(part[0].start + rows.start, part[0].start + rows.stop),
            slice(part[1].start + columns.start, part[1].start + columns.stop),
        )
        if number < len(plan.layers):
            stack[place, rows, columns], valid[place, rows, columns] = plan.layers[number].render(box)
        else:
            stack[place, rows, columns], valid[place, rows, columns] = enlarge(plan.rest, plan.size, *box), True
    return stack, valid


def _zone(hole: MaskArray, labels: NDArray, lead: NDArray, width: int) -> MaskArray:
    """Mark the pixels of a hole that are near its border, near a seam, or where a seam was before it moved."""
    kernel = np.ones((3, 3), np.uint8)
    border = cv2.dilate((~hole).astype(np.uint8), kernel)
    numbers = np.where(hole, labels, 0).astype(np.uint8)
    seam = hole & ((cv2.dilate(numbers, kernel) != numbers) | (cv2.erode(numbers, kernel) != numbers) | (lead < 0.2))
    near = cv2.distanceTransform(((border > 0) | seam).astype(np.uint8) ^ 1, cv2.DIST_L2, 3) <= width
    return hole & near
