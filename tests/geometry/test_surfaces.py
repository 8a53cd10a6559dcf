"""Planes for each pixel: how they are fitted, continued and chosen."""

import cv2
import numpy as np

from realfill.geometry.surfaces import Surface, candidates, choose_surface

SIZE = (30, 40)
Y, X = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
SLANTED = Surface(3 + 0.5 * X - 0.25 * Y, np.full(SIZE, 0.5, np.float32), np.full(SIZE, -0.25, np.float32))


def test_every_candidate_of_a_plane_is_that_plane():
    found = candidates(Surface.flat(SLANTED.label), np.ones(SIZE), radius=4)
    inner = slice(9, -9), slice(9, -9)
    for option in found:
        np.testing.assert_allclose(option.label[inner], SLANTED.label[inner], atol=0.02)
    for option in found[1:]:
        np.testing.assert_allclose(option.slope_x[inner], 0.5, atol=0.01)
        np.testing.assert_allclose(option.slope_y[inner], -0.25, atol=0.01)


def test_a_plane_is_continued_to_other_pixels_and_to_a_larger_image():
    seen = SLANTED.continued_from(down=3, right=-2)
    np.testing.assert_allclose(seen.label, SLANTED.label, atol=1e-4)
    large = SLANTED.enlarged((90, 80))
    rows, columns = (np.arange(90) + 0.5) / 3 - 0.5, (np.arange(80) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(large.label, 3 + 0.5 * columns[None] - 0.25 * rows[:, None], atol=1e-4)
    np.testing.assert_allclose(large.slope_x, 0.5 / 2)
    np.testing.assert_allclose(large.slope_y, -0.25 / 3)


def test_a_pixel_can_raise_and_lower_its_own_plane():
    rng = np.random.default_rng(0)
    surface = Surface(*(rng.normal(size=SIZE).astype(np.float32) for _ in range(3)))
    *rest, raised, lowered = candidates(surface, np.ones(SIZE), radius=4, step=0.5)
    assert len(rest) == len(candidates(surface, np.ones(SIZE), radius=4))
    for option, label in ((raised, surface.label + 0.5), (lowered, surface.label - 0.5)):
        np.testing.assert_allclose(option.label, label)
        assert option.slope_x is surface.slope_x and option.slope_y is surface.slope_y


def test_a_single_wild_label_does_not_tilt_the_planes_around_it():
    label = SLANTED.label.copy()
    label[15, 20] = 500
    for option in candidates(Surface.flat(label), np.ones(SIZE), radius=4)[2:]:
        np.testing.assert_allclose(option.slope_x[10:20, 14:26], 0.5, atol=0.05)


def test_labels_that_are_not_trusted_do_not_count():
    label, weight = SLANTED.label.copy(), np.ones(SIZE)
    label[10:14, 10:14], weight[10:14, 10:14] = 50, 1e-6
    wide = candidates(Surface.flat(label), weight, radius=9)[3]
    np.testing.assert_allclose(wide.label[12, 12], SLANTED.label[12, 12], atol=0.3)


def test_neighbours_pay_for_planes_that_do_not_meet_and_not_for_a_slope():
    """Costs say nothing in the middle: the slanted plane goes on there, and a flat one does not cut in."""
    flat = Surface.flat(np.full(SIZE, 40.0))
    costs = np.zeros((*SIZE, 2), np.float32)
    costs[..., 1] = 0.5
    costs[8:22, 10:30] = (0.1, 0)
    found, chosen = choose_surface(costs, [SLANTED, flat])
    np.testing.assert_array_equal(found.label, SLANTED.label)
    np.testing.assert_array_equal(chosen, costs[..., 0])
    # the same planes without their slopes: now each step from pixel to pixel costs, and the flat one wins in the middle
    stepped, _ = choose_surface(costs, [Surface.flat(SLANTED.label), flat])
    assert (stepped.label[12:18, 14:26] == 40).all()


def test_a_thing_does_not_keep_what_lies_beside_its_outline():
    """A box before a slanted ground, fattened by four pixels as windows do; costs tell the truth where they tell it."""
    box = (X > 15) & (X < 28) & (Y > 8) & (Y < 22)
    truth = np.where(box, 30, SLANTED.label).astype(np.float32)
    fat = cv2.dilate(box.astype(np.uint8), np.ones((9, 9))) > 0
    surface = Surface.flat(np.where(fat, 30, SLANTED.label))
    for radius in (8, 5, 3):
        options = candidates(surface, np.ones(SIZE), radius)
        costs = np.minimum(np.abs(np.stack([o.label for o in options], axis=-1) - truth[..., None]) / 4, 0.4)
        surface, _ = choose_surface(costs.astype(np.float32), options)
    assert (np.abs(surface.label - truth) > 1).mean() < 0.2 * (fat & ~box).mean()
