"""Edges of the choice: labels enlarged without stair steps, and borders moved to where two layers agree."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from realfill.geometry.sampling import enlarge
from realfill.io.images import MaskArray

_BLUR = 0.7  # of the small labels, in small pixels
_SURE = 0.7  # lead over the second label, in [0, 1], from which a label is not decided again
_LEVELS = 4.0  # steps of the flooding for each level of 255 that the layers differ by
_MIDDLE = 12.0  # pull of a border to where the small labels put it, in the same steps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """The two likeliest labels of each pixel of a part of the photo.

    Attributes:
        first: (h, w) uint8.
        second: (h, w) uint8; equal to ``first`` where no other label is near.
        lead: (h, w) float32 in [0, 1], by how much the first is likelier.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    lead: NDArray


class SmoothLabels:
    """Small labels, ready to be enlarged part by part."""

    def __init__(self, labels: NDArray, hole: MaskArray, size: tuple[int, ...]) -> None:
        """Smooth the labels' shares.

        Args:
            labels: (h, w), read in the hole and continued outside by the nearest label.
            hole: (h, w) bool.
            size: (H, W) to which they are enlarged.
        """
        self._size = size
        inside = continue_labels(labels, hole)
        self._numbers = [int(n) for n in np.unique(inside)]
        self._shares = [cv2.GaussianBlur((inside == n).astype(np.float32), (0, 0), _BLUR) for n in self._numbers]

    def enlarge(self, rows: slice, columns: slice) -> Labels:
        """Enlarge labels to a part of the full size; their borders become smooth lines."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        best, next_ = np.full(shape, -1, np.float32), np.full(shape, -1, np.float32)
        first, second = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        for number, small in zip(self._numbers, self._shares, strict=True):
            share = enlarge(small, self._size, rows, columns)
            if not share.any():
                continue
            wins, follows = share > best, share > next_
            second = np.where(wins, first, np.where(follows, number, second)).astype(np.uint8)
            next_ = np.where(wins, best, np.where(follows, share, next_))
            first, best = np.where(wins, number, first).astype(np.uint8), np.where(wins, share, best)
        alone = next_ <= 0
        return Labels(
            first=first, second=np.where(alone, first, second).astype(np.uint8), lead=np.where(alone, 1, best - next_)
        )


def continue_labels(labels: NDArray, hole: MaskArray) -> NDArray:
    """Give every pixel outside a hole the label of the nearest pixel inside."""
    if not hole.any() or hole.all():
        return labels
    nearest = np.asarray(
        cv2.distanceTransformWithLabels((~hole).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1],
        np.intp,
    )
    table = np.zeros(int(nearest.max()) + 1, labels.dtype)
    table[nearest[hole]] = labels[hole]
    return table[nearest]


def settle(labels: Labels, images: NDArray, hole: MaskArray, settled: NDArray) -> NDArray[np.uint8]:
    """Decide the pixels near borders between labels again, so that borders run where the two layers agree.

    The sure pixels are flooded outwards in the order of how much the two likeliest layers differ (watershed, Meyer
    1994); two floods meet where they differ least.

    Args:
        labels: the likeliest labels.
        images: (L, h, w, 3) float32, the layers.
        hole: (h, w) bool; only its pixels are decided.
        settled: (h, w) int: labels that are already final; -1 elsewhere.
    """
    open_ = hole & (labels.lead < _SURE) & (settled < 0)
    result = np.where(settled >= 0, settled, labels.first).astype(np.uint8)
    if not open_.any():
        return result
    rows, columns = (np.flatnonzero(open_.any(axis=axis)) for axis in (1, 0))
    box = tuple(
        slice(max(0, int(places[0]) - 1), min(side, int(places[-1]) + 2))
        for places, side in zip((rows, columns), hole.shape, strict=True)
    )
    first, second = labels.first[box].astype(int), labels.second[box].astype(int)
    y, x = np.mgrid[box]
    apart = cv2.GaussianBlur(np.abs(images[first, y, x] - images[second, y, x]).mean(axis=2), (0, 0), 1)
    height = _MIDDLE * (1 - labels.lead[box]) - _LEVELS * np.minimum(apart, 60)
    markers = np.where(open_[box], 0, result[box].astype(np.int32) + 1)
    flooded = watershed(np.rint(height).astype(np.int32), markers, mask=hole[box])
    result[box] = np.where(open_[box] & (flooded > 0), flooded - 1, result[box])
    return result
