"""Smooth fill, Telea and shift map: they fill the whole hole, change nothing else, and do not read the hole."""

import cv2
import numpy as np
import pytest
from helpers import make_photo

from realfill import Scene
from realfill.benchmark.methods.engines import EngineMethod
from realfill.errors import MissingDependencyError, SceneError
from realfill.models import classical
from realfill.models.classical import ShiftMap, Smooth, Telea, inpaint_telea

SIZE = (48, 64)
METHODS = [Smooth(), Telea(), ShiftMap()]
BRIGHT = (make_photo(*SIZE) // 2 + 100).astype(np.uint8)


def holes():
    blob, pixel, corner, edge, row, pieces, scattered, frame = (np.zeros(SIZE, bool) for _ in range(8))
    blob[16:30, 20:40] = True
    pixel[20, 30] = True
    corner[0, 0] = corner[-1, -1] = True
    edge[:, :20] = True
    row[17] = True
    pieces[5:12, 5:12] = pieces[30:40, 40:64] = True
    scattered[:] = np.random.default_rng(0).random(SIZE) < 0.5
    frame[:] = True
    frame[14:34, 20:44] = False
    names = ("blob", "pixel", "corner", "edge", "row", "pieces", "scattered", "frame")
    return dict(zip(names, (blob, pixel, corner, edge, row, pieces, scattered, frame), strict=True))


HOLES = holes()


def make_scene(target, mask, under=0):
    return Scene([], np.where(mask[:, :, None], np.uint8(under), target), mask)


def fill(method, scene):
    (image,) = method.fill(scene.target, scene.mask, [0])
    return image


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("shape", HOLES)
def test_only_hole_pixels_change_and_all_of_them_are_filled(method, shape):
    hole = HOLES[shape]
    image = fill(method, make_scene(BRIGHT, hole))
    assert image.shape == BRIGHT.shape and image.dtype == np.uint8
    assert np.array_equal(image[~hole], BRIGHT[~hole])
    assert image[hole].min() > 60, "a pixel of the hole stayed black, or Lab's zero was read as a colour"


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("shape", ["blob", "edge", "scattered"])
def test_pixels_under_the_hole_have_no_influence_and_results_repeat(method, shape):
    image, again = (fill(method, make_scene(BRIGHT, HOLES[shape], under)) for under in (0, 255))
    assert np.array_equal(image, again)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (20, 200, 60)])
def test_a_flat_photo_stays_flat(method, colour):
    flat = np.full((*SIZE, 3), colour, np.uint8)
    image = fill(method, make_scene(flat, HOLES["blob"]))
    assert np.abs(image.astype(int) - flat).max() <= 2


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_each_seed_gets_a_separate_copy(method):
    first, second = method.fill(BRIGHT, HOLES["blob"], [5, 9])
    assert np.array_equal(first, second)
    first[:] = 0
    assert second.any()
    assert method.fill(BRIGHT, HOLES["blob"], []) == []


def test_the_benchmark_sees_an_engine_as_a_method_that_ignores_references_and_seeds():
    method = EngineMethod(name="telea")
    scene = Scene([make_photo(*SIZE, 3)], BRIGHT, HOLES["blob"])
    first, second = method.prepare(scene, "a photo", 3)([5, 9])
    assert np.array_equal(first, second) and np.array_equal(first, fill(Telea(), scene))
    assert not (method.uses_references or method.uses_seed or method.uses_fit_seed)


def test_the_smooth_fill_interpolates_and_is_grey_on_an_empty_canvas():
    ramp = np.broadcast_to(np.linspace(40, 200, SIZE[1])[None, :, None], (*SIZE, 3)).round().astype(np.uint8)
    image = fill(Smooth(), make_scene(ramp, HOLES["blob"])).astype(int)
    assert np.abs(image - ramp)[HOLES["blob"]].mean() < 8
    assert np.abs(np.diff(image, axis=1)).max() < 16
    assert (fill(Smooth(), Scene.canvas((40, 50))) == 128).all()


@pytest.mark.parametrize("method", [Telea(), ShiftMap()], ids=lambda m: type(m).__name__)
def test_an_empty_canvas_is_refused(method):
    with pytest.raises(SceneError, match="covers the whole target"):
        fill(method, Scene.canvas((40, 50)))


def test_telea_continues_a_ramp():
    ramp = np.repeat(np.linspace(40, 200, 64)[None, :, None], 48, axis=0).repeat(3, axis=2).round().astype(np.uint8)
    hole = np.zeros(SIZE, bool)
    hole[20:26, 28:36] = True
    image = inpaint_telea(np.where(hole[:, :, None], np.uint8(0), ramp), hole)
    assert np.abs(image.astype(int) - ramp)[hole].mean() < 8


def test_shift_map_continues_a_pattern_that_telea_blurs():
    y, x = np.mgrid[:96, :120]
    pattern = np.where((x // 6 + y // 6) % 2, 220, 40).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    hole = np.zeros((96, 120), bool)
    hole[38:58, 50:70] = True
    filled = [fill(method, make_scene(pattern, hole)).astype(int) for method in (Telea(), ShiftMap())]
    telea, shift = (np.abs(image - pattern)[hole].mean() for image in filled)
    assert shift < 15 and telea > 45, f"mean error: Telea {telea:.1f}, shift map {shift:.1f}"


def test_shift_map_works_at_a_reduced_size_and_aligns_its_result(monkeypatch):
    monkeypatch.setattr(classical, "_SHIFT_MAP_SIZE_PX", 32)
    ramp = np.repeat(np.linspace(90, 200, 64)[None, :, None], 48, axis=0).repeat(3, axis=2).round().astype(np.uint8)
    shapes = []

    def smooth_fill(lab, hole):
        shapes.append(lab.shape)
        assert not (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[~hole] < 80).any(), "blank pixels were averaged in"
        return cv2.inpaint(lab, hole.astype(np.uint8), 3, cv2.INPAINT_NS)

    monkeypatch.setattr(classical, "_shift_map", smooth_fill)
    image = fill(ShiftMap(), make_scene(ramp, HOLES["blob"]))
    assert shapes == [(24, 32, 3)]
    assert np.array_equal(image[~HOLES["blob"]], ramp[~HOLES["blob"]])
    assert np.abs(image.astype(int) - ramp).max() <= 8


def test_telea_replaces_shift_map_if_no_known_pixels_remain_after_shrinking(monkeypatch):
    monkeypatch.setattr(classical, "_SHIFT_MAP_SIZE_PX", 8)
    hole = np.ones(SIZE, bool)
    hole[20, 30] = False
    image = fill(ShiftMap(), make_scene(BRIGHT, hole))
    assert np.array_equal(image, inpaint_telea(np.where(hole[:, :, None], np.uint8(0), BRIGHT), hole))


def test_telea_fills_the_pixels_that_no_shift_reaches(monkeypatch):
    hole = HOLES["blob"]
    grey = np.full((*SIZE, 3), 128, np.uint8)
    shifted = cv2.cvtColor(grey, cv2.COLOR_RGB2LAB).astype(np.uint8)
    shifted[20:26, 24:36] = 0
    monkeypatch.setattr(classical, "_shift_map", lambda lab, hole: shifted)
    image = fill(ShiftMap(), make_scene(grey, hole))
    assert np.abs(image.astype(int) - 128).max() <= 2


def test_a_crash_of_opencv_becomes_an_error(monkeypatch):
    monkeypatch.setattr(classical, "_SHIFT_MAP", "import os; os.abort()")
    with pytest.raises(SceneError, match="failed on this target"):
        fill(ShiftMap(), make_scene(BRIGHT, HOLES["blob"]))
    monkeypatch.setattr(classical, "_SHIFT_MAP", "raise ValueError('out of shifts')")
    with pytest.raises(SceneError, match="out of shifts"):
        fill(ShiftMap(), make_scene(BRIGHT, HOLES["blob"]))


def test_an_opencv_without_contrib_modules_is_reported(monkeypatch):
    monkeypatch.delattr(cv2, "xphoto")
    with pytest.raises(MissingDependencyError, match="opencv-contrib-python"):
        fill(ShiftMap(), make_scene(BRIGHT, HOLES["blob"]))
