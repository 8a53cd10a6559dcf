"""Reconstruction: the cameras of a scene's photos, by incremental structure from motion that starts at the target.

For a handful of photos: an essential matrix or a plane for the first pair, perspective-n-point for the others, and
bundle adjustment. Focal lengths and distortion have priors, since a few distant photos do not determine them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.adjustment import FocalPrior, Tracks, bundle_adjust
from realfill.geometry.cameras import Camera, Frame, seen_from_target, triangulate, viewing_angles
from realfill.geometry.correspondences import Pairs

_FOCALS = (1.2, 0.75, 1.9)  # focal lengths tried where EXIF says nothing, as shares of the longer side
_FOCAL_SIGMA, _EXIF_SIGMA = 0.5, 0.05  # of the logarithm of the focal length
_EXIF_FACTOR = 1.5  # largest factor between EXIF's focal length and the result
_DOUBT = 0.8  # EXIF is wrong if the cameras fit this much better without it
_LEFT = 0.025  # or better at all, and their focal lengths differ from EXIF's by this much on average, in the logarithm
_MAX_ERROR_PX = 4.0  # largest reprojection error of an observation, at a longer side of 1,000 pixels
_GOOD_PX = 0.6  # error below which cameras of all photos need no second attempt
_EXPLAINED = 0.9  # and the share of the matches that they must explain
_MOSTLY_EXPLAINED, _SAME = 0.6, 0.01  # or this share, if another start leads to a fit that differs by this share
_MOST_IN_PLANE = 0.7  # share of the matches from which a plane, or a turn on the spot, explains them all
_IN_FRONT = 0.9  # share of a plane's matches that must lie in front of the camera
_CORE = 6  # photos that are placed first, from several starts; further ones join them
_AGREEING = 0.3  # share of its matches that a camera from elsewhere must agree with
_GROWTH = 1.2  # factor by which the number of cameras grows between two adjustments
_MIN_PAIR, _MIN_POSE = 30, 15  # matches of the first pair, and of each further photo
_MIN_ANGLE = np.deg2rad(1.5)  # median parallax of the first pair
_MIN_POINT_ANGLE = np.deg2rad(0.5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """Cameras in one frame, and scene points.

    Attributes:
        cameras: image number to camera; image 0 is the target, and always among them.
        points: (N, 3) scene points that at least two of the cameras see.
        error_px: root mean square reprojection error.
    """

    cameras: Mapping[int, Camera]
    points: NDArray
    error_px: float


def reconstruct(
    sizes: Sequence[tuple[int, int]],
    pairs: Pairs,
    focals: Sequence[float | None] | None = None,
    *,
    frame: Frame | None = None,
    check: Callable[[], None] | None = None,
) -> Reconstruction | None:
    """Estimate the cameras of photos from matches between them.

    Args:
        sizes: (height, width) of each image, the target first.
        pairs: verified matches.
        focals: focal length of each image in pixels where EXIF states it. It is a prior, which the result leaves by at
            most a factor of 1.5. EXIF is ignored where the cameras fit the matches far better without it, or where all
            focal lengths leave it in one direction.
        frame: the part of the target that is its photo, if the rest is a canvas around it.
        check: called between cameras; it may raise an exception.

    Returns:
        ``None`` where no reference shares enough matches and parallax with the target.
    """
    photos = {n: Camera.unplaced(size, 1.0, None if n else frame) for n, size in enumerate(sizes)}
    given = dict(enumerate(focals or [None] * len(photos)))
    nearest = sorted(range(1, len(photos)), key=lambda j: -len(pairs.get((0, j), ())))
    core = {n: photos[n] for n in sorted([0, *nearest[: _CORE - 1]])}
    first = _reconstruct_core(core, {(i, j): p for (i, j), p in pairs.items() if i in core and j in core}, given, check)
    if first is None or len(core) == len(photos):
        return first
    return _extend(first, photos, _link(pairs), given, check)


def _reconstruct_core(
    photos: Mapping[int, Camera],
    pairs: Pairs,
    focals: Mapping[int, float | None],
    check: Callable[[], None] | None,
) -> Reconstruction | None:
    """Reconstruct few photos, with and without EXIF's focal lengths."""
    tracks, free = _link(pairs), dict.fromkeys(photos)
    if not any(focals[n] for n in photos):
        return _best(photos, tracks, pairs, free, _FOCALS, check)
    bound = _best(photos, tracks, pairs, focals, _FOCALS[:1], check)
    other = _best(photos, tracks, pairs, free, _FOCALS[:1], check)
    if bound is not None and (other is None or not _contradicts(other, bound, focals)):
        return bound
    return _best(photos, tracks, pairs, free, _FOCALS, check)


def _extend(
    core: Reconstruction,
    photos: Mapping[int, Camera],
    tracks: Tracks,
    focals: Mapping[int, float | None],
    check: Callable[[], None] | None,
) -> Reconstruction:
    """Add further photos to a reconstruction; without EXIF they begin with the focal length of the others."""
    common = float(np.median([camera.focal / camera.side for camera in core.cameras.values()]))
    left = [np.log(camera.focal / f) for n, camera in core.cameras.items() for f in [focals[n]] if f]
    believed = not left or abs(float(np.median(left))) < _LEFT
    priors = {
        n: FocalPrior(focal=core.cameras[n].focal, sigma=_EXIF_SIGMA)
        if n in core.cameras
        else _prior(focals[n] if believed else None, common * photo.side)
        for n, photo in photos.items()
    }
    lenses = {n: replace(photo, focal=priors[n].focal) for n, photo in photos.items()}
    return _grow(lenses, tracks, core.cameras, priors, check) or core


def _prior(given: float | None, guess: float) -> FocalPrior:
    """Return what is known of a focal length in advance."""
    if given:
        return FocalPrior(focal=given, sigma=_EXIF_SIGMA, max_factor=_EXIF_FACTOR)
    return FocalPrior(focal=guess, sigma=_FOCAL_SIGMA)


def reconstruct_with(cameras: Mapping[int, Camera], pairs: Pairs) -> Reconstruction | None:
    """Find scene points by cameras that are known from elsewhere; they are moved, but not adjusted.

    Cameras that most of their matches contradict are left out, the worst first.

    Args:
        cameras: image number to camera, in any frame and unit; the target is image 0.
        pairs: verified matches.

    Returns:
        ``None`` where fewer than 30 matches agree with the cameras.
    """
    tracks, unit = _link(pairs), max(cameras[0].size) / 1000
    placed, _ = seen_from_target(cameras, np.zeros((0, 3)))
    while True:
        points = _triangulate(placed, tracks, unit)
        found = np.isfinite(points[:, 0])
        agreeing = {n: found[tracks.point[tracks.image == n]] for n in placed if n}
        shares = {n: float(own.mean()) if len(own) else 0.0 for n, own in agreeing.items()}
        worst = min(shares, key=lambda n: shares[n], default=0)
        if not worst or shares[worst] >= _AGREEING:
            break
        del placed[worst]
    if found.sum() < _MIN_PAIR:
        return None
    error = float(np.sqrt(np.nanmean(_errors(placed, tracks, points) ** 2)))
    return Reconstruction(cameras=placed, points=points[found], error_px=error)


def _contradicts(other: Reconstruction, bound: Reconstruction, focals: Mapping[int, float | None]) -> bool:
    """Tell whether EXIF must be wrong, by a reconstruction without it.

    EXIF that is wrong in a single photo makes the cameras fit far worse. If it is wrong in all photos by one factor,
    they fit almost as well, but their focal lengths leave EXIF together.
    """
    if len(other.cameras) != len(bound.cameras):
        return len(other.cameras) > len(bound.cameras)
    left = [np.log(camera.focal / f) for i, camera in bound.cameras.items() for f in [focals[i]] if f]
    together = bool(left) and abs(float(np.mean(left))) > _LEFT
    return other.error_px < (1.0 if together else _DOUBT) * bound.error_px


def _best(
    photos: Mapping[int, Camera],
    tracks: Tracks,
    pairs: Pairs,
    given: Mapping[int, float | None],
    guesses: Sequence[float],
    check: Callable[[], None] | None,
) -> Reconstruction | None:
    """Reconstruct from several first pairs, focal lengths and starts, until the result can be trusted.

    A wrong start fits some of the matches as well as the right one fits all, so that a small error alone says little.
    """
    order = sorted((j for i, j in pairs if i == 0), key=lambda j: -len(pairs[0, j]))
    found: list[Reconstruction] = []
    for first in (j for j in order[:2] if len(pairs[0, j]) >= _MIN_PAIR):
        for guess in guesses:
            if check:
                check()
            priors = {n: _prior(given[n], guess * photo.side) for n, photo in photos.items()}
            lenses = {n: replace(photo, focal=priors[n].focal) for n, photo in photos.items()}
            for second in _starts((lenses[0], lenses[first]), pairs[0, first]):
                candidate = _grow(lenses, tracks, {0: lenses[0], first: second}, priors, check)
                if candidate is None:
                    continue
                found.append(candidate)
                best = max(found, key=_quality)
                if _is_sure(best, [other for other in found if other is not best], len(photos), tracks):
                    return best
    return max(found, key=_quality, default=None)


def _is_sure(best: Reconstruction, others: Sequence[Reconstruction], num_photos: int, tracks: Tracks) -> bool:
    """Tell whether cameras explain nearly all matches well, or most of them and another start led to the same."""
    explained = len(best.points) / max(1, tracks.count)
    if len(best.cameras) < num_photos or explained < _MOSTLY_EXPLAINED:
        return False
    again = any(_quality(other) > _quality(best) - _SAME * _fit(best) for other in others)
    return again or (explained >= _EXPLAINED and best.error_px < _GOOD_PX)


def _quality(reconstruction: Reconstruction) -> float:
    """Rank reconstructions: more cameras first, then more points for their error."""
    return 1e6 * len(reconstruction.cameras) + _fit(reconstruction)


def _fit(reconstruction: Reconstruction) -> float:
    return len(reconstruction.points) / (0.5 + reconstruction.error_px)


def _link(pairs: Pairs) -> Tracks:
    """Join matches that share a keypoint to tracks; tracks with two places in one image are dropped."""
    parent: dict[tuple[int, int, int], tuple[int, int, int]] = {}
    where: dict[tuple[int, int, int], NDArray] = {}

    def root(node: tuple[int, int, int]) -> tuple[int, int, int]:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for (i, j), matches in pairs.items():
        cells = np.round(matches * 2).astype(int)
        for row, cell in zip(matches, cells, strict=True):
            a, b = (i, int(cell[0]), int(cell[1])), (j, int(cell[2]), int(cell[3]))
            for node, xy in ((a, row[:2]), (b, row[2:])):
                parent.setdefault(node, node)
                where.setdefault(node, xy)
            parent[root(a)] = root(b)
    groups: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    for node in parent:
        groups.setdefault(root(node), []).append(node)
    rows = []
    number = 0
    for nodes in groups.values():
        images = [node[0] for node in nodes]
        if len(images) == len(set(images)):
            rows += [(node[0], number, *where[node]) for node in nodes]
            number += 1
    table = np.array(rows, np.float64).reshape(-1, 4)
    return Tracks(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:])


def _grow(
    photos: Mapping[int, Camera],
    tracks: Tracks,
    start: Mapping[int, Camera],
    priors: Mapping[int, FocalPrior],
    check: Callable[[], None] | None,
) -> Reconstruction | None:
    """Begin with the target and one or more references, then add the others one by one."""
    unit = max(photos[0].size) / 1000
    cameras = dict(start)
    points = _triangulate(cameras, tracks, unit)
    cameras, points = bundle_adjust(cameras, points, tracks, priors)
    waiting, adjusted = [i for i in photos if i not in cameras], len(cameras)
    while waiting:
        if check:
            check()
        counts = {i: int(np.isfinite(points[tracks.point[tracks.image == i], 0]).sum()) for i in waiting}
        image = max(waiting, key=lambda i: counts[i])
        waiting.remove(image)
        pose = _locate(photos[image], tracks, points, image) if counts[image] >= _MIN_POSE else None
        if pose is not None:
            cameras[image] = pose
            if len(cameras) >= _GROWTH * adjusted:
                points = _triangulate(cameras, tracks, unit)
                cameras, points = bundle_adjust(cameras, points, tracks, priors)
                adjusted = len(cameras)
    if check:
        check()
    points = _triangulate(cameras, tracks, unit)
    cameras, points = bundle_adjust(cameras, points, tracks, priors)
    points = _triangulate(cameras, tracks, unit)
    ok = np.isfinite(points[:, 0])
    if ok.sum() < _MIN_PAIR:
        return None
    errors = _errors(cameras, tracks, points)
    error = float(np.sqrt(np.nanmean(errors**2)))
    return Reconstruction(cameras=cameras, points=points[ok], error_px=error)


def _starts(pair: tuple[Camera, Camera], matches: NDArray) -> Iterator[Camera]:
    """Estimate where the second of two photos was taken: by the essential matrix, then by the largest plane.

    Where many matches lie near one plane, the essential matrix can be wrong, above all if the lens distorts; the plane
    leaves two poses (Faugeras and Lustman 1988). Poses without enough matches or parallax are left out, and planes that
    explain nearly everything, since they say nothing about depth.
    """
    rays = [camera.rays(matches[:, 2 * n : 2 * n + 2].astype(float)) for n, camera in enumerate(pair)]
    threshold = 2.0 / min(camera.focal for camera in pair) * max(pair[0].size) / 1000
    essential, inliers = cv2.findEssentialMat(
        rays[0], rays[1], np.eye(3), method=cv2.USAC_MAGSAC, prob=0.9999, threshold=threshold, maxIters=5000
    )
    if essential is not None and essential.shape == (3, 3):
        _, rotation, translation, mask = cv2.recoverPose(essential, rays[0], rays[1], np.eye(3), mask=inliers.copy())
        second = replace(pair[1], rotation=rotation, translation=translation.ravel())
        if _has_parallax((pair[0], second), matches[mask.ravel() > 0]):
            yield second
    plane, inliers = cv2.findHomography(
        rays[0], rays[1], cv2.USAC_MAGSAC, threshold, maxIters=5000, confidence=0.9999
    )  # fmt: skip
    good = np.zeros(len(matches), bool) if plane is None else inliers.ravel() > 0
    if good.sum() < _MIN_PAIR or good.mean() > _MOST_IN_PLANE:
        return
    _, rotations, translations, normals = cv2.decomposeHomographyMat(plane, np.eye(3))
    for rotation, translation, normal in zip(rotations, translations, normals, strict=True):
        in_front = np.c_[rays[0][good], np.ones(good.sum())] @ normal.ravel() > 0
        length = float(np.linalg.norm(translation))
        if length > 0 and in_front.mean() > _IN_FRONT:
            second = replace(pair[1], rotation=rotation, translation=translation.ravel() / length)
            if _has_parallax((pair[0], second), matches[good]):
                yield second


def _has_parallax(pair: tuple[Camera, Camera], matches: NDArray) -> bool:
    """Tell whether two cameras see enough matches, at enough of an angle."""
    if len(matches) < _MIN_PAIR:
        return False
    points = triangulate(pair, [matches[:, :2].astype(float), matches[:, 2:].astype(float)])
    angles = viewing_angles(pair, points)
    return bool(np.isfinite(angles).any() and np.nanmedian(angles) > _MIN_ANGLE)


def _locate(camera: Camera, tracks: Tracks, points: NDArray, image: int) -> Camera | None:
    """Estimate the pose of a further photo from scene points that it sees."""
    seen = (tracks.image == image) & np.isfinite(points[tracks.point, 0])
    rays = camera.rays(tracks.xy[seen])
    limit = 2 * _MAX_ERROR_PX * max(camera.size) / 1000 / camera.focal
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        points[tracks.point[seen]], rays, np.eye(3), None, reprojectionError=limit, iterationsCount=2000,
        confidence=0.9999, flags=cv2.SOLVEPNP_SQPNP,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < _MIN_POSE:
        return None
    return replace(camera, rotation=cv2.Rodrigues(rotation)[0], translation=translation.ravel())


def _triangulate(cameras: Mapping[int, Camera], tracks: Tracks, unit: float) -> NDArray:
    """Triangulate every track that at least two cameras see; NaN where the rays do not meet at a sufficient angle."""
    points = np.full((tracks.count, 3), np.nan)
    known = np.isin(tracks.image, list(cameras))
    signature: dict[int, list[int]] = {}
    for row in np.flatnonzero(known):
        signature.setdefault(int(tracks.point[row]), []).append(int(row))
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for rows in signature.values():
        if len(rows) > 1:
            rows.sort(key=lambda r: tracks.image[r])
            groups.setdefault(tuple(int(tracks.image[r]) for r in rows), []).append(rows)
    for images, members in groups.items():
        table = np.array(members)
        own = [cameras[i] for i in images]
        pixels = [tracks.xy[table[:, n]] for n in range(len(images))]
        found = triangulate(own, pixels)
        errors = np.stack([np.linalg.norm(c.project(found)[0] - xy, axis=1) for c, xy in zip(own, pixels, strict=True)])
        good = (errors.max(axis=0) < _MAX_ERROR_PX * max(1.0, unit)) & (viewing_angles(own, found) > _MIN_POINT_ANGLE)
        points[tracks.point[table[:, 0]][good]] = found[good]
    return points


def _errors(cameras: Mapping[int, Camera], tracks: Tracks, points: NDArray) -> NDArray:
    """Return the reprojection error of each observation in pixels; NaN without a camera or a point."""
    errors = np.full(len(tracks.point), np.nan)
    for image, camera in cameras.items():
        rows = tracks.image == image
        errors[rows] = np.linalg.norm(camera.project(points[tracks.point[rows]])[0] - tracks.xy[rows], axis=1)
    return errors
