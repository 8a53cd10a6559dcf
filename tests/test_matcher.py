"""Matchers: keypoints in the photos' own pixels, none where there is nothing, features computed once."""

import cv2
import kornia.feature.loftr.loftr as kornia_loftr
import numpy as np
import pytest
import torch
from conftest import make_photo
from kornia.feature import LoFTR

import realfill.models.matcher
from realfill import RankConfig
from realfill.capacity import FREE_SHARE, peak_bytes
from realfill.errors import BaseModelError, RealFillWarning
from realfill.io.images import fit_within, resize
from realfill.models.matcher import LoftrMatcher, SiftMatcher, load_matcher

CPU = torch.device("cpu")


def sift(**changes):
    return load_matcher(RankConfig(matcher="sift", **changes).resolve({}), CPU)


def warp(image, scale, shift, size):
    """Scale and shift (x, y) an image; returns it and the place of any of its points (x, y) afterwards."""
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    warped = cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return warped, lambda points: points * scale + shift


def match_both_ways(matcher, image0, image1):
    return matcher.match(matcher.extract(image0), matcher.extract(image1))


def check(matches, size0, size1):
    num = len(matches.confidence)
    assert matches.keypoints0.shape == matches.keypoints1.shape == (num, 2)
    assert {a.dtype for a in (matches.keypoints0, matches.keypoints1, matches.confidence)} == {np.dtype(np.float32)}
    assert ((matches.confidence >= 0) & (matches.confidence <= 1)).all()
    for points, (height, width) in ((matches.keypoints0, size0), (matches.keypoints1, size1)):
        assert ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, (11.0, -7.0)), (1.0, (0.5, 0.5)), (1.4, (5.0, -20.0))])
def test_sift_finds_points_where_they_went(scale, shift):
    photo = make_photo(200, 240)
    moved, place = warp(photo, scale, shift, (200, 240))
    matches = match_both_ways(sift(), photo, moved)
    check(matches, (200, 240), (200, 240))
    errors = np.abs(matches.keypoints1 - place(matches.keypoints0)).max(axis=1)
    assert len(errors) > 30
    assert np.median(errors) < 0.3
    assert (errors < 1).mean() > 0.9


def test_a_match_of_another_photo_is_rare():
    same = match_both_ways(sift(), make_photo(200, 240), make_photo(200, 240))
    other = match_both_ways(sift(), make_photo(200, 240), make_photo(200, 240, 1))
    assert len(other.confidence) < 0.1 * len(same.confidence)


def test_a_stricter_ratio_keeps_fewer_matches_and_confidence_is_what_it_leaves():
    photo, moved = make_photo(200, 240), warp(make_photo(200, 240), 1.3, (3, 5), (200, 240))[0]
    loose, strict = (match_both_ways(sift(max_ratio=r), photo, moved) for r in (0.9, 0.4))
    assert 0 < len(strict.confidence) < len(loose.confidence)
    assert strict.confidence.min() > 0.6 > loose.confidence.min() > 0.1


def test_a_shrunk_photo_keeps_its_keypoints_places():
    photo = cv2.GaussianBlur(make_photo(400, 480), (0, 0), 2)
    whole, shrunk = sift(max_size_px=840), sift(max_size_px=240)
    matches = whole.match(whole.extract(photo), shrunk.extract(photo))
    check(matches, (400, 480), (400, 480))
    errors = matches.keypoints1 - matches.keypoints0
    assert len(errors) > 20
    assert matches.keypoints1.max() > 300
    assert np.abs(np.median(errors, axis=0)).max() < 0.15
    assert np.median(np.abs(errors)) < 0.5


def test_sift_finds_a_blob_where_it_is():
    y, x = np.mgrid[:64, :64]
    blob = (255 * np.exp(-((x - 30) ** 2 + (y - 22) ** 2) / 50)).astype(np.uint8)
    points, _ = sift().extract(np.repeat(blob[:, :, None], 3, axis=2))
    np.testing.assert_allclose(points, np.broadcast_to([30, 22], points.shape), atol=0.1)


def test_a_sift_keypoint_is_matched_once():
    photo = make_photo(120, 120)
    matcher = sift(max_ratio=0.99)
    points, _ = matcher.extract(photo)
    matches = match_both_ways(matcher, photo, np.hstack([photo, photo]))
    assert len(points) / 2 < len(matches.confidence) <= len(points)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_photos_match_nothing(value):
    blank, photo = np.full((64, 80, 3), value, np.uint8), make_photo(64, 80)
    for pair in ((blank, blank), (blank, photo), (photo, blank)):
        matches = match_both_ways(sift(), *pair)
        check(matches, (64, 80), (64, 80))
        assert len(matches.confidence) == 0


def test_a_photo_with_a_single_point_matches_itself_there_only():
    dot = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(dot, (30, 30), 6, (255, 255, 255), -1)
    matches = match_both_ways(sift(), dot, dot)
    check(matches, (64, 64), (64, 64))
    assert np.allclose(matches.keypoints0, 30, atol=1) and np.allclose(matches.keypoints1, 30, atol=1)


@pytest.fixture(scope="module")
def loftr():
    """A LoFTR with random weights, small enough for a test, that counts the images it has looked at."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LoFTR(None)
    assert model.training
    model.coarse_matching.thr = 0.0
    return model


@pytest.fixture
def make_loftr(loftr):
    def make(**changes):
        return LoftrMatcher(loftr, RankConfig(**{"min_confidence": 0.0, **changes}).resolve({}), CPU)

    return make


@pytest.mark.parametrize("sizes", [((64, 80), (72, 64)), ((61, 83), (50, 77)), ((9, 12), (33, 40))])
def test_loftr_finds_points_inside_photos_of_any_size(make_loftr, sizes):
    photos = [resize(make_photo(80, 80, i), size) for i, size in enumerate(sizes)]
    check(match_both_ways(make_loftr(), *photos), *sizes)


def test_loftr_maps_a_photo_onto_itself(make_loftr):
    photo = make_photo(75, 93)
    matches = match_both_ways(make_loftr(), photo, photo)
    check(matches, (75, 93), (75, 93))
    assert len(matches.confidence) > 5
    assert len(np.unique(matches.keypoints0, axis=0)) == len(matches.confidence)


def test_loftrs_frame_is_half_a_pixel_off_ours(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(np.zeros((96, 96, 3), np.uint8))
    found = {
        "keypoints0": torch.full((1, 2), 64.0),
        "keypoints1": torch.full((1, 2), 64.0),
        "confidence": torch.ones(1),
        "batch_indexes": torch.zeros(1, dtype=torch.long),
    }
    monkeypatch.setattr(loftr, "forward", lambda _: found)
    matches = matcher.match(features, features)
    np.testing.assert_allclose(matches.keypoints1, [[64 - 16 - 0.5] * 2])  # it is padded by 16


def test_loftrs_points_in_the_padding_are_dropped(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(make_photo(48, 64))
    places = torch.tensor([[40.0, 40.0], [5.0, 40.0], [40.0, 5.0], [16 + 67.0, 40.0], [40.0, 16 + 51.0]])
    for moved in (0, 1):
        points = [torch.full_like(places, 40.0), places][:: 1 if moved else -1]
        found = {"keypoints0": points[0], "keypoints1": points[1], "confidence": torch.ones(5)}
        found["batch_indexes"] = torch.zeros(5, dtype=torch.long)
        monkeypatch.setattr(loftr, "forward", lambda _, found=found: found)
        assert len(matcher.match(features, features).confidence) == 1


def test_loftr_finds_points_at_the_photos_edges(make_loftr):
    matches = match_both_ways(make_loftr(), make_photo(64, 64), make_photo(64, 64))
    assert matches.keypoints0.min() < 8
    assert matches.keypoints0.max() > 64 - 9


def test_loftr_leaves_out_what_it_is_less_sure_of(make_loftr):
    photo = make_photo(64, 64)
    every = match_both_ways(make_loftr(), photo, photo)
    limit = float(np.median(every.confidence))
    some = match_both_ways(make_loftr(min_confidence=limit), photo, photo)
    assert 0 < len(some.confidence) < len(every.confidence)
    assert some.confidence.min() >= limit


def test_loftr_looks_at_each_photo_once_and_in_evaluation_mode(make_loftr, loftr, monkeypatch):
    calls, look = [], loftr.backbone.forward
    monkeypatch.setattr(loftr.backbone, "forward", lambda image: calls.append(len(image)) or look(image))
    matcher = make_loftr()
    assert not loftr.training
    features = [matcher.extract(make_photo(64, 64, i)) for i in range(3)]
    for i in range(3):
        matcher.match(features[i], features[0])
    assert calls == [1, 1, 1]


def same(found, wanted):
    np.testing.assert_array_equal(found.keypoints0, wanted.keypoints0)
    np.testing.assert_allclose(found.keypoints1, wanted.keypoints1, atol=1e-3)
    np.testing.assert_allclose(found.confidence, wanted.confidence, rtol=1e-3)


@pytest.mark.parametrize(("free", "batches"), [(1e12, [1, 5, 1]), (0, [1] * 7)])
def test_loftr_gives_pairs_what_it_gives_them_one_by_one(make_loftr, loftr, monkeypatch, free, batches):
    references = [make_photo(64, 80, 0), make_photo(64, 80, 1), make_photo(72, 64, 2)]
    completions = [make_photo(64, 80, i) for i in (0, 3, 4)]
    matcher = make_loftr()
    refs, own = ([matcher.extract(p) for p in photos] for photos in (references, completions))
    pairs = [(f, o) for o in own for f in refs[:2]] + [(refs[2], own[1])]
    wanted = [make_loftr().match(*pair) for pair in pairs]
    sizes, run = [], loftr.forward
    monkeypatch.setattr(loftr, "forward", lambda data: sizes.append(len(data["features0"]["coarse"])) or run(data))
    monkeypatch.setattr(realfill.models.matcher, "free_bytes", lambda _: free)
    found = matcher.match_pairs(pairs)
    assert sizes == batches
    assert len({len(m.confidence) for m in wanted}) > 1
    for one, other in zip(found, wanted, strict=True):
        same(one, other)


def test_loftr_matches_no_more_pairs_at_a_time_than_memory_holds(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(make_photo(64, 80))
    taken = peak_bytes(lambda: make_loftr().match(features, features), CPU)[1]
    sizes, run = [], loftr.forward
    monkeypatch.setattr(loftr, "forward", lambda data: sizes.append(len(data["features0"]["coarse"])) or run(data))
    monkeypatch.setattr(realfill.models.matcher, "free_bytes", lambda _: 2.5 * taken / FREE_SHARE)
    matcher.match_pairs([(features, features)] * 6)
    assert sizes == [1, 2, 2, 1]


def test_loftr_matches_fewer_pairs_at_a_time_where_memory_runs_out_all_the_same(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(make_photo(64, 80))
    wanted = make_loftr().match(features, features)
    sizes, run = [], loftr.forward

    def forward(data):
        sizes.append(len(data["features0"]["coarse"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(data)

    monkeypatch.setattr(loftr, "forward", forward)
    monkeypatch.setattr(realfill.models.matcher, "free_bytes", lambda _: 1e12)
    with pytest.warns(RealFillWarning, match="out of memory"):
        found = matcher.match_pairs([(features, features)] * 8)
    assert sizes == [1, 7, 3, 1, 1, 1, 1, 1, 1, 1]
    for one in found:
        same(one, wanted)


def test_a_cpu_matches_sixteen_pairs_at_a_time_at_most(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(make_photo(64, 80))
    sizes, run = [], loftr.forward
    monkeypatch.setattr(loftr, "forward", lambda data: sizes.append(len(data["features0"]["coarse"])) or run(data))
    monkeypatch.setattr(realfill.models.matcher, "free_bytes", lambda _: 1e12)
    matcher.match_pairs([(features, features)] * 20)
    assert sizes == [1, 16, 3]


def test_loftr_shrinks_large_photos_and_maps_back(make_loftr):
    small = make_loftr(max_size_px=64)
    photo = make_photo(128, 160)
    features = small.extract(photo)
    assert max(features.maps["coarse"].shape[-2:]) <= (64 + 2 * 16) / 8 + 1
    matches = small.match(features, features)
    check(matches, (128, 160), (128, 160))
    assert matches.keypoints0[:, 0].max() > 100


def test_photos_are_shrunk_to_the_longer_side():
    assert fit_within((480, 640), 320) == (240, 320)
    assert fit_within((64, 80), 320) == (64, 80)


def test_weights_that_can_not_be_had_are_explained_with_the_way_out(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(kornia_loftr, "load_state_dict_from_url", fail)
    with pytest.raises(BaseModelError, match=r"LoFTR.*no route to host.*matcher='sift'"):
        load_matcher(RankConfig().resolve({}), CPU)


def test_sift_needs_no_weights(monkeypatch):
    monkeypatch.setattr(kornia_loftr, "load_state_dict_from_url", None)
    assert isinstance(sift(), SiftMatcher)
