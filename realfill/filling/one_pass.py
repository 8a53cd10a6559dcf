"""A network that fills a hole in one pass, as an engine: windows around the hole, coarse to fine, in bounded memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.compute.memory import until_it_fits
from realfill.compute.progress import Interrupted, OnStep, Progress
from realfill.config import Blend
from realfill.errors import SceneError
from realfill.filling.blending import blend
from realfill.io.images import ImageArray, MaskArray
from realfill.models.classical import inpaint_telea
from realfill.models.feedforward.network import Network
from realfill.scene.masks import bounding_box
from realfill.scene.windows import Part, Window, choose_windows

_Slices: TypeAlias = tuple[slice, slice]

_NATIVE_SCALE = 1.25  # at this scale or below, a window is not resized
_MAX_STAGES = 16  # enough for any photo: each stage doubles the resolution
_TELEA_PX = 3  # width of the border inside a hole that is Telea's; the same as in OpenCV's seamlessClone
_MAX_CELL_PX = 1024  # side of the pieces in which a large window is filled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnePass:
    """An engine that fills a hole by one pass of a network for each window; see ``Engine``.

    A hole is filled at the photo's own resolution if the network's resolution is at least ``context`` times its longer
    side. A larger hole is filled in a smaller copy first. Each finer stage then replaces the ring of pixels near the
    known ones, shows the network what the stage before has filled further inside as known pixels, and fades into it.

    Attributes:
        network: the network.
        blend: ``cut`` puts the network's pixels into the hole as they are. ``poisson`` is the post-processing of Iizuka
            et al. 2017, section 3.6: Telea's method fills the hole, and Poisson blending replaces all but its outermost
            pixels by the network's gradients, so that the colours at the border are those of the photo.
        context: side of the window around a hole, as a multiple of the hole's longer side.
    """

    network: Network
    blend: Blend = "cut"
    context: float = 2.0

    def fill(
        self, image: ImageArray, hole: MaskArray, seeds: Sequence[int], *, on_step: OnStep | None = None
    ) -> list[ImageArray]:
        """Fill the hole once, and return the image for each seed; see ``Engine.fill``.

        Raises:
            SceneError: there are no known pixels.
        """
        if hole.all():
            raise SceneError(
                f"the mask covers the whole target, and {self.network.name!r} continues known pixels; legal: a mask "
                "that leaves some"
            )
        result = image.copy()
        if not seeds or not hole.any():
            return [result.copy() for _ in seeds]
        parts = choose_windows(
            hole, resolution=self.network.resolution, multiple=8, context=self.context, num_stages=_MAX_STAGES
        )
        run = _Run(network=self.network, on_step=on_step, num_steps=sum(len(part.windows) for part in parts))
        blank = np.where(hole[:, :, None], np.uint8(0), image)
        with suppress(Interrupted):
            for part in parts:
                window, patch = run.fill_part(part, blank, hole)
                known, mask, inside = blank[window.slices], hole[window.slices], part.of(hole)[window.slices]
                filled = self._put_in(known, mask, patch)
                np.copyto(result[window.slices], filled, where=inside[:, :, None])
            return [result.copy() for _ in seeds]
        return []

    def _put_in(self, known: ImageArray, mask: MaskArray, patch: NDArray[np.float32]) -> ImageArray:
        if self.blend == "cut" or mask.all():
            return blend(known, mask, patch, method="cut")
        core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3)), iterations=_TELEA_PX) > 0
        return blend(inpaint_telea(known, mask), core, patch, method="poisson")


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """One fill of a hole.

    Attributes:
        network: the network.
        on_step: called after each window.
        num_steps: number of windows.
        step: windows done.
        started: time of the start.
        cell_px: side of the pieces in which a window is filled; halved when memory runs out.
    """

    network: Network
    on_step: OnStep | None
    num_steps: int
    step: int = 0
    started: float = field(default_factory=time.monotonic)
    cell_px: int = _MAX_CELL_PX

    def fill_part(self, part: Part, blank: ImageArray, hole: MaskArray) -> tuple[Window, NDArray[np.float32]]:
        """Fill a part of the hole from coarse to fine.

        Returns:
            The finest window, and its image at the photo's own resolution, (h, w, 3) float32 in [0, 255].
        """
        window, patch = _native(part.windows[0]), None
        for finer in map(_native, part.windows):
            known, mask = finer.crop(blank).astype(np.float32), finer.crop_mask(hole)
            start = None if patch is None else window.restore_within(finer, patch)
            window, patch = finer, self._fill_window(known, mask, start)
            self._count_step()
        assert patch is not None  # a part has at least one window
        return window, window.restore(patch)

    def _fill_window(
        self, known: NDArray[np.float32], hole: MaskArray, start: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Fill the hole of a window, or, given a coarser result, the ring of it near known pixels.

        Args:
            known: (h, w, 3) in [0, 255], blank in the hole.
            hole: (h, w) bool.
            start: (h, w, 3) in [0, 255], the coarser result.
        """
        if start is None:
            return self._fill_in_pieces(known, hole)
        reach_px = self.network.resolution / 4
        distance_px = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        image = np.where(hole[:, :, None], start, known)
        filled = self._fill_in_pieces(image, hole & (distance_px <= reach_px))
        weight = np.clip(2 - 2 * distance_px / reach_px, 0, 1)[:, :, None]  # the inner half of the ring fades
        return np.asarray(image + weight * (filled - image), np.float32)

    def _fill_in_pieces(self, image: NDArray[np.float32], hole: MaskArray) -> NDArray[np.float32]:
        """Fill the hole of a window in one piece or, if it is large or memory runs out, in several."""
        return until_it_fits(
            lambda: self._fill_in_cells(image, hole), lambda: self._shrink(max(hole.shape)), self.network.device
        )

    def _fill_in_cells(self, image: NDArray[np.float32], hole: MaskArray) -> NDArray[np.float32]:
        """Fill the hole of an image of any size in cells, one after the other; a cell sees those before it as known."""
        filled, remaining = image.copy(), hole.copy()
        for cell, around in _lay_cells(hole, self.cell_px, self.network.resolution // 2):
            inside = np.zeros_like(remaining)
            inside[cell] = remaining[cell]
            if inside.any():
                prediction = self._predict(filled[around], remaining[around])
                np.copyto(filled[around], prediction, where=inside[around][:, :, None])
                remaining &= ~inside
        return filled

    def _predict(self, image: NDArray[np.float32], hole: MaskArray) -> NDArray[np.float32]:
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].div(255).clamp_(0, 1)
        prediction = self.network.predict(tensor, torch.from_numpy(np.ascontiguousarray(hole))[None, None])
        return prediction[0].permute(1, 2, 0).mul(255).numpy()

    def _shrink(self, side_px: int) -> str | None:
        if self.cell_px <= self.network.resolution // 2:
            return None
        self.cell_px = min(self.cell_px, side_px) // 2
        return f"windows in pieces of {self.cell_px} pixels"

    def _count_step(self) -> None:
        """Count a window.

        Raises:
            Interrupted: ``on_step`` returned ``False``.
        """
        self.step += 1
        if self.on_step is None:
            return
        time_s = time.monotonic() - self.started
        report = Progress(
            phase="sample", step=self.step, num_steps=self.num_steps, time_s=time_s,
            left_s=time_s / self.step * (self.num_steps - self.step),
        )  # fmt: skip
        if self.on_step(report) is False and self.step < self.num_steps:
            raise Interrupted


def _native(window: Window) -> Window:
    """Return the window at the photo's own resolution if it would hardly be shrunk, or be enlarged."""
    return dataclasses.replace(window, size=window.box_size) if window.scale <= _NATIVE_SCALE else window


def _lay_cells(hole: MaskArray, cell_px: int, margin_px: int) -> Iterator[tuple[_Slices, _Slices]]:
    """Yield cells that together contain the hole, each alone and with a margin."""
    if not hole.any():
        return
    top, left, bottom, right = bounding_box(hole)
    for y, x in product(range(top, bottom, cell_px), range(left, right, cell_px)):
        spans = ((y, min(y + cell_px, bottom)), (x, min(x + cell_px, right)))
        around = [
            slice(max(0, start - margin_px), min(n, end + margin_px))
            for (start, end), n in zip(spans, hole.shape, strict=True)
        ]
        yield (slice(*spans[0]), slice(*spans[1])), (around[0], around[1])
