"""The working size: where the geometry is computed, and the way from there to the photos' own pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.cameras import Frame
from realfill.geometry.correspondences import Pairs
from realfill.io.images import ImageArray, MaskArray
from realfill.io.profiles import to_depth

WORKING_PX = 768  # longer side of the target
_MATCHING_PX = 1536  # longer side of the photos that are matched
_DENSER = 1.5  # a reference may have this many pixels for each pixel of the target before it is shrunk
_CELLS = 16  # of a photo, along its longer side, over which matches are spread
_LEAST_PX, _LARGEST_PX = 256, 1536  # longer side of a shrunk reference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Working:
    """A target and its references at the size at which the geometry is computed.

    Attributes:
        known: (h, w, 3) uint8, zero in the hole.
        hole: (h, w) bool: pixels that contain any of the hole.
        references: each uint8, about as dense as the target.
        masks: for each reference the part that is left out, (h, w) bool, or ``None``.
        focals: focal lengths of the target and each reference in pixels of these images, or ``None``.
        pairs: matches in the pixels of these images.
        frame: the part of the target that is its photo; ``None``: all of it.
    """

    known: ImageArray
    hole: MaskArray
    references: tuple[ImageArray, ...]
    masks: tuple[MaskArray | None, ...]
    focals: tuple[float | None, ...]
    pairs: Pairs
    frame: Frame | None


def shrink_all(
    known: NDArray,
    hole: MaskArray,
    references: Sequence[NDArray],
    *,
    masks: Sequence[MaskArray | None],
    focals: Sequence[float | None] | None,
    pairs: Pairs | None,
    frame: Frame | None = None,
    match: Callable[[Sequence[ImageArray], MaskArray, Sequence[MaskArray | None]], Pairs],
) -> Working:
    """Shrink a target to the working size, and each reference to the scale that it then needs.

    Args:
        known: (H, W, 3) uint8 or uint16, zero in the hole.
        hole: (H, W) bool.
        references: each (h, w, 3) uint8 or uint16.
        masks: for each reference the part that is left out, (h, w) bool, or ``None``.
        focals: focal lengths of the target and each reference in the photos' own pixels, or ``None``.
        pairs: matches in the photos' own pixels; ``None``: they are found.
        frame: the part of the target that is its photo, in the target's own pixels; ``None``: all of it.
        match: how they are found, from uint8 images, the target's hole, and the references' masks.
    """
    photos = [known, *references]
    if pairs is None:
        sizes = [fit(photo.shape, _MATCHING_PX) for photo in photos]
        images = [shrink(photo, size) for photo, size in zip(photos, sizes, strict=True)]
        left_out = [mask if mask is None else shrink_hole(mask, n) for mask, n in zip(masks, sizes[1:], strict=True)]
        pairs = match(images, shrink_hole(hole, sizes[0]), left_out)
        pairs = rescale(pairs, sizes, [p.shape[:2] for p in photos])
    size = fit(hole.shape, WORKING_PX)
    shrunk = max(hole.shape) / max(size)
    sizes = [size, *(_reference_size(r.shape, pairs.get((0, n)), shrunk) for n, r in enumerate(references, 1))]
    images = [shrink(photo, small) for photo, small in zip(photos, sizes, strict=True)]
    return Working(
        known=images[0].copy(),  # the photo itself is filled later
        hole=shrink_hole(hole, size),
        references=tuple(images[1:]),
        masks=tuple(m if m is None else shrink_hole(m, n) for m, n in zip(masks, sizes[1:], strict=True)),
        focals=tuple(
            focal and focal * max(small) / max(photo.shape)
            for focal, small, photo in zip(focals or [None] * len(photos), sizes, photos, strict=True)
        ),
        pairs=rescale(pairs, [p.shape[:2] for p in photos], sizes),
        frame=frame and _scale(frame, size[0] / hole.shape[0], size[1] / hole.shape[1]),
    )


def fit(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Return the (height, width) to which an image is shrunk so that its longer side has at most ``longest`` pixels."""
    factor = min(1.0, longest / max(shape[:2]))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def shrink(photo: NDArray, size: tuple[int, int]) -> ImageArray:
    """Shrink a photo, uint8 or uint16, to (height, width) by averaging; the result is uint8."""
    if photo.shape[:2] != size:
        photo = np.asarray(cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA))
    return to_depth(photo, np.uint8)


def shrink_hole(hole: MaskArray, size: tuple[int, int]) -> MaskArray:
    """Shrink a hole to (height, width); a pixel belongs to it if it averages any pixel of the hole."""
    if hole.shape == size:
        return hole
    result = hole.view(np.uint8)
    for axis in (0, 1):
        starts = np.arange(size[axis]) * (hole.shape[axis] / size[axis])
        result = np.maximum(
            *(np.maximum.reduceat(result, cut(starts + shift).astype(int).clip(0, hole.shape[axis] - 1), axis=axis)
              for cut, shift in ((np.floor, 1e-9), (np.ceil, -1e-9)))
        )  # fmt: skip
    return result > 0


def rescale(pairs: Pairs, sizes: Sequence[tuple[int, ...]], new_sizes: Sequence[tuple[int, ...]]) -> Pairs:
    """Move matches from images of some sizes, (height, width), to the same images of other sizes."""

    def move(points: NDArray, image: int) -> NDArray:
        factor = np.array(new_sizes[image][1::-1], np.float64) / np.array(sizes[image][1::-1])
        return (points + 0.5) * factor - 0.5

    return {
        (i, j): np.concatenate([move(matches[:, :2], i), move(matches[:, 2:4], j)], axis=1).astype(np.float32)
        for (i, j), matches in pairs.items()
    }


def _scale(frame: Frame, vertical: float, horizontal: float) -> Frame:
    top, left, bottom, right = frame
    return top * vertical, left * horizontal, bottom * vertical, right * horizontal


def thin_out(pairs: Pairs, size: tuple[int, int], most: int) -> Pairs:
    """Keep at most a number of matches of each pair, spread over the first image; the surest of each cell come first.

    Args:
        pairs: matches in pixels of the images, the surest first.
        size: (height, width) that all images roughly have.
        most: of each pair.
    """
    thinned = {}
    for pair, matches in pairs.items():
        cells = np.floor(matches[:, :2] / (max(size) / _CELLS)).astype(int)
        _, cell = np.unique(cells, axis=0, return_inverse=True)
        order = np.argsort(cell.ravel(), kind="stable")
        starts = np.flatnonzero(np.diff(cell.ravel()[order], prepend=-1))
        place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        rank = np.empty(len(order), int)
        rank[order] = place
        thinned[pair] = matches[np.sort(np.argsort(rank, kind="stable")[:most])]
    return thinned


def _reference_size(shape: tuple[int, ...], matches: NDArray | None, shrunk: float) -> tuple[int, int]:
    """Choose the size of a reference by how dense it shows the target's points.

    Args:
        shape: of the reference.
        matches: with the target, in the photos' own pixels.
        shrunk: pixels of the target for each pixel of the working size, along one side.
    """
    longest = max(shape[:2])
    if matches is None or len(matches) < 8:
        return fit(shape, WORKING_PX)
    spread, own = (
        float(np.median(np.linalg.norm(p - np.median(p, axis=0), axis=1))) for p in (matches[:, :2], matches[:, 2:4])
    )
    density = own / max(spread, 1e-6) * shrunk  # pixels of the reference for each pixel of the small target
    wanted = longest if density <= _DENSER else longest / density
    return fit(shape, int(min(max(wanted, _LEAST_PX), _LARGEST_PX)))
