"""Sampling: fields enlarged exactly, and references looked up without blur and without aliasing."""

import numpy as np
import pytest
from worlds import WORLD

from realfill.benchmark.metrics import detail
from realfill.geometry.sampling import Pyramid, enlarge


def grid(height, width, step=1.0, start=(0.0, 0.0)):
    y, x = np.mgrid[:height, :width] * float(step)
    return np.stack([x + start[0], y + start[1]], axis=-1).astype(np.float32)


def test_a_linear_field_is_enlarged_exactly_up_to_the_photo_border():
    size, small = (90, 120), (30, 40)
    y, x = np.mgrid[:90, :120].astype(float)
    plane = 3 * x - 2 * y + 5
    ys, xs = (np.arange(30) + 0.5) * 3 - 0.5, (np.arange(40) + 0.5) * 3 - 0.5
    values = (3 * xs[None] - 2 * ys[:, None] + 5).astype(np.float32)
    assert values.shape == small
    whole = enlarge(values, size, slice(0, 90), slice(0, 120), extrapolate=True)
    np.testing.assert_allclose(whole, plane, atol=1e-3)
    part = enlarge(values, size, slice(33, 61), slice(7, 119), extrapolate=True)
    np.testing.assert_allclose(part, plane[33:61, 7:119], atol=1e-3)


def test_without_extrapolation_values_stay_in_their_range():
    values = np.random.default_rng(0).uniform(-1, 1, (5, 4, 2)).astype(np.float32)
    large = enlarge(values, (50, 60), slice(0, 50), slice(0, 60))
    assert large.shape == (50, 60, 2) and np.abs(large).max() <= np.abs(values).max()
    np.testing.assert_allclose(enlarge(values, (5, 4), slice(0, 5), slice(0, 4)), values, atol=1e-6)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.25)])
def test_an_image_at_the_same_scale_keeps_its_detail(shift):
    shown = Pyramid(WORLD).sample(grid(200, 300, start=shift))
    truth, whole = WORLD[:200, :300], np.ones((200, 300), bool)
    whole[:4], whole[:, :4] = False, False
    if shift == (0.0, 0.0):
        assert np.array_equal(shown.round(), truth)
    assert detail(shown.round().astype(np.uint8), truth, whole) > 0.9


@pytest.mark.parametrize("step", [2.0, 3.7, 9.0])
def test_a_finer_reference_is_averaged(step):
    fine = np.where(np.indices((600, 800)).sum(axis=0)[..., None] % 2, 255, 0).astype(np.uint8).repeat(3, axis=2)
    size = int(560 / step), int(760 / step)
    shown = Pyramid(fine).sample(grid(*size, step=step, start=(10.3, 10.7)))
    assert np.abs(shown - 127.5).max() < 12


def test_levels_change_without_a_visible_step():
    y = np.cumsum(np.linspace(1, 3, 150))
    smooth = np.repeat((100 + 50 * np.sin(np.arange(400) / 25))[:, None, None], 400, axis=1).repeat(3, axis=2)
    image = smooth.round().astype(np.uint8)
    places = np.stack(np.meshgrid(np.arange(150) * 2.0, y), axis=-1).astype(np.float32)
    shown = Pyramid(image).sample(places)
    expected = np.interp(y, np.arange(400), smooth[:, 0, 0])
    assert np.abs(shown[3:-3, 20, 0] - expected[3:-3]).max() < 2


def test_sixteen_bits_keep_more_than_eight():
    deep = np.repeat(np.linspace(20_000, 21_000, 300)[None, :, None], 40, axis=0).repeat(3, axis=2).astype(np.uint16)
    shown = Pyramid(deep).sample(grid(30, 200, start=(20.0, 5.0)))
    expected = deep[0, 20:220, 0] / 257
    assert np.abs(shown[10, :, 0] - expected).max() < 0.05 and len(np.unique(shown[10])) > 50
