"""Grain: a photo's noise, measured on its known pixels, for what was filled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.bands import bands
from realfill.io.images import MaskArray
from realfill.masks import bounding_box

_KERNEL = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32) / 6  # Immerkaer 1996: unit white noise stays unit
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_BLOCK_PX = 16
_MIN_BLOCKS = 12  # for each level of luminance
_MAX_LEVELS = 4
_FLATTEST = 0.25  # share of the blocks that show noise rather than texture
_AROUND_PX = 3 * _BLOCK_PX  # of a small hole, where a sample's own noise is measured too
_LEAST = 0.5  # standard deviation that isn't told from rounding, of 255 levels
_BLURS = (0.0, 0.4, 0.5, 0.6, 0.8, 1.0)  # sigmas in pixels that grain may have
_MARGIN = 4  # pixels that these reach


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grain:
    """The noise of an image.

    Attributes:
        luminance: (L,) rising, of 255 levels, at which it was measured.
        variance: (L, 3), of each channel.
        coarse: (L, 3), the same after pixels were averaged two by two: a quarter of it for white noise.
        correlation: of the channels with each other, in [0, 1].
    """

    luminance: NDArray[np.float32]
    variance: NDArray[np.float32]
    coarse: NDArray[np.float32]
    correlation: float

    def at(self, luminance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate the variance for any luminances (...,): (..., 3)."""
        channels = [np.interp(luminance, self.luminance, v) for v in self.variance.T]
        return np.stack(channels, axis=-1).astype(np.float32)


def measure_grain(image: NDArray, where: MaskArray) -> Grain | None:
    """Measure the noise of an image where it is flattest, at some levels of luminance.

    The noise is what a second difference along both axes leaves (Immerkaer 1996, "Fast noise variance estimation"), in
    the quarter of the blocks of 16 pixels in which that is least.

    Args:
        image: (H, W, 3), uint8 or float32 in [0, 255].
        where: (H, W) bool: the pixels to look at.

    Returns:
        ``None``: there are too few blocks.
    """
    if min(where.shape) < _BLOCK_PX:
        return None
    found = [_measure_blocks(image, where, rows) for rows in bands(where.shape) if len(where[rows]) >= _BLOCK_PX]
    bright, fine, rough, mixed = (np.concatenate(x) for x in zip(*found, strict=True))
    if len(bright) < _MIN_BLOCKS:
        return None
    levels = np.array_split(np.argsort(bright, kind="stable"), min(_MAX_LEVELS, len(bright) // _MIN_BLOCKS))
    flat = [g[np.argsort(fine[g].sum(axis=1), kind="stable")[: max(1, round(len(g) * _FLATTEST))]] for g in levels]
    variance = np.stack([fine[f].mean(axis=0) for f in flat])
    every = np.concatenate(flat)
    total = np.sqrt(fine[every] * np.roll(fine[every], 1, axis=1)).sum()
    return Grain(
        luminance=np.array([bright[g].mean() for g in levels], np.float32),
        variance=variance,
        coarse=np.stack([rough[f].mean(axis=0) for f in flat]),
        correlation=float(np.clip(mixed[every].sum() / total, 0, 1)) if total else 0.0,
    )


def match_grain(
    patch: NDArray[np.float32], mask: MaskArray, grain: Grain | None, rng: np.random.Generator, *, whole: bool = True
) -> NDArray[np.float32]:
    """Give a sample the noise that the photo around it has and it lacks.

    Strength for each channel and luminance, correlation of the channels and fineness are the photo's.

    Args:
        patch: (H, W, 3) in [0, 255].
        mask: (H, W) bool, True = the hole.
        grain: of the photo's known pixels; ``None``: it can't be measured.
        rng: where the noise comes from.
        whole: around the hole, too, the patch is the model's, and not the photo put back: the noise of what was made is
            measured there where the hole is too small for that. Without it such a hole counts as free of noise.

    Returns:
        (H, W, 3): the patch, with noise in the hole. The patch as it is where the photo has none.
    """
    if grain is None or grain.variance.max() < _LEAST**2:
        return patch
    own = measure_grain(patch, mask)
    if own is None and whole:
        top, left, bottom, right = bounding_box(mask)
        near = np.zeros_like(mask)
        near[max(0, top - _AROUND_PX) : bottom + _AROUND_PX, max(0, left - _AROUND_PX) : right + _AROUND_PX] = True
        own = measure_grain(patch, near)
    grainy = np.array(patch, np.float32)
    for rows in bands(mask.shape):
        if not mask[rows].any():
            continue
        luminance = patch[rows] @ _LUMINANCE
        wanted = grain.at(luminance)
        lacking = np.where(wanted < _LEAST**2, 0, wanted - (0 if own is None else own.at(luminance)))
        noise = _noise(luminance.shape, grain, rng) * np.sqrt(lacking.clip(0))
        np.add(grainy[rows], noise, out=grainy[rows], where=mask[rows][:, :, None])
    return grainy


def _measure_blocks(image: NDArray, where: MaskArray, rows: slice) -> tuple[NDArray[np.float32], ...]:
    """Measure the whole blocks in a band of rows that lie inside of ``where``, by 3 pixels at least.

    Returns:
        Luminance (K,); variance of pixels, of pixels averaged two by two, and of each channel with the next, (K, 3).
    """
    near = slice(max(0, rows.start - _BLOCK_PX), rows.stop + _BLOCK_PX)
    inner = slice(rows.start - near.start, rows.stop - near.start)
    inside = cv2.erode(np.pad(where[near], 3).astype(np.uint8), np.ones((7, 7), np.uint8))[3:-3, 3:-3]
    values = np.where(where[near, :, None], image[near], 0).astype(np.float32)
    noise, coarse = (x[inner] for x in _differences(values))
    usable = _blocks(inside[inner, :, None].astype(np.float32)).min(axis=1)[:, 0] > 0
    bright = _blocks((values[inner] @ _LUMINANCE)[:, :, None]).mean(axis=1)[:, 0][usable]
    squares = noise**2, coarse**2, noise * np.roll(noise, 1, axis=2)
    return bright, *(_blocks(x).mean(axis=1)[usable] for x in squares)


def _noise(shape: tuple[int, ...], grain: Grain, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw noise (H, W, 3) of unit measured variance, as fine and as coloured as the grain."""
    fineness = np.sqrt(grain.coarse.mean() / grain.variance.mean())
    field = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    measured = [[x.std() for x in _differences(_blurred(field, blur))] for blur in _BLURS]
    blur = float(np.interp(fineness, [coarse / fine for fine, coarse in measured], _BLURS))
    gain = float(_differences(_blurred(field, blur))[0].std())
    height, width = (n + 2 * _MARGIN for n in shape)  # where a blur ends it isn't even
    common, own = (rng.standard_normal((height, width, n), np.float32) for n in (1, 3))
    mixed = math.sqrt(grain.correlation) * common + math.sqrt(1 - grain.correlation) * own
    even = _blurred(np.asarray(mixed, np.float32), blur)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return even / np.float32(gain)


def _differences(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Take the second difference along both axes: of pixels, and of pixels averaged two by two."""
    wide = np.zeros((5, 5), np.float32)
    wide[::2, ::2] = _KERNEL
    fine, coarse = cv2.filter2D(image, -1, _KERNEL), cv2.filter2D(cv2.blur(image, (2, 2)), -1, wide)
    return np.asarray(fine, np.float32), np.asarray(coarse, np.float32)


def _blurred(field: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32) if sigma > 0.2 else field


def _blocks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut (H, W, C) into whole blocks, row by row: (K, pixels, C)."""
    height, width = (n // _BLOCK_PX for n in image.shape[:2])
    cut = image[: height * _BLOCK_PX, : width * _BLOCK_PX]
    blocks = cut.reshape(height, _BLOCK_PX, width, _BLOCK_PX, -1).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(height * width, _BLOCK_PX**2, -1)
