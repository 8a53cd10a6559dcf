"""Smooth continuation of what is known into what is not, on arrays (push-pull)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.sampling import enlarge
from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.scene.masks import resize_mask

_HIDDEN_PX = 1024  # longer side at which what hides a part of a photo is computed
_BAND_PX = 256  # rows that are enlarged at a time, which bounds memory


def continue_into(values: NDArray, hole: MaskArray) -> NDArray:
    """Continue values (H, W) or (H, W, C) smoothly into a hole (H, W), by a push-pull pyramid.

    Values in the hole are not read. Where nothing is known, the result is 0.
    """
    image = (values if values.ndim == 3 else values[..., None]).astype(np.float32)
    weight = (~hole).astype(np.float32)
    levels: list[tuple[NDArray, NDArray]] = [(np.where(hole[..., None], np.float32(0), image), weight)]
    while max(levels[-1][1].shape) > 1:
        value, weight = levels[-1]
        size = (max(1, (weight.shape[1] + 1) // 2), max(1, (weight.shape[0] + 1) // 2))
        levels.append(
            (
                cv2.resize(value, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1),
                cv2.resize(weight, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0]),
            )
        )
    filled = np.zeros_like(levels[-1][0])
    for value, weight in reversed(levels):
        beyond = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(value.shape)
        mean = value / np.maximum(weight, 1e-6)[..., None]
        filled = np.where(weight[..., None] > 1e-6, mean, beyond)
    result = np.where(hole[..., None], filled, image)
    return result if values.ndim == 3 else result[..., 0]


def hide(image: ImageArray, mask: MaskArray | None) -> ImageArray:
    """Replace a part of a photo by a smooth continuation of the rest, so that it has no influence and no outline.

    Args:
        image: (H, W, 3) uint8 or uint16; not read under the mask.
        mask: (H, W) bool; ``None``: nothing is hidden.
    """
    if mask is None:
        return image
    result = np.where(mask[..., None], image.dtype.type(0), image)
    size = fit_within(mask.shape, _HIDDEN_PX)
    smooth = continue_into(resize(result, size), resize_mask(mask, size))
    rows = np.flatnonzero(mask.any(axis=1))
    for top in range(rows[0], rows[-1] + 1, _BAND_PX) if len(rows) else ():
        band = slice(top, min(top + _BAND_PX, len(mask)))
        shown = enlarge(smooth, mask.shape, band, slice(0, mask.shape[1]))
        np.copyto(
            result[band], shown.round().clip(0, np.iinfo(image.dtype).max).astype(image.dtype),
            where=mask[band][..., None],
        )  # fmt: skip
    return result
