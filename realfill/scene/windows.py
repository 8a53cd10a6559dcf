"""Windows: crops around holes, from coarse to fine, resized to the resolution of the model and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.images import MaskArray, resize
from realfill.scene.masks import Box, bounding_box, join_overlapping, resize_mask, separate_holes, union

_CELLS = 16  # holes closer than a sixteenth of the base's resolution are one hole
_MAX_STRETCH = 0.08  # change of the aspect, as a logarithm, that is too small to matter
_MIN_SCALE = 1.25  # at this scale or below, a finer window gains too little for its time


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A box of the target and the size to which it is resized for the model.

    Attributes:
        box: the box in pixels of the target.
        size: (height, width) for the model.
    """

    box: Box
    size: tuple[int, int]

    @property
    def box_size(self) -> tuple[int, int]:
        """(height, width) of the box in pixels of the target."""
        top, left, bottom, right = self.box
        return bottom - top, right - left

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as an index into the target."""
        top, left, bottom, right = self.box
        return slice(top, bottom), slice(left, right)

    @property
    def scale(self) -> float:
        """The number of target pixels per pixel of the model, along one side."""
        return math.sqrt(math.prod(self.box_size) / math.prod(self.size))

    def crop(self, image: NDArray) -> NDArray:
        """Crop an image of the target's size to the box and resize it to the model's size."""
        return resize(image[self.slices], self.size)

    def crop_mask(self, mask: MaskArray) -> MaskArray:
        """Crop and resize a mask; a pixel is True if any masked pixel contributes to it."""
        return resize_mask(mask[self.slices], self.size)

    def restore(self, sample: NDArray) -> NDArray:
        """Resize a sample (height, width, C), uint8 or float32, from the model's size back to the size of the box."""
        return resize(sample, self.box_size)

    def restore_within(self, finer: Window, sample: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resample a sample (height, width, C) of this window to a finer window inside it, at that window's size."""
        matrix = np.zeros((2, 3))  # maps (x, y) of the finer window to (x, y) of this window
        for axis in (0, 1):
            fine_px, coarse_px = (w.box_size[axis] / w.size[axis] for w in (finer, self))  # in pixels of the target
            matrix[1 - axis, 1 - axis] = fine_px / coarse_px
            matrix[1 - axis, 2] = (fine_px / 2 + finer.box[axis] - self.box[axis]) / coarse_px - 0.5
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        resampled = cv2.warpAffine(
            np.ascontiguousarray(sample), matrix, finer.size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return resampled.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the hole that is filled in its own windows.

    Attributes:
        hole: a box in pixels of the target. Every masked pixel inside it belongs to this part and to no other.
        windows: from coarse to fine. Each contains the whole part and lies inside the window before it.
    """

    hole: Box
    windows: tuple[Window, ...]

    def of(self, mask: MaskArray) -> MaskArray:
        """Return a copy of the target's mask in which only this part is True."""
        top, left, bottom, right = self.hole
        part_mask = np.zeros_like(mask)
        part_mask[top:bottom, left:right] = mask[top:bottom, left:right]
        return part_mask


def choose_window(mask: MaskArray, *, resolution: int, multiple: int, context: float) -> Window:
    """Choose a single window in which a hole is filled.

    The box is a square around the hole, ``context`` times its longer side but at least the model's resolution, and cut
    off at the edges of the target. It contains known pixels beside the hole, about one latent wide, whatever
    ``context`` is. The size for the model has about as many pixels as a square of the base's resolution. The aspect of
    box and size agree to 8 %, or as closely as ``multiple`` allows.

    Args:
        mask: (H, W) bool, True = fill.
        resolution: side in pixels of the base's square images.
        multiple: the model's sizes must be multiples of this, in pixels.
        context: at least 1.
    """
    return _around(bounding_box(mask), mask.shape, resolution, multiple, context)


def choose_windows(
    mask: MaskArray, *, resolution: int, multiple: int, context: float, max_growth: float = 1.25, num_stages: int = 1
) -> tuple[Part, ...]:
    """Choose the windows in which the holes are filled, from coarse to fine.

    Holes whose bounding boxes overlap form one part. Other holes share a window if it is at most ``max_growth`` times
    as coarse as the coarser of their separate windows; the pair that loses least is joined first.

    If a window shrinks the target, finer windows follow. Each halves the scale, and the last has scale 1. They contain
    the hole and a margin of half the base's resolution on each side.

    Args:
        mask: (H, W) bool, True = fill.
        resolution: side in pixels of the base's square images.
        multiple: the model's sizes must be multiples of this, in pixels.
        context: at least 1.
        max_growth: at least 1.
        num_stages: the largest number of windows per part, at least 1.

    Returns:
        Parts from top to bottom, which together contain every masked pixel exactly once.
    """

    def around(hole: Box) -> Window:
        return _around(hole, mask.shape, resolution, multiple, context)

    holes = {box: around(box) for box in separate_holes(mask, max(1, resolution // _CELLS))}
    while len(holes) > 1:
        growths = [
            (around(union(a, b)).scale / max(holes[a].scale, holes[b].scale), a, b)
            for a, b in combinations(sorted(holes), 2)
        ]
        growth, a, b = min(growths)
        if growth > max_growth:
            break
        boxes = join_overlapping([union(a, b), *(box for box in holes if box not in (a, b))])
        holes = {box: holes.get(box) or around(box) for box in boxes}
    return tuple(
        Part(hole=box, windows=_stages(box, window, resolution, multiple, num_stages))
        for box, window in sorted(holes.items(), key=lambda item: item[0])
    )


def _around(hole: Box, shape: tuple[int, ...], resolution: int, multiple: int, context: float) -> Window:
    spans = [(hole[i], hole[i + 2]) for i in (0, 1)]
    context = max(context, 1 / max(0.5, 1 - 2 * multiple / resolution))  # leaves one latent on each side
    side = max(context * max(end - start for start, end in spans), resolution)
    box = [min(n, math.ceil(side)) for n in shape]
    border = math.floor(multiple * math.sqrt(math.prod(box)) / resolution)
    required = [_with_border(span, (0, n), border) for span, n in zip(spans, shape, strict=True)]
    ideal = [n * resolution / math.sqrt(math.prod(box)) / multiple for n in box]
    sizes = [tuple(max(1, round(x)) * multiple for x in ideal)]
    sizes += product(*({max(1, math.floor(x)) * multiple, math.ceil(x) * multiple} for x in ideal))
    candidates = [(_box_of_aspect(box, size, required, shape), size) for size in sizes]
    box, size = min(candidates, key=lambda pair: max(_stretch(*pair), _MAX_STRETCH))  # the first of equally good ones
    (top, bottom), (left, right) = (
        _place(sum(span) / 2, length, inner, (0, n))
        for span, length, inner, n in zip(spans, box, required, shape, strict=True)
    )
    return Window(box=(top, left, bottom, right), size=(size[0], size[1]))


def _box_of_aspect(
    box: list[int], size: tuple[int, ...], required: list[tuple[int, int]], shape: tuple[int, ...]
) -> list[int]:
    """Change the sides of a box to the aspect of ``size``, if the result fits into the target and still suffices."""
    scales = [n / s for n, s in zip(box, size, strict=True)]
    for scale in (max(scales), min(n / s for n, s in zip(shape, size, strict=True)), min(scales)):
        exact = [round(s * scale) for s in size]
        if all(end - start <= e <= n for (start, end), e, n in zip(required, exact, shape, strict=True)):
            return exact
    return box


def _with_border(span: tuple[int, int], outer: tuple[int, int], border: int) -> tuple[int, int]:
    """Add a border to the span of a hole along one axis, limited to an outer span."""
    return max(outer[0], span[0] - border), min(outer[1], span[1] + border)


def _place(middle: float, length: int, required: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
    """Place a span of a given length along one axis.

    Args:
        middle: the preferred middle.
        length: the length of the span.
        required: a span that the result must contain.
        outer: a span that must contain the result.
    """
    low, high = max(outer[0], required[1] - length), min(outer[1] - length, required[0])
    start = int(np.clip(round(middle - length / 2), low, high))
    return start, start + length


def _stretch(box: list[int], size: tuple[int, ...]) -> float:
    """Measure by how much resizing stretches one side against the other, as a logarithm."""
    return abs(math.log(box[0] / size[0] / (box[1] / size[1])))


def _stages(hole: Box, first: Window, resolution: int, multiple: int, num_stages: int) -> tuple[Window, ...]:
    windows, scale = [first], first.scale
    while len(windows) < num_stages and scale > _MIN_SCALE:
        scale, outer = scale / 2 if scale > 2 * _MIN_SCALE else 1.0, windows[-1].box
        rows, columns = (
            _span((hole[i], hole[i + 2]), (outer[i], outer[i + 2]), resolution / 2, multiple, scale) for i in (0, 1)
        )
        box = (rows[0], columns[0], rows[1], columns[1])
        windows.append(Window(box=box, size=(rows[2], columns[2])))
    return tuple(windows)


def _span(
    hole: tuple[int, int], outer: tuple[int, int], margin: float, multiple: int, scale: float
) -> tuple[int, int, int]:
    """Find the start, the end and the model's size of a window at a given scale, along one axis.

    The window contains known pixels beside the hole, at least about one latent wide, unless the outer window ends.
    """
    low, high = max(outer[0], hole[0] - margin * scale), min(outer[1], hole[1] + margin * scale)
    required, room = _with_border(hole, outer, math.ceil(multiple * scale)), outer[1] - outer[0]
    size = math.ceil((high - low) / scale / multiple) * multiple
    length = round(size * scale)
    if length > room:
        size = max(multiple, math.floor(room / scale / multiple) * multiple)
        length = round(size * scale)
        if not required[1] - required[0] <= length <= room:  # then the aspect changes, by at most half of ``multiple``
            length, size = room, max(multiple, round(room / scale / multiple) * multiple)
    start, end = _place((low + high) / 2, length, required, outer)
    return start, end, size
