"""Metrics of the filled hole that need no weights, and the table of all metrics.

Metrics that compare images with a network are in ``models.perceptual``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from realfill.io.images import ImageArray, MaskArray
from realfill.scene.masks import bounding_box

_LUMINANCE = np.array([299, 587, 114])  # ITU-R BT.601, thousandths of R, G, B
_GMSD_C = 170.0
_SEAM_PX = 3  # pairs of neighbours on each side of the border to compare the pair across it with
_SIDE_SIGMA_PX = 4.0  # standard deviation of the Gaussian that averages colours on each side of the border


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The meaning of a metric's values.

    Attributes:
        higher_is_better: the better direction; ``None``: 1 is best.
        unit: unit, or "".
        meaning: one line.
        needs_weights: whether the metric is one of ``models.perceptual``, which may not be available.
        needs_truth: whether its function takes (image, truth, mask), else (image, mask).
    """

    higher_is_better: bool | None
    unit: str = ""
    meaning: str
    needs_weights: bool = False
    needs_truth: bool = True


METRICS: Mapping[str, Metric] = {
    "psnr": Metric(higher_is_better=True, unit="dB", meaning="similarity of each pixel of the hole"),
    "ssim": Metric(higher_is_better=True, meaning="similarity of brightness, contrast and structure in the hole"),
    "gmsd": Metric(higher_is_better=False, meaning="deviation of edges in the hole; 0 if equal"),
    "detail": Metric(higher_is_better=None, meaning="sharpness of the hole: 1 as the truth, blur below, noise above"),
    "native_detail": Metric(higher_is_better=None, meaning="detail at the target's own size, where noise counts more"),
    "seam": Metric(
        higher_is_better=None,
        meaning="steps across the hole's border: 1 as beside it, a visible edge above",
        needs_truth=False,
    ),
    "delta_e": Metric(
        higher_is_better=False,
        unit="ΔE00",
        meaning="colour difference between the two sides of the hole's border",
        needs_truth=False,
    ),
    "lpips": Metric(
        higher_is_better=False, meaning="distance of VGG features in the hole; 0 if equal", needs_weights=True
    ),
    "dreamsim": Metric(
        higher_is_better=False, meaning="perceptual distance of the whole image; 0 if equal", needs_weights=True
    ),
    "dino": Metric(
        higher_is_better=True, meaning="cosine of DINO embeddings of the whole image; 1 if equal", needs_weights=True
    ),
    "clip": Metric(
        higher_is_better=True, meaning="cosine of CLIP embeddings of the whole image; 1 if equal", needs_weights=True
    ),
}
"""Metrics by name, in the order of the paper's tables, with ours in between."""


def psnr(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
    """Compute the peak signal-to-noise ratio in the hole, in dB; higher is better, infinite if equal.

    PSNR = 10 log10(255^2 / mean squared error over the hole's pixels and channels).

    Args:
        image: (H, W, 3) uint8.
        truth: the same shape.
        mask: (H, W) bool, True = the hole.
    """
    error = float(((image.astype(np.float64) - truth) ** 2)[mask].mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
    """Compute the structural similarity (Wang et al. 2004) in the hole; no unit, higher is better, 1 if equal.

    The SSIM map of each colour channel is computed over the whole image with a Gaussian window (sigma 1.5, 11 pixels)
    and averaged over the hole's pixels. Windows at the border include known pixels.

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


def gmsd(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
    """Compute the gradient magnitude similarity deviation (Xue et al. 2014) in the hole.

    No unit; lower is better, 0 if equal. Luminance is averaged over blocks of 2 x 2 pixels; m0 and m1 are the
    magnitudes of its Prewitt gradients in image and truth (weights of 1/3, edge pixels replicated). The similarity of a
    block is (2 m0 m1 + 170) / (m0^2 + m1^2 + 170), and the result is the population standard deviation of the
    similarity over the blocks inside the hole. Gradients at the border include known pixels, so a seam counts. If no
    block is inside the hole, the blocks that overlap it are used. The deviation of a single block is 0.

    Args:
        image: (H, W, 3) uint8.
        truth: the same shape.
        mask: (H, W) bool, True = the hole.
    """
    magnitude, true = (_prewitt_magnitude(_halve(_luminance(i))) for i in (image, truth))
    similarity = (2 * magnitude * true + _GMSD_C) / (magnitude**2 + true**2 + _GMSD_C)
    share = _halve(mask.astype(np.float64))
    inside = share == 1
    return float(similarity[inside if inside.any() else share > 0].std())


def detail(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
    """Compute the ratio of the hole's gradient energy to that of the truth.

    No unit; 1 is best, blur lowers the ratio, and noise raises it. The energy is the sum of squared luminance
    differences between horizontal and vertical neighbours that are both in the hole, so a seam at its border does not
    count. If there are no such pairs, those with one pixel in the hole count. If the truth is flat, the ratio is
    infinite, or 1 for a flat image.

    Upsampled pixels have no detail. Resize both images to the resolution at which the hole was filled, and remove from
    the mask the pixels that then mix with known ones.

    Args:
        image: (H, W, 3) uint8.
        truth: the same shape.
        mask: (H, W) bool, True = the hole.
    """
    energy, true = (_gradient_energy(_luminance(i), mask) for i in (image, truth))
    if true == 0:
        return 1.0 if energy == 0 else math.inf
    return energy / true


def native_detail(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
    """Compute ``detail`` at the target's own size, whereas a benchmark measures ``detail`` at the model's resolution.

    No unit; 1 is best.

    Args:
        image: (H, W, 3) uint8.
        truth: the same shape.
        mask: (H, W) bool, True = the hole.
    """
    return detail(image, truth, mask)


def seam(image: ImageArray, mask: MaskArray) -> float:
    """Compute the ratio of the gradient across the hole's border to the gradient beside it (ours).

    No unit; 1 is best, and a visible seam is above. The ratio is sqrt(a / ((b + c) / 2)), with a the mean squared
    difference over all channels between horizontal or vertical neighbours with one pixel in the hole, and b and c those
    of the pairs up to 3 pixels further on the same line, on the known side and in the hole. Both sides have the same
    weight, so a blurred fill beside a grainy photo, without a step, is 1 as well. Pairs that leave their side do not
    count. Without any gradient beside the border, the ratio is 1 if there is none across it, else infinite; it is 1 if
    the hole has no border.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, True = the hole.
    """
    image, mask = _around(image, mask, _SEAM_PX + 1)
    across, beside = np.zeros(2), np.zeros((2, 2))  # sums of squares and numbers; beside: for each side
    for axis in (0, 1):
        values, hole = np.moveaxis(image, axis, 0).astype(np.float64), np.moveaxis(mask, axis, 0)
        squares = (np.diff(values, axis=0) ** 2).sum(axis=2)
        edges = hole[1:] != hole[:-1]
        across += squares[edges].sum(), edges.sum()
        for side, inside in enumerate((~hole, hole)):
            same = inside[1:] & inside[:-1]
            for sign in (1, -1):
                run = edges & (inside[1:] if sign > 0 else inside[:-1])
                for _ in range(_SEAM_PX):
                    run = _shifted(run, sign) & same
                    beside[side] += squares[run].sum(), run.sum()
    known = [total / number for total, number in beside if number]
    if not across[1] or not known:
        return 1.0
    step, usual = across[0] / across[1], sum(known) / len(known)
    return math.sqrt(step / usual) if usual else (1.0 if step == 0 else math.inf)


def delta_e(image: ImageArray, mask: MaskArray) -> float:
    """Compute the colour difference between the two sides of the hole's border, in ΔE00; lower is better.

    The mean of CIEDE2000 (Sharma et al. 2005) over the hole's border pixels, between two Gaussian averages (sigma 4
    pixels, in CIELAB): of the known pixels nearby, and of the hole's pixels nearby. Content changes across any line, so
    the value of a real photo is not 0: compare methods. 0 if the hole has no border.

    Args:
        image: (H, W, 3) uint8 sRGB.
        mask: (H, W) bool, True = the hole.
    """
    image, mask = _around(image, mask, math.ceil(4 * _SIDE_SIGMA_PX))
    border = mask & (cv2.dilate((~mask).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    if not border.any():
        return 0.0
    lab = rgb2lab(image)
    sides = []
    for side in (mask, ~mask):
        weight = cv2.GaussianBlur(side.astype(np.float64), (0, 0), _SIDE_SIGMA_PX)[border]
        total = cv2.GaussianBlur(lab * side[:, :, None], (0, 0), _SIDE_SIGMA_PX)[border]
        sides.append(total / weight[:, None])
    return float(deltaE_ciede2000(*sides).mean())


def _around(image: ImageArray, mask: MaskArray, margin_px: int) -> tuple[ImageArray, MaskArray]:
    """Crop image and mask to the hole and a margin."""
    top, left, bottom, right = bounding_box(mask)
    box = slice(max(0, top - margin_px), bottom + margin_px), slice(max(0, left - margin_px), right + margin_px)
    return image[box], mask[box]


def _shifted(pairs: NDArray[np.bool_], sign: int) -> NDArray[np.bool_]:
    """Shift marks by one pair along the first axis, without wrapping."""
    moved = np.zeros_like(pairs)
    if sign > 0:
        moved[1:] = pairs[:-1]
    else:
        moved[:-1] = pairs[1:]
    return moved


def _luminance(image: ImageArray) -> NDArray[np.float64]:
    return (image.astype(np.int64) @ _LUMINANCE) / 1000  # integers, so that a flat image stays exactly flat


def _halve(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average blocks of 2 x 2 pixels; an odd last row or column is replicated."""
    height, width = values.shape
    padded = np.pad(values, ((0, height % 2), (0, width % 2)), mode="edge")
    return padded.reshape((height + 1) // 2, 2, (width + 1) // 2, 2).mean(axis=(1, 3))


def _prewitt_magnitude(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    slope, mean = np.array([-1.0, 0.0, 1.0]), np.full(3, 1 / 3)
    across = cv2.sepFilter2D(grey, cv2.CV_64F, slope, mean, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(grey, cv2.CV_64F, mean, slope, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(across, down)


def _gradient_energy(grey: NDArray[np.float64], mask: MaskArray) -> float:
    steps = (np.diff(grey, axis=0), np.diff(grey, axis=1))
    pairs = ((mask[:-1], mask[1:]), (mask[:, :-1], mask[:, 1:]))
    counted = [a & b for a, b in pairs]
    if not any(c.any() for c in counted):
        counted = [a | b for a, b in pairs]
    return float(sum((s[c] ** 2).sum() for s, c in zip(steps, counted, strict=True)))
