"""Layers: warped references as candidates for the hole's pixels, each with a cost for every pixel.

The cost has three sources: how badly a layer fits the known pixels around the hole, how that misfit continues
into the hole, and whether another reference agrees with what the layer shows there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.compute.threads import in_threads
from realfill.geometry.colour import apply_colours, fit_colours
from realfill.geometry.confidence import expected_error
from realfill.geometry.fields import WarpField, refine_by_flow, sample, tear_of
from realfill.geometry.smooth import continue_into
from realfill.io.images import ImageArray, MaskArray

NO_LAYER_COST = 400.0  # expected error from which a pixel is better left to a model
_WORST = 500.0
_NEAR, _CONTINUED, _VOTE = 1.0, 1.0, 1.0  # weights of the three sources
_HIDDEN_COST = 40.0  # where the point is hidden in the reference
_PLANE_DISTANCE_COST = 60.0  # of a plane, for each longer side of the target between a pixel and the known pixels
_CARRIED_DISTANCE_COST = 60.0  # the same of a depth that no other reference confirms
_UNCONFIRMED = 1.3  # factor on the misfit around the hole where no other reference can agree
_UNCONFIRMED_LEAST = 20.0
_PLANES_PER_REFERENCE = 2
_MOST_LAYERS = 24  # further ones are kept only if they show a part of the hole of this share that no other shows
_NEW_SHARE = 0.02
_MIN_CORRELATION = 0.25
_WINDOW, _NOISE, _COLOUR_WEIGHT = 7, 36.0, 0.3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A warped reference, in the target's colours.

    Attributes:
        warp: where it comes from.
        image: (H, W, 3) float32 in [0, 255].
        colours: (4, 3) float32, the matrix that brings the reference's colours to the target's.
        misfit: mean difference to the known pixels around the hole, from 0 (equal) to about 98.
        cost: (h, w) float32 at half the target's size, by which layers are chosen.
        error: (h, w) float32 at that size, the expected absolute error in levels of 255 before blending.
    """

    warp: WarpField
    image: NDArray
    colours: NDArray
    misfit: float
    cost: NDArray
    error: NDArray


@dataclass(frozen=True, slots=True, eq=False)
class HalfSize:
    """The target at half its size, at which layers are compared.

    Attributes:
        side: longer side of the target in pixels.
        size: (width, height) of the half-size image, as OpenCV takes it.
        hole: (h, w) bool: pixels that average any of the hole.
        known: (h, w, 3) float32.
        distance_to_hole: (h, w) float32 as a share of the longer side; 0 in the hole.
        depth_in_hole: (h, w) float32 as a share of the longer side; 0 outside.
    """

    side: int
    size: tuple[int, int]
    hole: MaskArray
    known: NDArray
    distance_to_hole: NDArray
    depth_in_hole: NDArray

    @classmethod
    def of(cls, known: ImageArray, hole: MaskArray) -> HalfSize:
        """Shrink a target (H, W, 3) and its hole (H, W)."""
        size = (max(1, hole.shape[1] // 2), max(1, hole.shape[0] // 2))
        small = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        side = max(hole.shape)
        outside, within = (
            cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) * (2 / side) for mask in (~small, small)
        )
        return cls(side, size, small, _shrunk(known, size), outside, within)

    def shrink(self, values: NDArray) -> NDArray:
        """Shrink an image or mask of the target's size."""
        return _shrunk(values, self.size)

    def blur(self, values: NDArray, factor: float = 1.0) -> NDArray:
        """Blur by an amount that suits the target's size."""
        return cv2.GaussianBlur(values.astype(np.float32), (0, 0), max(1.5, 0.003 * self.side) * factor)


def build_layers(
    warps: Sequence[WarpField],
    references: Sequence[ImageArray],
    known: ImageArray,
    hole: MaskArray,
    *,
    check: Callable[[], None] = lambda: None,
) -> list[Layer]:
    """Turn warps into layers, the best fitting first; warps that do not reach the hole or do not fit are left out.

    The 24 that fit best are kept, and further ones only if they show 2 % of the hole or more that no better one shows.

    Args:
        warps: the warps of all references.
        references: each (h, w, 3) uint8.
        known: (H, W, 3) uint8, the target; not read in the hole.
        hole: (H, W) bool.
        check: called between layers; it may raise an exception.
    """
    half = HalfSize.of(known, hole)
    distance = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 5)

    def candidate_of(warp: WarpField) -> _Candidate | None:
        return _candidate(warp, references[warp.reference], known, hole, distance, half)

    def refined(candidate: _Candidate) -> _Candidate:
        if candidate.warp.kind == "depth":
            return candidate
        return _refined(candidate, references[candidate.warp.reference], known, hole, distance)

    found = [candidate for candidate in in_threads(candidate_of, warps, lambda _: check()) if candidate is not None]
    kept: list[_Candidate] = []
    shown = np.zeros_like(hole)
    for candidate in sorted(found, key=lambda candidate: candidate.misfit):
        number, usable = candidate.warp.reference, candidate.warp.valid_mask & ~candidate.warp.hidden & hole
        planes = sum(k.warp.reference == number and k.warp.kind == "plane" for k in kept)
        wanted = len(kept) < _MOST_LAYERS or (usable & ~shown).sum() > _NEW_SHARE * hole.sum()
        if wanted and (candidate.warp.kind == "depth" or planes < _PLANES_PER_REFERENCE):
            kept.append(candidate)
            shown |= usable
    return _with_costs(in_threads(refined, kept, lambda _: check()), half, check)


def differ(one: NDArray, other: NDArray, sigma: float) -> NDArray:
    """Compare images (H, W, 3) in a way that light hardly affects: structure where there is any, some coarse colour.

    Returns:
        (H, W), from 0 (equal) to 98.
    """
    greys = [cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY) for image in (one, other)]
    (mean0, var0), (mean1, var1) = (_statistics(grey) for grey in greys)
    window = (_WINDOW, _WINDOW)
    covariance = cv2.blur(greys[0] * greys[1], window) - mean0 * mean1
    correlation = covariance / np.sqrt((var0 + _NOISE) * (var1 + _NOISE))
    structure = np.maximum(var0, var1)
    colour = np.abs(cv2.GaussianBlur(one.astype(np.float32) - other.astype(np.float32), (0, 0), sigma)).mean(axis=2)
    return (40 * (1 - correlation) * structure / (structure + _NOISE) + _COLOUR_WEIGHT * np.minimum(colour, 60)).astype(
        np.float32
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidate:
    warp: WarpField
    image: NDArray
    colours: NDArray
    misfit: float
    continued: NDArray


def _candidate(
    warp: WarpField, reference: ImageArray, known: ImageArray, hole: MaskArray, distance: NDArray, half: HalfSize
) -> _Candidate | None:
    overlap = warp.valid_mask & ~hole
    if (warp.valid_mask & hole).sum() < 0.02 * hole.sum() or overlap.sum() < 300:
        return None
    warped = warp.apply(reference)
    colours = _fit(warped, known, hole, warp.valid_mask & ~warp.hidden, distance, half.side)
    image = apply_colours(warped, colours)
    grey, target = (
        cv2.GaussianBlur(cv2.cvtColor(picture.astype(np.uint8), cv2.COLOR_RGB2GRAY), (0, 0), 1.5)[overlap]
        for picture in (image, known)
    )
    if min(grey.std(), target.std()) == 0 or np.corrcoef(grey, target)[0, 1] < _MIN_CORRELATION:
        return None
    judged = image
    if warp.checked_map is not None:
        judged = sample(reference, warp.checked_map)
        usable = warp.valid_mask & ~warp.hidden
        judged = apply_colours(judged, _fit(judged, known, hole, usable, distance, half.side))
    small, inner = half.shrink(judged), half.shrink(overlap) > 0.99
    error = differ(small, np.where(inner[..., None], half.known, small), 0.0075 * half.side)
    near = np.exp(-half.distance_to_hole / 0.06) * inner
    misfit = float((error * near).sum() / max(float(near.sum()), 1e-6))
    weight = half.blur(inner, 2)
    mean = half.blur(error * inner, 2) / np.maximum(weight, 1e-3)
    usable = (weight > 0.15) & ~half.hole
    continued = half.blur(continue_into(np.where(usable, mean, 0), ~usable))
    return _Candidate(warp=warp, image=image, colours=colours, misfit=misfit, continued=continued)


def _refined(
    candidate: _Candidate, reference: ImageArray, known: ImageArray, hole: MaskArray, distance: NDArray
) -> _Candidate:
    """Refine a plane by optical flow; its misfit stays that of the plane, since flow flatters what it is fitted to."""
    side = max(hole.shape)
    matched = candidate.image.clip(0, 255).astype(np.uint8)
    warp = refine_by_flow(candidate.warp, matched, known, hole, 0.08 * side)
    warped = warp.apply(reference)
    colours = _fit(warped, known, hole, warp.valid_mask, distance, side)
    return replace(candidate, warp=warp, image=apply_colours(warped, colours), colours=colours)


def _fit(
    warped: ImageArray, known: ImageArray, hole: MaskArray, usable: MaskArray, distance: NDArray, side: int
) -> NDArray:
    near = usable & ~hole & (distance < 0.1 * side)
    overlap = near if near.sum() > 400 else usable & ~hole
    return fit_colours(warped, known, overlap) if overlap.sum() > 50 else np.eye(4, 3, dtype=np.float32)


def _with_costs(candidates: Sequence[_Candidate], half: HalfSize, check: Callable[[], None]) -> list[Layer]:
    """Compare the layers of different references with each other, and add up the expected errors."""
    smalls = [half.shrink(c.image) for c in candidates]
    valid = [half.shrink(c.warp.valid_mask) > 0.99 for c in candidates]
    hidden = [half.shrink(c.warp.hidden) > 0.3 for c in candidates]

    def compared(a: int, b: int) -> NDArray:
        both = (valid[a] & valid[b]).astype(np.float32)
        weight = half.blur(both)
        errors = differ(smalls[a], smalls[b], 0.0075 * half.side), np.abs(smalls[a] - smalls[b]).mean(axis=2)
        means = [half.blur(error * both) / np.maximum(weight, 1e-3) for error in errors]
        return np.where(weight > 0.5, np.stack(means), np.float32(np.inf))

    # the least difference to another reference, and the same in colours
    votes = [np.full((2, *half.hole.shape), np.float32(np.inf)) for _ in candidates]
    for a, one in enumerate(candidates):
        others = [b for b in range(a) if candidates[b].warp.reference != one.warp.reference]
        for b, error in zip(others, in_threads(partial(compared, a), others, lambda _: check()), strict=True):
            np.minimum(votes[a], np.where(hidden[b], np.float32(np.inf), error), out=votes[a])
            np.minimum(votes[b], np.where(hidden[a], np.float32(np.inf), error), out=votes[b])

    def layer_of(n: int) -> Layer:
        candidate = candidates[n]
        vote, colour = votes[n][0], votes[n][1]
        alone = np.maximum(candidate.continued, _UNCONFIRMED_LEAST) * _UNCONFIRMED
        misfit = (candidate.misfit + candidate.continued) / 2
        tear = half.shrink(tear_of(candidate.warp))
        error = expected_error(candidate.image, misfit, vote, colour, half.depth_in_hole, tear, hidden[n])
        confirmed = np.isfinite(vote)
        vote = np.where(confirmed, vote, alone)
        cost = _NEAR * candidate.misfit + _CONTINUED * candidate.continued + _VOTE * vote + _HIDDEN_COST * hidden[n]
        if candidate.warp.kind == "plane":
            cost = cost + _PLANE_DISTANCE_COST * half.depth_in_hole
        else:
            cost = cost + _CARRIED_DISTANCE_COST * half.depth_in_hole * ~confirmed
        return Layer(
            warp=candidate.warp,
            image=candidate.image,
            colours=candidate.colours,
            misfit=candidate.misfit,
            cost=np.where(valid[n], cost, _WORST).astype(np.float32).clip(0, _WORST),
            error=np.where(valid[n], error, _WORST).astype(np.float32),
        )

    return in_threads(layer_of, range(len(candidates)), lambda _: check())


def _shrunk(values: NDArray, size: tuple[int, int]) -> NDArray:
    return cv2.resize(np.ascontiguousarray(values, np.float32), size, interpolation=cv2.INTER_AREA)


def _statistics(grey: NDArray) -> tuple[NDArray, NDArray]:
    window = (_WINDOW, _WINDOW)
    mean = cv2.blur(grey, window)
    return mean, np.maximum(cv2.blur(grey * grey, window) - mean * mean, 0)
