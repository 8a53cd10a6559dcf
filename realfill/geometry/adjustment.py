"""Bundle adjustment: cameras and points moved until the points are seen where they were matched.

With scipy's ``least_squares`` on the sparse Jacobian's pattern. Each camera has eight parameters: rotation vector,
translation, logarithm of the focal length over its prior, and k1. The target's pose stays, and so does the distance of
the second camera, since a scene has no scale of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.sparse import coo_array, csr_array
from scipy.spatial.transform import Rotation

from realfill.geometry.cameras import Camera

_FOCAL_RANGE = (0.35, 4.0)  # of the longer side
_FOCAL_WEIGHT = 2.0  # of the prior, against an observation's error of one pixel at a longer side of 1,000
_DISTORTION_SIGMA = 0.03
_GAUGE_WEIGHT = 1e3
_MAX_POINTS = 1500
_PARAMETERS = 8


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
    """What is known of a focal length: its value in pixels, and the standard deviation of its logarithm."""

    focal: float
    sigma: float


def bundle_adjust(
    cameras: Mapping[int, Camera], points: NDArray, tracks: Tracks, priors: Sequence[FocalPrior]
) -> tuple[dict[int, Camera], NDArray]:
    """Minimise the reprojection error over poses, focal lengths, distortion and points.

    Args:
        cameras: image number to camera, at least two; the smallest number is the target.
        points: (N, 3); NaN where unknown. At most 1,500 of them, those seen most often, take part.
        tracks: where they were seen.
        priors: of each image.

    Returns:
        The cameras and the points.
    """
    images = sorted(cameras)
    kept = _choose_points(points, tracks, images)
    rows = np.isin(tracks.image, images) & kept[tracks.point]
    place = {image: n for n, image in enumerate(images)}
    problem = _Problem(
        camera_of=np.array([place[i] for i in tracks.image[rows]]),
        point_of=(np.cumsum(kept) - 1)[tracks.point[rows]],
        observed=tracks.xy[rows],
        centres=np.array([cameras[i].centre for i in images]),
        focals=np.array([priors[i].focal for i in images]),
        sigmas=np.array([priors[i].sigma for i in images]),
        start=np.array([_parameters(cameras[i], priors[i].focal) for i in images]),
        unit=max(cameras[images[0]].size) / 1000,
    )
    low, high = problem.bounds([max(cameras[i].size) for i in images], int(kept.sum()))
    values = np.concatenate([problem.start.ravel(), points[kept].ravel()]).clip(low + 1e-9, high - 1e-9)
    solved = least_squares(
        problem.residuals, values, jac_sparsity=problem.sparsity(int(kept.sum())), bounds=(low, high), x_scale="jac",
        loss="soft_l1", f_scale=1.0, max_nfev=30, ftol=1e-4, xtol=1e-5,
    ).x  # fmt: skip
    poses, scene = problem.split(solved)
    moved = points.copy()
    moved[kept] = scene
    adjusted = {image: _camera(cameras[image], poses[n], priors[image].focal) for n, image in enumerate(images)}
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


def _parameters(camera: Camera, focal: float) -> list[float]:
    rotation = Rotation.from_matrix(camera.rotation).as_rotvec()
    return [*rotation, *camera.translation, float(np.log(camera.focal / focal)), camera.distortion]


def _camera(camera: Camera, pose: NDArray, focal: float) -> Camera:
    return Camera(
        size=camera.size,
        focal=float(focal * np.exp(pose[6])),
        distortion=float(pose[7]),
        rotation=Rotation.from_rotvec(pose[:3]).as_matrix(),
        translation=pose[3:6],
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """The residuals, and which of them depend on which values."""

    camera_of: NDArray
    point_of: NDArray
    observed: NDArray
    centres: NDArray
    focals: NDArray
    sigmas: NDArray
    start: NDArray
    unit: float

    @property
    def count(self) -> int:
        return len(self.focals)

    def split(self, values: NDArray) -> tuple[NDArray, NDArray]:
        """Split the values into cameras (C, 8) and points (N, 3)."""
        end = _PARAMETERS * self.count
        return values[:end].reshape(self.count, _PARAMETERS), values[end:].reshape(-1, 3)

    def residuals(self, values: NDArray) -> NDArray:
        """Compute reprojection errors, deviations from the priors, and from the pose and scale that stay."""
        pose, scene = self.split(values)
        rotation = Rotation.from_rotvec(pose[:, :3]).as_matrix()
        local = np.einsum("nij,nj->ni", rotation[self.camera_of], scene[self.point_of]) + pose[self.camera_of, 3:6]
        ray = local[:, :2] / np.maximum(local[:, 2:], 1e-6)
        radius = (ray**2).sum(axis=1, keepdims=True)
        focal = (self.focals * np.exp(pose[:, 6]))[self.camera_of, None]
        projected = focal * (1 + pose[self.camera_of, 7:8] * radius) * ray + self.centres[self.camera_of]
        error = np.clip((projected - self.observed) / self.unit, -1e4, 1e4)
        baseline = np.linalg.norm(self.start[1, 3:6])
        gauge = [*(pose[0, :6] - self.start[0, :6]), np.linalg.norm(pose[1, 3:6]) / baseline - 1]
        return np.concatenate([
            error.ravel(), _FOCAL_WEIGHT * pose[:, 6] / self.sigmas, pose[:, 7] / _DISTORTION_SIGMA,
            _GAUGE_WEIGHT * np.array(gauge),
        ])  # fmt: skip

    def bounds(self, sides: Sequence[int], num_points: int) -> tuple[NDArray, NDArray]:
        """Bound the focal lengths; nothing else."""
        low = np.full(_PARAMETERS * self.count + 3 * num_points, -np.inf)
        high = -low
        logarithms = np.log(np.array(_FOCAL_RANGE)[:, None] * np.array(sides) / self.focals)
        focal = slice(6, _PARAMETERS * self.count, _PARAMETERS)
        low[focal], high[focal] = np.minimum(logarithms[0], -1e-3), np.maximum(logarithms[1], 1e-3)
        return low, high

    def sparsity(self, num_points: int) -> csr_array:
        """Mark which residual depends on which value."""
        first_point, number = _PARAMETERS * self.count, len(self.observed)
        columns = np.concatenate([
            _PARAMETERS * self.camera_of[:, None] + np.arange(_PARAMETERS),
            first_point + 3 * self.point_of[:, None] + np.arange(3),
        ], axis=1)  # fmt: skip
        columns = np.repeat(columns, 2, axis=0)
        rows = np.repeat(np.arange(2 * number), columns.shape[1])
        camera, end = np.arange(self.count), 2 * number
        gauge = end + 2 * self.count
        rows = np.concatenate([
            rows, end + camera, end + self.count + camera, gauge + np.arange(6), np.full(3, gauge + 6),
        ])  # fmt: skip
        columns = np.concatenate([
            columns.ravel(), _PARAMETERS * camera + 6, _PARAMETERS * camera + 7, np.arange(6),
            _PARAMETERS + np.arange(3, 6),
        ])  # fmt: skip
        shape = (gauge + 7, first_point + 3 * num_points)
        return coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()
