"""Matches between photos of a planar world, whose homographies are known."""

from itertools import combinations

import numpy as np
import pytest
from worlds import SIZE, TARGET, VIEWS, blob, view

from realfill.geometry import correspondences
from realfill.geometry.correspondences import (
    Keypoints,
    _between_references,
    detect,
    match,
    match_all,
    same_direction,
    verify,
    without_false_pairs,
)
from realfill.geometry.matching import SiftMatcher


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
    assert sorted(set(shares)) == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2, 0.3, 0.8])


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


def test_up_to_five_references_are_all_matched_with_each_other():
    pairs = {(0, n): np.zeros((0, 4), np.float32) for n in range(1, 6)}
    assert _between_references(pairs, range(1, 6), SIZE) == list(combinations(range(1, 6), 2))


def test_more_references_are_matched_with_those_that_show_the_same_part_of_the_target():
    x, y = np.meshgrid(np.arange(4.0, 300, 8), np.arange(4.0, 200, 8))
    places = np.stack([x.ravel(), y.ravel()] * 2, axis=1)
    numbers = range(1, 13)
    pairs = {(0, n): places[np.abs(places[:, 0] - 24 * n) < 50] for n in numbers}
    pairs[0, 12] = places[:0]  # it shows nothing of the target
    chosen = _between_references(pairs, numbers, (200, 300))
    assert chosen == sorted(set(chosen)) and len(chosen) <= 4 * len(numbers)
    partners = {n: {m for pair in chosen if n in pair for m in pair if m != n} for n in numbers}
    assert all(len(partners[n]) >= 4 for n in numbers)
    assert partners[6] == {4, 5, 7, 8} and 11 not in partners[1]
    most = sorted(range(1, 12), key=lambda n: -len(pairs[0, n]))[:4]
    assert partners[12] == set(most), "the best matched references are the likeliest to show it"


@pytest.mark.parametrize("by_matcher", [False, True])
def test_the_same_pairs_are_matched_by_any_matcher(by_matcher, monkeypatch):
    monkeypatch.setattr(correspondences, "_AFFINE_STAGES", ())
    photos = [TARGET, *(view(VIEWS["shifted"]) for _ in range(6))]
    asked = []
    monkeypatch.setattr(
        correspondences, "_between_references", lambda pairs, *_: asked.append(len(pairs)) or [(2, 3), (1, 6)]
    )
    matcher = SiftMatcher(max_size_px=400, max_ratio=0.8) if by_matcher else None
    pairs = match_all(photos, blob(), matcher=matcher)
    assert asked == [6] and list(pairs) == [*((0, n) for n in range(1, 7)), (1, 6), (2, 3)]
    assert all(len(matches) > 30 for matches in pairs.values())


def test_a_keypoint_lies_in_the_centre_of_a_blob_of_an_enlarged_photo():
    y, x = np.mgrid[:64, :64]
    blob_image = (255 * np.exp(-((x - 30) ** 2 + (y - 22) ** 2) / 50)).astype(np.uint8)
    points = detect(np.repeat(blob_image[:, :, None], 3, axis=2)).points
    assert len(points)
    np.testing.assert_allclose(points, np.broadcast_to([30, 22], points.shape), atol=0.1)


def test_keypoints_whose_patch_reaches_into_the_hole_are_dropped():
    """A small blob and a large one, both ten pixels from the hole."""
    y, x = np.mgrid[:200, :300]
    centres = {2: (136, 50), 8: (163, 150)}
    grey = 60 + sum(120 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * s**2)) for s, (u, v) in centres.items())
    image = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    hole = np.zeros((200, 300), bool)
    hole[:, 146:154] = True

    def found(points):
        return [size for size, centre in centres.items() if (np.linalg.norm(points - centre, axis=1) < 2).any()]

    assert found(detect(image).points) == [2, 8]
    assert found(detect(image, hole).points) == [2]


def test_affine_views_add_to_the_matches_and_only_to_those_of_the_target(monkeypatch):
    nothing, matched, results = np.zeros((0, 128), np.float32), [], []

    def without_affine(image, hole=None, *, affine_px=None):
        return Keypoints(points=nothing[:, :2], descriptors=nothing) if affine_px else detect(image, hole)

    def spy(first, second):
        matched.append(len(first.points) > 0)
        return match(first, second)

    monkeypatch.setattr(correspondences, "detect", without_affine)
    monkeypatch.setattr(correspondences, "match", spy)
    for stages in ((), ((10_000, 160),)):
        monkeypatch.setattr(correspondences, "_AFFINE_STAGES", stages)
        results.append(match_all([TARGET, view(VIEWS["shifted"]), view(VIEWS["turned"])], blob()))
    assert matched[:3] == [True] * 3 and sorted(matched[3:]) == [False] * 2 + [True] * 3
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert len(results[0][pair]) > 30 and np.array_equal(results[0][pair], results[1][pair])


def test_matches_are_verified_by_the_sides_of_their_own_photos(monkeypatch):
    seen = []

    def spy(matches, sides):
        seen.append(sides)
        return verify(matches, sides)

    monkeypatch.setattr(correspondences, "_AFFINE_STAGES", ())
    monkeypatch.setattr(correspondences, "verify", spy)
    match_all([TARGET, view(VIEWS["shifted"], (120, 260)), view(VIEWS["shifted"], (230, 140))], blob())
    assert sorted(seen) == [(200, 230), (200, 260), (260, 230)]
