"""Matches between photos of a planar world, whose homographies are known."""

import numpy as np
import pytest
from worlds import SIZE, TARGET, VIEWS, blob, view

from realfill.geometry import correspondences
from realfill.geometry.correspondences import (
    Keypoints,
    detect,
    match,
    match_all,
    same_direction,
    verify,
    without_false_pairs,
)


def errors_px(matches, matrix):
    ends = np.c_[matches[:, :2], np.ones(len(matches))] @ np.asarray(matrix, float).T
    return np.linalg.norm(ends[:, :2] / ends[:, 2:] - matches[:, 2:], axis=1)


@pytest.mark.parametrize("name", ["shifted", "turned"])
def test_matches_follow_the_homography_and_stay_out_of_the_hole(name, monkeypatch):
    monkeypatch.setattr(correspondences, "_AFFINE_STAGES", ())
    hole = blob()
    pairs = match_all([TARGET, view(VIEWS[name])], hole)
    matches = pairs[0, 1]
    assert list(pairs) == [(0, 1)] and len(matches) > 60
    assert np.median(errors_px(matches, VIEWS[name])) < 1
    x, y = np.rint(matches[:, :2]).astype(int).clip(0, (SIZE[1] - 1, SIZE[0] - 1)).T
    assert not hole[y, x].any()


def test_what_is_left_out_of_a_reference_has_no_influence(monkeypatch):
    monkeypatch.setattr(correspondences, "_AFFINE_STAGES", ())
    photo, left_out = view(VIEWS["shifted"]), blob((120, 60))
    other = np.where(left_out[..., None], np.random.default_rng(1).integers(0, 256, photo.shape), photo)
    one, two = (match_all([TARGET, image.astype(np.uint8)], blob(), [left_out])[0, 1] for image in (photo, other))
    assert len(one) > 60 and np.array_equal(one, two)


def test_the_share_of_the_work_rises_with_each_photo_and_each_pair(monkeypatch):
    monkeypatch.setattr(correspondences, "_AFFINE_STAGES", ())
    shares = []
    match_all([TARGET, *[view(VIEWS["shifted"])] * 2], blob(), check=shares.append)
    assert shares == sorted(shares)
    assert sorted(set(shares)) == pytest.approx([n / 6 for n in range(6)])


def test_affine_views_are_taken_where_matches_stay_few(monkeypatch):
    taken = []

    def spy(image, hole=None, *, affine_px=None):
        taken.append(affine_px)
        return detect(image, hole, affine_px=affine_px)

    monkeypatch.setattr(correspondences, "detect", spy)
    images = [TARGET, view(VIEWS["aslant"])]
    few = {}
    for limit in (0, 10_000):
        taken.clear()
        monkeypatch.setattr(correspondences, "_AFFINE_STAGES", ((limit, 160),))
        few[limit] = len(correspondences.match_all(images, blob())[0, 1])
        assert taken == [None, None, *([160, 160] if limit else [])]
    assert few[10_000] > 1.2 * few[0]


def test_a_match_must_be_mutual_and_distinct():
    rng = np.random.default_rng(0)
    descriptors = rng.random((6, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points = np.arange(12, dtype=np.float32).reshape(6, 2) * 20
    first = Keypoints(points=points, descriptors=descriptors)
    twice = Keypoints(
        points=np.concatenate([points, points[:1] + 1, points[1:2] + 50]),
        descriptors=np.concatenate([descriptors, descriptors[:2]]),
    )
    starts = {tuple(row[:2]) for row in match(first, twice)}
    assert tuple(points[0]) in starts, "a rival beside the match is the same point"
    assert tuple(points[1]) not in starts, "a rival elsewhere makes the match doubtful"
    assert len(starts) == 5


def test_the_surest_match_comes_first_and_each_place_and_partner_serves_once():
    rng = np.random.default_rng(2)
    descriptors = rng.random((8, 128)).astype(np.float32)
    noise = np.array([0.3, 0.02, 0.15, 0.0])[:, None] * rng.random((4, 128)).astype(np.float32)
    points = np.arange(16, dtype=np.float32).reshape(8, 2) * 20
    first = np.concatenate([descriptors[:4] + noise, descriptors[:1] + 0.6 * rng.random((1, 128)), descriptors[3:4]])
    places = np.concatenate([points[:4], points[:1] + 200, points[3:4] + 0.2])

    def unit(rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    matches = match(
        Keypoints(points=places.astype(np.float32), descriptors=unit(first)),
        Keypoints(points=points, descriptors=unit(descriptors)),
    )
    assert matches[:, 2:].tolist() == points[[3, 1, 2, 0]].tolist()
    assert np.abs(matches[:, :2] - points[[3, 1, 2, 0]]).max() < 0.3


def test_false_matches_are_dropped_whatever_the_images_size():
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -1, 3), (1, 1, 6), (200, 3))
    places = [(points + shift)[:, :2] / (points + shift)[:, 2:] for shift in (np.zeros(3), np.array((0.5, 0.1, 0.2)))]
    for side in (1000, 8000):
        matches = (np.concatenate(places, axis=1) + 0.5) * side
        matches += rng.normal(scale=0.3 * side / 1000, size=matches.shape)
        matches[:60, 2:] = rng.uniform(0, side, (60, 2))
        kept = verify(matches.astype(np.float32), (side, side))
        assert 120 < len(kept) < 155
    exact = (np.concatenate(places, axis=1)[:12] * 1000).astype(np.float32)
    assert [len(verify(exact[:count], (1000, 1000))) for count in (11, 12)] == [0, 12]


def test_matches_of_a_mirrored_photo_or_of_another_scene_are_left_out():
    rng = np.random.default_rng(4)
    points = rng.uniform((0, 0), (300, 200), (120, 2))
    depth = 1 + 0.2 * (points[:, :1] > 150)
    seen = points + np.array((20, 5)) / depth
    pairs = {
        (0, 1): np.concatenate([points, seen], axis=1),
        (0, 2): np.concatenate([points, seen * (-1, 1) + (300, 0)], axis=1),
        (1, 2): np.concatenate([points, rng.permutation(points)], axis=1),
    }
    assert same_direction(pairs[0, 1]) > 0.9 and same_direction(pairs[0, 2]) < 0.1
    assert 0.3 < same_direction(pairs[1, 2]) < 0.6
    kept = without_false_pairs(pairs)
    assert list(kept) == [(0, 1)] and kept[0, 1] is pairs[0, 1]


def test_pairs_with_too_few_matches_to_judge_are_kept():
    few = np.random.default_rng(5).uniform(0, 100, (7, 4))
    assert list(without_false_pairs({(0, 1): few, (0, 2): np.zeros((0, 4))})) == [(0, 1), (0, 2)]
