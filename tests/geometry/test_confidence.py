"""Confidence: what a pixel of a layer is expected to err by."""

import numpy as np
import pytest

from realfill.config import GeometryConfig
from realfill.geometry.confidence import after_correction, confidence_of, error_of, expected_error, slope_of

SIZE, HALF = (40, 60), (20, 30)
FLAT = np.full((*SIZE, 3), 120, np.float32)
RAMP = np.repeat(np.arange(60, dtype=np.float32)[None, :, None] * 3, 40, axis=0).repeat(3, axis=2)
FITS, AGREES, NEAR = (np.full(HALF, value, np.float32) for value in (4.0, 5.0, 0.05))
ALONE = np.full(HALF, np.inf, np.float32)
WHOLE, SEEN = np.zeros(HALF, np.float32), np.zeros(HALF, bool)


def error(image=RAMP, misfit=FITS, vote=AGREES, colour=WHOLE, distance=NEAR, tear=WHOLE, hidden=SEEN):
    return float(expected_error(image, misfit, vote, colour, distance, tear, hidden)[10, 15])


def test_a_ramp_is_as_steep_as_it_rises():
    assert slope_of(RAMP)[20, 30] == pytest.approx(3) and slope_of(np.swapaxes(RAMP, 0, 1))[30, 20] == pytest.approx(3)
    assert slope_of(FLAT).max() == 0


def test_misplacement_costs_only_where_the_image_is_steep():
    assert error(FLAT) == pytest.approx(15 * 0.05)
    assert error() - error(FLAT) == pytest.approx(3 * (0.03 + 0.025 * (4 + 5)))
    assert error(FLAT, misfit=FITS + 6) - error(FLAT) == pytest.approx(0.4 * 4), "the layer may show something else"


def test_a_flat_area_errs_where_no_other_reference_agrees_with_it():
    assert error(FLAT, vote=AGREES + 11) - error(FLAT) == pytest.approx(0.25 * 10)
    alone = error(FLAT, vote=ALONE, misfit=FITS + 6)
    assert alone == pytest.approx(1.25 * error(FLAT, misfit=FITS + 6)), "not contradicted, but not confirmed either"


def test_a_pixel_errs_more_the_more_the_colours_of_all_other_references_differ():
    apart = [error(FLAT, colour=WHOLE + levels) - error(FLAT) for levels in (5, 10)]
    assert apart == pytest.approx([0.8, 1.6], abs=1e-5)
    assert error(FLAT, vote=ALONE, colour=ALONE) == error(FLAT, vote=ALONE), "nothing is compared with it"


def test_what_blending_corrects_errs_more_whichever_way_it_goes():
    correction = np.zeros((*SIZE, 3), np.float32)
    correction[:, 30:], correction[:20, :30, 0] = -8, 12
    found = after_correction(np.full(HALF, 5, np.float32), correction)
    assert found.shape == HALF and found[15, 5] == 5
    assert found[5, 25] == pytest.approx(5 + 0.4 * 8) and found[5, 5] == pytest.approx(5 + 0.4 * 4)


def test_an_error_grows_with_misfit_contradiction_and_distance():
    for worse in ({"misfit": FITS + 10}, {"vote": AGREES + 10}, {"distance": NEAR * 2}, {"vote": ALONE}):
        assert error(**worse) > error() + 0.5, worse


def test_what_nothing_confirms_errs_more_the_farther_it_is_from_known_pixels():
    gains = [error(vote=ALONE, distance=NEAR * n) - 1.25 * error(distance=NEAR * n) for n in (1, 3)]
    assert gains[1] - gains[0] == pytest.approx(1.25 * 3 * 10 * 0.1)


def test_a_torn_warp_errs_more_by_the_root_of_the_tear():
    gains = [error(tear=WHOLE + t) - error() for t in (0.25, 1, 4)]
    assert gains == pytest.approx([2, 4, 8], abs=1e-4)


def test_what_is_hidden_in_its_reference_errs_more_than_what_is_photographed():
    assert error(hidden=~SEEN) == pytest.approx(error() + 16)
    perfect = error(FLAT, misfit=0 * FITS, vote=0 * AGREES, distance=0 * NEAR, hidden=~SEEN)
    assert confidence_of(np.array([perfect]))[0] < GeometryConfig().resolve({}).photographed_confidence


def test_confidence_falls_with_the_error_that_it_stands_for():
    levels = np.array([0.0, 5.0, 15.0, 60.0])
    confidence = confidence_of(levels)
    assert confidence[0] == 1 and (np.diff(confidence) < 0).all()
    np.testing.assert_allclose(error_of(confidence), levels, atol=1e-4)
    assert error_of(np.zeros(1)) == 255


def test_corrections_of_channels_in_both_directions_do_not_cancel_out():
    correction = np.broadcast_to(np.array([9.0, -9.0, 0.0], np.float32), (*SIZE, 3))
    assert after_correction(np.full(HALF, 5, np.float32), correction) == pytest.approx(5 + 0.4 * 6)
