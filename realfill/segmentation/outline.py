"""Outlines without a network: GrabCut from a box, a click or a prior, and edges refined at full size.

GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) runs on at most 512 pixels. Its outline is enlarged, and its edge
follows the photo again by a guided filter (He, Sun and Tang, ECCV 2010).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.errors import SceneError
from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.scene.masks import Box

_GRABCUT_SIZE_PX = 512
_ROUNDS = 5  # GrabCut has converged after that many
_AROUND = 0.35  # surroundings of the box that show GrabCut the background, as a share of its longer side
_EDGE_EPSILON = 1e-2  # of the guided filter, for images in [0, 1]
_CLICK_TOLERANCES = (8.0, 12.0, 18.0, 27.0)  # differences in Lab that belong to the object clicked on
_MAX_CLICK_SHARE = 0.35  # share of the photo that a click may select
_GAP_SHARE = 0.05  # of the outline's pixels, such as a bright strap
_LEAK, _LEAK_SHARE = 3, 0.002  # a region of this share of the photo that grows more than threefold has leaked


def outline_in_box(image: ImageArray, box: Box, *, certain: MaskArray | None = None, slack: float = 0.0) -> MaskArray:
    """Find the outline of what a box encloses.

    Args:
        image: (H, W, 3) uint8 sRGB.
        box: (top, left, bottom, right); what lies outside of it is background.
        slack: how far the object may reach beyond a box that is only roughly right, as a share of its sides.
        certain: (H, W) bool, pixels that belong to the object, for example a face. ``None``: none is known.

    Returns:
        (H, W) bool, not empty: where GrabCut finds nothing, the ellipse within the box.

    Raises:
        SceneError: the box has no pixel in the photo.
    """
    box = clip_box(box, image.shape[:2])
    place = _surroundings(box, image.shape[:2])
    crop = image[place]
    inner = (
        slice(box[0] - place[0].start, box[2] - place[0].start),
        slice(box[1] - place[1].start, box[3] - place[1].start),
    )
    prior = np.full(crop.shape[:2], cv2.GC_BGD, np.uint8)
    reach = [round(slack * (part.stop - part.start)) for part in inner]
    outer = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(inner, reach, strict=True))
    prior[outer] = cv2.GC_PR_BGD
    prior[inner] = cv2.GC_PR_FGD
    if certain is not None:
        prior[inner][certain[place][inner]] = cv2.GC_FGD
    mask = np.zeros(image.shape[:2], bool)
    mask[place] = _cut(crop, prior)
    if not mask.any():
        mask[box[0] : box[2], box[1] : box[3]] = _ellipse(box[2] - box[0], box[3] - box[1])
    return mask


def outline_at(image: ImageArray, point: tuple[float, float]) -> MaskArray:
    """Find the outline of what a click hits: pixels of its colour that hang together, and then GrabCut.

    Args:
        image: (H, W, 3) uint8 sRGB.
        point: (x, y) in pixels.

    Returns:
        (H, W) bool.

    Raises:
        SceneError: the point lies outside of the photo.
    """
    height, width = image.shape[:2]
    x, y = point
    if not (0 <= x < width and 0 <= y < height):
        raise SceneError(f"the point is ({x:g}, {y:g}); legal: x from 0 to {width - 1} and y from 0 to {height - 1}")
    size = fit_within((height, width), _GRABCUT_SIZE_PX)
    small = resize(image, size)
    seed = (min(size[1] - 1, int(x * size[1] / width)), min(size[0] - 1, int(y * size[0] / height)))
    region = _similar_region(small, seed)
    radius = max(2, round(0.012 * max(size)))
    prior = np.where(region, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    far = cv2.dilate(region.astype(np.uint8), np.ones((2 * radius * 4 + 1,) * 2, np.uint8)) == 0
    prior[far] = cv2.GC_BGD
    certain = np.zeros(size, np.uint8)
    cv2.circle(certain, seed, radius, 1, -1)
    prior[(certain > 0) & region] = cv2.GC_FGD
    labels = _grabcut(small, prior)
    mask = refine_edges(image, _part_at(labels, seed))
    return mask if mask.any() else cv2.resize(region.astype(np.uint8), (width, height)) > 0


def clip_box(box: Box, size: tuple[int, int]) -> Box:
    """Clip a box to the photo.

    Raises:
        SceneError: nothing is left of it.
    """
    top, left, bottom, right = (round(n) for n in box)
    clipped = max(0, top), max(0, left), min(size[0], bottom), min(size[1], right)
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise SceneError(
            f"the box from ({left}, {top}) to ({right}, {bottom}) has no pixel in the photo; legal: x from 0 to "
            f"{size[1]}, y from 0 to {size[0]}, left < right and top < bottom"
        )
    return clipped


def refine_edges(image: ImageArray, small: MaskArray) -> MaskArray:
    """Enlarge an outline to the photo's size, and let its edge follow the photo's edges.

    Args:
        image: (H, W, 3) uint8 sRGB.
        small: (h, w) bool, the outline in a smaller version of the photo.

    Returns:
        (H, W) bool.
    """
    height, width = image.shape[:2]
    scale = max(height / small.shape[0], width / small.shape[1])
    soft = cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    if scale <= 1.05 or not hasattr(cv2, "ximgproc"):
        return soft > 0.5
    radius = int(np.ceil(2 * scale))
    guide = image.astype(np.float32) / 255
    refined = cv2.ximgproc.guidedFilter(guide, soft, radius, _EDGE_EPSILON)
    return refined > 0.5


def without_gaps(mask: MaskArray, *, share: float, closed: Sequence[bool] = (False,) * 4) -> MaskArray:
    """Fill the small gaps that an outline encloses.

    Args:
        mask: (H, W) bool, the outline.
        share: a gap has less than this share of the outline's pixels.
        closed: whether the top, left, bottom and right side of the array is an edge of the photo, which closes a gap
            together with the outline. A gap touches one such side at most.

    Returns:
        (H, W) bool.
    """
    labels, stats = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)[1:3]
    is_gap = stats[:, cv2.CC_STAT_AREA] < share * mask.sum()
    sides = (labels[0], labels[:, 0], labels[-1], labels[:, -1])
    touched = [np.isin(np.arange(len(stats)), side) for side in sides]
    is_open = np.any([t for t, is_closed in zip(touched, closed, strict=True) if not is_closed] or [False], axis=0)
    is_gap &= ~is_open & (np.sum(touched, axis=0) <= 1)
    is_gap[0] = False
    return mask | is_gap[labels]


def _cut(crop: ImageArray, prior: NDArray[np.uint8]) -> MaskArray:
    """Run GrabCut on a crop at no more than 512 pixels; prior: (H, W) with OpenCV's four labels."""
    size = fit_within(crop.shape[:2], _GRABCUT_SIZE_PX)
    small_prior = cv2.resize(prior, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    if not (small_prior == cv2.GC_BGD).any():  # the box is the whole photo: its border is background
        small_prior[[0, -1], :] = small_prior[:, [0, -1]] = cv2.GC_BGD
    labels = _grabcut(resize(crop, size), small_prior)
    inside = cv2.resize(prior, crop.shape[1::-1], interpolation=cv2.INTER_NEAREST) != cv2.GC_BGD
    return without_gaps(refine_edges(crop, _large_parts(labels)) & inside, share=_GAP_SHARE)


def _grabcut(image: ImageArray, prior: NDArray[np.uint8]) -> MaskArray:
    labels = prior.copy()
    is_front = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    if is_front.all() or not is_front.any():
        return is_front
    cv2.setRNGSeed(0)  # OpenCV's k-means draws from a generator that has no other handle
    try:
        cv2.grabCut(
            np.ascontiguousarray(image), labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), _ROUNDS,
            cv2.GC_INIT_WITH_MASK,
        )  # fmt: skip
    except cv2.error:  # too few different pixels for its mixture of five colours
        return is_front
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _large_parts(mask: MaskArray) -> MaskArray:
    """Drop specks, that is parts with less than a twentieth of the largest, and close small gaps."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        kept = mask
    else:
        areas = stats[:, cv2.CC_STAT_AREA].copy()
        areas[0] = 0
        kept = (areas >= 0.05 * areas.max())[labels] & mask
    return cv2.morphologyEx(kept.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0


def _part_at(mask: MaskArray, point: tuple[int, int]) -> MaskArray:
    labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    label = labels[point[1], point[0]]
    return labels == label if label else mask


def _similar_region(image: ImageArray, seed: tuple[int, int]) -> MaskArray:
    """Grow a region of similar colour, by the largest tolerance at which it stays within the object.

    Beyond that, the region leaks into what is around: it becomes several times as large, or a third of the photo.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.0)
    x, y = seed
    near = lab[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].reshape(-1, 3)
    distance = np.linalg.norm(lab - np.median(near, axis=0), axis=2)
    region = np.zeros(image.shape[:2], bool)
    region[y, x] = True
    for tolerance in _CLICK_TOLERANCES:
        similar = distance <= tolerance
        similar[y, x] = True
        grown = _part_at(similar, seed)
        is_leak = region.mean() > _LEAK_SHARE and grown.sum() > _LEAK * region.sum()
        if is_leak or grown.mean() > _MAX_CLICK_SHARE:
            break
        region = grown
    return region


def _surroundings(box: Box, size: tuple[int, int]) -> tuple[slice, slice]:
    margin = max(8, round(_AROUND * max(box[2] - box[0], box[3] - box[1])))
    return (
        slice(max(0, box[0] - margin), min(size[0], box[2] + margin)),
        slice(max(0, box[1] - margin), min(size[1], box[3] + margin)),
    )


def _ellipse(height: int, width: int) -> MaskArray:
    y, x = np.ogrid[:height, :width]
    return ((2 * y + 1 - height) / height) ** 2 + ((2 * x + 1 - width) / width) ** 2 <= 1
