"""Metrics against the ground truth, in the hole."""

from __future__ import annotations

import math

import numpy as np
from skimage.metrics import structural_similarity

from realfill.images import ImageArray, MaskArray


def psnr(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
    """Compute the peak signal-to-noise ratio in the hole, in dB; higher is better, infinite where equal.

    10 log10(255^2 / mean squared error over the hole's pixels and channels).

    Args:
        image: (H, W, 3) uint8.
        truth: the same shape.
        mask: (H, W) bool, True = the hole.
    """
    error = float(((image.astype(np.float64) - truth) ** 2)[mask].mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
    """Compute the structural similarity (Wang et al. 2004) in the hole; 1 where equal, higher is better.

    Gaussian window (sigma 1.5, 11 pixels), map of each colour channel over the whole image, averaged over the hole's
    pixels: windows at the border see known context.

    Args:
        image: (H, W, 3) uint8, at least 11 pixels on each side.
        truth: the same shape.
        mask: (H, W) bool, True = the hole.
    """
    similarity: np.ndarray = structural_similarity(
        truth, image, channel_axis=2, data_range=255, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )[1]  # type: ignore[index, assignment]  # fmt: skip
    return float(similarity[mask].mean())
