"""Cameras from elsewhere: moved to the target, resized, and used by the composite."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from planted_3d import plant
from worlds import make_world

from realfill.errors import RealFillWarning, SceneError
from realfill.geometry.cameras import Camera, seen_from_target
from realfill.geometry.composite import composite
from realfill.geometry.correspondences import match_all

SIZE = (180, 240)
TURN = cv2.Rodrigues(np.array([0.3, -0.2, 0.5]))[0]


def moved(camera, factor=7.0):
    """Return a camera in another frame of the scene, and in another unit."""
    shift = np.array([2.0, -1.0, 4.0])
    return replace(
        camera, rotation=camera.rotation @ TURN, translation=factor * (camera.rotation @ shift + camera.translation)
    )


@pytest.fixture(scope="module")
def planted():
    return plant("boxes", [make_world(seed, (200, 200)) for seed in range(6)], 2, size=SIZE)


@pytest.fixture(scope="module")
def pairs(planted):
    scene = planted.scene
    return match_all([scene.known, *scene.references], scene.mask)


def compose(planted, pairs, cameras):
    scene = planted.scene
    return composite(scene.known, scene.mask, scene.references, pairs=pairs, cameras=cameras)


def test_cameras_are_used_as_they_are_given_in_any_frame_and_unit(planted, pairs):
    found = compose(planted, pairs, [moved(camera) for camera in planted.cameras]).reconstruction
    truth, _ = seen_from_target(dict(enumerate(planted.cameras)), np.zeros((0, 3)))
    np.testing.assert_allclose(found.cameras[0].rotation, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(found.cameras[0].translation, 0, atol=1e-9)
    assert min(np.linalg.norm(found.cameras[n].translation) for n in (1, 2, 3)) == pytest.approx(1)
    for number, camera in truth.items():
        np.testing.assert_allclose(found.cameras[number].rotation, camera.rotation, atol=1e-9)
        np.testing.assert_allclose(found.cameras[number].translation, camera.translation, atol=1e-9)
        assert found.cameras[number].focal == pytest.approx(camera.focal)
    pixels, far = found.cameras[0].project(found.points)
    inside = (far > 0) & (pixels >= 0).all(axis=1) & (pixels <= np.array(SIZE[::-1]) - 1).all(axis=1)
    x, y = np.rint(pixels[inside]).astype(int).T
    ratio = far[inside] / planted.depth[y, x]
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.02, "the points lie at the depth of the scene"


def test_a_reference_whose_camera_is_not_known_is_aligned_by_planes(planted, pairs):
    found = compose(planted, pairs, [*planted.cameras[:3], None])
    assert set(found.reconstruction.cameras) == {0, 1, 2}
    kinds = {(layer.warp.reference, layer.warp.kind) for layer in found.layers}
    assert (0, "depth") in kinds and (2, "depth") not in kinds and (2, "plane") in kinds


def test_cameras_that_contradict_the_matches_leave_planes_and_a_warning(planted, pairs):
    wrong = [planted.cameras[0], *(replace(c, rotation=TURN @ TURN @ c.rotation) for c in planted.cameras[1:])]
    with pytest.warns(RealFillWarning, match="fewer than 30 matches agree with the given cameras"):
        found = compose(planted, pairs, wrong)
    assert found.reconstruction is None and found.given == ()
    assert {layer.warp.kind for layer in found.layers} == {"plane"}


def test_one_wrong_camera_among_right_ones_is_left_out_with_a_warning(planted, pairs):
    tilt = cv2.Rodrigues(np.array([0.05, 0.0, 0.0]))[0]
    wrong = replace(planted.cameras[3], rotation=tilt @ planted.cameras[3].rotation)
    with pytest.warns(RealFillWarning, match="contradict the given camera of reference 2, so it is aligned by planes"):
        found = compose(planted, pairs, [*planted.cameras[:3], wrong])
    assert set(found.reconstruction.cameras) == {0, 1, 2} and found.given == ("cameras",)
    without = compose(planted, pairs, [*planted.cameras[:3], None])
    assert len(found.reconstruction.points) == len(without.reconstruction.points)


def test_a_camera_in_the_place_of_the_target_does_not_set_the_unit():
    first = Camera(size=SIZE, focal=200.0, distortion=0.0, rotation=TURN, translation=np.array([0.3, 0.1, -2.0]))
    beside = cv2.Rodrigues(np.array([0.1, 0.7, -0.2]))[0]
    cameras = {
        0: first,
        1: replace(first, rotation=beside @ first.rotation, translation=beside @ first.translation),
        2: replace(first, translation=first.translation + np.array([0.5, 0, 0])),
    }
    moved_cameras, points = seen_from_target(cameras, np.array([[0.0, 0.0, 7.0]]))
    assert np.linalg.norm(moved_cameras[1].translation) < 1e-9
    assert np.linalg.norm(moved_cameras[2].translation) == pytest.approx(1)
    assert np.linalg.norm(points) == pytest.approx(np.linalg.norm(TURN @ [0, 0, 7] + first.translation) / 0.5)


def test_cameras_of_another_number_or_size_are_refused(planted, pairs):
    with pytest.raises(SceneError, match="cameras has 2 items; legal: 4, the target's camera first"):
        compose(planted, pairs, planted.cameras[:2])
    with pytest.raises(SceneError, match="cameras begins with None; legal: the target's camera"):
        compose(planted, pairs, [None, *planted.cameras[1:]])
    with pytest.raises(SceneError, match=r"camera 1 has the size \(9, 9\); legal: .* of its photo"):
        compose(planted, pairs, [planted.cameras[0], replace(planted.cameras[1], size=(9, 9)), *planted.cameras[2:]])


def test_a_resized_camera_sees_the_same_places_of_its_photo():
    camera = Camera(
        size=(600, 800), focal=700.0, distortion=-0.1, rotation=TURN, translation=np.array([0.1, 0.2, 5.0]),
        frame=(100.0, 0.0, 600.0, 700.0),
    )  # fmt: skip
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    small, _ = camera.at_size((150, 200)).project(points)
    np.testing.assert_allclose((small + 0.5) * 4 - 0.5, camera.project(points)[0], atol=1e-6)
