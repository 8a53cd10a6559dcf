"""Metrics of what was filled in that need no weights, and the table of all metrics.

Those that look at images through a network are in ``models.perceptual``.
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
from realfill.masks import bounding_box

_LUMINANCE = np.array([299, 587, 114])  # ITU-R BT.601, thousandths of R, G, B
_GMSD_C = 170.0
_SEAM_PX = 3  # pairs of neighbours on each side of the border that the pair across it is compared with
_SIDE_SIGMA_PX = 4.0  # of the Gaussian that averages colours on each side of the border


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a metric's numbers mean.

    Attributes:
        higher_is_better: ``None`` where neither way is: 1 is best.
        unit: "" where it has none.
        meaning: in one line.
        needs_weights: whether it is one of ``models.perceptual``, which may not be there.
        needs_truth: whether its function takes (image, truth, mask); else (image, mask).
    """

    higher_is_better: bool | None
    unit: str = ""
    meaning: str
    needs_weights: bool = False
    needs_truth: bool = True


METRICS: Mapping[str, Metric] = {
    "psnr": Metric(higher_is_better=True, unit="dB", meaning="how close each pixel of the hole is"),
    "ssim": Metric(higher_is_better=True, meaning="how alike brightness, contrast and structure are in the hole"),
    "gmsd": Metric(higher_is_better=False, meaning="how unevenly edges in the hole differ; 0 where equal"),
    "detail": Metric(higher_is_better=None, meaning="how sharp the hole is: 1 as the truth, blur below, noise above"),
    "native_detail": Metric(
        higher_is_better=None, meaning="the same at the target's own size, where noise counts more"
    ),
    "seam": Metric(
        higher_is_better=None,
        meaning="steps across the hole's border: 1 as beside it, a visible edge above",
        needs_truth=False,
    ),
    "delta_e": Metric(
        higher_is_better=False,
        unit="ΔE00",
        meaning="difference of colour between the two sides of the hole's border",
        needs_truth=False,
    ),
    "lpips": Metric(
        higher_is_better=False, meaning="distance of VGG features in the hole; 0 where equal", needs_weights=True
    ),
    "dreamsim": Metric(
        higher_is_better=False, meaning="distance as people see it, whole image; 0 where equal", needs_weights=True
    ),
    "dino": Metric(
        higher_is_better=True, meaning="cosine of DINO embeddings, whole image; 1 where equal", needs_weights=True
    ),
    "clip": Metric(
        higher_is_better=True, meaning="cosine of CLIP embeddings, whole image; 1 where equal", needs_weights=True
    ),
}
"""Name to what it means, in the order of the paper's tables, ours in between."""


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


def gmsd(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
    """Compute gradient magnitude similarity deviation (Xue et al. 2014) in the hole; 0 where equal, lower is better.

    Luminance is averaged over blocks of 2 x 2 pixels; m0 and m1 are the magnitudes of its Prewitt gradients (weights of
    a third, the image continued by its edge pixels). A block's similarity is (2 m0 m1 + 170) / (m0^2 + m1^2 + 170);
    the result is its standard deviation (that of the population) over the blocks that lie in the hole. Gradients at
    the border see known context, so a seam counts. A hole without a whole block is measured on the blocks that it
    touches; one block alone has no deviation: 0.

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
    """Compute how much gradient energy the hole has, as a multiple of the truth's; 1 is best, blur is far below.

    The energy is the sum of squared differences of luminance between horizontal and vertical neighbours that both lie
    in the hole, so a seam at its border doesn't count; in a hole without such neighbours, those of which one does.
    Noise raises the ratio above 1. Where the truth is flat it is infinite, or 1 if the image is flat as well.

    Upsampled pixels have no detail of their own: bring both images to the resolution at which the hole was filled, and
    leave out of the mask what there mixes in known pixels.

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
    """Compute ``detail`` at the target's own size; a benchmark measures ``detail`` at the size that the model sees.

    Args:
        image: (H, W, 3) uint8.
        truth: the same shape.
        mask: (H, W) bool, True = the hole.
    """
    return detail(image, truth, mask)


def seam(image: ImageArray, mask: MaskArray) -> float:
    """Compute how much steeper an image is across the hole's border than beside it; 1 is best, a visible seam above.

    Ours: root of the mean squared difference between horizontal or vertical neighbours of which one lies in the hole,
    over that of the pairs up to 3 pixels further on the same line, on the known side and in the hole; the two sides
    count alike, so that a blurred fill beside a grainy photo, without a step, is 1 as well. Over all channels. Pairs
    that leave their side don't count. Without any gradient beside the border: 1 where there is none across it, else
    infinite; 1 where the hole has no border.

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
    """Compute the difference of colour between the two sides of the hole's border, in ΔE00; lower is better.

    Mean over the border's pixels in the hole of CIEDE2000 (Sharma et al. 2005) between the averages (Gaussian, sigma 4
    pixels, in CIELAB) of the known pixels around and of the hole's. Content changes across any line, so that of a
    photo itself isn't 0: compare methods. 0 where the hole has no border.

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
    """Cut out the hole with a margin: nothing else is looked at."""
    top, left, bottom, right = bounding_box(mask)
    box = slice(max(0, top - margin_px), bottom + margin_px), slice(max(0, left - margin_px), right + margin_px)
    return image[box], mask[box]


def _shifted(pairs: NDArray[np.bool_], sign: int) -> NDArray[np.bool_]:
    """Move marks one pair along the first axis; what leaves is lost."""
    moved = np.zeros_like(pairs)
    if sign > 0:
        moved[1:] = pairs[:-1]
    else:
        moved[:-1] = pairs[1:]
    return moved


def _luminance(image: ImageArray) -> NDArray[np.float64]:
    return (image.astype(np.int64) @ _LUMINANCE) / 1000  # whole numbers: flat stays exactly flat


def _halve(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average blocks of 2 x 2; an odd row or column is continued."""
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
