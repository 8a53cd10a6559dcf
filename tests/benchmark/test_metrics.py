"""Metrics: they agree with scikit-image, torchmetrics and plain loops, and only the hole counts."""

import math

import cv2
import numpy as np
import pytest
import torch
from helpers import make_photo
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional import image as torchmetrics

from realfill.benchmark import metrics
from realfill.benchmark.metrics import METRICS, delta_e, detail, gmsd, psnr, seam, ssim

TRUTH = make_photo(64, 80)
NOISY = (TRUTH + np.random.default_rng(0).normal(0, 12, TRUTH.shape)).clip(0, 255).round().astype(np.uint8)
BLURRED = cv2.GaussianBlur(TRUTH, (0, 0), 2)
HOLE = np.zeros((64, 80), bool)
HOLE[20:40, 30:60] = True
ELLIPSE = cv2.ellipse(np.zeros((64, 80), np.uint8), (41, 30), (17, 11), 20, 0, 360, 1, -1) > 0
WANG = {"channel_axis": 2, "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def flat(*colour):
    return np.full((64, 80, 3), colour, np.uint8)


def pixels(image, mask=None):
    """The image, or the pixels of the mask alone, as torchmetrics takes them."""
    chosen = image if mask is None else image[mask][None]
    return torch.from_numpy(chosen.transpose(2, 0, 1)[None].astype(np.float64))


def test_psnr_of_the_whole_image_equals_scikit_image():
    expected = peak_signal_noise_ratio(TRUTH, NOISY, data_range=255)
    assert psnr(NOISY, TRUTH, HOLE | True) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("image", [NOISY, BLURRED, 255 - TRUTH], ids=["noisy", "blurred", "negative"])
@pytest.mark.parametrize("mask", [HOLE, ELLIPSE], ids=["box", "ellipse"])
def test_psnr_of_the_hole_equals_scikit_image_and_torchmetrics(image, mask):
    ours = psnr(image, TRUTH, mask)
    assert ours == pytest.approx(peak_signal_noise_ratio(TRUTH[mask], image[mask], data_range=255), abs=1e-4)
    theirs = torchmetrics.peak_signal_noise_ratio(pixels(image, mask), pixels(TRUTH, mask), data_range=255.0)
    assert ours == pytest.approx(float(theirs), abs=1e-4)


def test_ssim_of_the_whole_image_equals_scikit_image():
    # scikit-image's own mean leaves out the 5 pixels at the edge, where the window sticks out
    mean, everywhere = structural_similarity(TRUTH, NOISY, full=True, **WANG)
    inside = np.zeros_like(HOLE)
    inside[5:-5, 5:-5] = True
    assert ssim(NOISY, TRUTH, inside) == pytest.approx(mean, abs=1e-6)
    assert ssim(NOISY, TRUTH, HOLE | True) == pytest.approx(everywhere.mean(), abs=1e-6)


@pytest.mark.parametrize("image", [NOISY, BLURRED, 255 - TRUTH], ids=["noisy", "blurred", "negative"])
@pytest.mark.parametrize("mask", [HOLE, ELLIPSE], ids=["box", "ellipse"])
def test_ssim_of_the_hole_equals_scikit_image_and_torchmetrics(image, mask):
    ours = ssim(image, TRUTH, mask)
    ours_in_scikit_image = structural_similarity(TRUTH, image, full=True, **WANG)[1][mask].mean()
    _, similarity = torchmetrics.structural_similarity_index_measure(
        pixels(image), pixels(TRUTH), sigma=1.5, kernel_size=11, data_range=255.0, return_full_image=True
    )
    theirs = similarity[0].numpy()[:, mask].mean()
    assert ours == pytest.approx(ours_in_scikit_image, abs=1e-4)
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_psnr_of_a_known_error():
    image = TRUTH.copy()
    image[HOLE] = np.where(TRUTH[HOLE] < 128, TRUTH[HOLE] + 10, TRUTH[HOLE] - 10)
    assert psnr(image, TRUTH, HOLE) == pytest.approx(20 * math.log10(255 / 10))


def test_only_the_hole_counts():
    far = HOLE.copy()
    far[15:45, 25:65] = True
    other = np.where(far[:, :, None], NOISY, 255 - TRUTH)
    for metric in (psnr, gmsd, detail):
        assert metric(other, TRUTH, HOLE) == metric(NOISY, TRUTH, HOLE) != metric(NOISY, TRUTH, ~HOLE)
    assert ssim(other, TRUTH, HOLE) == pytest.approx(ssim(NOISY, TRUTH, HOLE), abs=1e-9)
    assert psnr(other, TRUTH, ~HOLE) < psnr(NOISY, TRUTH, ~HOLE) - 5 and ssim(other, TRUTH, ~far) < 0.3


def test_equal_holes_have_infinite_psnr_and_an_ssim_of_one():
    assert psnr(np.where(HOLE[:, :, None], TRUTH, NOISY), TRUTH, HOLE) == math.inf
    assert ssim(TRUTH, TRUTH, HOLE) == pytest.approx(1)


def test_more_noise_scores_worse():
    worse = (TRUTH + 3 * (NOISY.astype(int) - TRUTH)).clip(0, 255).astype(np.uint8)
    for metric in (psnr, ssim):
        assert metric(worse, TRUTH, HOLE) < metric(NOISY, TRUTH, HOLE)
    for metric in (gmsd, detail):
        assert metric(worse, TRUTH, HOLE) > metric(NOISY, TRUTH, HOLE)


@pytest.mark.parametrize("metric", [psnr, ssim, gmsd])
def test_metrics_are_symmetric(metric):
    assert metric(NOISY, TRUTH, HOLE) == pytest.approx(metric(TRUTH, NOISY, HOLE), abs=1e-12)


def plain_gmsd(image, truth, mask):
    """Xue et al. 2014, pixel by pixel: their formula (4) and (5), in blocks that lie in the hole."""
    height, width = -(-mask.shape[0] // 2), -(-mask.shape[1] // 2)

    def block(y, x):
        rows = [min(r, mask.shape[0] - 1) for r in (2 * y, 2 * y + 1)]
        columns = [min(c, mask.shape[1] - 1) for c in (2 * x, 2 * x + 1)]
        return [(r, c) for r in rows for c in columns]

    def grey(photo, y, x):
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        values = [photo[p].astype(float) for p in block(y, x)]
        return sum(0.299 * r + 0.587 * g + 0.114 * b for r, g, b in values) / 4

    def magnitude(photo, y, x):
        across = sum(grey(photo, y + d, x + 1) - grey(photo, y + d, x - 1) for d in (-1, 0, 1)) / 3
        down = sum(grey(photo, y + 1, x + d) - grey(photo, y - 1, x + d) for d in (-1, 0, 1)) / 3
        return math.sqrt(across**2 + down**2)

    every = [(y, x) for y in range(height) for x in range(width)]
    chosen = [p for p in every if all(mask[q] for q in block(*p))]
    chosen = chosen or [p for p in every if any(mask[q] for q in block(*p))]
    similarities = []
    for y, x in chosen:
        m0, m1 = magnitude(image, y, x), magnitude(truth, y, x)
        similarities.append((2 * m0 * m1 + 170) / (m0**2 + m1**2 + 170))
    mean = sum(similarities) / len(similarities)
    return math.sqrt(sum((s - mean) ** 2 for s in similarities) / len(similarities))


@pytest.mark.parametrize("size", [(24, 30), (23, 29)], ids=["even", "odd"])
@pytest.mark.parametrize("hole", ["box", "edge", "all", "thin"])
def test_gmsd_follows_the_formula_of_the_paper(size, hole):
    truth, image = make_photo(*size, 1), make_photo(*size, 2)
    mask = np.zeros(size, bool)
    mask[{"box": np.s_[5:14, 8:21], "edge": np.s_[:, 20:], "all": np.s_[:], "thin": np.s_[7, 4:20]}[hole]] = True
    assert gmsd(image, truth, mask) == pytest.approx(plain_gmsd(image, truth, mask), abs=1e-12)
    assert gmsd(image, truth, mask) > 0.01


def test_gmsd_is_zero_for_equal_images_and_rises_with_blur():
    values = [gmsd(cv2.GaussianBlur(TRUTH, (0, 0), s), TRUTH, ELLIPSE) for s in (0.5, 1, 1.5, 2, 3)]
    assert gmsd(TRUTH, TRUTH, ELLIPSE) == 0
    assert values[0] > 0 and values == sorted(values)


def test_gmsd_penalizes_blur_that_psnr_prefers():
    """To PSNR, blur is better than a little too bright; edges are lost in the one and not in the other."""
    bright, truth = TRUTH // 2 + 30, TRUTH // 2
    vague = cv2.GaussianBlur(truth, (0, 0), 2)
    assert psnr(vague, truth, HOLE) > psnr(bright, truth, HOLE) + 5
    assert gmsd(vague, truth, HOLE) > 0.05 and gmsd(bright, truth, HOLE) < 1e-9


def test_gmsd_penalizes_a_seam():
    bright = np.where(HOLE[:, :, None], TRUTH // 2 + 30, TRUTH // 2)
    assert gmsd(bright, TRUTH // 2, HOLE) > 0.05


def test_gmsd_of_tiny_holes():
    """Odd positions: no block of 2 x 2 lies in the hole."""
    for size in ((1, 1), (2, 2), (1, 2)):
        mask = np.zeros((64, 80), bool)
        mask[21 : 21 + size[0], 31 : 31 + size[1]] = True
        value = gmsd(NOISY, TRUTH, mask)
        assert (value == 0) == (size == (1, 1))  # a single block does not deviate
        assert value == pytest.approx(plain_gmsd(NOISY, TRUTH, mask), abs=1e-12)


def test_detail_is_one_for_equal_images_and_far_below_for_blur():
    blurred = [detail(cv2.GaussianBlur(TRUTH, (0, 0), s), TRUTH, ELLIPSE) for s in (0.5, 1.5, 3)]
    assert detail(TRUTH, TRUTH, ELLIPSE) == 1
    assert 1 > blurred[0] > 0.5 > blurred[1] > blurred[2] > 0
    assert detail(BLURRED, TRUTH, HOLE) < 0.5
    assert detail(NOISY, TRUTH, HOLE) > 1
    assert detail(flat(9, 80, 200), TRUTH, HOLE) == 0


def test_detail_is_the_ratio_of_squared_neighbour_differences():
    grey = {name: i @ [0.299, 0.587, 0.114] for name, i in (("image", NOISY), ("truth", TRUTH))}
    energy = dict.fromkeys(grey, 0.0)
    for name, values in grey.items():
        for y, x in zip(*np.nonzero(ELLIPSE), strict=True):
            for q in ((y + 1, x), (y, x + 1)):
                energy[name] += (values[q] - values[y, x]) ** 2 if ELLIPSE[q] else 0
    assert detail(NOISY, TRUTH, ELLIPSE) == pytest.approx(energy["image"] / energy["truth"], abs=1e-9)


def test_a_seam_does_not_count_as_detail():
    """A fill that is blurred and far too bright has an edge all around, and no detail."""
    bright = np.where(ELLIPSE[:, :, None], BLURRED // 2 + 120, TRUTH)
    stranger = np.where(ELLIPSE[:, :, None], TRUTH, np.random.default_rng(1).integers(0, 256, TRUTH.shape, np.uint8))
    assert detail(bright, TRUTH, ELLIPSE) < 0.2
    assert detail(stranger, TRUTH, ELLIPSE) == 1


def test_detail_ignores_brightness_and_grows_with_the_square_of_contrast():
    dark = TRUTH // 4 * 2
    assert detail(dark + 100, dark, HOLE) == pytest.approx(1)
    assert detail(dark // 2, dark, HOLE) == pytest.approx(0.25)


def test_detail_of_a_flat_truth():
    for colour in ((0, 0, 0), (255, 255, 255), (201, 13, 97), (7, 77, 177)):
        assert detail(TRUTH, flat(*colour), ELLIPSE) == math.inf
        assert detail(flat(3, 5, 8), flat(*colour), ELLIPSE) == 1


def test_detail_of_a_hole_without_neighbours():
    scattered = np.zeros((64, 80), bool)
    scattered[10:50:7, 12:70:9] = True
    assert detail(TRUTH, TRUTH, scattered) == 1
    assert detail(np.where(scattered[:, :, None], NOISY, TRUTH), TRUTH, scattered) > 1
    column = np.zeros((64, 80), bool)
    column[10:50, 20] = True
    assert detail(NOISY, TRUTH, column) > 1
    assert detail(np.where(column[:, :, None], TRUTH, NOISY), TRUTH, column) == 1


def test_metrics_do_not_change_their_inputs():
    image, truth, mask = NOISY.copy(), TRUTH.copy(), ELLIPSE.copy()
    for metric in (psnr, ssim, gmsd, detail):
        assert isinstance(metric(image, truth, mask), float)
    assert (image == NOISY).all() and (truth == TRUTH).all() and (mask == ELLIPSE).all()


def test_the_table_lists_every_metric_and_its_better_direction():
    names = {n for n, f in vars(metrics).items() if callable(f) and getattr(f, "__annotations__", {}).get("mask")}
    names = {n for n in names if vars(metrics)[n].__module__ == metrics.__name__ and not n.startswith("_")}
    assert names == {n for n, m in METRICS.items() if not m.needs_weights}
    assert [n for n, m in METRICS.items() if m.needs_weights] == ["lpips", "dreamsim", "dino", "clip"]
    for name, metric in METRICS.items():
        assert metric.meaning and "\n" not in metric.meaning
        if not metric.needs_weights and metric.needs_truth and metric.higher_is_better is not None:
            near, off = (getattr(metrics, name)(i, TRUTH, HOLE) for i in (NOISY, BLURRED))
            assert (near > off) == metric.higher_is_better
    assert METRICS["psnr"].unit == "dB" and METRICS["detail"].higher_is_better is None


def ramp(*slopes, shape=(64, 80)):
    """A photo that rises by these levels for each pixel down and to the right."""
    rows, columns = np.indices(shape)
    return np.repeat((20 + slopes[0] * rows + slopes[1] * columns)[:, :, None], 3, axis=2).astype(np.uint8)


BAND = np.zeros((64, 80), bool)
BAND[30:] = True


@pytest.mark.parametrize("mask", [HOLE, ELLIPSE, BAND, ~HOLE], ids=["box", "ellipse", "band", "complement"])
def test_a_perfect_continuation_has_no_seam(mask):
    assert seam(ramp(1, 2), mask) == pytest.approx(1)
    assert delta_e(flat(90, 130, 40), mask) == pytest.approx(0, abs=1e-6)
    assert 0.8 < seam(NOISY, mask) < 1.25


def test_a_step_is_a_seam_of_its_height():
    stepped = ramp(2, 0)
    stepped[BAND] += 12
    assert seam(stepped, BAND) == pytest.approx((2 + 12) / 2)
    column = np.zeros((64, 80), bool)
    column[:, 40:] = True
    across = ramp(0, 1)
    across[column] += 5
    assert seam(across, column) == pytest.approx(6)
    assert seam(np.where(ELLIPSE[:, :, None], TRUTH // 2, TRUTH), ELLIPSE) > 2


def test_the_seam_is_compared_along_its_direction():
    striped = ramp(2, 0)
    striped[:, ::2] += 90  # strong across, nothing down
    striped[BAND] += 12
    assert seam(striped, BAND) == pytest.approx(7)


def test_a_blurred_fill_beside_grain_without_a_step_has_no_seam():
    grain = np.random.default_rng(3).normal(128, 12, (64, 80, 3)).round().astype(np.uint8)
    grain[BAND] = 128
    assert seam(grain, BAND) == pytest.approx(1, abs=0.1)


def test_the_colour_difference_is_ciede2000():
    shifted = np.where(BAND[:, :, None], flat(120, 100, 100), flat(100, 100, 100)).astype(np.uint8)
    lab = rgb2lab(np.array([[[100, 100, 100], [120, 100, 100]]], np.uint8))
    assert delta_e(shifted, BAND) == pytest.approx(float(deltaE_ciede2000(lab[0, 0], lab[0, 1])), rel=1e-6)
    assert 5 < delta_e(shifted, BAND) < 20


def test_only_pixels_near_the_border_affect_the_seam():
    near = cv2.dilate(BAND.astype(np.uint8), np.ones((9, 9))) - cv2.erode(BAND.astype(np.uint8), np.ones((9, 9)))
    far = np.where(near[:, :, None] > 0, TRUTH, 255 - TRUTH).astype(np.uint8)
    assert seam(far, BAND) == seam(TRUTH, BAND)
    assert delta_e(np.where(BAND[:, :, None], BLURRED, TRUTH), BAND) > 0


def test_seams_of_odd_holes():
    one = np.zeros((64, 80), bool)
    one[0, 0] = True
    scattered = np.random.default_rng(0).random((64, 80)) < 0.5
    for mask in (one, scattered):
        assert 0 < seam(TRUTH, mask) < 3 and 0 <= delta_e(TRUTH, mask) < 30
    assert seam(TRUTH, HOLE | True) == 1 and delta_e(TRUTH, HOLE | True) == 0
    assert seam(flat(9, 9, 9), HOLE) == 1
    assert seam(np.where(HOLE[:, :, None], flat(9, 9, 9), flat(40, 9, 9)).astype(np.uint8), HOLE) == math.inf
