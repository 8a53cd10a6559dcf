"""SIFT: keypoints in pixels of the photos, and none in blank photos. Matches of references with the target."""

import sys

import cv2
import numpy as np
import pytest
import torch
from helpers import make_photo

from realfill import RankConfig
from realfill.geometry.matching import SiftMatcher, load_matcher, match_references
from realfill.io.images import fit_within

CPU = torch.device("cpu")


def sift(**changes):
    return load_matcher(RankConfig(matcher="sift", **changes).resolve({}), CPU)


def warp(image, scale, shift, size):
    """Scale and shift (x, y) an image; return it and the function that maps its points (x, y)."""
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    warped = cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return warped, lambda points: points * scale + shift


def match_images(matcher, image0, image1):
    return matcher.match(matcher.extract(image0), matcher.extract(image1))


def check_matches(matches, size0, size1):
    num = len(matches.confidence)
    assert matches.keypoints0.shape == matches.keypoints1.shape == (num, 2)
    assert {a.dtype for a in (matches.keypoints0, matches.keypoints1, matches.confidence)} == {np.dtype(np.float32)}
    assert ((matches.confidence >= 0) & (matches.confidence <= 1)).all()
    for points, (height, width) in ((matches.keypoints0, size0), (matches.keypoints1, size1)):
        assert ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, (11.0, -7.0)), (1.0, (0.5, 0.5)), (1.4, (5.0, -20.0))])
def test_sift_follows_points_that_move(scale, shift):
    photo = make_photo(200, 240)
    moved, move = warp(photo, scale, shift, (200, 240))
    matches = match_images(sift(), photo, moved)
    check_matches(matches, (200, 240), (200, 240))
    errors = np.abs(matches.keypoints1 - move(matches.keypoints0)).max(axis=1)
    assert len(errors) > 30
    assert np.median(errors) < 0.3
    assert (errors < 1).mean() > 0.9


def test_sift_rarely_matches_unrelated_photos():
    same = match_images(sift(), make_photo(200, 240), make_photo(200, 240))
    other = match_images(sift(), make_photo(200, 240), make_photo(200, 240, 1))
    assert len(other.confidence) < 0.1 * len(same.confidence)


def test_a_stricter_ratio_keeps_the_more_confident_matches():
    photo, moved = make_photo(200, 240), warp(make_photo(200, 240), 1.3, (3, 5), (200, 240))[0]
    loose, strict = (match_images(sift(max_ratio=r), photo, moved) for r in (0.9, 0.4))
    assert 0 < len(strict.confidence) < len(loose.confidence)
    assert strict.confidence.min() > 0.6 > loose.confidence.min() > 0.1


def test_shrinking_does_not_shift_keypoints():
    photo = cv2.GaussianBlur(make_photo(400, 480), (0, 0), 2)
    whole, shrunk = sift(max_size_px=840), sift(max_size_px=240)
    matches = whole.match(whole.extract(photo), shrunk.extract(photo))
    check_matches(matches, (400, 480), (400, 480))
    errors = matches.keypoints1 - matches.keypoints0
    assert len(errors) > 20
    assert matches.keypoints1.max() > 300
    assert np.abs(np.median(errors, axis=0)).max() < 0.15
    assert np.median(np.abs(errors)) < 0.5


def test_sift_finds_the_centre_of_a_blob():
    y, x = np.mgrid[:64, :64]
    blob = (255 * np.exp(-((x - 30) ** 2 + (y - 22) ** 2) / 50)).astype(np.uint8)
    points, _ = sift().extract(np.repeat(blob[:, :, None], 3, axis=2))
    np.testing.assert_allclose(points, np.broadcast_to([30, 22], points.shape), atol=0.1)


def test_sift_matches_each_keypoint_at_most_once():
    photo = make_photo(120, 120)
    matcher = sift(max_ratio=0.99)
    points, _ = matcher.extract(photo)
    matches = match_images(matcher, photo, np.hstack([photo, photo]))
    assert len(points) / 2 < len(matches.confidence) <= len(points)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_photos_match_nothing(value):
    blank, photo = np.full((64, 80, 3), value, np.uint8), make_photo(64, 80)
    for pair in ((blank, blank), (blank, photo), (photo, blank)):
        matches = match_images(sift(), *pair)
        check_matches(matches, (64, 80), (64, 80))
        assert len(matches.confidence) == 0


def test_a_photo_of_a_single_dot_matches_itself_at_the_dot():
    dot = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(dot, (30, 30), 6, (255, 255, 255), -1)
    matches = match_images(sift(), dot, dot)
    check_matches(matches, (64, 64), (64, 64))
    assert np.allclose(matches.keypoints0, 30, atol=1) and np.allclose(matches.keypoints1, 30, atol=1)


def test_photos_are_shrunk_by_their_longer_side():
    assert fit_within((480, 640), 320) == (240, 320)
    assert fit_within((64, 80), 320) == (64, 80)


def test_sift_loads_without_kornia(monkeypatch):
    monkeypatch.setitem(sys.modules, "realfill.geometry.loftr", None)
    assert isinstance(sift(), SiftMatcher)


@pytest.mark.parametrize("under", [0, 255])
def test_references_match_the_known_pixels_of_the_target_only(under):
    target, hole = make_photo(200, 240), np.zeros((200, 240), bool)
    hole[60:120, 80:160] = True
    moved, move = warp(target, 1.3, (4.0, -9.0), (220, 300))
    known = np.where(hole[:, :, None], np.uint8(under), target)
    (matches,) = match_references(known, hole, [moved])
    check_matches(matches, (220, 300), (200, 240))
    errors = np.abs(move(matches.keypoints1) - matches.keypoints0).max(axis=1)
    assert len(errors) > 30
    assert np.median(errors) < 0.5
    x, y = np.rint(matches.keypoints1).astype(int).T
    assert not hole[y, x].any()


def test_matches_with_a_target_larger_than_sift_works_at_are_in_its_own_pixels():
    target, hole = (
        cv2.resize(make_photo(200, 240), (2400, 2000), interpolation=cv2.INTER_CUBIC),
        np.zeros((2000, 2400), bool),
    )
    hole[600:1200, 800:1600] = True
    (matches,) = match_references(target, hole, [cv2.resize(target, (600, 500), interpolation=cv2.INTER_AREA)])
    assert len(matches) > 30
    assert matches.keypoints1[:, 0].max() > 2000
    assert np.median(np.abs((matches.keypoints1 + 0.5) / 4 - 0.5 - matches.keypoints0)) < 0.3


def test_no_match_lies_in_the_masked_part_of_a_reference_and_what_it_shows_has_no_influence():
    target, hole = make_photo(200, 240), np.zeros((200, 240), bool)
    hole[60:120, 80:160] = True
    excluded = np.zeros((200, 240), bool)
    excluded[:, 120:] = True
    noise = np.random.default_rng(0).integers(0, 256, target.shape, np.uint8)
    (one,), (other,) = (
        match_references(target, hole, [np.where(excluded[..., None], content, target)], [excluded])
        for content in (target, noise)
    )
    assert len(one) > 30 and one.keypoints0[:, 0].max() < 120
    assert np.array_equal(one.keypoints0, other.keypoints0) and np.array_equal(one.confidence, other.confidence)


def test_points_of_a_shrunk_target_are_not_shifted(monkeypatch):
    monkeypatch.setattr("realfill.geometry.matching._TARGET_MAX_SIZE_PX", 240)
    photo = make_photo(200, 240)
    target = cv2.resize(photo, (960, 800), interpolation=cv2.INTER_CUBIC)
    (matches,) = match_references(target, np.zeros((800, 960), bool), [photo])
    assert len(matches) > 30
    shift = (matches.keypoints1 + 0.5) / 4 - 0.5 - matches.keypoints0
    assert np.abs(np.median(shift, axis=0)).max() < 0.1


def test_no_match_lies_in_a_hole_so_thin_that_its_continuation_is_matched():
    target, hole = make_photo(200, 240), np.zeros((200, 240), bool)
    hole[:, ::6] = True
    (matches,) = match_references(np.where(hole[..., None], np.uint8(0), target), hole, [target])
    assert len(matches) > 30
    x, y = np.rint(matches.keypoints1).astype(int).T
    assert not hole[y, x].any()
