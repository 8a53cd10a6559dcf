"""Stitching: planted homographies and colours are undone, unusable references are left out, only the hole changes."""

import warnings

import numpy as np
import pytest
from worlds import SHIFTED, SIZE, TARGET, VIEWS, WIDTH, WORLD, blob, make_world, turned, view

from realfill import Scene
from realfill.benchmark.methods.stitching import Stitching
from realfill.benchmark.metrics import psnr
from realfill.errors import RealFillWarning, SceneError
from realfill.models.classical import inpaint_telea


def holes():
    pixel, corner, edge, row, pieces, frame = (np.zeros(SIZE, bool) for _ in range(6))
    pixel[70, 90] = True
    corner[0, 0] = corner[-1, -1] = True
    edge[:, :70] = True
    row[80] = True
    pieces[20:45, 20:45] = pieces[90:130, 120:200] = True
    frame[:] = True
    frame[35:115, 45:155] = False
    return {"pixel": pixel, "corner": corner, "edge": edge, "row": row, "pieces": pieces, "frame": frame}


HOLES = {"blob": blob()} | holes()


def make_scene(references, hole, target=TARGET, under=0):
    return Scene(references, np.where(hole[:, :, None], np.uint8(under), target), hole)


def stitch(references, hole, target=TARGET, under=0):
    (image,) = Stitching().prepare(make_scene(references, hole, target, under), None, 0)([0])
    return image


def telea(hole, target=TARGET):
    return inpaint_telea(np.where(hole[:, :, None], np.uint8(0), target), hole)


@pytest.mark.parametrize("name", VIEWS)
def test_a_planted_homography_is_found_and_undone(name):
    hole = HOLES["blob"]
    image = stitch([view(VIEWS[name])], hole)
    stitched, inpainted = psnr(image, TARGET, hole), psnr(telea(hole), TARGET, hole)
    assert stitched > 25 and stitched > inpainted + 8, f"PSNR {stitched:.1f} dB, Telea {inpainted:.1f} dB"


@pytest.mark.parametrize("shape", HOLES)
def test_only_hole_pixels_change(shape):
    hole = HOLES[shape]
    image = stitch([view(SHIFTED), view(turned(10, 0.8))], hole)
    assert image.shape == TARGET.shape and image.dtype == np.uint8
    assert np.array_equal(image[~hole], TARGET[~hole])
    assert image[hole].min() > 15, "a pixel of the hole stayed black"
    assert psnr(image, TARGET, hole) > 20


@pytest.mark.parametrize("shape", ["blob", "pieces", "frame"])
def test_pixels_under_the_hole_have_no_influence(shape):
    first, second = (stitch([view(turned(7)), view(SHIFTED)], HOLES[shape], under=under) for under in (0, 255))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("size", [(120, 260), (400, 90), (420, 560)])
def test_references_may_have_other_sizes(size):
    scale = size[1] / WIDTH * 0.9
    reference = view(np.diag([scale, scale, 1.0]), size)
    covered = blob(axes=(20, 12), center=(100, 50))
    assert psnr(stitch([reference], covered), TARGET, covered) > 22


def test_other_exposure_and_white_balance_are_compensated():
    hole, wide = HOLES["frame"], view(((1, 0, 20), (0, 1, 20), (0, 0, 1)), (190, 240))
    other = (wide * np.array([0.55, 0.75, 0.9]) + np.array([60, 10, -20])).clip(0, 255).round().astype(np.uint8)
    assert psnr(other[20:-20, 20:-20], TARGET, hole) < 20
    assert psnr(stitch([other], hole), TARGET, hole) > 30


def flat(value):
    return np.full((*SIZE, 3), value, np.uint8)


@pytest.mark.parametrize(
    "references", [[], [make_world(7)], [flat(90)], [make_world(7), flat(0)]], ids=["none", "unrelated", "flat", "both"]
)
def test_without_a_usable_reference_the_hole_is_inpainted_with_a_warning(references):
    hole = HOLES["blob"]
    with pytest.warns(RealFillWarning, match="no reference could be aligned"):
        image = stitch(references, hole)
    assert np.array_equal(image, telea(hole))


def test_a_flat_target_is_inpainted():
    hole, target = HOLES["blob"], flat(120)
    with pytest.warns(RealFillWarning):
        image = stitch([WORLD], hole, target)
    assert np.array_equal(image, telea(hole, target))


def test_an_unrelated_photo_beside_a_usable_reference_changes_nothing():
    good = view(SHIFTED)
    hole = HOLES["blob"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(stitch([make_world(7), good], hole), stitch([good], hole))


def test_the_reference_that_fits_best_around_the_hole_is_used_in_any_order():
    good, hole = view(SHIFTED), HOLES["blob"]
    noise = np.random.default_rng(0).normal(0, 40, good.shape)
    bad = (view(turned(4)) + noise).clip(0, 255).astype(np.uint8)
    image = stitch([bad, good], hole)
    assert np.array_equal(image, stitch([good, bad], hole)) and np.array_equal(image, stitch([good], hole))
    assert not np.array_equal(image, stitch([bad], hole))


def test_a_second_reference_fills_pixels_that_the_first_does_not_cover():
    hole = np.zeros(SIZE, bool)
    hole[50:100, 20:180] = True
    left, right = view(np.eye(3))[:, :90], view(np.eye(3))[:, 110:]
    parts = [hole & (np.arange(WIDTH) < 80), hole & (np.arange(WIDTH) > 120)]
    one, both = stitch([left], hole), stitch([left, right], hole)
    assert [psnr(both, TARGET, part) > 25 for part in parts] == [True, True]
    assert [psnr(one, TARGET, part) > 25 for part in parts] == [True, False]
    middle = hole.copy()
    middle[:, :95] = middle[:, 106:] = False
    assert both[middle].min() > 15, "uncovered pixels stayed black"


def test_the_plane_around_the_hole_is_preferred_to_the_plane_with_most_matches():
    """The hole lies in a near object, which moves further than the scene behind it."""
    size, near_object = (300, 400), make_world(5, (130, 170))
    target, reference = make_world(3), make_world(3)
    target[80:210, 110:280], reference[80:210, 140:310] = near_object, near_object
    hole = np.zeros(size, bool)
    hole[120:170, 160:230] = True
    image = stitch([reference], hole, target)
    assert psnr(reference, target, hole) < 16
    assert psnr(image, target, hole) > 22


def test_a_small_target_is_stitched_and_seeds_have_no_influence():
    target = TARGET[:32, :40]
    hole = np.zeros((32, 40), bool)
    hole[10:20, 12:24] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RealFillWarning)
        sampler = Stitching().prepare(make_scene([WORLD, target], hole, target), "words", 4)
    first, second = sampler([3, 8])
    assert np.array_equal(first, second) and np.array_equal(first[~hole], target[~hole])
    first[:] = 0
    assert sampler([3])[0].any()
    assert not Stitching.uses_seed and not Stitching.uses_fit_seed


def test_an_empty_canvas_is_rejected():
    with pytest.raises(SceneError, match="covers the whole target"):
        Stitching().prepare(Scene.canvas((40, 50), [WORLD]), None, 0)
