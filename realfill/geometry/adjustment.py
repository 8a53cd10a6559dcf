"""Bundle adjustment: cameras and points moved until the points are seen where they were matched.

Levenberg-Marquardt with analytic derivatives, in which the points are eliminated from each step (Schur complement,
Triggs et al. 2000), so that a step solves one small system for the cameras. Each camera has eight parameters: a turn,
translation, logarithm of the focal length over its prior, and k1. The target's pose stays. The scale is left alone,
since a scene has none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.cameras import Camera

_FOCAL_RANGE = (0.35, 4.0)  # of the longer side
_DISTORTION_SIGMA, _MOST_DISTORTION = 0.1, 0.3  # of k1
_PRIOR_SHARE = 0.01  # observations' weight that a prior has together, since they do not err independently
_LEAST_PRIOR = 2.0
_MAX_POINTS = 1500
_PARAMETERS = 8
_MAX_STEPS, _MAX_DAMPING = 40, 1e6
_LEAST_GAIN = 1e-4  # relative gain of a step at which the adjustment ends
_LEAST_DEPTH = 1e-6
_WORST_PX = 1e4


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Observations of scene points.

    Attributes:
        image: (M,) image number of each observation.
        point: (M,) number of its scene point.
        xy: (M, 2) pixels.
    """

    image: NDArray
    point: NDArray
    xy: NDArray

    @property
    def count(self) -> int:
        """Number of scene points."""
        return int(self.point.max()) + 1 if len(self.point) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FocalPrior:
    """What is known of a focal length.

    Attributes:
        focal: its value in pixels.
        sigma: the standard deviation of its logarithm.
        max_factor: largest factor between the value and the result, either way.
    """

    focal: float
    sigma: float
    max_factor: float = np.inf


def bundle_adjust(
    cameras: Mapping[int, Camera], points: NDArray, tracks: Tracks, priors: Mapping[int, FocalPrior]
) -> tuple[dict[int, Camera], NDArray]:
    """Minimise the reprojection error over poses, focal lengths, distortion and points.

    Args:
        cameras: image number to camera, at least two; the smallest number is the target.
        points: (N, 3); NaN where unknown. At most 1,500 of them, those seen most often, take part.
        tracks: where they were seen.
        priors: the prior of each image.

    Returns:
        The cameras and the points.
    """
    images = sorted(cameras)
    kept = _choose_points(points, tracks, images)
    rows = np.isin(tracks.image, images) & kept[tracks.point]
    rows = np.flatnonzero(rows)[np.argsort(tracks.point[rows], kind="stable")]
    problem = _Problem(
        camera_of=np.searchsorted(images, tracks.image[rows]),
        point_of=(np.cumsum(kept) - 1)[tracks.point[rows]],
        observed=tracks.xy[rows],
        centres=np.array([cameras[i].centre for i in images]),
        priors=np.array([[priors[i].focal, priors[i].sigma, priors[i].max_factor] for i in images]),
        sides=np.array([max(cameras[i].size) for i in images]),
        unit=max(cameras[images[0]].size) / 1000,
    )
    state = _State(
        rotations=np.array([cameras[i].rotation for i in images]),
        translations=np.array([cameras[i].translation for i in images], float),
        lens=np.array([[np.log(cameras[i].focal / priors[i].focal), cameras[i].distortion] for i in images]),
        points=points[kept],
    )
    state = problem.minimise(state)
    moved = points.copy()
    moved[kept] = state.points
    adjusted = {
        image: replace(
            cameras[image],
            focal=float(priors[image].focal * np.exp(state.lens[n, 0])),
            distortion=float(state.lens[n, 1]),
            rotation=state.rotations[n],
            translation=state.translations[n],
        )
        for n, image in enumerate(images)
    }
    return adjusted, moved


def _choose_points(points: NDArray, tracks: Tracks, images: Sequence[int]) -> NDArray[np.bool_]:
    """Choose the points seen most often, spread over their numbers."""
    usable = np.isin(tracks.image, list(images)) & np.isfinite(points[tracks.point, 0])
    views = np.bincount(tracks.point[usable], minlength=len(points))
    candidates = np.flatnonzero(views >= 2)
    candidates = candidates[np.argsort(-views[candidates], kind="stable")]
    kept = np.zeros(len(points), bool)
    kept[candidates[:: max(1, len(candidates) // _MAX_POINTS)][:_MAX_POINTS]] = True
    return kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """What is adjusted: rotations (C, 3, 3), translations (C, 3), log focal and k1 (C, 2), points (N, 3)."""

    rotations: NDArray
    translations: NDArray
    lens: NDArray
    points: NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """The observations, in the order of their points, the priors, and the search for what explains them best."""

    camera_of: NDArray
    point_of: NDArray
    observed: NDArray
    centres: NDArray
    priors: NDArray
    sides: NDArray
    unit: float

    def minimise(self, state: _State) -> _State:
        """Take steps while they gain anything."""
        cost, damping = self.cost(state), 1e-3
        for _ in range(_MAX_STEPS):
            system = self._system(state)
            while damping < _MAX_DAMPING:
                step = self._step(state, *system, damping)
                reached = self.cost(step)
                if reached < cost:
                    break
                damping *= 8
            else:
                return state
            gain = (cost - reached) / max(cost, 1e-12)
            state, cost, damping = step, reached, max(damping / 4, 1e-9)
            if gain < _LEAST_GAIN:
                break
        return state

    def cost(self, state: _State) -> float:
        """Sum up the robust errors (soft L1) and the deviations from the priors."""
        error, *_ = self._errors(state)
        robust = 2 * (np.sqrt(1 + (error**2).sum(axis=1)) - 1)
        return float(robust.sum() + (self._prior_weights() * state.lens**2).sum())

    def _prior_weights(self) -> NDArray:
        """Weigh the deviations (C, 2) of the logarithm of the focal length and of k1."""
        counts = np.bincount(self.camera_of, minlength=len(self.priors))
        weight = np.maximum(_PRIOR_SHARE * counts, _LEAST_PRIOR)
        return weight[:, None] / np.stack([self.priors[:, 1], np.full(len(counts), _DISTORTION_SIGMA)], axis=1) ** 2

    def _errors(self, state: _State) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
        """Return errors (M, 2), points turned into the cameras (M, 3), depths (M, 1), rays (M, 2), focal lengths."""
        turned = np.einsum("nij,nj->ni", state.rotations[self.camera_of], state.points[self.point_of])
        local = turned + state.translations[self.camera_of]
        depth = np.maximum(local[:, 2:], _LEAST_DEPTH)
        ray = local[:, :2] / depth
        focal = (self.priors[:, 0] * np.exp(state.lens[:, 0]))[self.camera_of, None] / self.unit
        bent = 1 + state.lens[self.camera_of, 1:] * (ray**2).sum(axis=1, keepdims=True)
        error = focal * bent * ray - (self.observed - self.centres[self.camera_of]) / self.unit
        return np.clip(error, -_WORST_PX, _WORST_PX), turned, depth, ray, focal

    def _system(self, state: _State) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
        """Return the normal equations: cameras (8C, 8C), points (N, 3, 3), both (N, 3, 8C), and gradients."""
        error, turned, depth, ray, focal = self._errors(state)
        count, number = len(self.priors), len(state.points)
        distortion = state.lens[self.camera_of, 1:]
        radius = (ray**2).sum(axis=1, keepdims=True)
        by_ray = focal[..., None] * (
            (1 + distortion * radius)[..., None] * np.eye(2)
            + 2 * distortion[..., None] * ray[:, :, None] * ray[:, None]
        )
        by_place = np.concatenate([by_ray, -(by_ray @ ray[:, :, None])], axis=2) / depth[..., None]
        by_turn = np.cross(turned[:, None], by_place)
        by_lens = np.stack([focal * (1 + distortion * radius) * ray, focal * radius * ray], axis=2)
        weight = (1 + (error**2).sum(axis=1)) ** -0.5
        camera = np.concatenate([by_turn, by_place, by_lens], axis=2)
        point = by_place @ state.rotations[self.camera_of]
        weighted, weighted_point = camera * weight[:, None, None], point * weight[:, None, None]
        first = np.flatnonzero(np.diff(self.point_of, prepend=-1))  # of each point's observations
        own, gradient = np.zeros((count, _PARAMETERS, _PARAMETERS)), np.zeros((count, _PARAMETERS))
        for n in range(count):
            mine = self.camera_of == n
            rows = weighted[mine].reshape(-1, _PARAMETERS)
            own[n] = rows.T @ camera[mine].reshape(-1, _PARAMETERS)
            gradient[n] = error[mine].ravel() @ rows
        priors = self._prior_weights()
        own[:, [6, 7], [6, 7]] += priors
        gradient[:, 6:] += priors * state.lens
        whole = np.zeros((count, _PARAMETERS, count, _PARAMETERS))
        whole[np.arange(count), :, np.arange(count)] = own
        points = np.add.reduceat(weighted_point.transpose(0, 2, 1) @ point, first)
        point_gradient = np.add.reduceat((weighted_point.transpose(0, 2, 1) @ error[..., None])[..., 0], first)
        both = np.zeros((number, count, 3, _PARAMETERS))
        both[self.point_of, self.camera_of] = weighted_point.transpose(0, 2, 1) @ camera
        size = count * _PARAMETERS
        return (
            whole.reshape(size, size), points, both.transpose(0, 2, 1, 3).reshape(number, 3, size),
            gradient.ravel(), point_gradient,
        )  # fmt: skip

    def _step(
        self,
        state: _State,
        cameras: NDArray,
        points: NDArray,
        both: NDArray,
        gradient: NDArray,
        point_gradient: NDArray,
        damping: float,
    ) -> _State:
        """Solve the damped normal equations; the target's pose, the first six values, stays."""
        inverse = np.linalg.inv(points * (1 + damping * np.eye(3)) + 1e-9 * np.eye(3))
        carried = inverse @ both
        size = cameras.shape[0]
        reduced = cameras * (1 + damping * np.eye(size)) - np.tensordot(both, carried, axes=([0, 1], [0, 1]))
        right = -gradient + np.tensordot(carried, point_gradient, axes=([0, 1], [0, 1]))
        move = np.zeros(size)
        move[6:] = np.linalg.solve(reduced[6:, 6:] + 1e-9 * np.eye(size - 6), right[6:])
        scene = -(inverse @ point_gradient[..., None])[..., 0] - carried @ move
        by_camera = move.reshape(-1, _PARAMETERS)
        turns = np.stack([cv2.Rodrigues(turn)[0] for turn in by_camera[:, :3]])
        lens = state.lens + by_camera[:, 6:]
        low, high = np.log(np.array(_FOCAL_RANGE)[:, None] * self.sides / self.priors[:, 0])
        most = np.log(self.priors[:, 2])
        lens[:, 0] = lens[:, 0].clip(np.maximum(low, -most), np.minimum(high, most))
        lens[:, 1] = lens[:, 1].clip(-_MOST_DISTORTION, _MOST_DISTORTION)
        return _State(
            rotations=turns @ state.rotations,
            translations=state.translations + by_camera[:, 3:6],
            lens=lens,
            points=state.points + scene,
        )
