"""Sharpness: how fast a photo's contrast falls towards finer structures, for what was filled."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.io.images import MaskArray
from realfill.masks import fill_smooth

_SIGMAS = (0.0, 0.7, 1.4, 2.8)  # in pixels: a band of structures lies between two of these blurs
_AROUND = 8.0  # sigma in pixels over which a band's contrast is averaged
_MOST = 2.0  # factor on a band, either way
_FLAT = 1.0  # variance of a band, of 255 levels, at which it begins to say something of sharpness
_MIN_PX = 64
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def match_sharpness(patch: NDArray[np.float32], known: NDArray, hole: MaskArray) -> NDArray[np.float32]:
    """Make a sample as sharp as the photo around it: neither softer than sharp surroundings nor sharper than a blur.

    Sharpness here is how much contrast a band of structures, an octave wide, has for that of the next coarser one. It
    is measured on known pixels, carried on smoothly into the hole, and compared with that of the sample in the hole as
    a whole, so that the sample's contrasts stay its own. Bands are scaled by what is missing or too much, from coarse
    to fine, by no more than a factor of 2. (Beyond the paper.)

    Args:
        patch: (H, W, 3) in [0, 255], the sample, at the model's size.
        known: (H, W, 3) likewise, the photo at that size; not read in the hole.
        hole: (H, W) bool.

    Returns:
        (H, W, 3) float32: the patch, sharper or softer in the hole; as it is where either side is too small or flat.
    """
    if min(hole.sum(), (~hole).sum()) < _MIN_PX:
        return patch
    bands, rest = _bands(patch.astype(np.float32), hole)
    known_bands, _ = _bands(known.astype(np.float32), ~hole)
    own = [float(((band @ _LUMINANCE)[hole] ** 2).mean()) for band in bands]
    around = [_average((band @ _LUMINANCE) ** 2, ~hole, _AROUND) for band in known_bands]
    gain = np.ones(hole.shape, np.float32)
    result = rest + bands[-1]
    for finer in reversed(range(len(bands) - 1)):
        if own[finer + 1] > _FLAT and own[finer] > 0:
            slope = np.log((around[finer] + 1e-3) / (around[finer + 1] + 1e-3))
            trust = around[finer + 1] / (around[finer + 1] + _FLAT)
            wanted = trust * (slope - np.log(own[finer] / own[finer + 1]))
            gain = (gain * np.exp(_carry_on(wanted, hole) / 2)).clip(1 / _MOST, _MOST)
        result = result + gain[:, :, None] * bands[finer]
    return np.where(hole[:, :, None], result, patch).astype(np.float32)


def _bands(image: NDArray[np.float32], where: MaskArray) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Split an image into bands, fine to coarse, and what is coarser; pixels outside ``where`` don't reach in."""
    blurred = [_average(image, where, sigma) for sigma in _SIGMAS]
    return [fine - coarse for fine, coarse in pairwise(blurred)], blurred[-1]


def _average(image: NDArray[np.float32], where: MaskArray, sigma: float) -> NDArray[np.float32]:
    """Average with a Gaussian over the pixels of ``where`` only."""
    if sigma == 0:
        return image
    weight = where.astype(np.float32)
    weighed = image * (weight if image.ndim == 2 else weight[:, :, None])
    total, share = (np.asarray(cv2.GaussianBlur(x, (0, 0), sigma), np.float32) for x in (weighed, weight))
    return np.asarray(total / np.maximum(share if image.ndim == 2 else share[:, :, None], 1e-6), np.float32)


def _carry_on(values: NDArray[np.float32], hole: MaskArray) -> NDArray[np.float32]:
    """Continue values (H, W) smoothly into the hole."""
    image, inside = torch.from_numpy(values.astype(np.float32))[None, None], torch.from_numpy(hole)[None, None]
    return fill_smooth(image, inside, empty=0.0)[0, 0].numpy()
