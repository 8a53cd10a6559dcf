"""Sharpness: how fast a photo's contrast falls towards finer structures, for what was filled."""

from __future__ import annotations

from dataclasses import dataclass
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
_LEAST = 1e-3  # variance below which bands are taken as equally flat
_MIN_PX = 64
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sharpness:
    """How sharp a photo is around a hole, carried on into it.

    Attributes:
        hole: (H, W) bool.
        slopes: fine to coarse, (H, W) each: the logarithm of a band's variance over that of the next coarser one, times
            ``trust``.
        trust: likewise, in [0, 1]: nothing is known of sharpness where the photo is flat.
    """

    hole: MaskArray
    slopes: tuple[NDArray[np.float32], ...]
    trust: tuple[NDArray[np.float32], ...]


def measure_sharpness(known: NDArray, hole: MaskArray) -> Sharpness | None:
    """Measure how much contrast each band of structures, an octave wide, has for that of the next coarser one.

    Args:
        known: (H, W, 3) in [0, 255], the photo at the model's size; not read in the hole.
        hole: (H, W) bool.

    Returns:
        ``None``: the hole or what is known is too small to tell.
    """
    if min(hole.sum(), (~hole).sum()) < _MIN_PX:
        return None
    around = [_average((b @ _LUMINANCE) ** 2, ~hole, _AROUND) for b in _bands(known.astype(np.float32), ~hole)[0]]
    trust = [coarse / (coarse + _FLAT) for coarse in around[1:]]
    slopes = [np.log((fine + _LEAST) / (coarse + _LEAST)) for fine, coarse in pairwise(around)]
    return Sharpness(
        hole=hole,
        slopes=tuple(_carry_on(t * s, hole) for t, s in zip(trust, slopes, strict=True)),
        trust=tuple(_carry_on(t, hole) for t in trust),
    )


def match_sharpness(patch: NDArray[np.float32], sharpness: Sharpness | None) -> NDArray[np.float32]:
    """Make a sample as sharp as the photo around it: neither softer than sharp surroundings nor sharper than a blur.

    The sample's own sharpness is measured in the hole as a whole, so that its contrasts stay its own. Bands are scaled
    by what is missing or too much, from coarse to fine, by no more than a factor of 2. (Beyond the paper.)

    Args:
        patch: (H, W, 3) in [0, 255], the sample, at the model's size.
        sharpness: of the photo; ``None``: it can't be told.

    Returns:
        (H, W, 3) float32: the patch, sharper or softer in the hole; as it is where it is flat.
    """
    if sharpness is None:
        return patch
    hole = sharpness.hole
    bands, rest = _bands(patch.astype(np.float32), hole)
    own = [float(((band @ _LUMINANCE)[hole] ** 2).mean()) for band in bands]
    gain = np.ones(hole.shape, np.float32)
    result = rest + bands[-1]
    for i in reversed(range(len(bands) - 1)):
        if own[i + 1] > _FLAT and own[i] > 0:
            wanted = sharpness.slopes[i] - sharpness.trust[i] * np.log(own[i] / own[i + 1])
            gain = (gain * np.exp(wanted / 2)).clip(1 / _MOST, _MOST)
        result = result + gain[:, :, None] * bands[i]
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


def _carry_on(values: NDArray, hole: MaskArray) -> NDArray[np.float32]:
    """Continue values (H, W) smoothly into the hole."""
    image, inside = torch.from_numpy(values.astype(np.float32))[None, None], torch.from_numpy(hole)[None, None]
    return fill_smooth(image, inside, empty=0.0)[0, 0].numpy()
