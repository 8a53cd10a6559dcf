"""Matching colours: a planted change of light is undone, and what differs between the photos does not count."""

import numpy as np
from helpers import make_photo

from realfill.geometry.colour import apply_colours, fit_colours

MATRIX = np.array([[0.8, 0.1, 0.0], [0.05, 0.9, 0.05], [0.0, 0.15, 0.7]])


def test_a_planted_matrix_is_undone_in_spite_of_outliers():
    known = make_photo(90, 120, 3)
    changed = (known / 255 @ MATRIX * 255 + 12).clip(0, 255)
    overlap = np.ones((90, 120), bool)
    changed[20:45, 30:70] = (220, 30, 30)  # something that only the reference shows
    image = changed.round().astype(np.uint8)
    matched = apply_colours(image, fit_colours(image, known, overlap))
    error = np.abs(matched - known).mean(axis=2)
    error[16:49, 26:74] = 0  # the matrix is fitted on blurred photos, which smear the outlier a little
    before = np.abs(changed - known).mean(axis=2)
    assert error.mean() < 0.3 * before.mean()


def test_pixels_outside_the_overlap_do_not_count():
    known = make_photo(60, 80, 1)
    image = (known * 0.8).astype(np.uint8)
    overlap = np.zeros((60, 80), bool)
    overlap[:, :50] = True
    expected = fit_colours(image, known, overlap)
    other = known.copy()
    other[:, 60:] = 0
    assert np.array_equal(fit_colours(image, other, overlap), expected)
