"""The training set: photos at the scale of the hole's windows, some of them laid over the target."""

import tracemalloc

import cv2
import numpy as np
import pytest
from conftest import make_photo

from realfill import FitConfig, Scene
from realfill.demo import demo_scene
from realfill.filling.windows import choose_windows
from realfill.training_set import training_set


def test_crops_of_a_larger_reference_show_as_much_of_the_scene():

    small, large = make_photo(64, 80, 1), make_photo(256, 320, 1)
    mask = np.zeros((64, 80), bool)
    mask[20:45, 25:60] = True
    scene = Scene([small, large], make_photo(64, 80), mask)
    parts = choose_windows(scene.mask, resolution=32, multiple=2, context=1.7)
    one, four, target = training_set(scene, parts, FitConfig().resolve({}), 200)
    assert one.crop_sides_px == pytest.approx(target.crop_sides_px)
    assert four.crop_sides_px == pytest.approx([4 * side for side in target.crop_sides_px])
    assert one.share + four.share + target.share == pytest.approx(1)


def test_a_share_of_the_crops_shows_the_references_as_they_lie_over_the_target():

    truth = demo_scene()[1]
    hole = np.zeros(truth.shape[:2], bool)
    hole[40:110, 60:150] = True
    moved = cv2.warpAffine(truth, np.float32([[0.9, 0.05, 10], [-0.05, 0.9, 14]]), truth.shape[1::-1])
    dark = (moved * 0.6).astype(np.uint8)
    scene = Scene([dark, make_photo(90, 120, 9)], truth, hole)
    parts = choose_windows(hole, resolution=64, multiple=8, context=1.7, num_stages=1, max_growth=1)
    config = FitConfig(aligned_share=0.6).resolve({})
    *plain, laid, target = training_set(scene, parts, config, 64)
    assert len(plain) == 2 and laid.hole is not None
    assert laid.share == pytest.approx(0.75 * 0.6) and plain[0].share == pytest.approx(0.75 * 0.2)
    assert target.share == 0.25
    top, left = (round(edge - place) for edge, place in zip((40, 60), laid.hole.boxes[0][:2], strict=True))
    there = slice(top, top + laid.known.shape[0]), slice(left, left + laid.known.shape[1])
    assert np.array_equal(laid.hole.mask, hole[there])
    covered = laid.hole.mask & laid.known
    assert covered.sum() > 0.9 * hole.sum()
    error, without = (np.abs(image.astype(int) - truth[there])[covered].mean() for image in (laid.image, dark[there]))
    assert error < 6 < without
    unaligned = training_set(Scene(scene.references[1:], truth, hole), parts, config, 64)
    assert [p.share for p in unaligned] == pytest.approx([0.75, 0.25])


def test_crops_have_the_scales_of_windows_and_of_later_stages_tiles_and_no_others():
    mask = np.zeros((400, 500), bool)
    mask[100:300, 100:300] = mask[380:, 480:] = True
    scene, config = Scene([make_photo(400, 500, 1)], make_photo(400, 500), mask), FitConfig(crop_scale=(1.0, 1.0))
    for stages, sides in ((1, (32, 340)), (2, (32, 170, 340)), (9, (32, 32, 42.5, 85, 170, 340))):
        parts = choose_windows(mask, resolution=32, multiple=2, context=1.7, num_stages=stages, max_growth=1)
        assert len(parts) == 2
        photos = training_set(scene, parts, config.resolve({}), 200)
        found = [(*p.crop_sides_px, p.share) for p in photos if p.known is not None]
        views = sorted(set(sides))
        assert [side for least, greatest, _ in found for side in (least, greatest)] == pytest.approx(
            [side for side in views for _ in (0, 1)], rel=0.1
        )
        assert [share for *_, share in found] == pytest.approx([0.25 * sides.count(s) / len(sides) for s in views])
        assert sum(p.share for p in photos) == pytest.approx(1)


def test_each_scale_is_learnt_around_the_holes_that_are_filled_in_it():
    truth = demo_scene()[1]
    hole = np.zeros(truth.shape[:2], bool)
    hole[40:170, 60:190] = hole[200:212, 280:292] = True
    reference = cv2.warpAffine(truth, np.float32([[0.95, 0.02, 6], [-0.02, 0.95, 9]]), truth.shape[1::-1])
    parts = choose_windows(hole, resolution=64, multiple=8, context=1.7, num_stages=2, max_growth=1)
    config = FitConfig(aligned_share=0.8, crop_scale=(1.0, 1.0)).resolve({})
    assert [len(part.windows) for part in parts] == [2, 1]
    photos = training_set(Scene([reference], truth, hole), parts, config, 64)
    fine, middle, coarse = (p for p in photos if p.hole is not None)
    size = lambda photo: [round(b - a) for a, b in zip(*np.array(photo.hole.boxes[0]).reshape(2, 2), strict=True)]  # noqa: E731
    assert size(fine) == [12, 12] and size(middle) == size(coarse) == [130, 130]
    assert fine.crop_sides_px[1] < middle.crop_sides_px[0] < coarse.crop_sides_px[0]


def test_a_large_target_is_learnt_from_in_little_memory():
    photo = cv2.resize(demo_scene()[1], (3000, 2000), interpolation=cv2.INTER_CUBIC)
    reference = cv2.warpAffine(photo, np.float32([[1, 0.02, 40], [-0.02, 1, 60]]), photo.shape[1::-1])
    hole = np.zeros(photo.shape[:2], bool)
    hole[900:1300, 1200:1700] = True
    scene = Scene([reference] * 5, photo, hole)
    parts = choose_windows(hole, resolution=64, multiple=8, context=1.7, num_stages=1, max_growth=1)
    tracemalloc.start()
    photos = training_set(scene, parts, FitConfig(aligned_share=0.8).resolve({}), 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    laid = [p for p in photos if p.hole is not None]
    assert len(laid) == 5
    assert all(p.hole.mask[p.known].mean() > 0.02 for p in laid)
    assert peak < 12 * photo.nbytes  # laid over it at its own size they would take 20 times as much
    assert sum(p.image.nbytes for p in photos) < 0.5 * photo.nbytes


def test_crops_for_a_canvas_larger_than_the_photos_show_them_as_small_as_the_canvas_is_seen():
    photo = demo_scene()[1][:120, :160]
    scene = Scene.outpaint([photo], photo, margin=0.5)
    parts = choose_windows(scene.mask, resolution=32, multiple=2, context=1.7, num_stages=1, max_growth=1)
    side = float(np.sqrt(240 * 320))
    for found in training_set(scene, parts, FitConfig(crop_scale=(1.0, 1.0)).resolve({}), 200):
        assert found.crop_sides_px == pytest.approx((side, side), rel=0.05)
        assert found.reach_px == pytest.approx(side, rel=0.05)
