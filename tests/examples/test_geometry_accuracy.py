"""The script that measures geometry: what is true errs by nothing, what is wrong by as much as it is wrong."""

from dataclasses import replace

import cv2
import geometry_accuracy
import numpy as np
import pytest
from planted_3d import plant

from realfill.geometry.composite import Composite
from realfill.geometry.depth import DepthMap
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
    assert geometry_accuracy.unit_of(planted, found) == pytest.approx(UNIT, rel=1e-3)
    errors = geometry_accuracy.misplacements(planted, found)
    assert len(errors) == 3 and max(errors) < 0.05


def test_a_turned_camera_misplaces_by_its_turn_and_a_missing_one_is_lost(planted):
    cameras = dict(enumerate(planted.cameras))
    turn = cv2.Rodrigues(np.array([0.0, 0.0, 0.2]))[0]
    cameras[1] = replace(
        cameras[1], rotation=turn @ cameras[1].rotation, translation=turn @ cameras[1].translation
    )  # fmt: skip
    del cameras[2]
    turned, lost, right = geometry_accuracy.misplacements(planted, reconstruction(planted, cameras))
    assert turned > geometry_accuracy.FAR_OFF_PX > 0.5 > right and lost == np.inf
    assert geometry_accuracy.misplacements(planted, None) == [np.inf] * 3


def composed(planted, depth):
    """Return a composite of true cameras and some depth, in the other unit."""
    found = reconstruction(planted, dict(enumerate(planted.cameras)))
    hole = planted.scene.mask
    depth_map = DepthMap(depth=UNIT * depth, checked=depth)
    return Composite(
        image=planted.truth, confidence=np.ones(hole.shape, np.float32), source=np.zeros(hole.shape, np.int16),
        layers=(), reconstruction=found, depth=depth_map, reference_sizes=(),
    )  # fmt: skip


def test_a_true_depth_misplaces_nothing_and_another_one_what_it_should(planted):
    chosen = planted.scene.mask & (planted.visible.sum(axis=0) > 1)
    right = geometry_accuracy.depth_errors(planted, composed(planted, planted.depth))
    assert len(right) == chosen.sum() > 0 and right.max() < 0.05
    wrong = planted.depth.copy()
    y, x = np.argwhere(chosen)[0]
    wrong[y, x] *= 2
    errors = geometry_accuracy.depth_errors(planted, composed(planted, wrong))
    assert errors[0] > 1 and errors[1:].max() < 0.05
    assert np.isinf(geometry_accuracy.depth_errors(planted, replace(composed(planted, wrong), depth=None))).all()


def test_a_row_counts_what_is_lost_or_off():
    scenes = [
        geometry_accuracy.Measured([0.1, 0.3, 0.2], np.array([0.0, 2.0, 5.0, 0.5]), 20.0),
        geometry_accuracy.Measured([2.5, np.inf], np.array([np.inf, 0.0]), 30.0),
    ]
    row = geometry_accuracy.row_of("boxes", scenes)
    assert row == "| boxes | 5 | 0.30 | inf | 2 | 50.0% | 37.5% | 25.00 |"
    blind = geometry_accuracy.Measured([], np.zeros(0), 20.0)
    assert geometry_accuracy.row_of("elsewhere", [blind]) == "| elsewhere | 0 | nan | nan | 0 | nan% | nan% | 20.00 |"
