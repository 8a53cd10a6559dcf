"""Alignment: layers of the working size brought to the full size, their fields corrected beside the hole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.colour import apply_colours
from realfill.geometry.fields import inside, measure_shift
from realfill.geometry.layers import Layer
from realfill.geometry.sampling import Pyramid, enlarge
from realfill.geometry.working import fit, shrink, shrink_hole
from realfill.io.images import MaskArray

Part = tuple[slice, slice]
"""Rows and columns of the full-size photo."""

_CORRECTION_PX = 1536  # longer side at which shifts are measured
_LARGEST = 3.0  # largest shift that is corrected, in pixels of the working size
_REACH = 0.08  # distance in the hole over which a correction fades, as a share of the photo's longer side
_CONTEXT = 0.08  # known pixels around a part of the hole, as the same share
_LEAST_GAIN = 1.3  # full-size pixels for each pixel of the working size, from which a correction can help


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FullLayer:
    """A layer that can be rendered anywhere in the full-size photo.

    Attributes:
        field: (h, w, 2) at the working size: places in the reference's own pixels.
        colours: (4, 3), the matrix that brings the reference's colours to the target's.
        reference: the reference at its own size.
        mask: (h, w) bool of that size, the part of the reference that is left out; ``None``: nothing.
        size: (H, W) of the photo.
        corrections: parts of the photo, and what is added to the field there, (n, m, 2) at any size.
    """

    field: NDArray
    colours: NDArray
    reference: Pyramid
    mask: MaskArray | None
    size: tuple[int, int]
    corrections: tuple[tuple[Part, NDArray], ...] = ()

    @classmethod
    def of(
        cls,
        layer: Layer,
        working: tuple[int, ...],
        reference: Pyramid,
        mask: MaskArray | None,
        size: tuple[int, int],
    ) -> FullLayer:
        """Take a layer of the working size.

        Args:
            layer: the layer.
            working: (height, width) of the reference at the working size, in whose pixels the layer's map is.
            reference: the reference at its own size.
            mask: the part of the reference that is left out, of that size.
            size: (H, W) of the full-size photo.
        """
        factor = np.array(reference.image.shape[1::-1], np.float64) / np.array(working[1::-1])
        field = ((layer.warp.map + 0.5) * factor - 0.5).astype(np.float32)
        return cls(field=field, colours=layer.colours, reference=reference, mask=mask, size=size)

    def places(self, part: Part) -> NDArray:
        """Return the places in the reference (h, w, 2) that show a part of the photo."""
        rows, columns = part
        places = enlarge(self.field, self.size, rows, columns, extrapolate=True)
        for (down, across), shift in self.corrections:
            top, bottom = max(rows.start, down.start), min(rows.stop, down.stop)
            left, right = max(columns.start, across.start), min(columns.stop, across.stop)
            if top < bottom and left < right:
                size = down.stop - down.start, across.stop - across.start
                inner = slice(top - down.start, bottom - down.start), slice(left - across.start, right - across.start)
                places[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] += enlarge(
                    shift, size, *inner
                )
        return places

    def render(self, part: Part) -> tuple[NDArray, MaskArray]:
        """Render a part of the photo: (h, w, 3) float32 in [0, 255], and which pixels the reference shows."""
        places = self.places(part)
        shown = inside(places, self.reference.image.shape)
        if self.mask is not None:
            left_out = cv2.remap(self.mask.view(np.uint8), places[..., 0], places[..., 1], cv2.INTER_NEAREST)
            shown &= left_out == 0
        return apply_colours(self.reference.sample(places), self.colours), shown

    def corrected(
        self, part: Part, known: NDArray, hole: MaskArray, check: Callable[[], None] = lambda: None
    ) -> FullLayer:
        """Correct the field by the shift between the rendered layer and the known pixels of a part of the photo.

        Args:
            part: a part of the hole and its surroundings.
            known: (H, W, 3) uint8 or uint16, the photo.
            hole: (H, W) bool.
            check: called between the steps; it may raise an exception.
        """
        gain = max(self.size) / max(self.field.shape[:2])
        if gain < _LEAST_GAIN:
            return self
        rows, columns = part
        whole = rows.stop - rows.start, columns.stop - columns.start
        small = fit(whole, _CORRECTION_PX)
        factor = max(whole) / max(small)
        y, x = (
            span.start + (np.arange(n) + 0.5) * (full / n) - 0.5
            for span, n, full in zip(part, small, whole, strict=True)
        )
        places = enlarge(self.field, self.size, y, x, extrapolate=True)
        image = apply_colours(self.reference.sample(places, check), self.colours).round().astype(np.uint8)
        side = max(self.size) / factor
        shift = measure_shift(
            image, shrink(known[part], small), shrink_hole(hole[part], small),
            inside(places, self.reference.image.shape), _REACH * side, _LARGEST * gain / factor, check,
        )  # fmt: skip
        at = np.stack(np.meshgrid(np.arange(small[1]), np.arange(small[0])), axis=-1).astype(np.float32) + shift
        moved = cv2.remap(places, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        smooth = cv2.GaussianBlur(np.asarray(moved - places, np.float32), (0, 0), 2)
        return replace(self, corrections=(*self.corrections, (part, smooth)))


def find_parts(hole: MaskArray, size: tuple[int, int]) -> list[Part]:
    """Find the parts of a hole that lie apart, each with its surroundings; they do not overlap.

    Args:
        hole: (h, w) bool at the working size.
        size: (H, W) of the photo.
    """
    margin = max(4, round(_CONTEXT * max(hole.shape)))
    boxes = _boxes(hole, margin)
    scale = size[0] / hole.shape[0], size[1] / hole.shape[1]
    return [
        (slice(int(top * scale[0]), min(size[0], int(np.ceil(bottom * scale[0])))),
         slice(int(left * scale[1]), min(size[1], int(np.ceil(right * scale[1])))))
        for top, left, bottom, right in boxes
    ]  # fmt: skip


def _boxes(hole: MaskArray, margin: int) -> list[tuple[int, int, int, int]]:
    """Return bounding boxes with a margin, (top, left, bottom, right), joined where they overlap."""
    marked = hole
    while True:
        stats = cv2.connectedComponentsWithStats(marked.astype(np.uint8), connectivity=8)[2][1:]
        ends = ((y - margin, x - margin, y + h + margin, x + w + margin) for x, y, w, h, _ in stats.tolist())
        boxes = [tuple(np.clip(box, 0, hole.shape * 2).tolist()) for box in ends]
        joined = np.zeros_like(hole)
        count = np.zeros(hole.shape, np.uint8)
        for top, left, bottom, right in boxes:
            joined[top:bottom, left:right] = True
            count[top:bottom, left:right] += 1
        if (count <= 1).all():
            return sorted(boxes)
        marked, margin = joined, 0
