"""The training set: the scales and shares of photos, and references warped to the target view."""

import tracemalloc

import cv2
import numpy as np
import pytest
from helpers import make_photo

from realfill import FitConfig, Scene
from realfill.app.demo import demo_scene
from realfill.geometry.matching import match_references
from realfill.scene.windows import choose_windows
from realfill.training.dataset import training_set


def prepare(scene, parts, resolution, **changes):
    matches = match_references(scene.known, scene.mask, scene.references)
    return training_set(scene, parts, FitConfig(**changes).resolve({}), resolution, matches=matches)


def test_crops_of_a_larger_reference_show_as_much_of_the_scene():
    small, large = make_photo(64, 80, 1), make_photo(256, 320, 1)
    mask = np.zeros((64, 80), bool)
    mask[20:45, 25:60] = True
    scene = Scene([small, large], make_photo(64, 80), mask)
    parts = choose_windows(scene.mask, resolution=32, multiple=2, context=1.7)
    one, four, target = prepare(scene, parts, 200)
    assert one.crop_sides_px == pytest.approx(target.crop_sides_px)
    assert four.crop_sides_px == pytest.approx([4 * side for side in target.crop_sides_px])
    assert four.reach_px == pytest.approx(4 * target.reach_px)
    assert one.share + four.share + target.share == pytest.approx(1)


def test_a_share_of_the_crops_shows_references_warped_to_the_target_view():
    truth = demo_scene()[1]
    hole = np.zeros(truth.shape[:2], bool)
    hole[40:110, 60:150] = True
    moved = cv2.warpAffine(truth, np.float32([[0.9, 0.05, 10], [-0.05, 0.9, 14]]), truth.shape[1::-1])
    dark = (moved * 0.6).astype(np.uint8)
    scene = Scene([dark, make_photo(90, 120, 9)], truth, hole)
    parts = choose_windows(hole, resolution=64, multiple=8, context=1.7, num_stages=1, max_growth=1)
    *references, warped, target = prepare(scene, parts, 64, warped_share=0.6)
    assert len(references) == 2 and warped.hole is not None
    assert warped.share == pytest.approx(0.75 * 0.6) and references[0].share == pytest.approx(0.75 * 0.2)
    assert target.share == 0.25
    top, left = (round(edge - place) for edge, place in zip((40, 60), warped.hole.boxes[0][:2], strict=True))
    region = slice(top, top + warped.known.shape[0]), slice(left, left + warped.known.shape[1])
    assert np.array_equal(warped.hole.mask, hole[region])
    covered = warped.hole.mask & warped.known
    assert covered.sum() > 0.9 * hole.sum()
    error, without = (np.abs(i.astype(int) - truth[region])[covered].mean() for i in (warped.image, dark[region]))
    assert error < 6 < without
    unaligned = prepare(Scene(scene.references[1:], truth, hole), parts, 64, warped_share=0.6)
    assert [p.share for p in unaligned] == pytest.approx([0.75, 0.25])


def test_crops_have_the_scales_of_the_windows_and_of_the_tiles_of_later_stages():
    mask = np.zeros((400, 500), bool)
    mask[100:300, 100:300] = mask[380:, 480:] = True
    scene = Scene([make_photo(400, 500, 1)], make_photo(400, 500), mask)
    for stages, sides in ((1, (32, 340)), (2, (32, 170, 340)), (9, (32, 32, 42.5, 85, 170, 340))):
        parts = choose_windows(mask, resolution=32, multiple=2, context=1.7, num_stages=stages, max_growth=1)
        assert len(parts) == 2
        photos = prepare(scene, parts, 200, crop_scale=(1.0, 1.0))
        targets = [(*p.crop_sides_px, p.share) for p in photos if p.known is not None]
        scales = sorted(set(sides))
        assert [side for smallest, largest, _ in targets for side in (smallest, largest)] == pytest.approx(
            [side for side in scales for _ in (0, 1)], rel=0.1
        )
        assert [share for *_, share in targets] == pytest.approx([0.25 * sides.count(s) / len(sides) for s in scales])
        assert sum(p.share for p in photos) == pytest.approx(1)


def test_each_scale_is_learnt_around_the_holes_that_are_filled_at_it():
    truth = demo_scene()[1]
    hole = np.zeros(truth.shape[:2], bool)
    hole[40:170, 60:190] = hole[200:212, 280:292] = True
    reference = cv2.warpAffine(truth, np.float32([[0.95, 0.02, 6], [-0.02, 0.95, 9]]), truth.shape[1::-1])
    parts = choose_windows(hole, resolution=64, multiple=8, context=1.7, num_stages=2, max_growth=1)
    assert [len(part.windows) for part in parts] == [2, 1]
    photos = prepare(Scene([reference], truth, hole), parts, 64, warped_share=0.8, crop_scale=(1.0, 1.0))
    fine, middle, coarse = (p for p in photos if p.hole is not None)
    size = lambda photo: [round(b - a) for a, b in zip(*np.array(photo.hole.boxes[0]).reshape(2, 2), strict=True)]  # noqa: E731
    assert size(fine) == [12, 12] and size(middle) == size(coarse) == [130, 130]
    assert fine.crop_sides_px[1] < middle.crop_sides_px[0] < coarse.crop_sides_px[0]


def test_a_large_target_takes_little_memory():
    photo = cv2.resize(demo_scene()[1], (3000, 2000), interpolation=cv2.INTER_CUBIC)
    reference = cv2.warpAffine(photo, np.float32([[1, 0.02, 40], [-0.02, 1, 60]]), photo.shape[1::-1])
    hole = np.zeros(photo.shape[:2], bool)
    hole[900:1300, 1200:1700] = True
    scene = Scene([reference] * 5, photo, hole)
    parts = choose_windows(hole, resolution=64, multiple=8, context=1.7, num_stages=1, max_growth=1)
    matches = match_references(scene.known, scene.mask, scene.references)
    tracemalloc.start()
    photos = training_set(scene, parts, FitConfig(warped_share=0.8).resolve({}), 64, matches=matches)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    warped = [p for p in photos if p.hole is not None]
    assert len(warped) == 5
    assert {p.reference for p in warped} == set(range(5))
    assert [p.reference for p in photos if p.hole is None] == [0, 1, 2, 3, 4, -1]
    assert all(p.hole.mask[p.known].mean() > 0.02 for p in warped)
    assert peak < 12 * photo.nbytes  # references warped at full size would take 20 times as much
    assert sum(p.image.nbytes for p in photos) < 0.5 * photo.nbytes


def test_crops_for_a_canvas_larger_than_the_photos_reach_beyond_them():
    photo = demo_scene()[1][:120, :160]
    scene = Scene.outpaint([photo], photo, margin="50%")
    parts = choose_windows(scene.mask, resolution=32, multiple=2, context=1.7, num_stages=1, max_growth=1)
    side = float(np.sqrt(240 * 320))
    for image in prepare(scene, parts, 200, crop_scale=(1.0, 1.0)):
        assert image.crop_sides_px == pytest.approx((side, side), rel=0.05)
        assert image.reach_px == pytest.approx(side, rel=0.05)


def test_masked_parts_of_references_are_unknown_in_crops_and_warps():
    truth = demo_scene()[1]
    hole = np.zeros(truth.shape[:2], bool)
    hole[40:110, 60:150] = True
    excluded = np.zeros_like(hole)
    excluded[60:90, 80:200] = True
    moved = cv2.warpAffine(truth, np.float32([[1, 0, 5], [0, 1, 3]]), truth.shape[1::-1])
    parts = choose_windows(hole, resolution=64, multiple=8, context=1.7, num_stages=1, max_growth=1)
    photos = []
    for content in (moved, 255 - moved):
        reference = np.where(excluded[..., None], content, moved)
        scene = Scene([reference], truth, hole, reference_masks=[excluded])
        matches = match_references(scene.known, scene.mask, scene.references, scene.reference_masks)
        settings = FitConfig(warped_share=0.6).resolve({})
        photos.append(training_set(scene, parts, settings, 64, matches=matches))
    one, other = photos
    assert len(one) == 3 and np.array_equal(one[0].known, ~excluded)
    assert (one[1].hole.mask & ~one[1].known).sum() > 1500
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first.image, second.image) and np.array_equal(first.known, second.known)
