"""Cameras: projection is OpenCV's, rays undo it, and points lie where the rays of several photos meet."""

import cv2
import numpy as np
import pytest

from realfill.geometry.cameras import Camera, triangulate, viewing_angles


def camera(place=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0), distortion=0.0, **options):
    rotation = cv2.Rodrigues(np.array(turn))[0]
    return Camera(
        size=(300, 400), focal=350.0, distortion=distortion, rotation=rotation,
        translation=-rotation @ np.array(place), **options,
    )  # fmt: skip


ONE = camera((0.3, -0.2, 0.1), (0.1, -0.3, 0.05), distortion=-0.1)
OTHER = camera((-0.8, 0.1, -0.2), (0.0, 0.1, -0.1), distortion=0.05)


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform((-1, -0.7, 4), (1, 0.7, 8), (50, 3))


def test_projection_is_that_of_opencv(points):
    matrix = np.array([[350.0, 0, 199.5], [0, 350.0, 149.5], [0, 0, 1]])  # (0, 0) is the centre of the first pixel
    turn = cv2.Rodrigues(ONE.rotation)[0]
    expected = cv2.projectPoints(points, turn, ONE.translation, matrix, np.array([-0.1, 0, 0, 0]))[0][:, 0]
    pixels, depth = ONE.project(points)
    np.testing.assert_allclose(pixels, expected, atol=1e-6)
    np.testing.assert_allclose(depth, (points @ ONE.rotation.T + ONE.translation)[:, 2])


def test_the_principal_point_lies_in_the_middle_of_what_the_lens_saw():
    part = camera(frame=(10, 100, 300, 400))
    np.testing.assert_allclose(part.centre, (249.5, 154.5))
    assert part.side == 300
    np.testing.assert_allclose(camera().centre, (199.5, 149.5))
    assert camera().side == 400


@pytest.mark.parametrize("distortion", [-0.3, -0.16, 0.16, 0.3])
def test_rays_of_a_bent_wide_lens_lead_back_to_their_pixels(distortion):
    lens = Camera(size=(300, 400), focal=250.0, distortion=distortion, rotation=np.eye(3), translation=np.zeros(3))
    pixels = np.stack(np.meshgrid(np.arange(0, 400, 7.0), np.arange(0, 300, 7.0)), axis=-1)
    rays = lens.rays(pixels)
    back, _ = lens.project(np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1))
    radius = np.linalg.norm(pixels - lens.centre, axis=-1) / lens.focal
    # the largest radius at which such a lens shows anything, but for the last thousandth, where it folds
    seen = radius < 0.999 * (2 / 3 * (-1 / (3 * distortion)) ** 0.5 if distortion < 0 else np.inf)
    assert np.isfinite(rays).all() and seen.mean() > 0.7
    np.testing.assert_allclose(back[seen], pixels[seen], atol=1e-2)


def test_rays_and_depths_lead_back_to_the_points(points):
    pixels, depth = ONE.project(points)
    local = points @ ONE.rotation.T + ONE.translation
    np.testing.assert_allclose(ONE.rays(pixels), local[:, :2] / local[:, 2:], atol=1e-4)
    np.testing.assert_allclose(ONE.unproject(pixels, depth), points, atol=1e-3)


def test_points_lie_where_the_rays_meet_and_nowhere_behind_a_camera(points):
    pixels = [one.project(points)[0] for one in (ONE, OTHER)]
    np.testing.assert_allclose(triangulate([ONE, OTHER], pixels), points, atol=2e-3)
    behind = points * (1, 1, -1)
    pixels = [one.project(behind)[0] for one in (camera(), camera((1.0, 0, 0)))]
    assert np.isnan(triangulate([camera(), camera((1.0, 0, 0))], pixels)).all()


def test_the_viewing_angle_is_the_largest_between_two_cameras():
    cameras = [camera((x, 0.0, 0.0)) for x in (0.0, 1.0, 3.0)]
    angles = viewing_angles(cameras, np.array([[0, 0, 3.0], [np.nan] * 3]))
    assert angles[0] == pytest.approx(np.pi / 4)
    assert np.isnan(angles[1])


def test_points_behind_one_of_the_cameras_have_no_place(points):
    cameras = [camera(), camera((1.0, 0, 12.0))]  # the second has gone past them
    for order in (cameras, cameras[::-1]):
        assert np.isnan(triangulate(order, [one.project(points)[0] for one in order])).all()


def test_the_viewing_angle_does_not_depend_on_where_the_cameras_look():
    cameras = [camera((x, 0.0, 0.0), (0.1, -0.4 * x, 0.3)) for x in (0.0, 1.0, 3.0)]
    assert viewing_angles(cameras, np.array([[0, 0, 3.0]])) == pytest.approx(np.pi / 4)
