"""Cameras: projection, and points from several views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_SAME_PLACE = 0.01  # share of the longest baseline below which two cameras stand in one place
_NEWTON_STEPS, _CONVERGED, _LEAST_SLOPE = 8, 1e-12, 1e-3

Frame: TypeAlias = tuple[float, float, float, float]
"""A part of a photo: (top, left, bottom, right) in pixels, the last two exclusive."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """A pinhole camera with one coefficient of radial distortion.

    Its axes are OpenCV's: x to the right, y down, z forward. A scene point X lies at ``rotation @ X + translation`` in
    the camera's own frame.

    Attributes:
        size: (height, width) of its photo.
        focal: focal length in pixels.
        distortion: k1; a ray (x, y, 1) is seen at (1 + k1 (x² + y²)) (x, y).
        rotation: (3, 3), from the scene to the camera.
        translation: (3,), from the scene to the camera.
        frame: the part of the photo that the lens saw, in whose middle the principal point lies. ``None``: all of it.
    """

    size: tuple[int, int]
    focal: float
    distortion: float
    rotation: NDArray
    translation: NDArray
    frame: Frame | None = None

    @classmethod
    def unplaced(cls, size: tuple[int, int], focal: float, frame: Frame | None = None) -> Camera:
        """Return a camera at the origin of the scene, without distortion."""
        return cls(
            size=size, focal=focal, distortion=0.0, rotation=np.eye(3), translation=np.zeros(3), frame=frame
        )  # fmt: skip

    def at_size(self, size: tuple[int, int]) -> Camera:
        """Return the camera of the same photo, resized to (height, width)."""
        scale = np.tile(np.divide(size, self.size), 2)
        frame = None if self.frame is None else tuple((scale * self.frame).tolist())
        return replace(self, size=size, focal=self.focal * max(size) / max(self.size), frame=frame)

    @property
    def centre(self) -> NDArray:
        """The principal point, (x, y) in pixels; (0, 0) is the centre of the first pixel."""
        top, left, bottom, right = self.frame or (0, 0, *self.size)
        return (np.array([left + right, top + bottom]) - 1) / 2

    @property
    def side(self) -> float:
        """The longer side of what the lens saw, in pixels."""
        top, left, bottom, right = self.frame or (0, 0, *self.size)
        return max(bottom - top, right - left)

    def project(self, points: NDArray) -> tuple[NDArray, NDArray]:
        """Project scene points (..., 3) to pixels (..., 2) and depths (...), above 0 in front of the camera."""
        local = points @ self.rotation.T + self.translation
        depth = local[..., 2]
        ray = local[..., :2] / np.where(np.abs(depth) > 1e-9, depth, 1e-9)[..., None]
        radius = (ray**2).sum(axis=-1, keepdims=True)
        return self.focal * (1 + self.distortion * radius) * ray + self.centre, depth

    def rays(self, pixels: NDArray) -> NDArray:
        """Return the rays (..., 2) at depth 1 that pixels (..., 2) see, in the camera's own frame."""
        seen = (pixels - self.centre) / self.focal
        if not self.distortion:
            return seen
        bent = np.linalg.norm(seen, axis=-1, keepdims=True)
        fold = (-1 / (3 * self.distortion)) ** 0.5 if self.distortion < 0 else np.inf  # beyond it, pixels see nothing
        radius = np.minimum(bent, fold)
        for _ in range(_NEWTON_STEPS):
            square = self.distortion * radius * radius
            change = (radius + square * radius - bent) / np.maximum(1 + 3 * square, _LEAST_SLOPE)
            radius = np.minimum(radius - change, fold)
            if np.abs(change).max(initial=0) < _CONVERGED:
                break
        return seen * (radius / np.maximum(bent, 1e-12))

    def unproject(self, pixels: NDArray, depth: NDArray) -> NDArray:
        """Return the scene points (..., 3) that pixels (..., 2) see at depths (...)."""
        ray = self.rays(pixels)
        local = np.concatenate([ray, np.ones_like(ray[..., :1])], axis=-1) * depth[..., None]
        return (local - self.translation) @ self.rotation


def seen_from_target(cameras: Mapping[int, Camera], points: NDArray) -> tuple[dict[int, Camera], NDArray]:
    """Move cameras and scene points (N, 3) so that camera 0 is at the origin, and the nearest other one at distance 1.

    Cameras that stand in the place of camera 0, nearer than a hundredth of the farthest one, do not count.
    """
    turn, shift = cameras[0].rotation, cameras[0].translation
    rotations = {n: camera.rotation @ turn.T for n, camera in cameras.items()}
    translations = {n: camera.translation - rotations[n] @ shift for n, camera in cameras.items()}
    distances = [float(np.linalg.norm(translation)) for n, translation in translations.items() if n]
    farthest = max(distances, default=0.0)
    unit = min((d for d in distances if d > 0 and d >= _SAME_PLACE * farthest), default=1.0)
    moved = {
        n: replace(camera, rotation=rotations[n], translation=translations[n] / unit) for n, camera in cameras.items()
    }
    return moved, (points @ turn.T + shift) / unit


def triangulate(cameras: Sequence[Camera], pixels: Sequence[NDArray]) -> NDArray:
    """Triangulate points (N, 3) that all cameras see, by the linear method; NaN behind a camera."""
    rows = []
    for camera, xy in zip(cameras, pixels, strict=True):
        pose = np.c_[camera.rotation, camera.translation]
        ray = camera.rays(xy)
        rows += [ray[:, :1] * pose[2] - pose[0], ray[:, 1:] * pose[2] - pose[1]]
    _, _, v = np.linalg.svd(np.stack(rows, axis=1))
    homogeneous = v[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        points = homogeneous[:, :3] / homogeneous[:, 3:]
    for camera in cameras:
        depth = points @ camera.rotation[2] + camera.translation[2]
        points = np.where((depth > 1e-6)[:, None], points, np.nan)
    return points


def viewing_angles(cameras: Sequence[Camera], points: NDArray) -> NDArray:
    """Return the largest angle at which two of the cameras see each point, in radians."""
    directions = []
    for camera in cameras:
        towards = points + camera.rotation.T @ camera.translation
        directions.append(towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-12))
    angles = np.zeros(len(points))
    for n, one in enumerate(directions):
        for other in directions[:n]:
            angles = np.fmax(angles, np.arccos(np.clip((one * other).sum(axis=1), -1, 1)))
    return np.where(np.isfinite(points[:, 0]), angles, np.nan)
