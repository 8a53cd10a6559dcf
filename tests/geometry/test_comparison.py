"""Photos compared at supposed depths."""

import cv2
import numpy as np
import pytest

from realfill.geometry.cameras import Camera
from realfill.geometry.comparison import Comparison, Costs, Levels, _best_half, _partners, _resolution, _View
from realfill.geometry.fields import grid_of, inside

SIZE = (96, 128)
DEPTH, FOCAL = 5.0, 120.0
LEVELS = Levels(plane=np.zeros(3), low=0.1, step=0.02, least=1e-3)  # label 5 is the depth of the wall


def camera(x: float) -> Camera:
    return Camera(size=SIZE, focal=FOCAL, distortion=0.0, rotation=np.eye(3), translation=np.array([-x, 0.0, 0.0]))


@pytest.fixture(scope="module")
def wall():
    """A wall at one depth, seen from four places that lie a whole number of pixels apart."""
    picture = np.kron(np.random.default_rng(0).integers(30, 220, (24, 80)), np.ones((4, 4))).astype(np.float32)
    shifts = (0, 12, -8, 16)
    photos = [np.repeat(picture[:, 40 + s : 40 + s + SIZE[1], None], 3, axis=2).astype(np.uint8) for s in shifts]
    return photos, {n: camera(s * DEPTH / FOCAL) for n, s in enumerate(shifts)}


def compare(wall, hole, change=lambda photos: photos):
    photos, cameras = wall
    photos = change([photo.copy() for photo in photos])
    return Comparison(cameras, photos[1:], photos[0], hole, LEVELS, SIZE)


@pytest.fixture
def hole():
    hole = np.zeros(SIZE, bool)
    hole[30:70, 50:90] = True
    return hole


def test_labels_and_inverse_depths_are_two_ways_to_say_the_same():
    levels = Levels(plane=np.array([0.001, -0.002, 0.3]), low=-0.1, step=0.01, least=1e-3)
    pixels = np.random.default_rng(0).uniform(0, 100, (4, 5, 2))
    labels = np.random.default_rng(1).uniform(10, 30, (4, 5))
    np.testing.assert_allclose(levels.labels_of(levels.inverse_of(labels, pixels), pixels), labels)
    assert (levels.inverse_of(-1e3, pixels) == 1e-3).all()


def test_photos_agree_at_the_true_depth(wall, hole):
    cost, blind = compare(wall, hole).costs(range(10)).combined()
    assert not blind[10:-10, 30:-30].any()
    inner = cost[10:-10, 30:-30]
    assert (inner.argmin(axis=2) == 5).mean() > 0.99 and inner[..., 5].max() < 0.02
    assert np.median(inner[..., 0]) > 0.3


def test_light_hardly_matters(wall, hole):
    def darken(photos):
        return [photos[0], (photos[1] * 0.6 + 10).astype(np.uint8), *photos[2:]]

    cost, _ = compare(wall, hole, darken).costs([5]).combined()
    assert cost[10:-10, 30:-30].max() < 0.03


def test_the_hole_is_not_read_and_is_compared_between_references(wall, hole):
    def scribble(photos):
        photos[0][hole] = 255
        return photos

    one, other = (compare(wall, hole, change).costs([5]) for change in (scribble, lambda photos: photos))
    assert np.isnan(one.with_target[hole]).all()
    np.testing.assert_array_equal(one.combined()[0][hole], other.combined()[0][hole])
    np.testing.assert_array_equal(one.with_target, other.with_target)
    assert one.combined()[0][40:60, 60:80].max() < 0.02


def test_pixels_can_be_hidden_as_if_they_were_in_the_hole(wall, hole):
    comparison = compare(wall, hole)
    costs = comparison.costs([3])
    assert comparison.ring.any() and not (comparison.ring & hole).any()
    shown, hidden = costs.combined()[0], costs.combined(comparison.ring)[0]
    np.testing.assert_array_equal(hidden[comparison.ring], costs.between[comparison.ring])
    np.testing.assert_array_equal(hidden[~comparison.ring], shown[~comparison.ring])


def test_what_a_single_reference_shows_of_the_hole_cannot_be_compared(wall, hole):
    photos, cameras = wall
    comparison = Comparison({0: cameras[0], 1: cameras[1]}, photos[1:2], photos[0], hole, LEVELS, SIZE)
    cost, blind = comparison.costs(range(10)).combined()
    assert blind[hole].all() and (cost[hole] == 0).all()
    assert not blind[10:20, 40:100].any()


def test_a_part_is_compared_like_the_whole(wall, hole):
    photos, cameras = wall
    box = slice(20, 80), slice(30, 110)
    whole, part = (
        Comparison(cameras, photos[1:], photos[0], hole, LEVELS, SIZE, b) for b in ((slice(None), slice(None)), box)
    )
    one, other = (c.costs([4, 5]).combined()[0] for c in (whole, part))
    np.testing.assert_allclose(one[box][4:-4, 4:-4], other[4:-4, 4:-4], atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_a_reference_is_sampled_where_its_camera_sees_the_scene(seed):
    """With cameras of any pose, size, lens and frame; the reference is a ramp, so that its values are places."""
    rng = np.random.default_rng(seed)
    target, other = (
        Camera(
            size=size, focal=rng.uniform(0.8, 1.2) * max(size), distortion=rng.uniform(-0.08, 0.08),
            rotation=cv2.Rodrigues(rng.normal(scale=0.1, size=3))[0], translation=rng.normal(scale=0.3, size=3),
            frame=frame,
        )
        for size, frame in (((90, 120), (0, 0, 90, 100)), ((200, 150), None))
    )  # fmt: skip
    pixels = grid_of(target.size, (45, 60))
    inverse = rng.uniform(0.18, 0.22, (45, 60)).astype(np.float32)
    place, depth = other.project(target.unproject(pixels, 1 / inverse))
    for axis in (0, 1):
        ramp = np.repeat(grid_of(other.size)[..., axis : axis + 1], 3, axis=2).astype(np.uint8)
        (image, _, _), valid = _View.of(target, other, ramp, pixels, resolution=1.0).warp(inverse)
        assert valid.mean() > 0.2 and (valid == ((depth > 0) & inside(place, other.size))).mean() > 0.999
        np.testing.assert_allclose(image[valid], place[..., axis][valid], atol=0.3)
    shrunk = _View.of(target, other, ramp, pixels, resolution=2.0)
    assert shrunk.grey.shape == (100, 75)
    image = shrunk.warp(inverse)[0][0]
    np.testing.assert_allclose(image[valid], place[..., 1][valid], atol=0.6)


def test_a_reference_is_shrunk_to_the_resolution_at_which_the_target_shows_the_scene():
    near = Camera(size=SIZE, focal=2 * FOCAL, distortion=0.0, rotation=np.eye(3), translation=np.array([0, 0, -3.0]))
    assert _resolution(camera(0), near, np.array([60.0, 40.0]), DEPTH) == pytest.approx(2 * DEPTH / (DEPTH - 3))


def test_costs_with_the_target_and_between_references_are_mixed():
    nan = np.nan
    costs = Costs(
        np.array([[[0.1, 0.5], [nan, 0.4], [nan, nan], [nan, nan]]], np.float32),
        np.array([[[0.6, 0.2], [0.3, nan], [0.3, nan], [nan, nan]]], np.float32),
    )
    cost, blind = costs.combined()
    np.testing.assert_allclose(cost[0], [[0.2, 0.44], [0.3, 0.4], [0.3, 0.6], [0, 0]], atol=1e-6)
    assert blind.tolist() == [[False, False, False, True]]
    cost, blind = costs.combined(np.array([[True, True, False, False]]))
    np.testing.assert_allclose(cost[0, :2], [[0.6, 0.2], [0.3, 0.6]], atol=1e-6)


def test_the_better_half_counts():
    nan = np.nan
    costs = [np.array([[a]], np.float32) for a in (0.9, 0.1, 0.3, nan)]
    assert _best_half(costs)[0, 0] == pytest.approx(0.2)
    assert np.isnan(_best_half([np.array([[nan]], np.float32)])[0, 0])


@pytest.mark.parametrize("count", range(1, 13))
def test_the_better_half_is_that_of_the_sorted_costs(count):
    rng = np.random.default_rng(count)
    costs = rng.random((count, 5, 40)).astype(np.float32)
    costs[rng.random(costs.shape) < 0.4] = np.nan
    found = _best_half(list(costs))
    for pixel in np.ndindex(5, 40):
        known = np.sort(costs[(slice(None), *pixel)])
        known = known[~np.isnan(known)]
        half = known[: (len(known) + 1) // 2]
        assert found[pixel] == pytest.approx(half.mean() if len(half) else np.nan, nan_ok=True, abs=1e-6)


def test_all_of_five_references_are_compared_with_each_other_and_four_others_of_more():
    assert _partners(1) == [] and _partners(2) == [(0, 1)]
    for count in (3, 4, 5):
        assert len(_partners(count)) == count * (count - 1) / 2
    many = _partners(12)
    assert len(many) == len(set(many)) == 24
    assert all(sum(n in pair for pair in many) == 4 for n in range(12))
