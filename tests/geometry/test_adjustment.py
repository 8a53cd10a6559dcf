"""Bundle adjustment on cameras and points that are known."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from realfill.geometry import adjustment
from realfill.geometry.adjustment import FocalPrior, Tracks, bundle_adjust
from realfill.geometry.cameras import Camera

NOISE_PX = 0.3
PRIORS = [FocalPrior(focal=1000.0, sigma=0.5)] * 3


@pytest.fixture(scope="module")
def seen():
    """Return true cameras, true points, and what the cameras see of them."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-2, -2, 4), (2, 2, 9), (300, 3))
    cameras = {}
    for n, place in enumerate(((0, 0, 0), (0.9, 0.2, 0.3), (-0.7, 0.1, -0.4))):
        rotation = cv2.Rodrigues(np.array((0.02, -0.1, 0.05)) * n)[0]
        cameras[n] = Camera(
            size=(600, 800), focal=850.0, distortion=-0.05, rotation=rotation, translation=-rotation @ np.array(place)
        )
    rows = [
        (n, i, *(xy + rng.normal(scale=NOISE_PX, size=2)))
        for n, camera in cameras.items()
        for i, xy in enumerate(camera.project(points)[0])
    ]
    table = np.array(rows)
    return cameras, points, Tracks(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:])


def disturbed(cameras):
    """Move the cameras, except for the target's pose, and forget their lenses."""
    turn = cv2.Rodrigues(np.array((0.01, 0.02, -0.015)))[0]
    return {
        n: replace(
            camera,
            focal=1000.0,
            distortion=0.0,
            rotation=turn @ camera.rotation if n else camera.rotation,
            translation=camera.translation + np.array((0.05, -0.03, 0.04)) if n else camera.translation,
        )
        for n, camera in cameras.items()
    }


def error_px(cameras, points, tracks):
    errors = [
        np.linalg.norm(
            camera.project(points[tracks.point[tracks.image == n]])[0] - tracks.xy[tracks.image == n], axis=1
        )
        for n, camera in cameras.items()
    ]
    return float(np.median(np.concatenate(errors)))


def test_cameras_and_points_are_found_from_a_poor_start(seen):
    cameras, points, tracks = seen
    start = disturbed(cameras)
    moved, scene = bundle_adjust(start, points + 0.1, tracks, PRIORS)
    assert error_px(start, points + 0.1, tracks) > 20
    assert error_px(moved, scene, tracks) < 1.5 * NOISE_PX
    for n, camera in moved.items():
        assert camera.focal == pytest.approx(cameras[n].focal, rel=0.05)
        assert camera.distortion == pytest.approx(cameras[n].distortion, abs=0.04)
    assert np.array_equal(moved[0].rotation, np.eye(3)) and not moved[0].translation.any()


def test_a_few_false_observations_do_no_harm(seen):
    cameras, points, tracks = seen
    xy = tracks.xy.copy()
    xy[::25] += 60
    moved, scene = bundle_adjust(disturbed(cameras), points, Tracks(tracks.image, tracks.point, xy), PRIORS)
    assert error_px(moved, scene, tracks) < 2 * NOISE_PX


def test_a_sure_prior_keeps_the_focal_length(seen):
    cameras, points, tracks = seen
    priors = [FocalPrior(focal=1000.0, sigma=1e-4)] * 3
    moved, _ = bundle_adjust(disturbed(cameras), points, tracks, priors)
    assert all(camera.focal == pytest.approx(1000, rel=1e-3) for camera in moved.values())


@pytest.mark.parametrize(("focal", "bound"), [(1400.0, 1400 / 1.2), (600.0, 600 * 1.2)])
def test_no_focal_length_leaves_its_prior_by_more_than_the_largest_factor(seen, focal, bound):
    cameras, points, tracks = seen
    priors = [FocalPrior(focal=focal, sigma=0.5, max_factor=1.2)] * 3
    start = {n: replace(camera, focal=focal) for n, camera in disturbed(cameras).items()}
    moved, _ = bundle_adjust(start, points, tracks, priors)
    assert all(camera.focal == pytest.approx(bound, rel=0.02) for camera in moved.values())


def test_points_without_a_place_stay_unknown(seen):
    cameras, points, tracks = seen
    gaps = points.copy()
    gaps[::10] = np.nan
    _, scene = bundle_adjust(cameras, gaps, tracks, PRIORS)
    assert np.array_equal(np.isnan(scene), np.isnan(gaps))


def test_the_derivatives_are_those_of_the_cost(seen):
    cameras, points, tracks = seen
    order = np.argsort(tracks.point, kind="stable")
    problem = adjustment._Problem(
        camera_of=tracks.image[order], point_of=tracks.point[order], observed=tracks.xy[order],
        centres=np.array([c.centre for c in cameras.values()]), priors=np.array([[1000.0, 0.5]] * 3),
        sides=np.array([800] * 3), unit=0.8,
    )  # fmt: skip
    start = disturbed(cameras)
    state = adjustment._State(
        rotations=np.array([c.rotation for c in start.values()]),
        translations=np.array([c.translation for c in start.values()]),
        lens=np.array([[0.02, 0.01]] * 3),
        points=points,
    )
    *_, gradient, point_gradient = problem._system(state)
    step = 1e-5

    def slope(move):
        ahead, behind = (problem.cost(move(sign * step)) for sign in (1, -1))
        return (ahead - behind) / (4 * step)  # the normal equations hold half of the cost's gradient

    def lens(d):
        return replace(state, lens=state.lens + d * np.array([[0, 0], [0, 1], [0, 0]]))

    def turn(d):
        turned = cv2.Rodrigues(np.array((0, d, 0)))[0] @ state.rotations[2]
        return replace(state, rotations=np.stack([*state.rotations[:2], turned]))

    def point(d):
        return replace(state, points=state.points + d * np.eye(len(points), 3, k=-7))

    assert gradient.reshape(3, 8)[1, 7] == pytest.approx(slope(lens), rel=1e-4)
    assert gradient.reshape(3, 8)[2, 1] == pytest.approx(slope(turn), rel=1e-4)
    assert point_gradient[7, 0] + point_gradient[8, 1] + point_gradient[9, 2] == pytest.approx(slope(point), rel=1e-4)


def test_each_parameter_of_a_camera_has_the_derivative_of_the_cost(seen):
    cameras, points, tracks = seen
    order, start = np.argsort(tracks.point, kind="stable"), disturbed(cameras)
    problem = adjustment._Problem(
        camera_of=tracks.image[order], point_of=tracks.point[order], observed=tracks.xy[order],
        centres=np.array([c.centre for c in cameras.values()]), priors=np.array([[1000.0, 0.5, np.inf]] * 3),
        sides=np.array([800] * 3), unit=0.8,
    )  # fmt: skip
    state = adjustment._State(
        rotations=np.array([c.rotation for c in start.values()]),
        translations=np.array([c.translation for c in start.values()]),
        lens=np.array([[0.02, 0.1]] * 3),
        points=points,
    )
    gradient = problem._system(state)[3].reshape(3, 8)

    def cost(camera, number, step):
        move = np.zeros((3, 8))
        move[camera, number] = step
        turns = np.stack([cv2.Rodrigues(turn)[0] for turn in move[:, :3]])
        return problem.cost(
            replace(
                state, rotations=turns @ state.rotations, translations=state.translations + move[:, 3:6],
                lens=state.lens + move[:, 6:],
            )
        )  # fmt: skip

    for camera in (1, 2):
        for number in range(8):
            slope = (cost(camera, number, 1e-5) - cost(camera, number, -1e-5)) / 4e-5
            assert gradient[camera, number] == pytest.approx(slope, rel=1e-4), number


def test_the_points_seen_most_often_take_part(seen, monkeypatch):
    monkeypatch.setattr(adjustment, "_MAX_POINTS", 200)
    cameras, points, tracks = seen
    often = np.arange(len(points)) % 2 == 1
    rows = (tracks.image < 2) | often[tracks.point]
    start = points + 0.05
    _, scene = bundle_adjust(cameras, start, Tracks(tracks.image[rows], tracks.point[rows], tracks.xy[rows]), PRIORS)
    moved = (scene != start).any(axis=1)
    assert moved.sum() == 200 and moved[often].all()
