"""The script that measures cameras: true ones err by nothing, turned ones by their turn, missing ones without bound."""

from dataclasses import replace

import camera_accuracy
import cv2
import numpy as np
import pytest
from planted_3d import plant

from realfill.geometry.reconstruction import Reconstruction

TEXTURES = [np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)]
UNIT = 3.02  # so that no factor that is tried is the right one


@pytest.fixture(scope="module")
def planted():
    return plant("boxes", TEXTURES, 0, size=(90, 120))


def reconstruction(planted, cameras):
    """Return true cameras in another unit of length, with points of the target."""
    y, x = np.mgrid[5:85:10, 5:115:10].reshape(2, -1)
    points = planted.cameras[0].unproject(np.stack([x, y], axis=1).astype(float), planted.depth[y, x])
    scaled = {n: replace(camera, translation=UNIT * camera.translation) for n, camera in cameras.items()}
    return Reconstruction(cameras=scaled, points=UNIT * points, error_px=0.0)


def test_true_cameras_misplace_nothing_in_any_unit(planted):
    found = reconstruction(planted, dict(enumerate(planted.cameras)))
    assert camera_accuracy.unit_of(planted, found) == pytest.approx(UNIT, rel=1e-3)
    errors = camera_accuracy.misplacements(planted, found)
    assert len(errors) == 3 and max(errors) < 0.05


def test_a_turned_camera_misplaces_by_its_turn_and_a_missing_one_is_lost(planted):
    cameras = dict(enumerate(planted.cameras))
    turn = cv2.Rodrigues(np.array([0.0, 0.0, 0.2]))[0]
    cameras[1] = replace(
        cameras[1], rotation=turn @ cameras[1].rotation, translation=turn @ cameras[1].translation
    )  # fmt: skip
    del cameras[2]
    turned, lost, right = camera_accuracy.misplacements(planted, reconstruction(planted, cameras))
    assert turned > camera_accuracy.FAR_OFF_PX > 0.5 > right and lost == np.inf
    assert camera_accuracy.misplacements(planted, None) == [np.inf] * 3


def test_a_row_counts_what_is_lost_or_off():
    row = camera_accuracy.row_of("boxes", np.array([0.1, 0.3, 0.2, 2.5, np.inf]))
    assert row == "| boxes | 5 | 0.30 | inf | 2 |"
    assert camera_accuracy.row_of("elsewhere", np.array([])) == "| elsewhere | 0 | - | - | 0 |"
