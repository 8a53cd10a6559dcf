"""Warps: scales and homographies from matches, valid masks, and colours fitted to the target's."""

import time
import tracemalloc

import cv2
import numpy as np
import pytest
from worlds import SHIFTED, SIZE, TARGET, VIEWS, WIDTH, WORLD, blob, make_world, turned, view

from realfill.benchmark.metrics import psnr
from realfill.geometry.matching import Matches
from realfill.geometry.warping import (
    _find_homographies,
    _fit_line,
    _View,
    _warp,
    _warp_to_view,
    estimate_scale,
    warp_references,
)
from realfill.io.images import fit_within

PHOTO_SIZE = (480, 640)
AREAS = (1 / 64, 64)  # pixels of the reference per pixel of the view


def random_points(count, seed=0):
    return np.random.default_rng(seed).uniform((0, 0), PHOTO_SIZE[::-1], (count, 2)).astype(np.float32)


def transform(xy, scale, degrees, shift):
    a = np.deg2rad(degrees)
    return (scale * xy @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + shift).astype(np.float32)


def scale_of(target_points, points, target_size=PHOTO_SIZE):
    confidence = np.ones(len(points), np.float32)
    return estimate_scale(
        Matches(keypoints0=points, keypoints1=target_points, confidence=confidence), PHOTO_SIZE, target_size
    )


def test_a_planted_scale_is_found_among_wrong_matches():
    target_points = random_points(60)
    points = transform(target_points, 1.7, 12, (30, -20))
    points[:20] = random_points(20, seed=1)
    assert scale_of(target_points, points) == pytest.approx(1.7, rel=0.01)


@pytest.mark.parametrize("count", [0, 1, 7, 60])
def test_too_few_or_unrelated_matches_give_no_scale(count):
    assert scale_of(random_points(count), random_points(count, seed=int(count == 60))) is None


@pytest.mark.parametrize("scale", [10, 1 / 10])
def test_an_implausible_scale_is_rejected(scale):
    points = random_points(60)
    assert scale_of(points, transform(points, scale, 0, (0, 0))) is None


@pytest.mark.parametrize(
    ("target_size", "plausible", "implausible"),
    [((24, 32), (20, 100, 0.5), (170, 0.1)), ((9600, 12800), (1 / 20, 1 / 100, 2), (1 / 170, 10))],
    ids=["large reference", "small reference"],
)
def test_scales_are_judged_relative_to_the_sizes_of_the_photos(target_size, plausible, implausible):
    points = random_points(60)
    scales = [scale_of(transform(points, 1 / s, 0, (0, 0)), points, target_size) for s in (*plausible, *implausible)]
    assert scales[: len(plausible)] == pytest.approx(plausible, rel=0.01)
    assert scales[len(plausible) :] == [None] * len(implausible)


WIDE_WORLD = make_world(3, (225, 300))
SHARES = {"same view": (0.0, 1.0), "detail": (0.25, 0.5)}  # of the target's view: where the reference starts, its side


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize(("target_px", "reference_px"), [(300, 6000), (6000, 300), (900, 6000)])
def test_references_of_very_different_resolution_are_warped(target_px, reference_px, shares):
    hole = np.zeros(WIDE_WORLD.shape[:2], np.uint8)
    hole[90:140, 120:180] = 1
    top, left, height, width = (int(s * n) for s in shares for n in WIDE_WORLD.shape[:2])
    part = WIDE_WORLD[top : top + height, left : left + width]
    target, reference = (
        cv2.resize(image, (side, side * 3 // 4), interpolation=cv2.INTER_CUBIC)
        for image, side in ((WIDE_WORLD, target_px), (part, reference_px))
    )
    mask = cv2.resize(hole, target.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    known = np.where(mask[:, :, None], np.uint8(0), target)
    size = fit_within(mask.shape, 1024)
    start = time.process_time()
    tracemalloc.start()
    (warp,) = warp_references(known, mask, [reference], size=size)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - start < 20
    assert peak_bytes < 200e6, "about the size of the larger photo, and no more"
    small_mask = cv2.resize(hole, size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    expected = cv2.resize(target, size[::-1], interpolation=cv2.INTER_AREA)
    assert warp.valid_mask[small_mask].all()
    assert psnr(warp.image, expected, small_mask) > 25


def test_the_colour_fit_ignores_outliers():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 255, 4000)
    goals = 0.7 * values + 20 + rng.normal(0, 1, 4000)
    goals[:1000] = 255 - values[:1000] / 2
    gain, bias = _fit_line(values, goals)
    assert gain == pytest.approx(0.7, abs=0.05) and bias == pytest.approx(20, abs=6)
    assert np.polyfit(values, goals, 1)[0] < 0.5  # plain least squares fails


@pytest.mark.parametrize("values", [np.full(100, 30), np.arange(100)])
def test_the_gain_of_the_colour_fit_is_never_negative(values):
    gain, bias = _fit_line(values, 200 - values)
    assert gain == 0 and bias == pytest.approx(np.mean(200 - values), abs=1)


def test_planted_planes_are_found_in_the_order_of_their_matches():
    rng = np.random.default_rng(0)
    planes = [np.array(VIEWS["aslant"]), np.array([[1, 0, 69], [0, 1, 34], [0, 0, 1.0]])]
    target = rng.uniform(0, 150, (300, 2)).astype(np.float32)
    planted = [cv2.perspectiveTransform(target[None], plane)[0] for plane in planes]
    points = np.where((np.arange(300) < 200)[:, None], *planted)
    points[260:] = rng.uniform(0, 200, (40, 2))
    homographies = _find_homographies(points, target, SIZE)
    assert len(homographies) == 2
    for matrix, plane in zip(homographies, planes, strict=True):
        moved = [cv2.perspectiveTransform(target[None], m)[0] for m in (matrix, plane)]
        assert np.abs(moved[0] - moved[1]).max() < 1
    again = _find_homographies(points, target, SIZE)
    assert all(np.array_equal(a, b) for a, b in zip(homographies, again, strict=True))


@pytest.mark.parametrize("num", [0, 1, 4, 8, 9, 40, 400])
def test_random_matches_give_no_homography(num):
    rng = np.random.default_rng(num)
    points = [rng.uniform(0, 200, (num, 2)).astype(np.float32) for _ in range(2)]
    assert _find_homographies(points[0], points[1], SIZE) == []


@pytest.mark.parametrize("spread", [(0, 0), (1, 0)], ids=["point", "line"])
def test_matches_on_a_point_or_a_line_give_no_usable_homography(spread):
    points = (np.arange(60)[:, None] * np.array(spread) * 3 + 20).astype(np.float32)
    for matrix in _find_homographies(points, points, SIZE):
        assert np.isfinite(matrix).all()


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[-1, 0, WIDTH - 1], [0, 1, 0], [0, 0, 1.0]]),
        np.diag([20.0, 20, 1]),
        np.diag([0.05, 0.05, 1]),
    ],
    ids=["mirrored", "tiny", "huge"],
)
def test_impossible_homographies_give_no_valid_pixels(matrix):
    assert not _warp(WORLD, matrix, SIZE, areas=AREAS)[1].any()


def test_pixels_beyond_the_horizon_are_not_valid():
    matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # w is 0 at x = 100
    _, valid_mask = _warp(make_world(1, (600, 800)), matrix, SIZE, areas=AREAS)
    assert valid_mask[15:40, 15:40].all() and not valid_mask[:, 95:].any()


def test_the_border_of_a_reference_is_not_valid_and_shrinking_does_not_alias():
    fine = np.where(np.indices((600, 800)).sum(axis=0)[:, :, None] % 2, 255, 0).astype(np.uint8).repeat(3, axis=2)
    image, valid_mask = _warp(fine, np.diag([4.0, 4, 1]), SIZE, areas=AREAS)
    assert np.abs(image[10:-10, 10:-10].astype(int) - 128).max() < 5
    assert not valid_mask[0].any() and not valid_mask[:, -1].any() and valid_mask[6:-6, 6:-6].all()


def test_a_reference_that_does_not_look_like_the_target_is_left_out():
    hole = blob()
    known = np.where(hole[:, :, None], np.uint8(128), TARGET)
    target_view = _View(known=known, mask=hole, surroundings_px=20, to_target=np.eye(3), target_size=SIZE)
    assert _warp_to_view(0, TARGET, np.eye(3), target_view) is not None
    assert _warp_to_view(0, 255 - TARGET, np.eye(3), target_view) is None
    assert _warp_to_view(0, make_world(7, SIZE), np.eye(3), target_view) is None
    assert _warp_to_view(0, np.full_like(TARGET, 100), np.eye(3), target_view) is None
    assert _warp_to_view(0, TARGET[:, :60], np.eye(3), target_view) is None, "the reference does not reach the hole"


def test_a_region_of_a_smaller_target_is_warped_like_the_whole_target():
    hole, size, region = blob(), (SIZE[0] // 2, SIZE[1] // 2), (20, 25, 60, 80)
    known = np.where(hole[:, :, None], np.uint8(0), TARGET)
    references = [view(SHIFTED), view(turned(10, 0.8))]
    whole = {w.reference: w for w in warp_references(known, hole, references)}
    parts = warp_references(known, hole, references, size=size, region=region)
    assert len(parts) == len(whole) == 2
    for part in parts:
        other = cv2.resize(whole[part.reference].image.astype(float), size[::-1], interpolation=cv2.INTER_AREA)
        other = other[region[0] : region[2], region[1] : region[3]]
        assert part.image.shape == (40, 55, 3) and part.valid_mask.mean() > 0.9
        assert np.abs(part.image - other)[part.valid_mask].mean() < 4


def test_the_masked_part_of_a_reference_is_not_valid_and_has_no_influence():
    photo, hole = view(SHIFTED), blob()
    excluded = np.zeros(SIZE, bool)
    excluded[60:110, 90:130] = True
    noise = np.random.default_rng(0).integers(0, 256, photo.shape, np.uint8)
    whole = warp_references(TARGET, hole, [photo])[0]
    one, other = (
        warp_references(TARGET, hole, [np.where(excluded[..., None], content, photo)], reference_masks=[excluded])[0]
        for content in (photo, noise)
    )
    assert np.array_equal(one.image, other.image) and np.array_equal(one.valid_mask, other.valid_mask)
    shown = cv2.warpPerspective(excluded.astype(np.uint8), np.linalg.inv(SHIFTED), SIZE[::-1], flags=cv2.INTER_NEAREST)
    assert shown.any() and not (one.valid_mask & (shown > 0)).any()
    lost = whole.valid_mask & ~one.valid_mask
    assert (lost & hole & (cv2.dilate(shown, np.ones((9, 9), np.uint8)) == 0)).sum() == 0, (
        "only the masked part is left out"
    )
