"""What is filled gets the sharpness of the photo around it."""

import cv2
import numpy as np
import pytest

from realfill.filling.sharpness import match_sharpness, measure_sharpness

HOLE = np.zeros((96, 128), bool)
HOLE[24:72, 40:90] = True


def texture(seed=0, sigma=0.0):
    """Build a natural spectrum: contrast falls by half with each octave; then blur it."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.normal(size=(96 // 2**i, 128 // 2**i, 3)), (128, 96), interpolation=cv2.INTER_CUBIC) * 2**i
        for i in range(5)
    ]
    image = 128 + 3 * np.sum(layers, axis=0)
    return (cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image).clip(0, 255).astype(np.float32)


def matched_to(fill, photo, hole):
    return match_sharpness(fill, measure_sharpness(photo, hole))


def energy(image, where=HOLE):
    inside = where[:, 1:] & where[:, :-1]
    return float((np.diff(image.mean(2), axis=1)[inside] ** 2).mean())


@pytest.mark.parametrize(("photo_sigma", "fill_sigma"), [(0.0, 1.0), (1.2, 0.0), (0.6, 0.9)])
def test_a_fill_too_soft_or_too_sharp_comes_nearer_to_the_photo(photo_sigma, fill_sigma):
    photo, fill = texture(0, photo_sigma), texture(1, fill_sigma)
    wanted = energy(texture(1, photo_sigma))
    matched = matched_to(fill, photo, HOLE)
    before, after = (abs(np.log(energy(x) / wanted)) for x in (fill, matched))
    assert after < 0.7 * before


def test_a_fill_as_sharp_as_the_photo_stays_nearly_as_it_is():
    fill = texture(1)
    matched = matched_to(fill, texture(0), HOLE)
    assert energy(matched) == pytest.approx(energy(fill), rel=0.2)
    assert np.abs(matched - fill)[HOLE].mean() < 2


def test_coarse_structures_keep_their_contrast():
    fill = texture(1, 1.0)
    matched = matched_to(fill, texture(0), HOLE)
    coarse = [cv2.GaussianBlur(x, (0, 0), 6)[36:60, 52:78] for x in (fill, matched)]
    assert np.abs(coarse[0] - coarse[1]).max() < 3


def test_sharpness_follows_the_photo_from_one_side_to_the_other():
    photo = np.concatenate([texture(0, 1.5)[:, :64], texture(0)[:, 64:]], axis=1)
    fill = texture(1, 0.7)
    matched = matched_to(fill, photo, HOLE)
    left, right = HOLE.copy(), HOLE.copy()
    left[:, 56:], right[:, :74] = False, False
    assert energy(matched, left) / energy(fill, left) < 0.85 * energy(matched, right) / energy(fill, right)


def test_what_the_photo_has_in_the_hole_and_pixels_outside_have_no_influence():
    photo, fill = texture(0), texture(1, 1.0)
    matched = matched_to(fill, photo, HOLE)
    other, around = photo.copy(), fill.copy()
    other[HOLE] = 7
    around[~HOLE] = 99
    assert np.array_equal(matched_to(fill, other, HOLE), matched)
    assert np.allclose(matched_to(around, photo, HOLE)[HOLE], matched[HOLE], atol=1e-3)
    assert np.array_equal(matched[~HOLE], fill[~HOLE])


def test_flat_sides_and_tiny_holes_change_nothing():
    fill = texture(1, 1.0)
    noise = np.random.default_rng(0).normal(128, 0.3, fill.shape).astype(np.float32)
    assert np.abs(matched_to(fill, noise, HOLE) - fill).max() < 4
    assert np.abs(matched_to(noise, fill, HOLE) - noise).max() < 0.1
    tiny = np.zeros_like(HOLE)
    tiny[3, 3] = True
    assert np.array_equal(matched_to(fill, fill, tiny), fill)
    assert np.array_equal(matched_to(fill, fill, np.ones_like(HOLE)), fill)
