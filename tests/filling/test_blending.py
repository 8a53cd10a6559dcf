"""Blending: only the hole changes, and the sample matches the known pixels at its border."""

import tracemalloc

import cv2
import numpy as np
import pytest
from helpers import make_photo

import realfill.io.bands
from realfill.benchmark.metrics import seam
from realfill.filling.blending import blend
from realfill.io.bands import bands

PHOTO = make_photo(61, 83)


def holes():
    blob, edge, scattered, pixel, row = (np.zeros((61, 83), bool) for _ in range(5))
    blob[20:40, 30:60] = True
    edge[:, :33] = True
    scattered[:] = np.random.default_rng(0).random((61, 83)) < 0.5
    pixel[60, 0] = True
    row[30] = True
    return {"blob": blob, "edge": edge, "scattered": scattered, "pixel": pixel, "row": row}


HOLES = holes()


def sample(seed=1):
    return make_photo(61, 83, seed).astype(np.float32) * 1.3 - 30.4


@pytest.mark.parametrize("method", ["poisson", "cut"])
@pytest.mark.parametrize("shape", HOLES)
def test_only_hole_pixels_change(shape, method):
    hole, patch = HOLES[shape], sample()
    known, before = PHOTO.copy(), patch.copy()
    image = blend(known, hole, patch, method=method)
    assert image.dtype == np.uint8 and np.array_equal(image[~hole], PHOTO[~hole])
    assert (image[hole] != PHOTO[hole]).mean() > 0.5
    assert np.array_equal(known, PHOTO) and np.array_equal(patch, before)


@pytest.mark.parametrize("method", ["poisson", "cut"])
@pytest.mark.parametrize("shape", HOLES)
def test_pixels_under_the_hole_have_no_influence(shape, method):
    hole = HOLES[shape]
    contents = (np.zeros_like(PHOTO), np.full_like(PHOTO, 255), make_photo(61, 83, 5), PHOTO)
    images = [blend(np.where(hole[:, :, None], c, PHOTO), hole, sample(), method=method) for c in contents]
    assert all(np.array_equal(image, images[0]) for image in images)


def offset_error(shape, method, offset=25.0):
    """Return what remains of a constant offset of the sample, and the distance of each pixel to the hole's border."""
    smooth = cv2.GaussianBlur(PHOTO, (0, 0), 6)
    smooth = (smooth * 0.5 + 50).astype(np.uint8)
    hole = HOLES[shape]
    image = blend(smooth, hole, smooth + np.float32(offset), method=method)
    depth = cv2.distanceTransform(np.pad(hole, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return (image.astype(float) - smooth).mean(axis=2), depth


def test_cut_leaves_the_offset():
    error, depth = offset_error("blob", "cut")
    assert (error[depth > 0] == 25).all()


def test_cut_rounds_and_clips_the_sample():
    patch = sample()
    patch[25, 35] = (99.6, -3.0, 300.0)
    hole = HOLES["blob"]
    image = blend(PHOTO, hole, patch, method="cut")
    assert image[25, 35].tolist() == [100, 0, 255]
    assert np.array_equal(image[hole], np.clip(np.round(patch), 0, 255)[hole])


@pytest.mark.parametrize("method", ["poisson", "cut"])
def test_16_bits_give_the_same_in_finer_steps(method):
    hole = HOLES["blob"]
    narrow = blend(PHOTO, hole, sample(), method=method)
    wide = blend(PHOTO, hole, sample(), method=method, dtype=np.uint16)
    assert wide.dtype == np.uint16 and np.array_equal(wide[~hole], PHOTO[~hole] * np.uint16(257))
    assert np.abs(wide / 257 - narrow).max() <= 0.51 and len(np.unique(wide[hole] % 257)) > 8


@pytest.mark.parametrize("method", ["poisson", "cut"])
def test_a_hole_everywhere_gives_the_sample_and_no_hole_the_photo(method):
    everything = np.ones((61, 83), bool)
    patch = make_photo(61, 83, 1).astype(np.float32)
    assert np.array_equal(blend(PHOTO, everything, patch, method=method), patch)
    assert np.array_equal(blend(PHOTO, ~everything, patch, method=method), PHOTO)


@pytest.mark.parametrize("size", [(1, 40), (40, 1)])
def test_images_of_one_row_or_column_are_blended(size):
    photo, hole = make_photo(*size), np.zeros(size, bool)
    hole.flat[10:20] = True
    image = blend(photo, hole, photo + np.float32(20), method="poisson")
    assert np.array_equal(image[~hole], photo[~hole])
    edge = image.reshape(40, 3).astype(int) - photo.reshape(40, 3)
    assert np.abs(edge[[10, 19]]).max() <= 4


@pytest.mark.parametrize("shape", HOLES)
def test_poisson_agrees_with_a_dense_solver(shape):
    """The equation: the gradients of the sample in the hole, the photo at its border."""
    hole, patch = HOLES[shape], sample() * 0.3 + 60
    image = blend(PHOTO, hole, patch, method="poisson", dtype=np.uint16) / 257
    inside = list(zip(*np.nonzero(hole), strict=True))
    place = {p: i for i, p in enumerate(inside)}
    matrix, right = np.zeros((len(inside),) * 2), np.zeros((len(inside), 3))
    for (y, x), i in place.items():
        for q in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= q[0] < 61 and 0 <= q[1] < 83):
                continue
            matrix[i, i] += 1
            right[i] += patch[y, x] - patch[q]
            if q in place:
                matrix[i, place[q]] -= 1
            else:
                right[i] += PHOTO[q]
    exact = np.linalg.solve(matrix, right).clip(0, 255)
    assert np.abs(image[hole] - exact).max() < 1


def test_poisson_removes_a_constant_offset():
    error, depth = offset_error("edge", "poisson")
    assert np.abs(error[depth > 0]).max() <= 1


def test_poisson_removes_a_step_at_the_border():
    hole = HOLES["blob"]
    photo = (cv2.GaussianBlur(PHOTO, (0, 0), 2) * 0.4 + 70).astype(np.uint8)
    patch = photo + np.linspace(-60, 60, 83, dtype=np.float32)[None, :, None]
    steps = {m: seam(blend(photo, hole, patch, method=m), hole) for m in ("cut", "poisson")}
    assert steps["poisson"] < 1.2 < steps["cut"]


def test_poisson_removes_a_linear_residual_on_several_levels():
    """A linear function is harmonic, so the result equals the photo."""
    photo = (make_photo(300, 411) * 0.4 + 60).astype(np.uint8)
    hole = cv2.ellipse(np.zeros((300, 411), np.uint8), (200, 150), (150, 110), 20, 0, 360, 1, -1) > 0
    rows, columns = np.indices((300, 411), np.float32)
    patch = photo + (0.1 * rows - 0.08 * columns)[:, :, None]
    assert np.abs(blend(photo, hole, patch, method="poisson").astype(int) - photo).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("method", ["poisson", "cut"])
def test_bands_do_not_change_the_result(method, dtype, monkeypatch):
    photo, patch = make_photo(301, 211), make_photo(301, 211, 3) + np.float32(9.3)
    hole = cv2.ellipse(np.zeros((301, 211), np.uint8), (100, 150), (140, 90), 70, 0, 360, 1, -1) > 0
    hole[:, 205:] = True
    whole = blend(photo, hole, patch, method=method, dtype=dtype)
    monkeypatch.setattr(realfill.io.bands, "_BAND_PX", 16 * 211)
    assert len(bands(hole.shape)) == 19
    banded = blend(photo, hole, patch, method=method, dtype=dtype)
    assert np.array_equal(banded[~hole], whole[~hole])
    assert np.abs(banded.astype(int) - whole).max() <= (1 if dtype == np.uint8 else 128)  # half a level of 255


def test_poisson_needs_memory_for_the_result_and_levels_of_half_the_size():
    def peak(side):
        hole = np.ones((side, side), bool)
        hole[side // 4 : -side // 4, side // 4 : -side // 4] = False
        photo, patch = np.full((side, side, 3), 90, np.uint8), np.full((side, side, 3), 120, np.float32)
        tracemalloc.start()
        blend(photo, hole, patch, method="poisson")
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    assert peak(2400) - peak(1600) < 16 * (2400**2 - 1600**2)  # bytes; a sparse matrix would take 300 for each
