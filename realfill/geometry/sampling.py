"""Sampling: fields enlarged to parts of the full-size photo, and references looked up there at their own resolution."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVEL = math.sqrt(2)  # ratio of the sizes of two levels of a pyramid
_SAME = 1.15  # spacing up to which the reference's own pixels are looked up
_SHARPNESS = 3.0  # how quickly one level gives way to the next; 1: over the whole way between them
_SMOOTH_PX = 15  # window in which the spacing is averaged
_REACH_PX = 6  # of the interpolation kernel


def enlarge(
    values: NDArray,
    size: tuple[int, ...],
    rows: slice | NDArray,
    columns: slice | NDArray,
    *,
    extrapolate: bool = False,
) -> NDArray:
    """Enlarge values linearly to a part of the full size.

    OpenCV's ``remap`` rounds places to 1/32 of a small pixel, which would shake an enlarged field; this does not.

    Args:
        values: (h, w) or (h, w, C), at the small size.
        size: (H, W), the full size.
        rows: rows of the full size, ascending; they may lie between pixels.
        columns: columns of the full size, as ``rows``.
        extrapolate: continue the slope beyond the outermost small pixels' centres, as a field needs it.

    Returns:
        float32 (rows, columns[, C]).
    """
    y, down = _places(values.shape[0], size[0], rows, extrapolate=extrapolate)
    x, across = _places(values.shape[1], size[1], columns, extrapolate=extrapolate)
    tail = (1,) * (values.ndim - 2)
    down, across = down.reshape(-1, 1, *tail), across.reshape(1, -1, *tail)
    top, left = y[0], x[0]
    near = values[top : y[-1] + 2, left : x[-1] + 2].astype(np.float32)
    y, x = y - top, x - left
    lines = near[y] + down * (near[np.minimum(y + 1, len(near) - 1)] - near[y])
    return lines[:, x] + across * (lines[:, np.minimum(x + 1, near.shape[1] - 1)] - lines[:, x])


def _places(count: int, full: int, span: slice | NDArray, *, extrapolate: bool) -> tuple[NDArray, NDArray]:
    """Return the small pixel before each full-size pixel, and the share of the way to the next one."""
    pixels = np.arange(span.start, span.stop) if isinstance(span, slice) else span
    place = (pixels + 0.5) * count / full - 0.5
    first = np.floor(place).astype(int).clip(0, max(0, count - 2))
    share = place - first if count > 1 else np.zeros(len(place))
    return first, (share if extrapolate else share.clip(0, 1)).astype(np.float32)


class Pyramid:
    """A reference at its own size and at smaller ones, which are made when they are first needed."""

    def __init__(self, image: NDArray) -> None:
        """Keep an image, (h, w, 3) uint8 or uint16."""
        self.image = image
        self._levels: dict[int, NDArray] = {0: image}
        self._unit = np.float32(255 / np.iinfo(image.dtype).max)

    def sample(self, pixels: NDArray, check: Callable[[], None] = lambda: None) -> NDArray:
        """Look the image up at places (H, W, 2), averaged where they lie further apart than its pixels.

        Where they do not, one Lanczos interpolation is the only resampling. ``check`` is called between the levels; it
        may raise an exception.

        Returns:
            (H, W, 3) float32 in [0, 255].
        """
        wanted = 2 * np.log2(np.maximum(_spacing(pixels) / _SAME, 1))
        wanted = wanted.clip(0, self._last_level())
        lower = np.floor(wanted)
        share = ((wanted - lower - 0.5) * _SHARPNESS + 0.5).clip(0, 1).astype(np.float32)
        result = np.zeros((*pixels.shape[:2], 3), np.float32)
        for level in range(int(lower.min()), int(lower.max()) + 2):
            weight = np.where(lower == level, 1 - share, np.where(lower == level - 1, share, 0)).astype(np.float32)
            if weight.any():
                check()
                result += weight[..., None] * self._look_up(level, pixels)
        return result.clip(0, 255, out=result)

    def _last_level(self) -> int:
        return max(0, int(2 * math.log2(max(1, min(self.image.shape[:2]) / 4))))

    def _look_up(self, number: int, pixels: NDArray) -> NDArray:
        """Look a level up at places in pixels of the whole image; only the part around them is touched."""
        if number not in self._levels:
            factor = _LEVEL**-number
            self._levels[number] = np.asarray(
                cv2.resize(self.image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            )
        level = self._levels[number]
        scale = np.array(level.shape[1::-1], np.float32) / np.array(self.image.shape[1::-1], np.float32)
        places = (pixels + np.float32(0.5)) * scale - np.float32(0.5)
        limit = np.array(level.shape[1::-1]) - 1
        low = np.floor(places.min(axis=(0, 1)) - _REACH_PX).clip(0, limit).astype(int)
        high = np.ceil(places.max(axis=(0, 1)) + _REACH_PX).clip(0, limit).astype(int)
        part = level[low[1] : high[1] + 1, low[0] : high[0] + 1]
        at = (places - low.astype(np.float32)).clip(-8, 32_000)
        found = cv2.remap(part, at[..., 0], at[..., 1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.float32) * self._unit


def _spacing(pixels: NDArray) -> NDArray:
    """Measure the distance between neighbouring places, (H, W), averaged over a window."""
    if min(pixels.shape[:2]) < 2:
        return np.ones(pixels.shape[:2], np.float32)
    across, down = np.gradient(pixels, axis=1), np.gradient(pixels, axis=0)
    area = np.abs(across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0])
    logarithm = np.log2(area.clip(1e-4, 1e6)).astype(np.float32)
    return np.exp2(cv2.blur(logarithm, (_SMOOTH_PX, _SMOOTH_PX)) / 2)
