"""Photos compared at supposed depths."""

import numpy as np
import pytest

from realfill.geometry.cameras import Camera
from realfill.geometry.comparison import Comparison, Levels

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


def test_a_comparison_is_ended_between_depths(wall, hole):
    asked = []

    def check():
        asked.append(1)
        if len(asked) > 1:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        compare(wall, hole).costs(range(3), check)
