"""Cameras by COLMAP's incremental mapper, an optional second path beside ``reconstruction``.

pycolmap is the extra ``sfm``. Its binaries carry parts of SuiteSparse under the GPL, so nothing else needs it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realfill.errors import MissingDependencyError
from realfill.geometry.cameras import Camera, Frame, seen_from_target
from realfill.geometry.correspondences import Pairs
from realfill.geometry.reconstruction import Reconstruction

if TYPE_CHECKING:
    from collections.abc import Iterator

_GUESS = 1.2  # focal length where EXIF says nothing, as a share of the longer side; COLMAP's own
_EXIF_FACTOR = 1.5  # largest factor between EXIF's focal length and the result
_MIN_PAIR, _MIN_POSE = 30, 15  # matches of the first pair, and of each further photo
_MIN_ANGLE_DEG, _MIN_POINT_ANGLE_DEG = 1.5, 0.5
_QUIET = 2  # of glog: errors only


def reconstruct_by_colmap(
    sizes: Sequence[tuple[int, int]],
    pairs: Pairs,
    focals: Sequence[float | None] | None = None,
    *,
    frame: Frame | None = None,
    check: Callable[[], None] | None = None,
) -> Reconstruction | None:
    """Estimate the cameras of photos from matches between them, as ``reconstruction.reconstruct`` does.

    COLMAP verifies the matches of each pair, starts with the pair that suits it best, and adds the other photos.
    The model that contains the target and most other photos is returned, with the target's camera at the origin.

    Args:
        sizes: (height, width) of each image, the target first.
        pairs: matches.
        focals: focal length of each image in pixels where EXIF states it. Where COLMAP leaves it by more than a factor
            of 1.5, it is kept as it is.
        frame: the part of the target that is its photo, if the rest is a canvas around it.
        check: called before and after the reconstruction; it may raise an exception.

    Returns:
        ``None`` where no reference can be placed beside the target.

    Raises:
        MissingDependencyError: pycolmap is not installed.
    """
    focals = list(focals or [None] * len(sizes))
    found = _map(sizes, pairs, focals, frame, fixed=False, check=check)
    if found is not None and any(
        focal and abs(math.log(found.cameras[n].focal / focal)) > math.log(_EXIF_FACTOR)
        for n, focal in enumerate(focals)
        if n in found.cameras
    ):
        found = _map(sizes, pairs, focals, frame, fixed=True, check=check) or found
    return found


def require_pycolmap() -> Any:
    """Import pycolmap.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module("pycolmap")
    except ImportError as error:
        raise MissingDependencyError(
            f"cameras by 'pycolmap' need a package that cannot be imported ({error}); legal: 'opencv', or pip install "
            "'realfill[sfm]'"
        ) from error


def _map(
    sizes: Sequence[tuple[int, int]],
    pairs: Pairs,
    focals: Sequence[float | None],
    frame: Frame | None,
    *,
    fixed: bool,
    check: Callable[[], None] | None,
) -> Reconstruction | None:
    """Run COLMAP's mapper once, with EXIF's focal lengths as they are (``fixed``) or refined."""
    pycolmap = require_pycolmap()
    photos = [Camera.unplaced(size, focals[n] or 0, None if n else frame) for n, size in enumerate(sizes)]
    if check:
        check()
    with TemporaryDirectory(prefix="realfill-sfm-") as folder, _quiet(pycolmap):
        path = Path(folder) / "database.db"
        _write_database(pycolmap, path, photos, focals, pairs)
        options = _options(pycolmap, [n + 1 for n, focal in enumerate(focals) if focal] if fixed else [])
        models = pycolmap.incremental_mapping(path, folder, folder, options)
    if check:
        check()
    models = [model for model in models.values() if _number_of(model, 0) is not None and model.num_reg_images() > 1]
    return _convert(max(models, key=lambda m: (m.num_reg_images(), m.num_points3D())), photos) if models else None


def _options(pycolmap: Any, constant: Sequence[int]) -> Any:
    """Return options for a handful of photos, one thread and one seed, with thresholds like ``reconstruction``'s."""
    options = pycolmap.IncrementalPipelineOptions(
        min_model_size=2, extract_colors=False, num_threads=1, random_seed=0, constant_cameras=set(constant)
    )
    options.mapper.init_min_num_inliers = _MIN_PAIR
    options.mapper.init_min_tri_angle = _MIN_ANGLE_DEG
    options.mapper.abs_pose_min_num_inliers = _MIN_POSE
    options.mapper.filter_min_tri_angle = _MIN_POINT_ANGLE_DEG
    options.triangulation.min_angle = _MIN_POINT_ANGLE_DEG
    options.triangulation.ignore_two_view_tracks = False
    return options


def _write_database(
    pycolmap: Any, path: Path, photos: Sequence[Camera], focals: Sequence[float | None], pairs: Pairs
) -> None:
    """Write cameras, keypoints and verified matches, as COLMAP reads them; image n has the number n + 1."""
    keypoints, indices = _index(pairs, len(photos))
    cameras = [_to_colmap(pycolmap, photo, focal) for photo, focal in zip(photos, focals, strict=True)]
    database = pycolmap.Database.open(path)
    for number, camera in enumerate(cameras, 1):
        camera.camera_id = number
        database.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=number)
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)
        image = pycolmap.Image(name=str(number - 1), camera_id=number, image_id=number)
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=number, rig_id=number)
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)
        database.write_keypoints(number, keypoints[number - 1].astype(np.float32))
    settings = pycolmap.TwoViewGeometryOptions(compute_relative_pose=True)
    settings.ransac.random_seed = 0
    for (i, j), matches in indices.items():
        geometry = pycolmap.estimate_calibrated_two_view_geometry(
            cameras[i], keypoints[i], cameras[j], keypoints[j], matches, settings
        )
        database.write_matches(i + 1, j + 1, matches)
        database.write_two_view_geometry(i + 1, j + 1, geometry)
    database.close()


def _index(pairs: Pairs, count: int) -> tuple[list[NDArray], dict[tuple[int, int], NDArray]]:
    """Number the keypoints of each image, since matches of several pairs share them.

    Returns:
        For each image the keypoints (K, 2), with (0.5, 0.5) in the centre of the first pixel; for each pair the numbers
        of the matched keypoints, (M, 2).
    """
    own: list[list[NDArray]] = [[] for _ in range(count)]
    for (i, j), matches in pairs.items():
        own[i].append(matches[:, :2])
        own[j].append(matches[:, 2:4])
    keypoints, numbers = [], []
    for parts in own:
        xy = np.concatenate(parts) if parts else np.zeros((0, 2))
        cells, first, inverse = np.unique(np.round(xy * 2).astype(int), axis=0, return_index=True, return_inverse=True)
        keypoints.append((xy[first] + 0.5).reshape(len(cells), 2).astype(np.float64))
        numbers.append(iter(np.split(inverse.ravel(), np.cumsum([len(part) for part in parts])[:-1])))
    indices = {
        (i, j): np.unique(np.stack([next(numbers[i]), next(numbers[j])], axis=1), axis=0).astype(np.uint32)
        for i, j in pairs
    }
    return keypoints, indices


def _to_colmap(pycolmap: Any, photo: Camera, focal: float | None) -> Any:
    """Return COLMAP's camera with one coefficient of radial distortion, which is that of ``Camera``."""
    x, y = photo.centre + 0.5
    return pycolmap.Camera(
        model="SIMPLE_RADIAL", width=photo.size[1], height=photo.size[0],
        params=[focal or _GUESS * photo.side, x, y, 0.0], has_prior_focal_length=focal is not None,
    )  # fmt: skip


def _convert(model: Any, photos: Sequence[Camera]) -> Reconstruction:
    """Move a model so that the target's camera is at the origin, and its nearest neighbour at a distance of 1."""
    placed = _placed(model)
    cameras: dict[int, Camera] = {}
    for number, n in sorted(placed.items(), key=lambda pair: pair[1]):
        image = model.images[number]
        focal, _, _, distortion = model.cameras[image.camera_id].params
        pose = np.asarray(image.cam_from_world().matrix())
        cameras[n] = replace(
            photos[n], focal=float(focal), distortion=float(distortion), rotation=pose[:, :3], translation=pose[:, 3]
        )
    numbers = {number: place for place, number in enumerate(model.points3D)}
    cameras, points = seen_from_target(cameras, np.stack([point.xyz for point in model.points3D.values()]))
    errors = []
    for number, n in placed.items():
        seen = model.images[number].get_observation_points2D()
        pixels = cameras[n].project(points[[numbers[point.point3D_id] for point in seen]])[0]
        errors.append(np.linalg.norm(pixels - np.stack([point.xy for point in seen]) + 0.5, axis=1))
    return Reconstruction(
        cameras=cameras, points=points, error_px=float(np.sqrt((np.concatenate(errors) ** 2).mean()))
    )  # fmt: skip


def _placed(model: Any) -> dict[int, int]:
    """Return the photos that a model places: COLMAP's number to ours."""
    return {number: int(model.images[number].name) for number in model.reg_image_ids()}


def _number_of(model: Any, photo: int) -> int | None:
    return next((number for number, n in _placed(model).items() if n == photo), None)


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """Silence COLMAP's log, which goes to the standard error stream."""
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, _QUIET
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
