"""Surfaces of what is known continue in a reference up to its edges, and lead to depths of the target's hole."""

import cv2
import numpy as np
import pytest

from realfill.geometry import carrying
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


@pytest.mark.parametrize("known", [(X % 3 == 1) & (Y % 3 == 1), (Y > 0) & (Y < 9)])
def test_samples_on_any_lattice_lead_to_planes(known):
    found = continue_planes(np.where(known, GROUND, np.nan), pictured())
    reached = (Y < 20) | (known.sum() > 2000)
    np.testing.assert_allclose(found[reached], GROUND[reached], atol=0.02)


def worst(found: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    return float(abs(found - truth)[where].max())


def test_samples_count_less_with_their_distance_from_what_is_unknown():
    known = ~HOLE & (((X + Y) % 2 == 0) | (X > 140))  # the gaps of a chequered pattern are no hole
    closeness = carrying._closeness(known)
    distance = cv2.distanceTransform((~HOLE).astype(np.uint8), cv2.DIST_L2, 5) / 160
    np.testing.assert_allclose(closeness[known], 0.01 + np.exp(-distance / 0.15)[known], rtol=0.1)


def test_a_plane_is_fitted_to_all_that_it_explains(monkeypatch):
    """The windows alone have slopes that noise has bent."""
    values, hole = GROUND + np.random.default_rng(4).normal(scale=0.01, size=SIZE), X > 120
    error = worst(continue_planes(with_hole(values, hole), pictured()), GROUND, hole)
    monkeypatch.setattr(carrying, "_ROUNDS", 0)
    assert error < min(0.01, 0.6 * worst(continue_planes(with_hole(values, hole), pictured()), GROUND, hole))


def test_values_stay_above_zero_where_a_plane_crosses_it():
    steep = np.where(X < 60, 2.0 - 0.03 * X, np.nan)  # it reaches 0 at x = 67
    found = continue_planes(steep, pictured())
    assert found.min() == pytest.approx(1e-3 * np.nanmedian(steep), rel=0.01)


def test_without_a_plane_what_is_unknown_stays_unknown(monkeypatch):
    monkeypatch.setattr(carrying, "_LEAST_SHARE", 1.1)
    found = continue_planes(with_hole(GROUND), pictured())
    np.testing.assert_array_equal(np.isnan(found), HOLE)


def test_where_two_depths_meet_in_the_reference_the_nearer_one_counts(monkeypatch):
    given = []

    def spy(samples, guide):
        given.append(samples)
        return continue_planes(samples, guide)

    monkeypatch.setattr(carrying, "continue_planes", spy)
    depth = np.where(X < 80, 5.0, 10.0)
    carry_in({0: camera(0.0), 1: camera(1.0)}, [pictured()], depth, ~HOLE, np.stack([X, Y], axis=-1), 1.0)
    both = given[0][100, 96:108]  # moved by 30 and 15 pixels, the near part hides some of the far one
    np.testing.assert_allclose(both, 1 / 5.0, rtol=1e-5)


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
