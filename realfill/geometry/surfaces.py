"""Surfaces: a plane for each pixel, found among the planes of its surroundings.

A sweep tries only parallel planes, so it turns slopes into steps, and its windows carry the depth of a near thing
beyond its outline. Here each pixel chooses between planes that were fitted beside it, in all directions, and neighbours
pay for planes that do not meet, not for a slope (Olsson et al. 2013, "In defense of 3D-label stereo"). The choice is
made by semi-global aggregation (Hirschmüller 2008) over these candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.compute.threads import in_threads

_APART, _TORN = 0.2, 1.0  # costs of planes that miss each other by one label, and by however many
_DIRECTIONS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
_MEDIAN_PX = 5
_LEAST_RADIUS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A plane for each pixel.

    Attributes:
        label: (h, w) float32, where it passes the pixel.
        slope_x: (h, w) float32, in labels for each pixel to the right.
        slope_y: (h, w) float32, the same downward.
    """

    label: NDArray
    slope_x: NDArray
    slope_y: NDArray

    @classmethod
    def flat(cls, label: NDArray) -> Surface:
        """Return planes without a slope."""
        return cls(label.astype(np.float32), np.zeros(label.shape, np.float32), np.zeros(label.shape, np.float32))

    def continued_from(self, down: int, right: int) -> Surface:
        """Give each pixel the plane of the one that lies so far down and to the right of it, continued to it."""
        height, width = self.label.shape
        rows = (np.arange(height) + down).clip(0, height - 1)
        columns = (np.arange(width) + right).clip(0, width - 1)
        label, slope_x, slope_y = (a[rows][:, columns] for a in (self.label, self.slope_x, self.slope_y))
        y, x = (rows - np.arange(height))[:, None], (columns - np.arange(width))[None]
        return Surface((label - slope_x * x - slope_y * y).astype(np.float32), slope_x, slope_y)

    def enlarged(self, size: tuple[int, int]) -> Surface:
        """Continue each plane to the pixels of a larger image that are nearest to it."""
        shares = [small / large for small, large in zip(self.label.shape, size, strict=True)]
        places = [(np.arange(large) + 0.5) * share - 0.5 for large, share in zip(size, shares, strict=True)]
        (rows, columns) = (
            np.rint(place).astype(int).clip(0, small - 1) for place, small in zip(places, self.label.shape, strict=True)
        )
        label, slope_x, slope_y = (a[rows][:, columns] for a in (self.label, self.slope_x, self.slope_y))
        label = label + slope_x * (places[1] - columns)[None] + slope_y * (places[0] - rows)[:, None]
        return Surface(
            label.astype(np.float32), (slope_x * shares[1]).astype(np.float32), (slope_y * shares[0]).astype(np.float32)
        )

    def part(self, box: tuple[slice, slice]) -> Surface:
        """Return a part."""
        return Surface(self.label[box], self.slope_x[box], self.slope_y[box])


def candidates(surface: Surface, weight: NDArray, radius: int, step: float = 0.0) -> list[Surface]:
    """Return planes from which each pixel can choose.

    These are its own plane; the same with the slope of its close surroundings; planes fitted to small and to large
    surroundings; and those fitted to small surroundings of eight neighbours, which may lie beyond an outline.

    Args:
        surface: the planes so far.
        weight: (h, w) above 0, how far their labels can be trusted.
        radius: of the large surroundings, and how far away the neighbours lie, in pixels.
        step: labels by which a pixel's own plane is raised and lowered besides; 0: not at all.
    """
    smooth = cv2.medianBlur(surface.label, _MEDIAN_PX)
    close = _fitted(smooth, weight, max(_LEAST_RADIUS, radius // 2))
    found = [surface, Surface(surface.label, close.slope_x, close.slope_y), close, _fitted(smooth, weight, radius)]
    found += [close.continued_from(y * radius, x * radius) for y, x in _DIRECTIONS]
    if step:
        found += [Surface(surface.label + np.float32(d), surface.slope_x, surface.slope_y) for d in (step, -step)]
    return found


def choose_surface(
    costs: NDArray, options: Sequence[Surface], check: Callable[[], None] = lambda: None
) -> tuple[Surface, NDArray]:
    """Choose a plane for each pixel.

    Args:
        costs: (h, w, K) float32, what each option costs at each pixel.
        options: K surfaces.
        check: called between the directions of the aggregation; it may raise an exception.

    Returns:
        The chosen planes, and their costs (h, w) without those of the neighbourhood.
    """
    planes = [np.stack([getattr(o, n) for o in options], axis=1) for n in ("label", "slope_x", "slope_y")]  # (h, K, w)
    cost = np.ascontiguousarray(costs.transpose(0, 2, 1))
    sideways = [np.ascontiguousarray(a.transpose(2, 1, 0)) for a in (cost, planes[0], planes[1])]
    ways = [(cost, planes[0], planes[2]), (sideways[0], sideways[1], sideways[2])]
    paths = in_threads(
        lambda way: _aggregate(*way[0], down=way[1]),
        [(way, down) for way in ways for down in (1, -1)],
        lambda _: check(),
    )
    total = paths[0] + paths[1] + (paths[2] + paths[3]).transpose(2, 1, 0)
    best = total.argmin(axis=1)[:, None]
    label, slope_x, slope_y, chosen = (np.take_along_axis(a, best, axis=1)[:, 0] for a in (*planes, cost))
    return Surface(label, slope_x, slope_y), chosen


def _aggregate(cost: NDArray, label: NDArray, slope: NDArray, down: int) -> NDArray:
    """Aggregate costs (h, K, w) down the rows, or up if ``down`` is -1, for planes with these labels and slopes."""
    label, slope = label * np.float32(_APART), slope * np.float32(_APART * down)
    paths = cost.copy()
    rows = range(len(cost))[::down]
    apart = np.empty((cost.shape[1], *cost.shape[1:]), np.float32)  # one array for all rows saves half of the time
    for before, row in pairwise(rows):
        np.subtract((label[before] + slope[before])[:, None], label[row], out=apart)
        np.abs(apart, out=apart)
        np.minimum(apart, np.float32(_TORN), out=apart)
        apart += paths[before][:, None]
        paths[row] += apart.min(axis=0) - paths[before].min(axis=0)
    return paths


def _fitted(label: NDArray, weight: NDArray, radius: int) -> Surface:
    """Fit a plane to the labels (h, w) in a window around each pixel."""
    height, width = label.shape
    x, y = (a.astype(np.float64) for a in np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2))
    side = 2 * radius + 1

    def mean(values: NDArray) -> NDArray:
        return cv2.boxFilter(values * weight, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT) / total

    total = 1.0
    total = np.maximum(mean(np.ones_like(x)), 1e-6)
    mx, my, mz = mean(x), mean(y), mean(label)
    xx, xy, yy = mean(x * x) - mx * mx + 1e-3, mean(x * y) - mx * my, mean(y * y) - my * my + 1e-3
    xz, yz = mean(x * label) - mx * mz, mean(y * label) - my * mz
    determinant = xx * yy - xy * xy
    slope_x, slope_y = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
    return Surface(*(a.astype(np.float32) for a in (mz + slope_x * (x - mx) + slope_y * (y - my), slope_x, slope_y)))
