"""Grain: the noise measured on the photo is added in the hole, and only there."""

import cv2
import numpy as np
import pytest
from helpers import make_photo

import realfill.io.bands
from realfill.filling.grain import match_grain, measure_grain
from realfill.io.bands import bands

SIZE = (220, 260)
SMOOTH = cv2.GaussianBlur(make_photo(*SIZE), (0, 0), 8).astype(np.float32) * 0.5 + 60
HOLE = cv2.ellipse(np.zeros(SIZE, np.uint8), (130, 110), (80, 60), 0, 0, 360, 1, -1) > 0


def grainy(sigma, *, blur=0.0, common=False, seed=0):
    noise = np.random.default_rng(seed).standard_normal((*SIZE, 1 if common else 3)).astype(np.float32)
    noise = np.repeat(noise, 3, axis=2) if common else noise
    if blur:
        noise = cv2.GaussianBlur(noise, (0, 0), blur)
        noise /= noise.std()
    return (SMOOTH + sigma * noise).clip(0, 255).round().astype(np.uint8)


def added(photo, patch=SMOOTH, seed=7):
    return match_grain(patch, HOLE, measure_grain(photo, ~HOLE), np.random.default_rng(seed)) - patch


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
@pytest.mark.parametrize("blur", [0.0, 0.6])
def test_added_grain_has_the_strength_of_the_photos(sigma, blur):
    assert added(grainy(sigma, blur=blur))[HOLE].std() == pytest.approx(sigma, rel=0.15)


def test_added_grain_has_the_fineness_of_the_photos():
    def neighbours(noise):
        inside = HOLE[:, 1:] & HOLE[:, :-1]
        return np.corrcoef(noise[:, 1:][inside].ravel(), noise[:, :-1][inside].ravel())[0, 1]

    fine, coarse = (neighbours(added(grainy(6.0, blur=blur))) for blur in (0.0, 0.8))
    assert abs(fine) < 0.1 and coarse > 0.4


def test_added_grain_has_the_colour_correlation_of_the_photos():
    grey, coloured = (np.corrcoef(added(grainy(6.0, common=common))[HOLE].T)[0, 1] for common in (True, False))
    assert grey > 0.9 and abs(coloured) < 0.15


def test_grain_depends_on_luminance():
    dark = np.zeros(SIZE, bool)
    dark[:, :130] = True
    base = np.where(dark[:, :, None], 60, 180).astype(np.float32) * np.ones(3, np.float32)
    noise = np.random.default_rng(0).standard_normal((*SIZE, 3))
    photo = (base + noise * np.where(dark, 8, 3)[:, :, None]).round().astype(np.uint8)
    made = added(photo, base)
    assert made[HOLE & dark].std() == pytest.approx(8, rel=0.15)
    assert made[HOLE & ~dark].std() == pytest.approx(3, rel=0.15)


def test_nothing_is_added_for_a_photo_without_noise():
    assert not added(SMOOTH.round().astype(np.uint8)).any()
    assert not added(np.full((*SIZE, 3), 90, np.uint8)).any()


def test_only_the_noise_that_the_sample_lacks_is_added():
    noisy = SMOOTH + np.random.default_rng(3).normal(0, 6, SMOOTH.shape).astype(np.float32)
    assert np.abs(added(grainy(6.0), noisy)[HOLE]).mean() < 2
    half = SMOOTH + np.random.default_rng(3).normal(0, 3, SMOOTH.shape).astype(np.float32)
    assert (half + added(grainy(6.0), half) - SMOOTH)[HOLE].std() == pytest.approx(6, rel=0.15)


@pytest.mark.parametrize("side", [12, 40, 70])
def test_in_a_small_hole_only_the_noise_that_the_sample_lacks_is_added(side):
    hole = np.zeros(SIZE, bool)
    hole[100 : 100 + side, 120 : 120 + side] = True
    photo, patch = grainy(6.0), grainy(6.0, seed=3).astype(np.float32)
    made = match_grain(patch, hole, measure_grain(photo, ~hole), np.random.default_rng(7)) - patch
    assert made[hole].std() < 2.5
    bare = match_grain(SMOOTH, hole, measure_grain(photo, ~hole), np.random.default_rng(7)) - SMOOTH
    assert bare[hole].std() == pytest.approx(6.0, rel=0.2)


def test_the_photos_noise_around_a_small_hole_does_not_count_as_the_samples():
    hole = np.zeros(SIZE, bool)
    hole[100:140, 120:160] = True
    photo = grainy(6.0)
    patch = np.where(hole[:, :, None], SMOOTH, photo).astype(np.float32)
    rng = np.random.default_rng(7)
    made = match_grain(patch, hole, measure_grain(photo, ~hole), rng, whole=False) - patch
    assert made[hole].std() == pytest.approx(6.0, rel=0.2)


def test_only_the_hole_gets_grain_and_it_depends_only_on_seed_and_known_pixels():
    photo = grainy(6.0)
    made = added(photo)
    assert not made[~HOLE].any() and made[HOLE].any()
    for under in (0, 255, make_photo(*SIZE, 4)):
        assert np.array_equal(added(np.where(HOLE[:, :, None], under, photo).astype(np.uint8)), made)
    assert not np.array_equal(added(photo, seed=8), made)


def test_without_enough_blocks_nothing_is_measured_or_added():
    assert measure_grain(make_photo(40, 40), np.ones((40, 40), bool)) is None
    assert measure_grain(grainy(6.0), np.zeros(SIZE, bool)) is None
    assert np.array_equal(match_grain(SMOOTH, HOLE, None, np.random.default_rng(0)), SMOOTH)


def test_bands_measure_the_same_and_leave_no_seams(monkeypatch):
    photo = grainy(6.0, blur=0.8)
    whole = measure_grain(photo, ~HOLE)
    monkeypatch.setattr(realfill.io.bands, "_BAND_PX", 32 * SIZE[1])
    assert len(bands(SIZE)) == 7
    banded = measure_grain(photo, ~HOLE)
    assert np.array_equal(banded.luminance, whole.luminance)
    for name in ("variance", "coarse", "correlation"):
        assert getattr(banded, name) == pytest.approx(getattr(whole, name), rel=1e-4)
    noise = np.where(HOLE[:, :, None], added(photo), np.nan)[:, 60:200]
    at_seams = np.sqrt(np.nanmean(noise[[31, 32, 63, 64, 95, 96, 127, 128]] ** 2))
    assert at_seams == pytest.approx(np.sqrt(np.nanmean(noise**2)), rel=0.1)
