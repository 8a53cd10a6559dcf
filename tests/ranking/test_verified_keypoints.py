"""Verified keypoints: matches count where a warp puts them, weighted by confidence and spread over the hole."""

import dataclasses

import numpy as np
import pytest
from worlds import SHIFTED, TARGET, blob, make_world, view

from realfill import RankConfig, Scene, rank
from realfill.errors import RealFillWarning, SceneError
from realfill.geometry.fields import warp_by_plane
from realfill.geometry.matching import Matcher, Matches
from realfill.ranking.verified_keypoints import agree_with_warps, expected_cells, score_by_verified_keypoints
from realfill.results.completions import Completion, Completions

HOLE = blob()
CONFIG = RankConfig(score_by="verified_keypoints", matcher="sift")


def make_matches(points0, points1, confidence=0.9):
    points0, points1 = (np.array(points, np.float32).reshape(-1, 2) for points in (points0, points1))
    values = np.broadcast_to(np.float32(confidence), len(points0)).copy()
    return Matches(keypoints0=points0, keypoints1=points1, confidence=values)


def make_warp(matrix, reference=0, size=(150, 200), shape=(150, 200)):
    return warp_by_plane(reference, np.array(matrix, float), size, shape)


@pytest.mark.parametrize(("shift", "agrees"), [(0, True), (2.5, True), (-2.5, True), (3.5, False), (40, False)])
def test_a_match_counts_within_three_pixels_of_where_the_warp_puts_it(shift, agrees):
    warp = make_warp(SHIFTED)
    matches = make_matches([(109 + shift, 74)], [(100, 80)])
    assert agree_with_warps(matches, [warp]).tolist() == [agrees]


def test_the_tolerance_grows_with_the_target_and_with_the_scale_of_the_reference():
    twice, large = (
        make_warp(np.diag([2, 2, 1.0]), shape=(300, 400)),
        make_warp(np.eye(3), size=(600, 900), shape=(600, 900)),
    )
    assert agree_with_warps(make_matches([(205, 160), (207, 160)], [(100, 80)] * 2), [twice]).tolist() == [True, False]
    assert agree_with_warps(make_matches([(108, 80), (110, 80)], [(100, 80)] * 2), [large]).tolist() == [True, False]


def test_one_of_several_warps_suffices_and_a_warp_counts_only_where_it_is_valid():
    near, far = make_warp(np.eye(3)), make_warp(((1, 0, 30), (0, 1, 0), (0, 0, 1)))
    matches = make_matches([(100, 80), (130, 80), (115, 80)], [(100, 80)] * 3)
    assert agree_with_warps(matches, [near, far]).tolist() == [True, True, False]
    invalid = dataclasses.replace(near, valid_mask=np.zeros_like(near.valid_mask))
    assert agree_with_warps(matches, [invalid, far]).tolist() == [False, True, False]
    assert agree_with_warps(matches, []).tolist() == [False] * 3
    assert agree_with_warps(make_matches([], []), [near]).shape == (0,)


class Planted(Matcher):
    """Finds the same matches in any two images."""

    def __init__(self, matches):
        self._matches = matches

    def extract(self, image):
        return image

    def match(self, features0, features1):
        del features0, features1
        return self._matches


@pytest.mark.parametrize("reference_size", [(48, 768), (36, 576)])
def test_matches_of_large_photos_agree_with_the_warp_of_their_shrunk_copies(reference_size):
    photo, hole = np.zeros((144, 2304, 3), np.uint8), np.zeros((144, 2304), bool)
    hole[40:104, 200:2200] = True
    scene = Scene([photo], photo, hole)
    completions = Completions(items=(Completion.from_image(photo, scene, 0),), scene=scene)
    factor = reference_size[1] / 768
    shift = (factor - 1) / 2  # between the centres of the first pixels
    shrunk = make_warp(((factor, 0, shift), (0, factor, shift), (0, 0, 1)), size=(48, 768), shape=reference_size)
    points = np.array([(300, 60), (1200, 72), (2150, 84)])

    def count(offset):
        (scored,) = score_by_verified_keypoints(
            completions, [photo], [None], Planted(make_matches(points + np.array([offset, 0]), points)), [shrunk],
            lambda _: None, reference_sizes=[reference_size],
        )  # fmt: skip
        return scored.num_matches

    assert [count(offset) for offset in (0, 20, -20, 40, -40)] == [3, 3, 3, 0, 0]


def test_a_cell_counts_by_the_probability_that_one_of_its_matches_is_right():
    mask = np.zeros((100, 100), bool)
    mask[:50, :50] = True  # 25 cells of 10 pixels
    together = make_matches([(0, 0)] * 2, [(1, 1), (8, 8)], 0.5)
    apart = make_matches([(0, 0)] * 2, [(1, 1), (11, 1)], 0.5)
    below = make_matches([(0, 0)] * 2, [(1, 1), (1, 11)], 0.5)
    assert expected_cells([together], mask) == pytest.approx(0.75)
    assert expected_cells([apart], mask) == expected_cells([below], mask) == pytest.approx(1.0)
    assert expected_cells([together, apart], mask) == pytest.approx(1 - 0.5**3 + 0.5)
    assert expected_cells([], mask) == 0


def test_the_right_content_in_the_wrong_place_has_no_verified_match(make_composite, ranked):
    moved = np.roll(TARGET, 15, axis=1)
    result = ranked([moved, TARGET], [view(SHIFTED)], make_composite([make_warp(SHIFTED)]), CONFIG)
    assert result.seeds == (1, 0) and result.best.num_matches > 3 and result[1].num_matches == 0
    assert result[1].score == 0 < result.best.score <= result.best.num_matches
    count = ranked([moved, TARGET], [view(SHIFTED)], None, RankConfig(score_by="keypoints", matcher="sift"))
    assert min(c.num_matches for c in count) > 3


def test_each_reference_is_checked_by_its_own_warps(make_composite, ranked):
    references = [view(SHIFTED), view(np.eye(3))]
    right = [make_warp(SHIFTED, 0), make_warp(np.eye(3), 1)]
    swapped = [make_warp(SHIFTED, 1), make_warp(np.eye(3), 0)]
    good = ranked([TARGET], references, make_composite(right), CONFIG).best
    assert min(good.num_matches_per_reference) > 3
    assert sum(good.num_matches_per_reference) == good.num_matches
    assert all(0 < score <= good.score for score in good.scores_per_reference)
    with pytest.warns(RealFillWarning, match="no keypoint in any filled region"):
        assert ranked([TARGET], references, make_composite(swapped), CONFIG).best.num_matches == 0


def test_without_a_given_composite_it_is_computed_from_the_target_and_the_references(
    make_composite, ranked, monkeypatch
):
    calls = []

    def compose(known, hole, references, *, reference_masks, focals, frame):
        calls.append((known.copy(), hole, list(references), list(reference_masks), focals, frame))
        return make_composite([make_warp(SHIFTED)])

    monkeypatch.setattr("realfill.ranking.rank.compose", compose)
    wrong = np.where(HOLE[..., None], make_world(9)[:150, :200], TARGET)
    assert ranked([wrong, TARGET], [view(SHIFTED)], None, CONFIG).best.seed == 1
    ((known, hole, references, masks, focals, frame),) = calls
    assert np.array_equal(known[~HOLE], TARGET[~HOLE]) and not known[HOLE].any() and np.array_equal(hole, HOLE)
    assert len(references) == 1 and np.array_equal(references[0], view(SHIFTED)) and masks == [None]
    assert focals == (None, None) and frame is None


def test_the_composite_of_the_scenes_own_references_knows_their_focal_lengths(make_composite, monkeypatch):
    scene = Scene([view(SHIFTED)], TARGET, HOLE)
    object.__setattr__(scene, "focal_lengths", (180.0, 190.0))
    completions = Completions(items=(Completion.from_image(TARGET, scene, 0),), scene=scene)
    given = []

    def compose(*_, focals, **__):
        given.append(focals)
        return make_composite([make_warp(SHIFTED)])

    monkeypatch.setattr("realfill.ranking.rank.compose", compose)
    rank(completions, config=CONFIG, progress=False)
    rank(completions, [view(SHIFTED)], CONFIG, progress=False)
    assert given == [(180.0, 190.0), None]


def test_ties_keep_the_order_of_the_seeds(make_composite, ranked):
    assert ranked([TARGET] * 3, [view(SHIFTED)], make_composite([make_warp(SHIFTED)]), CONFIG).seeds == (0, 1, 2)


def test_a_hole_that_covers_the_target_is_refused():
    scene = Scene.canvas((64, 64), [view(SHIFTED)])
    completions = Completions(items=(Completion.from_image(make_world()[:64, :64], scene, 0),), scene=scene)
    with pytest.raises(SceneError, match="no composite for score_by='verified_keypoints'"):
        rank(completions, config=CONFIG, progress=False)


def test_matches_in_one_cell_count_by_the_chance_that_any_of_them_is_right():
    mask = np.zeros((100, 100), bool)
    mask[20:70, 20:70] = True  # in cells of ten pixels
    places = np.array([[31, 31], [33, 34], [55, 55]], np.float32)
    matches = Matches(keypoints0=places, keypoints1=places, confidence=np.array([0.9, 0.6, 0.2], np.float32))
    assert expected_cells([matches], mask) == pytest.approx(1 - 0.1 * 0.4 + 0.2)
    assert expected_cells([matches, matches], mask) == pytest.approx(1 - 0.04**2 + 1 - 0.8**2)


def test_the_tolerance_is_no_smaller_where_a_reference_shows_the_target_small():
    half = make_warp(np.diag([0.5, 0.5, 1]), shape=(75, 100))
    matches = make_matches([(52.5, 40), (53.5, 40)], [(100, 80)] * 2)
    assert agree_with_warps(matches, [half]).tolist() == [True, False]
