"""Pictures of results: grids of images with captions, evidence, and the matches between two images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Patch
from numpy.typing import NDArray

from realfill.io.images import ImageArray, fit_within, resize
from realfill.io.photos import put
from realfill.results.evidence import CORRECTED, PHOTOGRAPHED, Evidence

_CELL_INCHES = 3.0
_CELL_PX = 480
_EVIDENCE_PX = 1200
# colours that colour-blind readers can tell apart (Okabe and Ito 2008)
_PHOTOGRAPHED = ((0, 158, 115), (86, 180, 233), (0, 114, 178))
_CORRECTED, _INVENTED = (240, 228, 66), (213, 94, 0)


def image_grid(cells: Sequence[tuple[str, ImageArray]], *, columns: int) -> Figure:
    """Draw images with captions in rows.

    Args:
        cells: caption and image (H, W, 3) uint8, of any sizes.
        columns: images per row, at most.
    """
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    heights = [
        max(image.shape[0] / image.shape[1] for _, image in cells[r * columns : (r + 1) * columns]) for r in range(rows)
    ]
    size = (columns * _CELL_INCHES, sum(h * _CELL_INCHES + 0.35 for h in heights))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes: list[Any] = list(np.asarray(figure.subplots(rows, columns, squeeze=False, height_ratios=heights)).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, (caption, image) in zip(axes, cells, strict=False):
        axis.imshow(thumbnail(image))
        axis.set_title(caption, fontsize=9)
    return figure


def thumbnail(image: ImageArray) -> ImageArray:
    """Shrink an image to the resolution of a grid cell."""
    return resize(image, fit_within(image.shape[:2], _CELL_PX))


def evidence_colours(evidence: Evidence) -> ImageArray:
    """Return the colour of each pixel of the hole, (K, 3) uint8 sRGB.

    Photographed pixels are green to blue, by reference; corrected ones yellow; invented ones red.
    """
    colours = np.full((len(evidence.kind), 3), _INVENTED, np.uint8)
    colours[evidence.kind == CORRECTED] = _CORRECTED
    for place, number in enumerate(evidence.references):
        shown = (evidence.kind == PHOTOGRAPHED) & (evidence.source == number)
        colours[shown] = _PHOTOGRAPHED[place % len(_PHOTOGRAPHED)]
    return colours


def evidence_figure(target: ImageArray, evidence: Evidence) -> Figure:
    """Draw the evidence of a completion over its target in grey, with a legend of the kinds and their shares.

    Args:
        target: (H, W, 3) uint8; its hole is not shown.
        evidence: the evidence of the scene's completions.
    """
    size = fit_within(target.shape[:2], _EVIDENCE_PX)
    grey = resize(target, size).mean(axis=2, keepdims=True)
    colours = np.zeros_like(target)
    put(colours, evidence.mask, evidence_colours(evidence))
    rows, columns = (np.arange(n) * full // n for n, full in zip(size, target.shape, strict=False))
    nearest = np.ix_(rows, columns)
    image = np.where(evidence.mask[nearest][:, :, None], colours[nearest], (0.5 * grey + 127).astype(np.uint8))
    figure = Figure(figsize=(size[1] / 120, size[0] / 120 + 0.6), dpi=120, layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    axis.imshow(image, interpolation="nearest")
    shares = evidence.shares
    entries = [
        (_PHOTOGRAPHED[place % len(_PHOTOGRAPHED)], f"photographed, reference {number}: {100 * share:.0f} %")
        for place, (number, share) in enumerate(evidence.references.items())
    ]
    entries += [(_CORRECTED, f"corrected: {100 * shares['corrected']:.0f} %")] if shares["corrected"] else []
    entries += [(_INVENTED, f"invented: {100 * shares['invented']:.0f} %")] if shares["invented"] else []
    handles = [Patch(color=f"#{bytes(colour).hex()}", label=label) for colour, label in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def match_overlay(
    image0: ImageArray,
    image1: ImageArray,
    keypoints0: NDArray[np.float32],
    keypoints1: NDArray[np.float32],
    confidence: NDArray[np.float32],
) -> Figure:
    """Draw two images side by side with lines between matched keypoints, greener for higher confidence.

    Args:
        image0: (H, W, 3) uint8.
        image1: (H, W, 3) uint8, of any size.
        keypoints0: (K, 2), (x, y) in pixels of ``image0``.
        keypoints1: (K, 2), (x, y) in pixels of ``image1``.
        confidence: (K,) in [0, 1].
    """
    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    axes: Any = figure.subplots(1, 2)
    for axis, image in zip(axes, (image0, image1), strict=True):
        axis.imshow(image)
        axis.set_axis_off()
    axes[0].set_title(f"{len(confidence)} matches", fontsize=9)
    for point0, point1, value in zip(keypoints0, keypoints1, confidence, strict=True):
        colour = (1 - float(value), float(value), 0.2)
        line = ConnectionPatch(
            xyA=tuple(point0), xyB=tuple(point1), coordsA="data", coordsB="data", axesA=axes[0], axesB=axes[1],
            color=colour, linewidth=0.8,
        )  # fmt: skip
        figure.add_artist(line)
    return figure
