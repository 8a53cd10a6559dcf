"""Comparison of photos at supposed depths: how well they agree if the target's pixels lie there.

Known pixels of the target are compared with the references; the hole's pixels by how well the references agree with
each other. Photos are compared by normalised cross-correlation in a window, which light hardly affects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.compute.threads import in_threads
from realfill.geometry.cameras import Camera
from realfill.geometry.fields import grid_of, within
from realfill.io.images import ImageArray, MaskArray

_WINDOW = 7
_NOISE = 1.0  # variance below which structure does not count
_UNKNOWN_COST = 0.6  # of a depth at which a pixel leaves the photos
_AGREEMENT = 0.2  # weight of the agreement between references where the target itself is known
_MOST_WARPED = 24  # references that are held at a time, in all threads
_PARTNERS = 4  # references with which each reference is compared
_RING = 0.06  # width of the ring around the hole, as a share of the longer side
_LEAST_DEPTH = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Inverse depth in steps above a plane: what the unit of labels is.

    Attributes:
        plane: (3,); its inverse depth at the target's pixel (x, y) is ``plane @ (x, y, 1)``.
        low: inverse depth of label 0 above the plane.
        step: inverse depth between two labels.
        least: no inverse depth is below it.
    """

    plane: NDArray
    low: float
    step: float
    least: float

    def of_plane(self, pixels: NDArray) -> NDArray:
        """Return the inverse depth of the plane (h, w) at pixels (h, w, 2)."""
        return pixels @ self.plane[:2] + self.plane[2]

    def inverse_of(self, labels: NDArray | float, pixels: NDArray) -> NDArray:
        """Return the inverse depth (h, w) that labels, with fractions, mean at pixels (h, w, 2)."""
        return np.maximum(self.of_plane(pixels) + self.low + self.step * labels, self.least)

    def labels_of(self, inverse: NDArray, pixels: NDArray) -> NDArray:
        """Return the labels, with fractions, of inverse depths (h, w)."""
        return (inverse - self.of_plane(pixels) - self.low) / self.step


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """How badly photos agree at each of K depths, from 0 to 1; that of mere noise is 0.5.

    Attributes:
        with_target: (h, w, K) float32, of references with the target; NaN where nothing can be compared.
        between: (h, w, K) float32, of references with each other; NaN where nothing can be compared.
    """

    with_target: NDArray
    between: NDArray

    def combined(self, hidden: MaskArray | None = None) -> tuple[NDArray, MaskArray]:
        """Combine both.

        Args:
            hidden: pixels (h, w) at which the target counts as unknown.

        Returns:
            (h, w, K) float32, and which pixels (h, w) cannot be compared at any depth; their costs are 0.
        """
        seen = self.with_target
        if hidden is not None:
            seen = np.where(hidden[..., None], np.float32(np.nan), seen)
        both = np.where(np.isnan(self.between), seen, (1 - _AGREEMENT) * seen + _AGREEMENT * self.between)
        cost = np.where(np.isnan(both), self.between, both)
        blind = np.asarray(np.isnan(cost).all(axis=2))
        return np.where(blind[..., None], 0, np.where(np.isnan(cost), _UNKNOWN_COST, cost)).astype(np.float32), blind


class Comparison:
    """A part of the target at one size, and the references that are compared with it.

    Attributes:
        levels: the unit of labels.
        scale: the target's pixels for each pixel of this size.
        pixels: (h, w, 2), the target's pixels that the pixels of this size stand for.
        seen: (h, w) bool: pixels whose window lies outside the hole.
        around: (h, w) bool: pixels outside the hole in a ring around it.
        ring: (h, w) bool: those of it that are also seen.
    """

    def __init__(
        self,
        cameras: Mapping[int, Camera],
        references: Sequence[ImageArray],
        known: ImageArray,
        hole: MaskArray,
        levels: Levels,
        size: tuple[int, int],
        box: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        """Shrink the photos.

        Args:
            cameras: image number to camera; 0 is the target, n the reference n - 1.
            references: each (h, w, 3) uint8.
            known: (H, W, 3) uint8, the target; not read in the hole.
            hole: (H, W) bool.
            levels: the unit of labels.
            size: (height, width) of the whole target at this size.
            box: rows and columns of the part.
        """
        self.levels = levels
        self.scale = max(hole.shape) / max(size)
        self.pixels = grid_of(hole.shape, size)[box]
        target = cv2.resize(_grey(known), size[::-1], interpolation=cv2.INTER_AREA)[box].copy()
        self._target = target, *_statistics(target)
        outside = cv2.resize(hole.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) < 0.01
        self.seen = (cv2.blur(outside.astype(np.float32), (_WINDOW, _WINDOW)) > 0.999)[box]
        distance = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, 5)
        self.around = (outside & (distance < _RING * max(size)))[box]
        self.ring = self.seen & self.around
        middle = self.pixels[self.pixels.shape[0] // 2, self.pixels.shape[1] // 2]
        depth = 1 / max(float(levels.of_plane(middle)), levels.least)
        self._views = [
            _View.of(
                cameras[0], camera, references[image - 1], self.pixels,
                resolution=_resolution(cameras[0], camera, middle, depth) * self.scale,
            )
            for image, camera in sorted(cameras.items())
            if image
        ]  # fmt: skip

    def costs(self, labels: Iterable[NDArray | float], check: Callable[[], None] = lambda: None) -> Costs:
        """Compare the photos at each of K fields of labels, (h, w) each or one number.

        Each reference is compared with at most four others, so that the work grows with their number and not with its
        square.

        Args:
            labels: the fields.
            check: called between fields; it may raise an exception.
        """
        most = max(1, _MOST_WARPED // max(1, len(self._views)))
        compared = in_threads(self._compare, labels, lambda _: check(), most=most)
        with_target, between = zip(*compared, strict=True)
        return Costs(np.stack(with_target, axis=-1), np.stack(between, axis=-1))

    def _compare(self, label: NDArray | float) -> tuple[NDArray, NDArray]:
        """Compare the references with the target, and with each other, at one field of labels."""
        inverse = self.levels.inverse_of(label, self.pixels).astype(np.float32)
        warped = [view.warp(inverse) for view in self._views]
        seen = [
            np.where(valid & self.seen, _mismatch(self._target, image), np.float32(np.nan)) for image, valid in warped
        ]
        pairs = [
            np.where(valid & also, _mismatch(image, other), np.float32(np.nan))
            for one, two in _partners(len(warped))
            for (image, valid), (other, also) in [(warped[one], warped[two])]
        ]
        unknown = np.full(self.seen.shape, np.nan, np.float32)
        return _best_half(seen), _best_half(pairs) if pairs else unknown


def _partners(count: int) -> list[tuple[int, int]]:
    """Return pairs of so many things: all of up to five, and the next ones in a circle of more."""
    pairs = {
        (min(n, other), max(n, other))
        for n in range(count)
        for step in range(1, _PARTNERS // 2 + 1)
        for other in [(n + step) % count]
        if other != n
    }
    return sorted(pairs)


def _resolution(target: Camera, camera: Camera, pixel: NDArray, depth: float) -> float:
    """Return how many pixels of a photo show what one pixel (2,) of the target shows at a depth."""
    far = float(camera.project(target.unproject(pixel, np.array(depth)))[1])
    return camera.focal / target.focal * depth / max(far, _LEAST_DEPTH)


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A reference, and what leads from the target's pixels and inverse depths to its own.

    Attributes:
        grey: (h, w) float32, the reference at about the resolution at which the target shows the scene.
        camera: its camera.
        turned: (3, h, w) float32, the target's rays in the reference's frame.
        shift: (3,), the target's centre in that frame.
    """

    grey: NDArray
    camera: Camera
    turned: NDArray
    shift: NDArray

    @classmethod
    def of(cls, target: Camera, camera: Camera, reference: ImageArray, pixels: NDArray, *, resolution: float) -> _View:
        """Shrink a reference, of which so many pixels show what a pixel of the target shows, for pixels (h, w, 2)."""
        shrink = float(min(max(1.0, resolution), max(reference.shape[:2]) / 16))
        own = target.rays(pixels)
        turn = camera.rotation @ target.rotation.T
        rays = np.concatenate([own, np.ones_like(own[..., :1])], axis=-1) @ turn.T
        return cls(
            grey=cv2.resize(_grey(reference), None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA),
            camera=camera, turned=rays.astype(np.float32).transpose(2, 0, 1).copy(),
            shift=(camera.translation - turn @ target.translation).astype(np.float32),
        )  # fmt: skip

    def warp(self, inverse: NDArray) -> tuple[_Windows, MaskArray]:
        """Return what the reference shows of the target's pixels at inverse depths (h, w), and where it shows them."""
        x, y, depth = (ray + shift * inverse for ray, shift in zip(self.turned, self.shift, strict=True))
        front = depth > _LEAST_DEPTH
        share = 1 / np.where(front, depth, 1)
        x, y = x * share, y * share
        bent = np.float32(self.camera.focal) * (1 + np.float32(self.camera.distortion) * (x * x + y * y))
        valid, at = front, []
        for axis, ray in ((1, x), (0, y)):
            place = ray * bent + np.float32(self.camera.centre[1 - axis])
            valid = valid & within(place, self.camera.size[axis])
            shrunk = np.float32(self.grey.shape[axis] / self.camera.size[axis])
            at.append(((place + np.float32(0.5)) * shrunk - np.float32(0.5)).clip(-1e4, 1e4))
        image = cv2.remap(self.grey, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return (image, *_statistics(image)), valid


_Windows = tuple[NDArray, NDArray, NDArray]  # an image (h, w), and the mean and variance in a window around each pixel


def _grey(image: ImageArray) -> NDArray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _statistics(image: NDArray) -> tuple[NDArray, NDArray]:
    """Return mean and variance in a window around each pixel."""
    mean = cv2.blur(image, (_WINDOW, _WINDOW))
    return mean, np.maximum(cv2.blur(image * image, (_WINDOW, _WINDOW)) - mean * mean, 0)


def _mismatch(one: _Windows, two: _Windows) -> NDArray:
    """Return how little two images correlate in a window around each pixel, from 0 to 1; of mere noise 0.5."""
    covariance = cv2.blur(one[0] * two[0], (_WINDOW, _WINDOW)) - one[1] * two[1]
    return ((1 - covariance / np.sqrt((one[2] + _NOISE) * (two[2] + _NOISE))) / 2).clip(0, 1)


def _best_half(costs: Sequence[NDArray]) -> NDArray:
    """Average the better half of at least one cost (h, w), since what is hidden in a view matches nowhere.

    Costs are finite, or NaN where there is none; where all are NaN, so is the result.
    """
    left = [np.where(np.isnan(cost), np.float32(np.inf), cost) for cost in costs]
    count = np.sum([np.isfinite(cost) for cost in left], axis=0)
    half = (count + 1) // 2
    total = np.zeros(count.shape, np.float32)
    for rank in range((len(costs) + 1) // 2):
        for n in range(len(left) - 1, 0, -1):  # the smallest one moves to the front
            left[n - 1], left[n] = np.minimum(left[n - 1], left[n]), np.maximum(left[n - 1], left[n])
        total += np.where(rank < half, left.pop(0), 0)
    return np.where(count > 0, total / np.maximum(half, 1), np.nan).astype(np.float32)
