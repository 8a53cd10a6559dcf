"""Metrics: they agree with scikit-image, and only the hole counts."""

import math

import numpy as np
import pytest
from conftest import make_photo
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from realfill.metrics import psnr, ssim

TRUTH = make_photo(64, 80)
NOISY = (TRUTH + np.random.default_rng(0).normal(0, 12, TRUTH.shape)).clip(0, 255).round().astype(np.uint8)
HOLE = np.zeros((64, 80), bool)
HOLE[20:40, 30:60] = True


def test_psnr_of_the_whole_image_is_scikit_images():
    expected = peak_signal_noise_ratio(TRUTH, NOISY, data_range=255)
    assert psnr(NOISY, TRUTH, HOLE | True) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_the_whole_image_is_scikit_images():
    # scikit-image's own mean leaves out the 5 pixels at the edge, where the window sticks out
    wang = {
        "channel_axis": 2,
        "data_range": 255,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    mean, everywhere = structural_similarity(TRUTH, NOISY, full=True, **wang)
    inside = np.zeros_like(HOLE)
    inside[5:-5, 5:-5] = True
    assert ssim(NOISY, TRUTH, inside) == pytest.approx(mean, abs=1e-6)
    assert ssim(NOISY, TRUTH, HOLE | True) == pytest.approx(everywhere.mean(), abs=1e-6)


def test_psnr_of_a_known_error():
    image = TRUTH.copy()
    image[HOLE] = np.where(TRUTH[HOLE] < 128, TRUTH[HOLE] + 10, TRUTH[HOLE] - 10)
    assert psnr(image, TRUTH, HOLE) == pytest.approx(20 * math.log10(255 / 10))


def test_only_the_hole_counts():
    far = HOLE.copy()
    far[15:45, 25:65] = True
    other = np.where(far[:, :, None], NOISY, 255 - TRUTH)
    assert psnr(other, TRUTH, HOLE) == psnr(NOISY, TRUTH, HOLE) != psnr(NOISY, TRUTH, ~HOLE)
    assert ssim(other, TRUTH, HOLE) == pytest.approx(ssim(NOISY, TRUTH, HOLE), abs=1e-9)
    assert psnr(other, TRUTH, ~HOLE) < psnr(NOISY, TRUTH, ~HOLE) - 5 and ssim(other, TRUTH, ~far) < 0.3


def test_equal_in_the_hole_is_infinite_psnr_and_ssim_of_one():
    assert psnr(np.where(HOLE[:, :, None], TRUTH, NOISY), TRUTH, HOLE) == math.inf
    assert ssim(TRUTH, TRUTH, HOLE) == pytest.approx(1)


def test_more_noise_scores_lower():
    worse = (TRUTH + 3 * (NOISY.astype(int) - TRUTH)).clip(0, 255).astype(np.uint8)
    for metric in (psnr, ssim):
        assert metric(worse, TRUTH, HOLE) < metric(NOISY, TRUTH, HOLE)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_metrics_are_symmetric(metric):
    assert metric(NOISY, TRUTH, HOLE) == pytest.approx(metric(TRUTH, NOISY, HOLE), abs=1e-12)
