"""Registration: a known shift is found, undone and reported; the hole has no influence."""

import cv2
import numpy as np
import pytest
from helpers import make_photo

from realfill.filling.registration import register


def shifted(image, down, right):
    matrix = np.array([[1, 0, -right], [0, 1, -down]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture
def image():
    return make_photo(128, 160)


@pytest.fixture
def hole():
    mask = np.zeros((128, 160), bool)
    mask[40:90, 50:120] = True
    return mask


@pytest.mark.parametrize(("down", "right"), [(3.0, -2.0), (-0.4, 0.7), (5.5, 6.0)])
def test_a_shift_is_measured_and_undone(image, hole, down, right):
    sample = shifted(image.astype(np.float32), down, right) * 0.9 + 12  # a model changes colours too
    registered, shift = register(sample, image, hole)
    assert shift == pytest.approx((down, right), abs=0.1)
    inner = np.s_[10:-10, 10:-10]
    assert np.abs(registered - (image * 0.9 + 12))[inner].mean() < 2
    assert np.abs(sample - (image * 0.9 + 12))[inner].mean() > 2


def test_the_hole_has_no_influence(image, hole):
    sample = shifted(image.astype(np.float32), 2, 1)
    other = np.where(hole[..., None], make_photo(128, 160, 9), image)
    one, two = register(sample, image, hole), register(sample, other, hole)
    assert one[1] == two[1]
    assert (one[0] == two[0]).all()


def test_what_is_not_shifted_stays_as_it_is(image, hole):
    sample = image.astype(np.float32)
    registered, shift = register(sample, image, hole)
    assert shift == (0, 0)
    assert registered is sample


@pytest.mark.parametrize("case", ["flat", "unrelated", "nothing known", "far"])
def test_nothing_is_moved_without_evidence(image, hole, case):
    sample = {
        "flat": np.full(image.shape, 90, np.float32),
        "unrelated": make_photo(128, 160, 5).astype(np.float32),
        "nothing known": shifted(image.astype(np.float32), 3, 3),
        "far": shifted(image.astype(np.float32), 30, 0),
    }[case]
    registered, shift = register(sample, image, np.ones_like(hole) if case == "nothing known" else hole)
    assert shift == (0, 0)
    assert registered is sample
