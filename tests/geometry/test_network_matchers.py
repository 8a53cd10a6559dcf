"""LightGlue and EfficientLoFTR with random weights, their loading, and matchers in the composite's correspondences."""

import copy

import kornia.feature.disk.disk as kornia_disk
import kornia.feature.lightglue as kornia_lightglue
import numpy as np
import pytest
import torch
from helpers import make_photo
from kornia.feature import DISK, LightGlue
from transformers import EfficientLoFTRConfig, EfficientLoFTRForKeypointMatching

from realfill import RankConfig
from realfill.errors import BaseModelError
from realfill.geometry import efficient_loftr
from realfill.geometry.correspondences import match_all
from realfill.geometry.efficient_loftr import EfficientLoftrMatcher, _fine_offsets, _mutual
from realfill.geometry.lightglue import LightGlueMatcher
from realfill.geometry.matching import Matcher, Matches, load_matcher
from realfill.io.images import resize

CPU = torch.device("cpu")
TINY_LOFTR = EfficientLoFTRConfig(
    stage_num_blocks=[1, 1, 1, 1], out_features=[8, 8, 16, 32], hidden_size=32, num_attention_layers=1,
    num_attention_heads=8, initializer_range=0.3,
)  # fmt: skip


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


class Distinct(torch.nn.Module):
    """In place of trained attention: makes the coarse features of random convolutions differ from each other."""

    def forward(self, features, **_):
        return 8 * torch.nn.functional.normalize(features - features.mean(dim=(3, 4), keepdim=True), dim=2)


@pytest.fixture(scope="module")
def loftr():
    return seeded(lambda: EfficientLoFTRForKeypointMatching(TINY_LOFTR))


@pytest.fixture(scope="module")
def convolutions(loftr):
    model = copy.deepcopy(loftr)
    model.efficientloftr.local_feature_transformer = Distinct()
    model.config.coarse_matching_temperature = 0.01
    return model


@pytest.fixture(scope="module")
def lightglue():
    return seeded(lambda: (DISK(), LightGlue(None, input_dim=128, n_layers=1, filter_threshold=0.0)))


@pytest.fixture(params=["lightglue", "efficientloftr"])
def make_matcher(request):
    def make(*, max_size_px=840, min_confidence=0.0):
        options = {"max_size_px": max_size_px, "min_confidence": min_confidence}
        if request.param == "lightglue":
            return LightGlueMatcher(*request.getfixturevalue("lightglue"), CPU, **options)
        return EfficientLoftrMatcher(request.getfixturevalue("convolutions"), CPU, **options)

    return make


def match_images(matcher, image0, image1):
    return matcher.match(matcher.extract(image0), matcher.extract(image1))


@pytest.mark.parametrize("sizes", [((64, 80), (72, 64)), ((61, 83), (50, 77)), ((33, 40), (90, 50))])
def test_keypoints_lie_inside_photos_of_any_size(make_matcher, sizes):
    photos = [resize(make_photo(100, 100, i), size) for i, size in enumerate(sizes)]
    matches = match_images(make_matcher(), *photos)
    assert matches.keypoints0.shape == matches.keypoints1.shape == (len(matches), 2)
    assert ((matches.confidence >= 0) & (matches.confidence <= 1)).all()
    for points, (height, width) in ((matches.keypoints0, sizes[0]), (matches.keypoints1, sizes[1])):
        assert ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all()


def test_a_photo_matches_itself_and_low_confidence_is_dropped(make_matcher):
    photo = make_photo(75, 93)
    matches = match_images(make_matcher(), photo, photo)
    assert len(matches) > 5
    assert np.abs(matches.keypoints0 - matches.keypoints1).max() < 1.5
    limit = float(np.median(matches.confidence))
    kept = match_images(make_matcher(min_confidence=limit), photo, photo)
    assert 0 < len(kept) <= len(matches) and kept.confidence.min() >= limit


def test_efficient_loftr_follows_a_photo_that_moves(convolutions):
    world = make_photo(150, 190)
    matcher = EfficientLoftrMatcher(convolutions, CPU, max_size_px=840, min_confidence=0.0)
    matches = match_images(matcher, world[:120, :150], world[24:144, 16:166])
    moved = matches.keypoints1 - matches.keypoints0
    assert len(matches) > 20
    assert (np.abs(moved - (-16, -24)).max(axis=1) < 2).mean() > 0.5


def test_keypoints_of_shrunk_photos_are_in_pixels_of_the_originals(make_matcher):
    photo = make_photo(160, 200)
    matches = match_images(make_matcher(max_size_px=100), photo, photo)
    assert matches.keypoints0[:, 0].max() > 110


def test_cells_are_matched_with_their_own_partners():
    features = torch.randn(48, 16, generator=torch.Generator().manual_seed(0))
    features = 16 * torch.nn.functional.normalize(features, dim=1)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    pair = torch.stack([features, features[order]]).transpose(1, 2).reshape(2, 16, 6, 8)
    first, second, confidence = _mutual(pair, 0.1)
    assert len(first) == 48 and torch.equal(order[second], first) and (confidence > 0.9).all()


@pytest.mark.parametrize("shift", [(0, 0), (1, -1), (-3, 2)])
def test_matched_cells_are_refined_to_pixels(shift):
    generator = torch.Generator().manual_seed(2)
    second = torch.randn(5, 10, 10, 24, generator=generator) * 6
    padded = torch.nn.functional.pad(second, (0, 0, 4, 4, 4, 4))
    dx, dy = shift
    first = padded[:, 5 + dy : 13 + dy, 5 + dx : 13 + dx]
    offset0, offset1 = _fine_offsets(first.reshape(5, 64, 24), second.reshape(5, 100, 24), 8, 10.0)
    moved = offset1 - offset0
    assert (moved - torch.tensor([dx, dy], dtype=torch.float32)).abs().max() < 0.6
    assert offset0.abs().max() <= 3.5


@pytest.mark.parametrize(("axis", "part"), [(2, (0.9, 0)), (1, (0, 0.9))], ids=["x", "y"])
def test_matches_are_refined_to_parts_of_a_pixel(axis, part):
    second = torch.randn(5, 10, 10, 24, generator=torch.Generator().manual_seed(2)) * 6
    ramp = torch.arange(10.0).reshape([-1 if n == axis else 1 for n in range(4)])
    second[..., 16:] = 20 * ramp
    first = second[:, 1:9, 1:9].clone()
    first[..., 16:] = 1
    offset0, offset1 = _fine_offsets(first.reshape(5, 64, 24), second.reshape(5, 100, 24), 8, 10.0)
    assert (offset1 - offset0 - torch.tensor(part)).abs().max() < 0.15


@pytest.mark.parametrize("name", ["efficientloftr", "matchanything"])
def test_efficient_loftr_is_loaded_from_its_checkpoint(loftr, name, tmp_path, monkeypatch):
    loftr.save_pretrained(tmp_path)
    monkeypatch.setitem(efficient_loftr._HUB_IDS, name, str(tmp_path))
    matcher = load_matcher(RankConfig(matcher=name, min_confidence=0.0).resolve({}), CPU)
    photos = make_photo(64, 80), make_photo(64, 80, 1)
    expected = match_images(EfficientLoftrMatcher(loftr, CPU, max_size_px=840, min_confidence=0.0), *photos)
    matches = match_images(matcher, *photos)
    np.testing.assert_allclose(matches.keypoints1, expected.keypoints1)


def test_a_missing_checkpoint_is_reported_with_an_alternative(tmp_path, monkeypatch):
    monkeypatch.setitem(efficient_loftr._HUB_IDS, "matchanything", str(tmp_path / "nowhere"))
    with pytest.raises(BaseModelError, match=r"nowhere.* cannot be loaded.*matcher='sift'"):
        load_matcher(RankConfig(matcher="matchanything").resolve({}), CPU)


def test_lightglue_is_loaded_from_its_weights(monkeypatch):
    detector, model = seeded(lambda: (DISK(), LightGlue(None, input_dim=128)))
    monkeypatch.setattr(kornia_disk, "load_state_dict_from_url", lambda *_, **__: {"extractor": detector.state_dict()})
    monkeypatch.setattr(kornia_lightglue, "load_state_dict_from_url", lambda *_, **__: model.state_dict())
    matcher = load_matcher(RankConfig(matcher="lightglue").resolve({}), CPU)
    assert torch.equal(matcher._model.state_dict()["input_proj.weight"], model.state_dict()["input_proj.weight"])
    assert not matcher._model.training and not matcher._detector.training

    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(kornia_disk, "load_state_dict_from_url", fail)
    with pytest.raises(BaseModelError, match=r"LightGlue.*no route to host.*matcher='sift'"):
        load_matcher(RankConfig(matcher="lightglue").resolve({}), CPU)


class Planted(Matcher):
    """Knows the shift between photos; matches everywhere, and some places wrongly."""

    def extract(self, image):
        return image

    def match(self, features0, features1):
        rng = np.random.default_rng(0)
        points = rng.uniform(5, 90, (300, 2)).astype(np.float32)
        moved = points + np.float32([7, 3]) + rng.normal(scale=0.1, size=points.shape).astype(np.float32)
        moved[:60] = rng.uniform(5, 90, (60, 2))
        return Matches(keypoints0=points, keypoints1=moved, confidence=rng.random(300).astype(np.float32))


def test_correspondences_take_any_matcher_and_keep_what_agrees_outside_hole_and_masks():
    photo, hole, excluded = make_photo(100, 120), np.zeros((100, 120), bool), np.zeros((100, 120), bool)
    hole[40:70, 40:70] = True
    excluded[:30, :30] = True
    pairs = match_all([photo, photo, photo], hole, [excluded, None], matcher=Planted())
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}
    wrong = np.abs(pairs[0, 1][:, 2:] - pairs[0, 1][:, :2] - (7, 3)).max(axis=1) > 2
    assert len(pairs[0, 1]) > 120 and wrong.mean() < 0.1
    for (i, j), matches in pairs.items():
        for number, at in ((i, matches[:, :2]), (j, matches[:, 2:])):
            x, y = np.rint(at).astype(int).T
            assert not [hole, excluded, hole & False][number][y, x].any()
