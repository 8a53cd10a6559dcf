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

from realfill.geometry.cameras import Camera
from realfill.geometry.fields import FRAME_PX, grid_of
from realfill.io.images import ImageArray, MaskArray

_WINDOW = 7
_NOISE = 1.0  # variance below which structure does not count
_UNKNOWN_COST = 0.6  # of a depth at which a pixel leaves the photos
_AGREEMENT = 0.2  # weight of the agreement between references where the target itself is known
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

    def inverse_of(self, labels: NDArray | float, pixels: NDArray) -> NDArray:
        """Return the inverse depth (h, w) that labels, with fractions, mean at pixels (h, w, 2)."""
        return np.maximum(pixels @ self.plane[:2] + self.plane[2] + self.low + self.step * labels, self.least)

    def labels_of(self, inverse: NDArray, pixels: NDArray) -> NDArray:
        """Return the labels, with fractions, of inverse depths (h, w)."""
        return (inverse - pixels @ self.plane[:2] - self.plane[2] - self.low) / self.step


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """How badly photos agree at each of K depths, from 0 to 1; that of mere noise is 0.5.

    Attributes:
        with_target: (h, w, K) float32, of references with the target; NaN where nothing can be compared.
        between: (h, w, K) float32, of references with each other; NaN likewise.
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
        own = cameras[0].rays(self.pixels)
        rays = np.concatenate([own, np.ones_like(own[..., :1])], axis=-1)
        self._views = [
            _View.of(cameras[0], camera, references[image - 1], rays, levels, self.scale, self.pixels)
            for image, camera in sorted(cameras.items())
            if image
        ]

    def costs(self, labels: Iterable[NDArray | float], check: Callable[[], None] = lambda: None) -> Costs:
        """Compare the photos at each of K fields of labels, (h, w) each or one number; ``check`` is called between."""
        with_target, between = [], []
        unknown = np.full(self.seen.shape, np.nan, np.float32)
        for field in labels:
            check()
            inverse = self.levels.inverse_of(field, self.pixels).astype(np.float32)
            warped = [view.warp(inverse) for view in self._views]
            with_target.append(_best_half([
                np.where(valid & self.seen, _mismatch(self._target, image), np.nan) for image, valid in warped
            ]))  # fmt: skip
            pairs = [
                np.where(valid & also, _mismatch(one, two), np.nan)
                for n, (one, valid) in enumerate(warped)
                for two, also in warped[:n]
            ]
            between.append(_best_half(pairs) if pairs else unknown)
        return Costs(np.stack(with_target, axis=-1), np.stack(between, axis=-1))


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A reference, and what leads from the target's pixels and inverse depths to its own.

    Attributes:
        grey: (h, w) float32, the reference at the resolution at which the target shows the scene.
        turned: (3, h, w) float32, the target's rays in the reference's frame.
        shift: (3,), the target's centre in that frame.
        distortion: k1.
        focal: focal lengths along x and y, in pixels of ``grey``.
        centre: the principal point.
        margin: of a place in ``grey`` from its border, along x and y, so that it counts as seen.
    """

    grey: NDArray
    turned: NDArray
    shift: NDArray
    distortion: np.float32
    focal: NDArray
    centre: NDArray
    margin: NDArray

    @classmethod
    def of(
        cls,
        target: Camera,
        camera: Camera,
        reference: ImageArray,
        rays: NDArray,
        levels: Levels,
        scale: float,
        pixels: NDArray,
    ) -> _View:
        row, column = rays.shape[0] // 2, rays.shape[1] // 2
        depth = 1 / float(
            levels.inverse_of(-levels.low / levels.step, pixels[row : row + 1, column : column + 1])[0, 0]
        )
        turn = camera.rotation @ target.rotation.T
        shift = camera.translation - turn @ target.translation
        far = float((turn @ rays[row, column])[2] * depth + shift[2])
        shrink = max(1.0, camera.focal / target.focal * scale * depth / max(far, _LEAST_DEPTH))
        shrink = float(min(shrink, max(reference.shape[:2]) / 16))
        grey = cv2.resize(_grey(reference), None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        shares = np.array([grey.shape[1] / camera.size[1], grey.shape[0] / camera.size[0]], np.float32)
        return cls(
            grey=grey, turned=(rays @ turn.T).astype(np.float32).transpose(2, 0, 1).copy(),
            shift=shift.astype(np.float32), distortion=np.float32(camera.distortion),
            focal=np.float32(camera.focal) * shares, centre=(camera.centre + 0.5).astype(np.float32) * shares - 0.5,
            margin=FRAME_PX * shares,
        )  # fmt: skip

    def warp(self, inverse: NDArray) -> tuple[_Windows, MaskArray]:
        """Show what the reference shows at inverse depths (h, w), and where it shows anything."""
        x, y, depth = (ray + shift * inverse for ray, shift in zip(self.turned, self.shift, strict=True))
        front = depth > _LEAST_DEPTH
        share = 1 / np.where(front, depth, 1)
        x, y = x * share, y * share
        bent = 1 + self.distortion * (x * x + y * y)
        at_x = (self.focal[0] * bent * x + self.centre[0]).clip(-1e4, 1e4)
        at_y = (self.focal[1] * bent * y + self.centre[1]).clip(-1e4, 1e4)
        image = cv2.remap(self.grey, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        (height, width), (margin_x, margin_y) = self.grey.shape, self.margin
        valid = front & (at_x > margin_x) & (at_x < width - 1 - margin_x)
        return (image, *_statistics(image)), valid & (at_y > margin_y) & (at_y < height - 1 - margin_y)


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
    return (1 - covariance / np.sqrt((one[2] + _NOISE) * (two[2] + _NOISE))) / 2


def _best_half(costs: Sequence[NDArray]) -> NDArray:
    """Average the better half of costs (N, h, w), since what is hidden in a view matches nowhere; NaN without any."""
    ordered = np.sort(np.stack(costs), axis=0)
    count = (~np.isnan(ordered)).sum(axis=0)
    half = np.maximum((count + 1) // 2, 1)
    sums = np.take_along_axis(np.nancumsum(ordered, axis=0), half[None] - 1, axis=0)[0]
    return np.where(count > 0, sums / half, np.nan).astype(np.float32)
