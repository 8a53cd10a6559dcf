"""Carrying depth into a hole: what only one reference shows takes its depth from within that reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from realfill.compute.threads import in_threads
from realfill.geometry.cameras import Camera
from realfill.geometry.surfaces import fit_planes
from realfill.io.images import ImageArray, MaskArray

_GUIDE_PX = 384  # longer side at which a reference guides
_MIN_SAMPLES = 200
_GAP_PX = 5  # width of gaps between samples that count as known
_RADIUS_PX, _CELLS = 9, 40  # windows in which planes are fitted first, and how many there are along the longer side
_MOST_SAMPLES, _FEWER = 6000, 4  # samples to which planes are fitted, and how many more these are than choose a guess
_MOST_PLANES, _LEAST_SHARE = 10, 0.02  # planes, and the share of the samples that each of them must explain
_OFF = 0.04  # by which a sample may miss its plane, as a share of the range of inverse depths
_NEAR, _LEAST_WEIGHT = 0.15, 0.01  # distance to the hole, in longer sides, at which samples count less, and the least
_ROUNDS = 3  # how often a plane is fitted to what it explains
_BLUR_PX = 2.0  # of edges
_BEYOND = 0.25  # how far planes may lead beyond the range of inverse depths, as a share of it


def carry_in(
    cameras: Mapping[int, Camera],
    references: Sequence[ImageArray],
    depth: NDArray,
    trust: MaskArray,
    pixels: NDArray,
    scale: float,
    check: Callable[[], None] = lambda: None,
) -> NDArray:
    """Estimate the depth of what only one photo shows: known surfaces continue within the references up to their edges.

    What the target and a reference both show has a depth. In the reference's own view, planes are fitted to it, and
    continue into what lies in the hole. There, each pixel takes the plane that reaches it without crossing strong edges
    of the reference (a watershed, Meyer 1994), and is then seen from the target. The nearest of several references'
    answers counts.

    Args:
        cameras: image number to camera; 0 is the target, n the reference n - 1.
        references: each (h, w, 3) uint8.
        depth: (h, w), of the target's pixels.
        trust: (h, w) bool, where that depth counts.
        pixels: (h, w, 2), the target's pixels that the pixels of this size stand for.
        scale: the target's pixels for each pixel of this size.
        check: called between references; it may raise an exception.

    Returns:
        (h, w) depth in the target's view; NaN where no reference answers.
    """
    scene = cameras[0].unproject(pixels, depth)
    others = [image for image in sorted(cameras) if image]

    def answer_of(image: int) -> NDArray:
        return _answer(cameras[0], cameras[image], references[image - 1], scene, trust, scale)

    answers = in_threads(answer_of, others, lambda _: check())
    answer = np.min([np.full(depth.shape, np.inf), *answers], axis=0)
    filled = cv2.medianBlur(np.where(np.isfinite(answer), answer, 0).astype(np.float32), 3)
    return np.where(np.isfinite(answer), answer, np.where(filled > 0, filled, np.nan))


def _answer(
    target: Camera, camera: Camera, reference: ImageArray, scene: NDArray, trust: MaskArray, scale: float
) -> NDArray:
    """Return the depth (h, w) in the target's view that a reference leads to; infinite where it leads to none.

    The other arguments are those of ``carry_in``; ``scene`` are the points (h, w, 3) that the target's pixels show.
    """
    height, width = trust.shape
    shrink = max(1.0, max(reference.shape[:2]) / _GUIDE_PX)
    size = (max(1, round(reference.shape[1] / shrink)), max(1, round(reference.shape[0] / shrink)))
    place, far = camera.project(scene)
    at = np.rint((place + 0.5) * (size[0] / camera.size[1], size[1] / camera.size[0]) - 0.5).astype(int)
    usable = trust & (far > 0) & (at >= 0).all(axis=2) & (at[..., 0] < size[0]) & (at[..., 1] < size[1])
    samples = np.full(size[::-1], np.nan, np.float32)
    order = np.argsort(-far[usable])  # nearer points last, so that they win
    y, x = at[usable][order].T[::-1]
    samples[y, x] = 1 / far[usable][order]
    nearest = np.full(height * width + 1, np.inf)
    if np.isfinite(samples).sum() >= _MIN_SAMPLES:
        guide = np.asarray(cv2.resize(reference, size, interpolation=cv2.INTER_AREA), np.uint8)
        inverse = continue_planes(samples, guide)
        known = np.isfinite(inverse)
        own = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1)
        own = (own + 0.5) * (camera.size[1] / size[0], camera.size[0] / size[1]) - 0.5
        seen, front = target.project(camera.unproject(own[known], 1 / inverse[known]))
        cell = np.rint((seen + 0.5) / scale - 0.5).astype(int)
        ok = (front > 0) & (cell >= 0).all(axis=1) & (cell[:, 0] < width) & (cell[:, 1] < height)
        index = np.where(ok, cell[:, 1] * width + cell[:, 0], height * width)
        np.minimum.at(nearest, index, np.where(ok, front, np.inf))
    return nearest[:-1].reshape(height, width)


def continue_planes(values: NDArray, guide: ImageArray) -> NDArray[np.float32]:
    """Continue values over an image by planes that end at its edges.

    Args:
        values: (h, w), above 0; NaN where they are unknown. At least one must be known.
        guide: (h, w, 3) uint8.

    Returns:
        (h, w), equal to the values where they are known, and above 0; NaN where they are unknown if there is no plane.
    """
    known = np.asarray(np.isfinite(values))
    low, high = np.percentile(values[known], (1, 99))
    scale = max(high - low, 1e-12)
    relative = (values - low) / scale
    weight = _closeness(known)
    planes = _find_planes(np.where(known, relative, 0), known, weight)
    if len(planes):
        y, x = np.nonzero(known)
        off = np.abs(_at(planes, x, y) - relative[known][:, None])
        seeds = np.zeros(values.shape, np.int32)
        seeds[known] = np.where(off.min(axis=1) < _OFF, off.argmin(axis=1) + 1, 0)
        chosen = watershed(_steepness(guide), seeds)[~known] - 1
        y, x = np.nonzero(~known)
        relative[~known] = np.take_along_axis(_at(planes, x, y), chosen[:, None], axis=1)[:, 0]
    continued = low + scale * relative.clip(-_BEYOND, 1 + _BEYOND)
    least = 1e-3 * float(np.median(values[known]))
    return np.where(known, values, np.maximum(continued, least)).astype(np.float32)


def _find_planes(values: NDArray, known: MaskArray, weight: NDArray) -> NDArray:
    """Find planes, each among the samples that the others leave: (P, 3), the slopes to the right and down, the offset.

    The first guesses are planes that fit in a window each, one in each cell of a grid.
    """
    surface = fit_planes(values.astype(np.float32), known.astype(np.float64), _RADIUS_PX)
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    cell = (y * _CELLS // max(values.shape)) * _CELLS + x * _CELLS // max(values.shape)
    first = np.flatnonzero(known)[np.unique(cell[known], return_index=True)[1]]
    offset = surface.label - surface.slope_x * x - surface.slope_y * y
    guesses = np.stack([a.ravel()[first] for a in (surface.slope_x, surface.slope_y, offset)], axis=1).astype(float)
    every = slice(None, None, max(1, -(-int(known.sum()) // _MOST_SAMPLES)))
    x, y, z, weight = x[known][every], y[known][every], values[known][every].astype(float), weight[known][every]
    total, planes = weight.sum(), []
    while len(guesses) and len(z) and len(planes) < _MOST_PLANES:
        few = slice(None, None, _FEWER)
        missed = np.abs(_at(guesses, x[few], y[few]) - z[few, None])
        plane = guesses[(weight[few] @ np.maximum(1 - missed / _OFF, 0)).argmax()]
        near = np.abs(_at(plane[None], x, y)[:, 0] - z) < _OFF
        for _ in range(_ROUNDS):
            root = np.sqrt(weight[near])
            design = np.stack([x[near], y[near], np.ones(near.sum())], axis=1)
            plane = np.linalg.lstsq(design * root[:, None], z[near] * root, rcond=None)[0]
            near = np.abs(_at(plane[None], x, y)[:, 0] - z) < _OFF
        if weight[near].sum() < _LEAST_SHARE * total:
            break
        planes.append(plane)
        x, y, z, weight = (a[~near] for a in (x, y, z, weight))
    return np.array(planes).reshape(-1, 3)


def _at(planes: NDArray, x: NDArray, y: NDArray) -> NDArray:
    """Return the values (N, P) of planes (P, 3) at pixels."""
    return np.stack([x, y, np.ones_like(x)], axis=1) @ planes.T


def _closeness(known: MaskArray) -> NDArray:
    """Return how close each known pixel is to what is unknown, from 0.01 to about 1.

    Small gaps between samples count as known.
    """
    closed = cv2.morphologyEx(known.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((_GAP_PX, _GAP_PX), np.uint8))
    distance = np.minimum(cv2.distanceTransform(closed, cv2.DIST_L2, 5) / max(known.shape), 1)
    return np.exp(-distance / _NEAR) + _LEAST_WEIGHT


def _steepness(guide: ImageArray) -> NDArray:
    """Return how steep an image (h, w, 3) is at each pixel."""
    blurred = cv2.GaussianBlur(guide, (0, 0), _BLUR_PX).astype(np.float32)
    across, down = (cv2.Sobel(blurred, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    return np.sqrt((across**2 + down**2).sum(axis=2))
