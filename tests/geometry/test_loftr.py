"""LoFTR: keypoints in pixels of the photos, features computed once, and batches that fit into memory."""

import kornia.feature.loftr.loftr as kornia_loftr
import numpy as np
import pytest
import torch
from helpers import make_photo
from kornia.feature import LoFTR

import realfill.compute.memory
from realfill import RankConfig
from realfill.compute.memory import FREE_SHARE, peak_bytes
from realfill.errors import BaseModelError, RealFillWarning
from realfill.geometry.loftr import LoftrMatcher
from realfill.geometry.matching import load_matcher
from realfill.io.images import resize

CPU = torch.device("cpu")


def match_images(matcher, image0, image1):
    return matcher.match(matcher.extract(image0), matcher.extract(image1))


def check_matches(matches, size0, size1):
    num = len(matches)
    assert matches.keypoints0.shape == matches.keypoints1.shape == (num, 2)
    assert {a.dtype for a in (matches.keypoints0, matches.keypoints1, matches.confidence)} == {np.dtype(np.float32)}
    assert ((matches.confidence >= 0) & (matches.confidence <= 1)).all()
    for points, (height, width) in ((matches.keypoints0, size0), (matches.keypoints1, size1)):
        assert ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all()


@pytest.fixture(scope="module")
def loftr():
    """A LoFTR with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LoFTR(None)
    assert model.training
    model.coarse_matching.thr = 0.0
    return model


@pytest.fixture
def make_loftr(loftr):
    def make(*, max_size_px=840, min_confidence=0.0):
        return LoftrMatcher(loftr, CPU, max_size_px=max_size_px, min_confidence=min_confidence)

    return make


@pytest.mark.parametrize("sizes", [((64, 80), (72, 64)), ((61, 83), (50, 77)), ((9, 12), (33, 40))])
def test_keypoints_lie_inside_photos_of_any_size(make_loftr, sizes):
    photos = [resize(make_photo(80, 80, i), size) for i, size in enumerate(sizes)]
    check_matches(match_images(make_loftr(), *photos), *sizes)


def test_a_photo_matches_itself(make_loftr):
    photo = make_photo(75, 93)
    matches = match_images(make_loftr(), photo, photo)
    check_matches(matches, (75, 93), (75, 93))
    assert len(matches.confidence) > 5
    assert len(np.unique(matches.keypoints0, axis=0)) == len(matches.confidence)


def test_pixel_centres_are_at_whole_numbers(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(np.zeros((96, 96, 3), np.uint8))
    output = {
        "keypoints0": torch.full((1, 2), 64.0),
        "keypoints1": torch.full((1, 2), 64.0),
        "confidence": torch.ones(1),
        "batch_indexes": torch.zeros(1, dtype=torch.long),
    }
    monkeypatch.setattr(loftr, "forward", lambda _: output)
    matches = matcher.match(features, features)
    np.testing.assert_allclose(matches.keypoints1, [[64 - 16 - 0.5] * 2])  # the padding is 16 pixels


def test_keypoints_in_the_padding_are_dropped(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(make_photo(48, 64))
    places = torch.tensor([[40.0, 40.0], [5.0, 40.0], [40.0, 5.0], [16 + 67.0, 40.0], [40.0, 16 + 51.0]])
    for moved in (0, 1):
        points = [torch.full_like(places, 40.0), places][:: 1 if moved else -1]
        output = {"keypoints0": points[0], "keypoints1": points[1], "confidence": torch.ones(5)}
        output["batch_indexes"] = torch.zeros(5, dtype=torch.long)
        monkeypatch.setattr(loftr, "forward", lambda _, output=output: output)
        assert len(matcher.match(features, features).confidence) == 1


def test_keypoints_reach_the_edges_of_the_photos(make_loftr):
    matches = match_images(make_loftr(), make_photo(64, 64), make_photo(64, 64))
    assert matches.keypoints0.min() < 8
    assert matches.keypoints0.max() > 64 - 9


def test_matches_of_low_confidence_are_dropped(make_loftr):
    photo = make_photo(64, 64)
    all_matches = match_images(make_loftr(), photo, photo)
    limit = float(np.median(all_matches.confidence))
    kept = match_images(make_loftr(min_confidence=limit), photo, photo)
    assert 0 < len(kept.confidence) < len(all_matches.confidence)
    assert kept.confidence.min() >= limit


def test_the_backbone_runs_once_per_photo_in_evaluation_mode(make_loftr, loftr, monkeypatch):
    calls, forward = [], loftr.backbone.forward
    monkeypatch.setattr(loftr.backbone, "forward", lambda image: calls.append(len(image)) or forward(image))
    matcher = make_loftr()
    assert not loftr.training
    features = [matcher.extract(make_photo(64, 64, i)) for i in range(3)]
    for i in range(3):
        matcher.match(features[i], features[0])
    assert calls == [1, 1, 1]


def assert_same(matches, expected):
    np.testing.assert_array_equal(matches.keypoints0, expected.keypoints0)
    np.testing.assert_allclose(matches.keypoints1, expected.keypoints1, atol=1e-3)
    np.testing.assert_allclose(matches.confidence, expected.confidence, rtol=1e-3)


@pytest.mark.parametrize(("free", "batches"), [(1e12, [1, 5, 1]), (0, [1] * 7)])
def test_batches_give_the_same_matches_as_single_pairs(make_loftr, loftr, monkeypatch, free, batches):
    references = [make_photo(64, 80, 0), make_photo(64, 80, 1), make_photo(72, 64, 2)]
    completions = [make_photo(64, 80, i) for i in (0, 3, 4)]
    matcher = make_loftr()
    features0, features1 = ([matcher.extract(p) for p in photos] for photos in (references, completions))
    pairs = [(r, c) for c in features1 for r in features0[:2]] + [(features0[2], features1[1])]
    expected = [make_loftr().match(*pair) for pair in pairs]
    sizes, run = [], loftr.forward
    monkeypatch.setattr(loftr, "forward", lambda data: sizes.append(len(data["features0"]["coarse"])) or run(data))
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: free)
    results = matcher.match_pairs(pairs)
    assert sizes == batches
    assert len({len(m.confidence) for m in expected}) > 1
    for matches, single in zip(results, expected, strict=True):
        assert_same(matches, single)


def test_a_batch_has_no_more_pairs_than_memory_holds(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(make_photo(64, 80))
    bytes_per_pair = peak_bytes(lambda: make_loftr().match(features, features), CPU)[1]
    sizes, run = [], loftr.forward
    monkeypatch.setattr(loftr, "forward", lambda data: sizes.append(len(data["features0"]["coarse"])) or run(data))
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: 2.5 * bytes_per_pair / FREE_SHARE)
    matcher.match_pairs([(features, features)] * 6)
    assert sizes == [1, 2, 2, 1]


def test_batches_shrink_when_memory_runs_out(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(make_photo(64, 80))
    expected = make_loftr().match(features, features)
    sizes, run = [], loftr.forward

    def forward(data):
        sizes.append(len(data["features0"]["coarse"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(data)

    monkeypatch.setattr(loftr, "forward", forward)
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: 1e12)
    with pytest.warns(RealFillWarning, match="out of memory; continuing with (3 pairs|one pair) of images at a time"):
        results = matcher.match_pairs([(features, features)] * 8)
    assert sizes == [1, 7, 3, 1, 1, 1, 1, 1, 1, 1]
    for matches in results:
        assert_same(matches, expected)


def test_a_processor_matches_at_most_sixteen_pairs_at_a_time(make_loftr, loftr, monkeypatch):
    matcher = make_loftr()
    features = matcher.extract(make_photo(64, 80))
    sizes, run = [], loftr.forward
    monkeypatch.setattr(loftr, "forward", lambda data: sizes.append(len(data["features0"]["coarse"])) or run(data))
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: 1e12)
    matcher.match_pairs([(features, features)] * 20)
    assert sizes == [1, 16, 3]


def test_keypoints_of_shrunk_photos_are_in_pixels_of_the_originals(make_loftr):
    small = make_loftr(max_size_px=64)
    photo = make_photo(128, 160)
    features = small.extract(photo)
    assert max(features.maps["coarse"].shape[-2:]) <= (64 + 2 * 16) / 8 + 1
    matches = small.match(features, features)
    check_matches(matches, (128, 160), (128, 160))
    assert matches.keypoints0[:, 0].max() > 100


def test_a_batch_can_be_stopped_between_layers(make_loftr, loftr):
    calls = []

    def poll():
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    matcher = make_loftr()
    features = matcher.extract(make_photo(64, 80))
    with pytest.raises(KeyboardInterrupt):
        matcher.match_pairs([(features, features)] * 2, poll)
    assert not any(module._forward_pre_hooks for module in loftr.modules())


def test_unavailable_weights_are_reported_with_an_alternative(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(kornia_loftr, "load_state_dict_from_url", fail)
    with pytest.raises(BaseModelError, match=r"LoFTR.*no route to host.*matcher='sift'"):
        load_matcher(RankConfig().resolve({}), CPU)
