"""Grain: measure the noise of a photo on its known pixels, and add it to the generated pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.io.bands import bands
from realfill.io.images import MaskArray
from realfill.scene.masks import bounding_box

_KERNEL = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32) / 6  # Immerkaer 1996; keeps the variance of white noise
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_BLOCK_PX = 16
_MIN_BLOCKS = 12  # least number of blocks in each level of luminance
_MAX_LEVELS = 4
_FLATTEST = 0.25  # share of the blocks, the flattest, that are taken to show noise rather than texture
_AROUND_PX = 3 * _BLOCK_PX  # around a small hole, the sample's own noise is measured this far too
_MIN_STD = 0.5  # standard deviation, of 255 levels, below which noise cannot be told from rounding
_BLURS = (0.0, 0.4, 0.5, 0.6, 0.8, 1.0)  # possible sigmas of the blur of grain, in pixels
_MARGIN = 4  # reach of these blurs in pixels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grain:
    """The noise of an image.

    Attributes:
        luminance: (L,) rising, in levels of 255, at which the noise was measured.
        variance: (L, 3), variance of each channel.
        coarse: (L, 3), variance after averaging 2 x 2 pixels; a quarter of ``variance`` for white noise.
        correlation: correlation between the channels, in [0, 1].
    """

    luminance: NDArray[np.float32]
    variance: NDArray[np.float32]
    coarse: NDArray[np.float32]
    correlation: float

    def at(self, luminance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate the variance (..., 3) at luminances (...,)."""
        channels = [np.interp(luminance, self.luminance, v) for v in self.variance.T]
        return np.stack(channels, axis=-1).astype(np.float32)


def measure_grain(image: NDArray, where: MaskArray) -> Grain | None:
    """Measure the noise of an image where it is flattest, at some levels of luminance.

    The image is filtered by the second difference along both axes (Immerkaer 1996, "Fast noise variance estimation").
    The quarter of the blocks of 16 x 16 pixels with the least variance is taken to show noise alone.

    Args:
        image: (H, W, 3), uint8 or float32 in [0, 255].
        where: (H, W) bool, True = use this pixel.

    Returns:
        The noise; ``None`` if there are too few blocks.
    """
    if min(where.shape) < _BLOCK_PX:
        return None
    blocks = [_measure_blocks(image, where, rows) for rows in bands(where.shape) if len(where[rows]) >= _BLOCK_PX]
    bright, fine, rough, mixed = (np.concatenate(x) for x in zip(*blocks, strict=True))
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
    """Add the noise that the photo around a sample has and the sample lacks.

    The noise has the photo's strength for each channel and luminance, its correlation between channels and its
    fineness.

    Args:
        patch: (H, W, 3) in [0, 255], the sample.
        mask: (H, W) bool, True = the hole.
        grain: noise of the photo's known pixels; ``None`` if it could not be measured.
        rng: source of the noise.
        whole: whether the model generated the patch outside the hole too. The sample's own noise can then be measured
            around a hole that is too small to measure it inside. Otherwise such a sample counts as free of noise.

    Returns:
        (H, W, 3): the patch with noise in the hole; the patch itself if the photo has no noise.
    """
    if grain is None or grain.variance.max() < _MIN_STD**2:
        return patch
    sample_grain = measure_grain(patch, mask)
    if sample_grain is None and whole:
        top, left, bottom, right = bounding_box(mask)
        near = np.zeros_like(mask)
        near[max(0, top - _AROUND_PX) : bottom + _AROUND_PX, max(0, left - _AROUND_PX) : right + _AROUND_PX] = True
        sample_grain = measure_grain(patch, near)
    grainy = np.array(patch, np.float32)
    for rows in bands(mask.shape):
        if not mask[rows].any():
            continue
        luminance = patch[rows] @ _LUMINANCE
        variance = grain.at(luminance)
        present = 0 if sample_grain is None else sample_grain.at(luminance)
        missing = np.where(variance < _MIN_STD**2, 0, variance - present)
        noise = _draw_noise(luminance.shape, grain, rng) * np.sqrt(missing.clip(0))
        np.add(grainy[rows], noise, out=grainy[rows], where=mask[rows][:, :, None])
    return grainy


def _measure_blocks(image: NDArray, where: MaskArray, rows: slice) -> tuple[NDArray[np.float32], ...]:
    """Measure the blocks in a band of rows that lie inside ``where`` and at least 3 pixels from its border.

    Returns:
        For K blocks: luminance (K,), and (K, 3) each: variance, variance after averaging 2 x 2 pixels, and covariance
        of each channel with the next.
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


def _draw_noise(shape: tuple[int, ...], grain: Grain, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw noise (H, W, 3) with the fineness and the correlation of the grain; its measured variance is 1."""
    fineness = np.sqrt(grain.coarse.mean() / grain.variance.mean())
    field = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    measured = [[x.std() for x in _differences(_blurred(field, blur))] for blur in _BLURS]
    blur = float(np.interp(fineness, [coarse / fine for fine, coarse in measured], _BLURS))
    gain = float(_differences(_blurred(field, blur))[0].std())
    height, width = (n + 2 * _MARGIN for n in shape)  # a blur is uneven at the edges
    shared, separate = (rng.standard_normal((height, width, n), np.float32) for n in (1, 3))
    noise = math.sqrt(grain.correlation) * shared + math.sqrt(1 - grain.correlation) * separate
    noise = _blurred(np.asarray(noise, np.float32), blur)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return noise / np.float32(gain)


def _differences(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the second difference along both axes, of single pixels and of averages of 2 x 2 pixels."""
    wide = np.zeros((5, 5), np.float32)
    wide[::2, ::2] = _KERNEL
    fine, coarse = cv2.filter2D(image, -1, _KERNEL), cv2.filter2D(cv2.blur(image, (2, 2)), -1, wide)
    return np.asarray(fine, np.float32), np.asarray(coarse, np.float32)


def _blurred(field: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32) if sigma > 0.2 else field


def _blocks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut an image (H, W, C) into whole blocks (K, pixels, C), row by row."""
    height, width = (n // _BLOCK_PX for n in image.shape[:2])
    cut = image[: height * _BLOCK_PX, : width * _BLOCK_PX]
    blocks = cut.reshape(height, _BLOCK_PX, width, _BLOCK_PX, -1).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(height * width, _BLOCK_PX**2, -1)
