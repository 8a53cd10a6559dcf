"""Cameras by COLMAP agree with those of the required path; without pycolmap the error says what to install."""

import sys

import cv2
import numpy as np
import pytest
from planted_3d import plant
from skimage import data

import realfill.geometry.composite as composite_module
from realfill import errors
from realfill.geometry.cameras import Camera
from realfill.geometry.colmap import reconstruct_by_colmap
from realfill.geometry.reconstruction import reconstruct

SIZES = [(300, 400), (330, 440), (300, 400), (360, 480)]


def shoot(noise=0.3, count=400, distortion=-0.05):
    """Let four cameras see points at depths from 5 to 11; return the cameras and the matches of all pairs."""
    rng = np.random.default_rng(5)
    points = rng.uniform((-4, -2.5, 5), (4, 2.5, 11), (count, 3))
    places = np.array([(0, 0, 0), (0.9, 0.1, 0.3), (-0.8, -0.1, -0.2), (0.3, 0.4, -0.5)])
    turns = np.array([(0, 0, 0), (0.02, -0.1, 0.02), (0, 0.09, 0), (-0.05, 0, 0.05)])
    cameras = []
    for size, place, turn in zip(SIZES, places, turns, strict=True):
        rotation = cv2.Rodrigues(turn)[0]
        cameras.append(
            Camera(
                size=size, focal=1.2 * size[1], distortion=distortion, rotation=rotation, translation=-rotation @ place
            )
        )
    seen = [camera.project(points)[0] + rng.normal(scale=noise, size=(count, 2)) for camera in cameras]
    inside = [((xy > 0) & (xy < size[::-1])).all(axis=1) for xy, size in zip(seen, SIZES, strict=True)]
    return cameras, {
        (i, j): np.concatenate([seen[i], seen[j]], axis=1)[inside[i] & inside[j]]
        for j in range(len(SIZES))
        for i in range(j)
    }


def match_truly(planted, noise=0.3):
    """Match the photos of a planted scene by its true depth; some points are hidden in a photo, and wrong there."""
    rng = np.random.default_rng(1)
    rows, columns = (rng.integers(0, side, 600) for side in planted.depth.shape)
    near = planted.depth[rows, columns] < 100
    pixels = np.stack([columns, rows], axis=1)[near].astype(float)
    points = planted.cameras[0].unproject(pixels, planted.depth[rows, columns][near])
    seen = [camera.project(points)[0] + rng.normal(scale=noise, size=pixels.shape) for camera in planted.cameras]
    inside = [
        ((xy > 0) & (xy < np.array(camera.size[::-1]))).all(axis=1)
        for xy, camera in zip(seen, planted.cameras, strict=True)
    ]
    return {
        (i, j): np.concatenate([seen[i], seen[j]], axis=1)[inside[i] & inside[j]]
        for j in range(len(seen))
        for i in range(j)
    }


def angle(rotation):
    return np.rad2deg(np.linalg.norm(cv2.Rodrigues(rotation)[0]))


def between(one, other):
    """Return the angle between two vectors in degrees."""
    return np.rad2deg(np.arccos(np.clip(one @ other / np.linalg.norm(one) / np.linalg.norm(other), -1, 1)))


@pytest.mark.parametrize("with_exif", [True, False])
def test_both_paths_find_the_planted_cameras(with_exif):
    pytest.importorskip("pycolmap")
    truth, pairs = shoot()
    focals = [camera.focal for camera in truth] if with_exif else None
    found = [path(SIZES, pairs, focals) for path in (reconstruct, reconstruct_by_colmap)]
    for one in found:
        assert list(one.cameras) == [0, 1, 2, 3] and one.error_px < 0.7
        np.testing.assert_allclose(one.cameras[0].rotation, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(one.cameras[0].translation, 0, atol=1e-9)
        for n, camera in one.cameras.items():
            assert camera.size == SIZES[n]
            assert camera.focal == pytest.approx(truth[n].focal, rel=0.05 if with_exif else 0.1)
            assert camera.distortion == pytest.approx(truth[n].distortion, abs=0.04)
            assert angle(camera.rotation @ truth[n].rotation.T) < 1
    for n in (1, 2, 3):
        own, other = (one.cameras[n] for one in found)
        assert angle(own.rotation @ other.rotation.T) < 1.5
        assert between(own.translation, other.translation) < 6
    scale = [
        np.median(np.linalg.norm(one.points, axis=1)) / np.linalg.norm(one.cameras[1].translation) for one in found
    ]
    assert scale[0] == pytest.approx(scale[1], rel=0.15)


def test_points_and_cameras_of_colmap_belong_together():
    pytest.importorskip("pycolmap")
    found = reconstruct_by_colmap(SIZES, shoot()[1])
    distances = [np.linalg.norm(camera.translation) for n, camera in found.cameras.items() if n]
    assert min(distances) == pytest.approx(1)
    inside = []
    for camera in found.cameras.values():
        pixels, depth = camera.project(found.points)
        assert (depth > 0).all()
        inside.append(((pixels > 0) & (pixels < camera.size[::-1])).all(axis=1))
    assert np.sum(inside, axis=0).min() >= 2


def test_the_optical_centre_of_a_photo_on_a_canvas_is_that_of_the_photo_for_colmap_too():
    pytest.importorskip("pycolmap")
    truth, pairs = shoot()
    left, top = 300, 40
    size = (SIZES[0][0] + top, SIZES[0][1] + left)
    moved = {pair: matches + (np.array([left, top, 0, 0]) if pair[0] == 0 else 0) for pair, matches in pairs.items()}
    found = reconstruct_by_colmap(
        [size, *SIZES[1:]], moved, [camera.focal for camera in truth], frame=(top, left, *size)
    )
    np.testing.assert_allclose(found.cameras[0].centre, truth[0].centre + np.array((left, top)))
    assert found.cameras[0].focal == pytest.approx(truth[0].focal, rel=0.03)
    assert found.error_px < 0.7


def test_exif_that_colmap_would_leave_by_far_is_kept():
    pytest.importorskip("pycolmap")
    truth, pairs = shoot()
    given = [2.2 * camera.focal for camera in truth]
    found = reconstruct_by_colmap(SIZES, pairs, given)
    assert found is None or [c.focal for c in found.cameras.values()] == pytest.approx(given)


def test_photos_without_common_points_have_no_cameras():
    pytest.importorskip("pycolmap")
    noise = np.random.default_rng(0).uniform(0, 300, (80, 4))
    assert reconstruct_by_colmap(SIZES[:2], {(0, 1): noise}) is None
    assert reconstruct_by_colmap(SIZES[:2], {}) is None


def test_both_paths_find_the_cameras_of_a_rendered_scene():
    pytest.importorskip("pycolmap")
    planted = plant("boxes", [data.astronaut(), data.coffee()], 2, size=(180, 240))
    pairs = match_truly(planted)
    sizes = [camera.size for camera in planted.cameras]
    focals = [camera.focal for camera in planted.cameras]
    own, other = (path(sizes, pairs, focals) for path in (reconstruct, reconstruct_by_colmap))
    assert list(own.cameras) == list(other.cameras) == [0, 1, 2, 3]
    for n, camera in enumerate(planted.cameras):
        assert angle(own.cameras[n].rotation @ camera.rotation.T) < 1.5
        assert angle(other.cameras[n].rotation @ camera.rotation.T) < 1.5
        if n:
            assert between(own.cameras[n].translation, other.cameras[n].translation) < 8
            assert between(other.cameras[n].translation, camera.translation) < 8


def test_the_composite_asks_colmap_for_cameras_only_if_told(monkeypatch):
    asked = []

    def answer(sizes, pairs, focals, *, frame, check):
        asked.append((sizes, focals, frame))

    monkeypatch.setattr(composite_module, "reconstruct_by_colmap", answer)
    monkeypatch.setattr(composite_module, "require_pycolmap", lambda: None)
    hole = np.zeros((40, 50), bool)
    hole[10:20, 10:20] = True
    image = np.zeros((40, 50, 3), np.uint8)
    arguments = {"pairs": {(0, 1): np.zeros((0, 4), np.float32)}, "focals": [60.0, None], "frame": (0, 0, 40, 45)}
    composite_module.composite(image, hole, [image], **arguments)
    assert not asked
    composite_module.composite(image, hole, [image], **arguments, cameras_by="pycolmap")
    assert asked == [([(40, 50), (40, 50)], (60.0, None), (0, 0, 40, 45))]


def test_without_pycolmap_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    hole = np.zeros((40, 50), bool)
    hole[10:20, 10:20] = True
    image = np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(errors.MissingDependencyError, match=r"legal: 'opencv', or pip install 'realfill\[sfm\]'"):
        composite_module.composite(image, hole, [image], cameras_by="pycolmap")
