"""Pictures of a composite: matches, layers, confidence, source map and depth, each as an image array."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.composite import Composite
from realfill.geometry.depth import DepthMap
from realfill.geometry.layers import Layer
from realfill.geometry.working import fit, shrink, shrink_hole
from realfill.io.images import ImageArray, MaskArray

_PICTURE_PX = 768  # longer side of a photo within a picture
_SHEET_PX = 4096  # longer side of the picture of all layers
_COLUMNS = 3  # of layers, if there are few
_MAX_LINES = 150  # matches that are drawn
_DIMMED = 0.35  # brightness that is left of pixels which are not the subject
_COLOURS = (
    np.array(  # of references, by number; the palette of Okabe and Ito, which colour-blind readers can tell apart
        [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)],
        np.uint8,
    )
)


def draw_all(
    found: Composite,
    known: NDArray,
    hole: MaskArray,
    references: Sequence[NDArray] = (),
) -> dict[str, ImageArray]:
    """Draw every picture of a composite.

    Args:
        found: the composite.
        known: (H, W, 3) uint8 or uint16, the target.
        hole: (H, W) bool, True = fill.
        references: each (h, w, 3) uint8 or uint16; none: no matches are drawn.

    Returns:
        Name to picture: ``matches_0`` and so on, by the number of the reference, ``layers`` if there are any, ``depth``
        if there are cameras, ``sources`` and ``confidence``.
    """
    drawn = {
        f"matches_{n}": draw_matches(known, reference, found.pairs.get((0, n + 1), np.zeros((0, 4))))
        for n, reference in enumerate(references)
    }
    if found.layers:
        columns = max(_COLUMNS, math.ceil(math.sqrt(len(found.layers))))
        drawn["layers"] = draw_layers(found.layers, hole, columns=columns)
    if found.depth is not None:
        drawn["depth"] = draw_depth(found.depth, hole)
    drawn["sources"] = draw_sources(found.image, found.source, hole)
    drawn["confidence"] = draw_confidence(found.image, found.confidence, hole)
    return drawn


def draw_matches(target: NDArray, reference: NDArray, matches: NDArray) -> ImageArray:
    """Draw a target and a reference side by side, with lines between matched points.

    Args:
        target: (H, W, 3) uint8 or uint16.
        reference: (h, w, 3) uint8 or uint16.
        matches: (K, 4) as in ``Pairs``: x and y in the target, x and y in the reference. At most 150 of them, evenly
            taken, are drawn.
    """
    left, right = (shrink(photo, fit(photo.shape, _PICTURE_PX)) for photo in (target, reference))
    height = max(left.shape[0], right.shape[0])
    picture = np.zeros((height, left.shape[1] + right.shape[1], 3), np.uint8)
    picture[: left.shape[0], : left.shape[1]] = left
    picture[: right.shape[0], left.shape[1] :] = right
    drawn = matches[:: max(1, -(-len(matches) // _MAX_LINES))]
    starts = _moved(drawn[:, :2], target.shape, left.shape)
    ends = _moved(drawn[:, 2:4], reference.shape, right.shape) + np.array([left.shape[1], 0])
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        colour = tuple(int(c) for c in _COLOURS[number % len(_COLOURS)])
        one, other = (tuple(int(c) for c in np.rint(point)) for point in (start, end))
        cv2.line(picture, one, other, colour, 1, cv2.LINE_AA)
        for point in (one, other):
            cv2.circle(picture, point, 3, colour, 1, cv2.LINE_AA)
    return picture


def draw_layers(layers: Sequence[Layer], hole: MaskArray, *, columns: int = _COLUMNS) -> ImageArray:
    """Draw layers in rows, best fitting first; pixels that the reference does not show are dimmed.

    Each has a bar in the colour of its reference and the outline of the hole. Many layers are drawn smaller.

    Args:
        layers: the layers of a ``Composite``.
        hole: (H, W) bool, at any size.
        columns: layers in a row.

    Raises:
        ValueError: there are no layers.
    """
    if not layers:
        raise ValueError("there are no layers; legal: the layers of a composite that has any")
    columns = min(columns, len(layers))
    height, width = layers[0].image.shape[:2]
    factor = min(1.0, _SHEET_PX / max(columns * width, math.ceil(len(layers) / columns) * height))
    size = max(1, int(height * factor)), max(1, int(width * factor))
    cells = []
    for layer in layers:
        dim = ~layer.warp.valid_mask | layer.warp.hidden
        cell = np.where(dim[..., None], _DIMMED * layer.image, layer.image).round().astype(np.uint8)
        cell = shrink(cell, size)
        _outline(cell, shrink_hole(hole, (cell.shape[0], cell.shape[1])))
        cell[: max(4, cell.shape[0] // 40)] = _colour_of(layer.warp.reference)
        cells.append(cell)
    blank = np.zeros_like(cells[0])
    cells += [blank] * (-len(cells) % columns)
    rows = [np.concatenate(cells[n : n + columns], axis=1) for n in range(0, len(cells), columns)]
    return np.concatenate(rows, axis=0)


def draw_confidence(image: NDArray, confidence: NDArray, hole: MaskArray) -> ImageArray:
    """Draw the confidence of the hole's pixels over the dimmed photo: dark violet for 0, yellow for 1.

    Args:
        image: (H, W, 3) uint8 or uint16.
        confidence: (H, W) in [0, 1].
        hole: (H, W) bool.
    """
    small, inside = _background(image, hole)
    value = cv2.resize(confidence.astype(np.float32), inside.shape[::-1], interpolation=cv2.INTER_AREA)
    shades = cv2.applyColorMap((value * 255).round().clip(0, 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return np.where(inside[..., None], shades, small).astype(np.uint8)


def draw_sources(image: NDArray, source: NDArray, hole: MaskArray) -> ImageArray:
    """Draw which reference each pixel of the hole comes from; what no reference shows is black.

    Reference 0 is orange, 1 sky blue, 2 green, 3 yellow, 4 blue, 5 red, 6 pink; then the colours start again.

    Args:
        image: (H, W, 3) uint8 or uint16.
        source: (H, W) int, the number of the reference counted from 0; -1: none.
        hole: (H, W) bool.
    """
    small, inside = _background(image, hole)
    numbers = cv2.resize(source.astype(np.int16), inside.shape[::-1], interpolation=cv2.INTER_NEAREST)
    colours = np.where((numbers < 0)[..., None], np.uint8(0), _COLOURS[numbers % len(_COLOURS)])
    grey = cv2.cvtColor(shrink(image, inside.shape), cv2.COLOR_RGB2GRAY)[..., None] / 255
    shades = np.where((numbers < 0)[..., None], 0, colours * (0.4 + 0.6 * grey))
    return np.where(inside[..., None], shades.round(), small).astype(np.uint8)


def draw_depth(depth: DepthMap, hole: MaskArray) -> ImageArray:
    """Draw the inverse depth of the target's pixels: bright is near, dark is far. The hole is outlined.

    Args:
        depth: the depth of a ``Composite``.
        hole: (H, W) bool of the target, at any size.
    """
    size = fit(hole.shape, _PICTURE_PX)
    inverse = cv2.resize(1 / depth.depth, size[::-1], interpolation=cv2.INTER_LINEAR)
    low, high = np.percentile(inverse, (1, 99))
    value = ((inverse - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)
    picture = np.asarray(cv2.applyColorMap(value, cv2.COLORMAP_INFERNO)[..., ::-1], np.uint8).copy()
    _outline(picture, shrink_hole(hole, size))
    return picture


def _background(image: NDArray, hole: MaskArray) -> tuple[NDArray, MaskArray]:
    """Return the photo dimmed, and the hole, at the size of a picture."""
    size = fit(hole.shape, _PICTURE_PX)
    return shrink(image, size) * np.float32(_DIMMED), shrink_hole(hole, size)


def _colour_of(reference: int) -> NDArray[np.uint8]:
    return _COLOURS[reference % len(_COLOURS)]


def _outline(picture: ImageArray, hole: MaskArray) -> None:
    """Draw the outline of a hole in white on black, in place."""
    contours, _ = cv2.findContours(hole.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (0, 0, 0), 3)
    cv2.drawContours(picture, contours, -1, (255, 255, 255), 1)


def _moved(points: NDArray, size: tuple[int, ...], new_size: tuple[int, ...]) -> NDArray:
    factor = np.array(new_size[1::-1]) / np.array(size[1::-1])
    return (points + 0.5) * factor - 0.5
