"""Windows: the crop around the hole, its size for the model, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfill.images import MaskArray, resize
from realfill.masks import bounding_box, resize_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A box of the target and the size in which the model sees it.

    Attributes:
        box: (top, left, bottom, right) in the target's pixels, the last two exclusive.
        size: (height, width) for the model.
    """

    box: tuple[int, int, int, int]
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


def choose_window(mask: MaskArray, *, resolution: int, multiple: int, context: float) -> Window:
    """Choose the window in which a hole is filled.

    A square around the hole, ``context`` times its longer side, but no smaller than the model's resolution; cut where
    the target ends. For the model it has as many pixels as a square of the base's resolution, at the same aspect (to
    half of ``multiple``).

    Args:
        mask: (H, W) bool, True = fill.
        resolution: side in pixels of the base's square images.
        multiple: what the model's sizes have to be multiples of, in pixels.
        context: at least 1.
    """
    top, left, bottom, right = bounding_box(mask)
    hole = (bottom - top, right - left)
    side = max(context * max(hole), resolution)
    box = [min(n, math.ceil(side)) for n in mask.shape]
    shrink = resolution / math.sqrt(math.prod(box))
    size = tuple(max(multiple, round(n * shrink / multiple) * multiple) for n in box)
    scales = [n / s for n, s in zip(box, size, strict=True)]
    for scale in (max(scales), min(n / s for n, s in zip(mask.shape, size, strict=True)), min(scales)):
        exact = [round(s * scale) for s in size]
        if all(h <= e <= n for h, e, n in zip(hole, exact, mask.shape, strict=True)):
            box = exact
            break
    centre = ((top + bottom) / 2, (left + right) / 2)
    start = [int(np.clip(round(c - b / 2), 0, n - b)) for c, b, n in zip(centre, box, mask.shape, strict=True)]
    return Window(box=(start[0], start[1], start[0] + box[0], start[1] + box[1]), size=(size[0], size[1]))
