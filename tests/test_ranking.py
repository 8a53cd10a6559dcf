"""Ranking: planted matches rank as planted, only those in the hole count, and the truth ranks above a fake."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from conftest import make_photo

from realfill import Completions, RankConfig, Scene, rank
from realfill.errors import RealFillWarning, SceneError
from realfill.models.matcher import Matcher, Matches
from realfill.ranking import matches_in_hole
from realfill.results import Completion

HOLE = (40, 30)  # the middle of the scene's hole, (x, y)
OUTSIDE = (3, 3)


def make_matches(points, confidence=0.9):
    points = np.array(points, np.float32).reshape(-1, 2)
    return Matches(
        keypoints0=np.zeros_like(points),
        keypoints1=points,
        confidence=np.broadcast_to(np.float32(confidence), len(points)),
    )


def plant(planted):
    """Make a matcher that finds what is planted: (reference's number, completion's seed) to matches."""

    class Planted(Matcher):
        def __init__(self):
            self.calls = []

        def extract(self, image):
            self.calls.append(int(image[HOLE[1], HOLE[0], 0]))
            return self.calls[-1]

        def match(self, features0, features1):
            return planted.get((features0, features1), make_matches([]))

    return Planted()


def mark(image, number):
    image = image.copy()
    image[HOLE[1], HOLE[0]] = number
    return image


@pytest.fixture
def marked(scene):
    """Four completions, seeds 10 to 13, of a scene with references 0 and 1; each image carries its number."""
    scene = Scene([mark(r, i) for i, r in enumerate(scene.references)], scene.target, scene.mask)
    items = tuple(
        Completion.from_image(mark(scene.target, s), scene, s, provenance={"base": "x"}) for s in range(10, 14)
    )
    return Completions(items=items, scene=scene)


def seeds(completions):
    return [c.seed for c in completions]


def ranked(marked, planted, **options):
    return rank(marked, matcher=plant(planted), progress=False, **options)


def test_planted_matches_rank_as_planted(marked):
    counts = {10: (1, 0), 11: (2, 3), 12: (0, 0), 13: (0, 4)}
    planted = {(r, s): make_matches([HOLE] * n) for s, both in counts.items() for r, n in enumerate(both)}
    result = ranked(marked, planted)
    assert seeds(result) == [11, 13, 10, 12]
    assert [c.score for c in result] == [5, 4, 1, 0]
    assert [c.num_matches for c in result] == [5, 4, 1, 0]
    assert [c.num_matches_per_reference for c in result] == [counts[s] for s in seeds(result)]
    assert [c.scores_per_reference for c in result] == [counts[s] for s in seeds(result)]
    assert result.best.seed == 11


@pytest.mark.parametrize("order", [(10, 11, 12, 13), (13, 12, 11, 10), (12, 10, 13, 11)])
def test_equal_numbers_are_told_apart_by_confidence_then_by_seed(marked, order):
    sure = {10: 0.5, 11: 0.7, 12: 0.5, 13: 0.5}
    items = tuple(sorted(marked.items, key=lambda c: order.index(c.seed)))
    planted = {(0, s): make_matches([HOLE] * 3, confidence) for s, confidence in sure.items()}
    result = ranked(dataclasses.replace(marked, items=items), planted)
    assert seeds(result) == [11, 10, 12, 13]


def test_one_more_match_outweighs_any_confidence(marked):
    planted = {(0, 10): make_matches([HOLE] * 3, 0.99), (0, 12): make_matches([HOLE] * 4, 0.2)}
    assert ranked(marked, planted).best.seed == 12


def test_only_matches_that_end_in_the_hole_count(marked):
    planted = {(0, 10): make_matches([OUTSIDE] * 50), (1, 12): make_matches([HOLE] + [OUTSIDE] * 5)}
    result = ranked(marked, planted)
    assert result.best.seed == 12
    assert [c.num_matches for c in result] == [1, 0, 0, 0]


def test_nothing_but_order_and_scores_changes_and_the_config_is_noted(marked):
    config = RankConfig(matcher="sift", max_ratio=0.7)
    result = ranked(marked, {(0, 12): make_matches([HOLE])}, config=config)
    assert result.scene is marked.scene
    assert marked.items[0].score is None
    for completion in result:
        before = next(c for c in marked if c.seed == completion.seed)
        assert completion.filled is before.filled
        assert completion.provenance == {**before.provenance, "rank": config.resolve({}).to_dict()}


def test_to_rank_again_gives_the_same(marked):
    planted = {(0, s): make_matches([HOLE] * n) for s, n in ((10, 1), (11, 3), (12, 2))}
    once = ranked(marked, planted)
    twice = ranked(once, planted)
    assert seeds(once) == seeds(twice) == [11, 12, 10, 13]
    assert [c.score for c in once] == [c.score for c in twice]


def test_each_image_is_looked_at_once(marked):
    matcher = plant({(0, 10): make_matches([HOLE])})
    rank(marked, matcher=matcher, progress=False)
    assert sorted(matcher.calls) == [0, 1, 10, 11, 12, 13]


def test_other_references_take_the_scenes_place(marked):
    planted = {(0, 10): make_matches([HOLE]), (7, 13): make_matches([HOLE])}
    result = ranked(marked, planted, references=[mark(marked.scene.references[0], 7)])
    assert seeds(result)[0] == 13
    assert result.best.num_matches_per_reference == (1,)


def test_without_any_match_the_order_is_by_seed_and_a_warning_says_that_it_says_nothing(marked):
    with pytest.warns(RealFillWarning, match="the order says nothing"):
        result = ranked(marked, {(0, 12): make_matches([OUTSIDE] * 9)})
    assert seeds(result) == [10, 11, 12, 13]
    assert result.ranked
    assert result.best.score == 0


@pytest.mark.parametrize("references", [None, []])
def test_without_references_there_is_nothing_to_rank_by(marked, references):
    alone = dataclasses.replace(marked, scene=Scene([], marked.scene.target, marked.scene.mask))
    with pytest.raises(SceneError, match="no references"):
        ranked(alone, {}, references=references)


def test_a_match_belongs_to_the_pixel_that_it_is_nearest_to():
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    steps = (-0.6, -0.4, 0.0, 0.4, 0.6)
    points = [(3 + dx, 2 + dy) for dx, dy in itertools.product(steps, steps)]
    found = matches_in_hole(make_matches(points), mask).keypoints1
    assert len(found) == 9
    assert np.abs(found - (3, 2)).max() < 0.5


@pytest.mark.parametrize(("point", "inside"), [((-0.4, -0.4), True), ((5.4, 4.4), True), ((-0.4, 4.4), False)])
def test_a_match_at_the_images_edge_is_in_the_image(point, inside):
    mask = np.eye(5, 6, dtype=bool)
    mask[4, 4:] = True
    assert len(matches_in_hole(make_matches([point]), mask).confidence) == inside


def test_no_matches_are_no_matches_in_the_hole():
    found = matches_in_hole(make_matches([]), np.ones((4, 4), bool))
    assert found.keypoints0.shape == found.keypoints1.shape == (0, 2)
    assert found.confidence.shape == (0,)


@pytest.fixture
def judged():
    """Fill a hole with noise, another photo, a blurred truth, and the truth; a reference sees it from elsewhere."""
    truth = make_photo(200, 240)
    reference = cv2.warpAffine(truth, np.float32([[1.1, 0, -9], [0, 1.1, 4]]), (240, 200))
    mask = np.zeros((200, 240), bool)
    mask[50:140, 70:170] = True
    noise = np.random.default_rng(0).integers(0, 256, truth.shape).astype(np.uint8)
    fillings = (noise, make_photo(200, 240, 5), cv2.GaussianBlur(truth, (0, 0), 6), truth)
    images = [np.where(mask[:, :, None], f, truth).astype(np.uint8) for f in fillings]
    scene = Scene([reference], np.where(mask[:, :, None], 0, truth), mask)
    items = tuple(Completion.from_image(image, scene, seed) for seed, image in enumerate(images))
    return Completions(items=items, scene=scene)


def test_the_truth_ranks_above_noise_and_above_another_photo(judged):
    result = rank(judged, config=RankConfig(matcher="sift"), progress=False)
    scores = {c.seed: c.score for c in result}
    assert result.best.seed == 3
    assert scores[3] > 20
    assert scores[2] < scores[3] / 2
    assert max(scores[0], scores[1]) <= 2


def test_the_ranking_does_not_look_under_the_targets_hole(judged):
    config = RankConfig(matcher="sift")
    scene = judged.scene
    stranger = np.where(scene.mask[:, :, None], make_photo(200, 240, 8), scene.target)
    other = dataclasses.replace(judged, scene=Scene(scene.references, stranger, scene.mask))
    results = [rank(c, config=config, progress=False) for c in (judged, other)]
    assert [(c.seed, c.score) for c in results[0]] == [(c.seed, c.score) for c in results[1]]
