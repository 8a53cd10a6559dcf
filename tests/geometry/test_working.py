"""The working size: holes never vanish, matches move with the images, references get the scale they need."""

import numpy as np
import pytest

from realfill.geometry.working import WORKING_PX, fit, rescale, shrink, shrink_all, shrink_hole


@pytest.mark.parametrize(("size", "small"), [((97, 130), (31, 42)), ((60, 80), (20, 40)), ((50, 50), (50, 50))])
def test_a_small_pixel_is_hole_if_it_averages_any_pixel_of_the_hole(size, small):
    rng = np.random.default_rng(0)
    hole = rng.random(size) < 0.002
    hole[size[0] - 1, size[1] - 1] = True
    expected = np.zeros(small, bool)
    for y, x in zip(*np.nonzero(hole), strict=True):
        rows, columns = (
            range(int(np.floor(p * n / full + 1e-9)), int(np.ceil((p + 1) * n / full - 1e-9)))
            for p, n, full in zip((y, x), small, size, strict=True)
        )
        expected[np.ix_(rows, columns)] = True
    assert np.array_equal(shrink_hole(hole, small), expected)


def test_known_pixels_of_the_small_target_contain_nothing_of_the_hole():
    rng = np.random.default_rng(1)
    hole = np.zeros((900, 1200), bool)
    hole[301:555, 402:777] = True
    known = rng.integers(0, 256, (900, 1200, 3), np.uint8)
    results = []
    for filler in (0, 255):
        image = np.where(hole[..., None], np.uint8(filler), known)
        small = shrink_all(image, hole, [known], masks=[None], focals=None, pairs={}, match=lambda *_: {})
        results.append(np.where(small.hole[..., None], 0, small.known))
    assert max(results[0].shape) == WORKING_PX and np.array_equal(*results)


def test_matches_move_with_the_centres_of_pixels():
    pairs = {(0, 1): np.array([[-0.5, -0.5, 99.5, 49.5], [10.0, 20.0, 3.0, 4.0]], np.float32)}
    there = rescale(pairs, [(40, 60), (50, 100)], [(20, 30), (200, 400)])
    np.testing.assert_allclose(there[0, 1][0], [-0.5, -0.5, 399.5, 199.5])
    back = rescale(there, [(20, 30), (200, 400)], [(40, 60), (50, 100)])
    np.testing.assert_allclose(back[0, 1], pairs[0, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("target", "reference", "density", "expected"),
    [
        ((300, 400), (300, 400), 1.0, 400),
        ((3000, 4000), (3000, 4000), 1.0, 768),
        ((300, 400), (3000, 4000), 10.0, 400),
        ((3000, 4000), (300, 400), 0.1, 400),
        ((1500, 2000), (3000, 4000), 8.0, 256),
        ((3000, 4000), (3000, 4000), 0.25, 1536),
    ],
    ids=["small photos", "large photos", "far finer", "far coarser", "a close-up", "a wide view"],
)
def test_references_are_shrunk_to_the_density_of_the_target(target, reference, density, expected):
    points = np.random.default_rng(0).uniform(0, 100, (40, 2))
    pairs = {(0, 1): np.concatenate([points, points * density], axis=1).astype(np.float32)}
    photos = [np.zeros((*size, 3), np.uint8) for size in (target, reference)]
    small = shrink_all(
        photos[0], np.zeros(target, bool), photos[1:], masks=[None], focals=[None, 100.0], pairs=pairs,
        match=lambda *_: {},
    )  # fmt: skip
    assert max(small.references[0].shape) == pytest.approx(expected, abs=2)
    assert small.known.shape[:2] == fit(target, WORKING_PX)
    assert small.focals[1] == pytest.approx(100 * max(small.references[0].shape) / max(reference))


def test_the_frame_of_a_photo_on_a_canvas_shrinks_with_the_canvas():
    canvas = np.zeros((1536, 3072, 3), np.uint8)
    small = shrink_all(
        canvas, np.zeros(canvas.shape[:2], bool), [], masks=[], focals=None, pairs={}, frame=(0, 400, 1536, 2400),
        match=lambda *_: {},
    )  # fmt: skip
    assert small.known.shape[:2] == (384, 768) and small.frame == pytest.approx((0, 100, 384, 600))


def test_sixteen_bits_are_shrunk_to_eight():
    deep = np.full((40, 60, 3), 257 * 77, np.uint16)
    assert (shrink(deep, (20, 30)) == 77).all()
