"""Operations on masks: random training masks, dilation, bounding boxes, and smooth interpolation under a mask.

A ``MaskArray`` is (H, W) bool; True = fill.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from realfill.config import MaskShape
from realfill.io.images import MaskArray, resize

if TYPE_CHECKING:
    import torch

Box: TypeAlias = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels; bottom and right are exclusive."""

_MAX_HOLES = 32
_GREY = 0.5  # where an image has no known pixel


def random_mask(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    num_rectangles: tuple[int, int],
    rectangle_size: tuple[float, float],
    shapes: Sequence[MaskShape] = ("rectangle",),
    complement_share: float = 0.5,
) -> MaskArray:
    """Draw a training mask: the union of random shapes or, half the time, its complement (paper, section 3.2).

    Args:
        size: (height, width) in pixels.
        rng: the random generator.
        num_rectangles: the smallest and the largest number of shapes.
        rectangle_size: the smallest and the largest side of a shape's bounding box, as a share of the side of the
            image.
        shapes: the shapes to choose from, each as likely as the others. The paper draws rectangles only.
        complement_share: probability of the complement, in [0, 1].

    Returns:
        (height, width) bool, True = hidden.
    """
    hidden = np.zeros(size, bool)
    for _ in range(rng.integers(num_rectangles[0], num_rectangles[1] + 1)):
        height, width = (max(1, round(n * rng.uniform(*rectangle_size))) for n in size)
        y, x = rng.integers(size[0] - height + 1), rng.integers(size[1] - width + 1)
        shape = shapes[int(rng.integers(len(shapes)))] if len(shapes) > 1 else shapes[0]
        hidden[y : y + height, x : x + width] |= _draw_shape(shape, (height, width), rng)
    return hidden if rng.random() < 1 - complement_share else ~hidden


def _draw_shape(shape: MaskShape, size: tuple[int, int], rng: np.random.Generator) -> MaskArray:
    """Draw a shape that fills its bounding box of ``size`` (height, width): (height, width) bool."""
    if shape == "rectangle":
        return np.ones(size, bool)
    (height, width), canvas = size, np.zeros(size, np.uint8)
    if shape == "ellipse":
        y, x = np.ogrid[:height, :width]
        return ((2 * y + 1) / height - 1) ** 2 + ((2 * x + 1) / width - 1) ** 2 <= 1
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.4, 1, (len(angles), 1))
    low, high = corners.min(axis=0), corners.max(axis=0)
    points = (corners - low) / np.maximum(high - low, 1e-6) * (width - 1, height - 1)
    cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 1)
    return canvas > 0


def dilate(mask: MaskArray, radius_px: int) -> MaskArray:
    """Dilate a mask with a disc of ``radius_px`` pixels."""
    if radius_px <= 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def resize_mask(mask: MaskArray, size: tuple[int, int]) -> MaskArray:
    """Resize a mask. A pixel of the result is True if ``images.resize`` would mix any masked pixel into it.

    Args:
        mask: (H, W) bool.
        size: (height, width).
    """
    if mask.shape == tuple(size):
        return np.array(mask, bool, order="C")
    return np.abs(resize(mask.astype(np.float32), size)) > 1e-6  # cubic weights can be negative


def bounding_box(mask: MaskArray) -> Box:
    """Find the smallest box that contains every True pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("the mask is empty; legal: a mask with at least one True pixel")
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def separate_holes(mask: MaskArray, cell_px: int) -> list[Box]:
    """Find bounding boxes of holes that lie at least one cell apart. Cells grow if there are more than 32 holes.

    Args:
        mask: (H, W) bool with at least one True pixel.
        cell_px: side of a cell, at least 1.

    Returns:
        Boxes that do not overlap and together contain every True pixel.
    """
    while True:
        height, width = (math.ceil(n / cell_px) for n in mask.shape)
        padded = np.pad(mask, [(0, n * cell_px - m) for n, m in zip((height, width), mask.shape, strict=True)])
        cells = padded.reshape(height, cell_px, width, cell_px).any(axis=(1, 3))
        stats = cv2.connectedComponentsWithStats(np.asarray(cells, np.uint8), connectivity=8)[2][1:]
        if len(stats) <= _MAX_HOLES:
            break
        cell_px *= 2
    boxes = []
    for x, y, w, h, _ in stats.tolist():
        top, left = y * cell_px, x * cell_px
        inner = bounding_box(mask[top : top + h * cell_px, left : left + w * cell_px])
        boxes.append((top + inner[0], left + inner[1], top + inner[2], left + inner[3]))
    return join_overlapping(boxes)


def join_overlapping(boxes: Sequence[Box]) -> list[Box]:
    """Replace overlapping boxes by their unions until no two boxes overlap."""
    joined: list[Box] = []
    for new in boxes:
        box = new
        while overlapping := [b for b in joined if _overlap(b, box)]:
            joined = [b for b in joined if b not in overlapping]
            for other in overlapping:
                box = union(box, other)
        joined.append(box)
    return joined


def union(a: Box, b: Box) -> Box:
    """Find the smallest box that contains two boxes."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def fill_smooth(images: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Interpolate the known pixels smoothly into the hole with a push-pull pyramid.

    The pixels under the hole have no influence on the result.

    Args:
        images: (B, C, H, W) float.
        hole: (B, 1, H, W) bool, True = fill.

    Returns:
        (B, C, H, W), exactly equal to ``images`` outside the hole. An image without a known pixel becomes mid-grey.
    """
    import torch  # noqa: PLC0415 - geometry does without it
    import torch.nn.functional as F  # noqa: PLC0415

    known = (~hole).to(images.dtype)
    values, weights = (images - _GREY).masked_fill(hole, 0), known
    levels = [(values, weights)]
    while max(weights.shape[-2:]) > 1:
        values, weights = (_halve(x) for x in (values, weights))
        levels.append((values, weights))
    filled = torch.zeros_like(values)
    for values, weights in reversed(levels):
        coarser = F.interpolate(filled, size=values.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weights > 0, values / weights.clamp(min=1e-12), coarser)
    return torch.where(hole, filled + _GREY, images)


def _halve(x: torch.Tensor) -> torch.Tensor:
    import torch.nn.functional as F  # noqa: PLC0415

    height, width = x.shape[-2:]
    kernel = (min(2, height), min(2, width))
    return F.avg_pool2d(x, kernel, ceil_mode=True, count_include_pad=False)
