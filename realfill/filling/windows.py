"""Windows: the crops around holes, coarse to fine, their sizes for the model, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.images import MaskArray, resize
from realfill.masks import Box, bounding_box, join_overlapping, resize_mask, separate_holes, union

_CELLS = 16  # to the base's resolution: how far holes have to lie apart for that
_STRETCH = 0.08  # of one side against the other, up to which the nearest size is taken
_FINER = 1.25  # the target's pixels to one of the model's, up to which a finer window isn't worth its time


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A box of the target and the size in which the model sees it.

    Attributes:
        box: in the target's pixels.
        size: (height, width) for the model.
    """

    box: Box
    size: tuple[int, int]

    @property
    def box_size(self) -> tuple[int, int]:
        """(height, width) of the box in the target's pixels."""
        top, left, bottom, right = self.box
        return bottom - top, right - left

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as an index into the target."""
        top, left, bottom, right = self.box
        return slice(top, bottom), slice(left, right)

    @property
    def scale(self) -> float:
        """The target's pixels to one of the model's."""
        return math.sqrt(math.prod(self.box_size) / math.prod(self.size))

    def crop(self, image: NDArray) -> NDArray:
        """Cut the box out of an image of the target's size and bring it to the model's."""
        return resize(image[self.slices], self.size)

    def crop_mask(self, mask: MaskArray) -> MaskArray:
        """Do the same with a mask; a pixel is masked if any that it averages is."""
        return resize_mask(mask[self.slices], self.size)

    def restore(self, sample: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a sample (height, width, C) of the model's size back to the box's."""
        return resize(sample, self.box_size)

    def restore_within(self, finer: Window, sample: NDArray[np.float32]) -> NDArray[np.float32]:
        """Show a sample (height, width, C) as a finer window inside of this one sees it, at that one's size."""
        matrix = np.zeros((2, 3))  # from its (x, y) to this one's
        for axis in (0, 1):
            pixel, own = (w.box_size[axis] / w.size[axis] for w in (finer, self))  # of the target's
            matrix[1 - axis, 1 - axis] = pixel / own
            matrix[1 - axis, 2] = (pixel / 2 + finer.box[axis] - self.box[axis]) / own - 0.5
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(
            np.ascontiguousarray(sample), matrix, finer.size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return seen.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a target's hole that is filled in windows of its own.

    Attributes:
        hole: in the target's pixels; what the mask covers in this box is the part's, and no other part reaches in.
        windows: from coarse to fine, each around all of the part and inside of the one before.
    """

    hole: Box
    windows: tuple[Window, ...]

    def of(self, mask: MaskArray) -> MaskArray:
        """Keep of the target's mask what is the part's."""
        top, left, bottom, right = self.hole
        own = np.zeros_like(mask)
        own[top:bottom, left:right] = mask[top:bottom, left:right]
        return own


def choose_window(mask: MaskArray, *, resolution: int, multiple: int, context: float) -> Window:
    """Choose the window in which a hole is filled.

    A square around the hole, ``context`` times its longer side, but no smaller than the model's resolution; cut where
    the target ends. Known pixels beside the hole, of about a latent's width, are in it whatever ``context`` is. For the
    model it has about as many pixels as a square of the base's resolution, at the same aspect to 8 %, or as near as
    ``multiple`` allows.

    Args:
        mask: (H, W) bool, True = fill.
        resolution: side in pixels of the base's square images.
        multiple: what the model's sizes have to be multiples of, in pixels.
        context: at least 1.
    """
    return _around(bounding_box(mask), mask.shape, resolution, multiple, context)


def choose_windows(
    mask: MaskArray, *, resolution: int, multiple: int, context: float, max_growth: float = 1.25, num_stages: int = 1
) -> tuple[Part, ...]:
    """Choose the windows in which several holes are filled, coarse to fine.

    Holes whose bounding boxes meet belong together. Others share a window if it then is at most ``max_growth`` times
    as coarse as the coarser of the two that they would have alone; those that lose least come together first.

    Where a window shrinks the target, finer ones follow, each with half as many of the target's pixels to one of the
    model's, and the last with one. They hold the hole and half the base's resolution on each side of it.

    Args:
        mask: (H, W) bool, True = fill.
        resolution: side in pixels of the base's square images.
        multiple: what the model's sizes have to be multiples of, in pixels.
        context: at least 1.
        max_growth: at least 1.
        num_stages: most windows for each part, at least 1.

    Returns:
        From top to bottom; together they hold every pixel of the mask, each once.
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
    extent = [(hole[i], hole[i + 2]) for i in (0, 1)]
    context = max(context, 1 / max(0.5, 1 - 2 * multiple / resolution))  # a latent on each side
    side = max(context * max(high - low for low, high in extent), resolution)
    box = [min(n, math.ceil(side)) for n in shape]
    near = math.floor(multiple * math.sqrt(math.prod(box)) / resolution)
    seen = [_beside(span, (0, n), near) for span, n in zip(extent, shape, strict=True)]
    wanted = [n * resolution / math.sqrt(math.prod(box)) / multiple for n in box]
    sizes = [tuple(max(1, round(x)) * multiple for x in wanted)]
    sizes += product(*({max(1, math.floor(x)) * multiple, math.ceil(x) * multiple} for x in wanted))
    fitting = [(_of_aspect(box, size, seen, shape), size) for size in sizes]
    box, size = min(fitting, key=lambda found: max(_stretch(*found), _STRETCH))  # of equals the first
    (top, bottom), (left, right) = (
        _placed(sum(span) / 2, b, around, (0, n)) for span, b, around, n in zip(extent, box, seen, shape, strict=True)
    )
    return Window(box=(top, left, bottom, right), size=(size[0], size[1]))


def _of_aspect(box: list[int], size: tuple[int, ...], seen: list[tuple[int, int]], shape: tuple[int, ...]) -> list[int]:
    """Give a box the aspect of a size, if one so large that it holds what shall be seen fits into the target."""
    scales = [n / s for n, s in zip(box, size, strict=True)]
    for scale in (max(scales), min(n / s for n, s in zip(shape, size, strict=True)), min(scales)):
        exact = [round(s * scale) for s in size]
        if all(high - low <= e <= n for (low, high), e, n in zip(seen, exact, shape, strict=True)):
            return exact
    return box


def _beside(span: tuple[int, int], outer: tuple[int, int], near: int) -> tuple[int, int]:
    """Add the known pixels beside a hole, along one axis, as far as there are any."""
    return max(outer[0], span[0] - near), min(outer[1], span[1] + near)


def _placed(middle: float, length: int, seen: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
    """Place a window, along one axis, inside of another so that it holds what shall be seen.

    Args:
        middle: where its own would best be.
        length: of it.
        seen: start and end of what it shall hold.
        outer: start and end of the other.
    """
    low, high = max(outer[0], seen[1] - length), min(outer[1] - length, seen[0])
    start = int(np.clip(round(middle - length / 2), low, high))
    return start, start + length


def _stretch(box: list[int], size: tuple[int, ...]) -> float:
    """Tell by how much one side is stretched against the other, as a logarithm."""
    return abs(math.log(box[0] / size[0] / (box[1] / size[1])))


def _stages(hole: Box, first: Window, resolution: int, multiple: int, num_stages: int) -> tuple[Window, ...]:
    windows, scale = [first], first.scale
    while len(windows) < num_stages and scale > _FINER:
        scale, outer = scale / 2 if scale > 2 * _FINER else 1.0, windows[-1].box
        rows, columns = (
            _span((hole[i], hole[i + 2]), (outer[i], outer[i + 2]), resolution / 2, multiple, scale) for i in (0, 1)
        )
        box = (rows[0], columns[0], rows[1], columns[1])
        windows.append(Window(box=box, size=(rows[2], columns[2])))
    return tuple(windows)


def _span(
    hole: tuple[int, int], outer: tuple[int, int], margin: float, multiple: int, scale: float
) -> tuple[int, int, int]:
    """Find, along one axis, start and end of a window at a scale, and its size for the model.

    Known pixels beside the hole are in it, as far as there are any: of about a latent's width at least.
    """
    low, high = max(outer[0], hole[0] - margin * scale), min(outer[1], hole[1] + margin * scale)
    seen, room = _beside(hole, outer, math.ceil(multiple * scale)), outer[1] - outer[0]
    size = math.ceil((high - low) / scale / multiple) * multiple
    length = round(size * scale)
    if length > room:
        size = max(multiple, math.floor(room / scale / multiple) * multiple)
        length = round(size * scale)
        if not seen[1] - seen[0] <= length <= room:  # then the aspect gives way, by half of ``multiple`` at most
            length, size = room, max(multiple, round(room / scale / multiple) * multiple)
    start, end = _placed((low + high) / 2, length, seen, outer)
    return start, end, size
