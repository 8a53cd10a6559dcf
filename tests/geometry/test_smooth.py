"""Hiding a part of a photo: no influence, no outline, little memory."""

import tracemalloc

import numpy as np
import pytest

from realfill.geometry.smooth import hide


def ramp(size, dtype=np.uint8):
    """A photo whose brightness rises from the left to the right."""
    peak = np.iinfo(dtype).max
    line = np.linspace(0.2 * peak, 0.8 * peak, size[1]).astype(dtype)
    return np.ascontiguousarray(np.broadcast_to(line[None, :, None], (*size, 3)))


def block(size):
    mask = np.zeros(size, bool)
    mask[size[0] // 4 : size[0] // 2, size[1] // 3 : size[1] // 2] = True
    return mask


@pytest.mark.parametrize("size", [(60, 90), (700, 2100)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_hidden_has_no_influence_and_continues_the_rest(size, dtype):
    photo, mask = ramp(size, dtype), block(size)
    before = photo.copy()
    hidden = hide(photo, mask)
    assert hidden.dtype == dtype and np.array_equal(photo, before)
    assert np.array_equal(hidden[~mask], photo[~mask])
    assert np.array_equal(hide(np.where(mask[..., None], dtype(0), photo), mask), hidden)
    error = np.abs(hidden.astype(float) - photo)[mask] / np.iinfo(dtype).max
    assert error.max() < 0.12


def test_without_a_mask_the_photo_stays_itself():
    photo = ramp((40, 50))
    assert hide(photo, None) is photo
    assert np.array_equal(hide(photo, np.zeros((40, 50), bool)), photo)


def test_hiding_a_part_of_a_large_photo_takes_little_memory():
    photo, mask = ramp((2400, 3200)), block((2400, 3200))
    tracemalloc.start()
    hide(photo, mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4.5 * photo.nbytes
