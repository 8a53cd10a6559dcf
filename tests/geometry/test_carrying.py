"""Surfaces of what is known continue in a reference up to its edges, and lead to depths of the target's hole."""

import cv2
import numpy as np
import pytest

from realfill.geometry.cameras import Camera
from realfill.geometry.carrying import carry_in, continue_planes

SIZE = (120, 160)
Y, X = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
NEAR_THING = X < 70
GROUND, WALL = 2.0 + 0.004 * X - 0.006 * Y, 5.0 + 0.008 * X + 0.003 * Y
SCENE = np.where(NEAR_THING, WALL, GROUND)
HOLE = (abs(X - 75) < 32) & (abs(Y - 60) < 28)


def pictured(seed: int = 0) -> np.ndarray:
    """A photo of two textured things, one bright and one dark."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(*SIZE, 3)), (0, 0), 2) * 60
    return (np.where(NEAR_THING, 180, 70)[..., None] + noise).clip(0, 255).astype(np.uint8)


def with_hole(values: np.ndarray, hole: np.ndarray = HOLE) -> np.ndarray:
    return np.where(hole, np.nan, values)


def test_each_surface_continues_as_a_plane_up_to_the_edge_between_them():
    found = continue_planes(with_hole(SCENE), pictured())
    clear = HOLE & (abs(X - 69.5) > 4)
    np.testing.assert_allclose(found[clear], SCENE[clear], atol=0.02)


def test_the_edge_is_what_separates_them():
    hole = (abs(X - 100) < 38) & (abs(Y - 60) < 28)  # more of it shows the ground
    inner = hole & (abs(X - 69.5) > 4)
    without, found = (
        continue_planes(with_hole(SCENE, hole), guide) for guide in (np.full((*SIZE, 3), 128, np.uint8), pictured())
    )
    assert (abs(without - SCENE)[inner] > 0.5).mean() > 0.05
    assert (abs(found - SCENE)[inner] > 0.5).mean() < 0.02


def test_known_values_stay_as_they_are():
    values = with_hole(SCENE + np.random.default_rng(1).normal(scale=0.3, size=SIZE))
    found = continue_planes(values, pictured())
    np.testing.assert_array_equal(found[~HOLE], values[~HOLE].astype(np.float32))


def test_sparse_and_noisy_samples_lead_to_the_same_surfaces():
    rng = np.random.default_rng(2)
    values = SCENE + rng.normal(scale=0.02, size=SIZE)
    values[rng.random(SIZE) < 0.1] += 1.0  # outliers
    found = continue_planes(with_hole(values, HOLE | (rng.random(SIZE) < 0.6)), pictured())
    clear = HOLE & (abs(X - 69.5) > 4)
    assert np.quantile(abs(found - SCENE)[clear], 0.95) < 0.1


def test_a_single_plane_continues_everywhere():
    edges = pictured()
    np.testing.assert_allclose(continue_planes(with_hole(GROUND), edges), GROUND, atol=0.01)


@pytest.mark.parametrize("slope", [0.03, -0.03])
def test_planes_lead_a_little_beyond_the_range_of_what_is_known_and_stay_above_zero(slope):
    steep = 2.6 + slope * (X - 80)
    found = continue_planes(with_hole(steep, X > 90 if slope < 0 else X < 70), pictured())
    known = steep[X <= 90] if slope < 0 else steep[X >= 70]
    scale = np.ptp(np.percentile(known, (1, 99)))
    assert found.min() > 0
    assert known.min() - 0.3 * scale < found.min() < known.min() - 0.15 * scale


@pytest.mark.parametrize("values", [np.ones(SIZE), np.random.default_rng(3).uniform(1, 9, SIZE)])
def test_equal_values_and_mere_noise_are_continued_with_finite_values(values):
    found = continue_planes(with_hole(values), pictured())
    assert np.isfinite(found).all()
    assert (found > 0).all()
    if np.ptp(values) == 0:
        np.testing.assert_allclose(found, 1, atol=1e-6)


def test_planes_near_the_hole_count_more_than_larger_ones_far_away():
    """The far one explains more samples; the near one still becomes a plane of its own, and continues."""
    values = np.where(X > 110, 3 + 0.02 * (X - 110), 2.0 + 0.002 * Y)
    hole = (abs(X - 40) < 25) & (abs(Y - 60) < 30)
    np.testing.assert_allclose(continue_planes(with_hole(values, hole), pictured())[hole], values[hole], atol=0.02)


def camera(shift: float) -> Camera:
    return Camera(
        size=SIZE, focal=150.0, distortion=0.0, rotation=np.eye(3), translation=np.array([shift, 0.0, 0.0]), frame=None
    )


def test_the_nearest_of_several_answers_counts():
    """A reference that saw only the ground, and one that saw the near thing as well."""
    depth = np.where(NEAR_THING, 5.0, 10.0)
    pixels = np.stack([X, Y], axis=-1)
    cameras = {0: camera(0.0), 1: camera(-0.2), 2: camera(0.2)}
    plain = np.full((*SIZE, 3), 70, np.uint8)
    for references in ([pictured(), plain], [plain, pictured()]):
        found = carry_in(cameras, references, depth, ~HOLE, pixels, 1.0)
        alone = [carry_in({0: cameras[0], n: cameras[n]}, references, depth, ~HOLE, pixels, 1.0) for n in (1, 2)]
        np.testing.assert_allclose(found, np.fmin(*alone), rtol=0.3)
        assert np.isfinite(found[HOLE]).mean() > 0.9


def test_the_answer_is_the_depth_of_the_surfaces_in_the_hole():
    depth = np.where(NEAR_THING, 5.0, 10.0)
    cameras = {0: camera(0.0), 1: camera(0.0)}
    found = carry_in(cameras, [pictured()], depth, ~HOLE, np.stack([X, Y], axis=-1), 1.0)
    clear = HOLE & (abs(X - 69.5) > 5)
    np.testing.assert_allclose(found[clear], depth[clear], rtol=0.01)


def test_too_few_samples_give_no_answer():
    depth, trust = np.full(SIZE, 5.0), np.zeros(SIZE, bool)
    trust[:5, :5] = True
    found = carry_in({0: camera(0.0), 1: camera(0.1)}, [pictured()], depth, trust, np.stack([X, Y], axis=-1), 1.0)
    assert np.isnan(found).all()
