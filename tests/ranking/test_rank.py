"""Ranking by keypoints: only matches in the hole count, ties are broken, the truth ranks first; stopping."""

import dataclasses
import time

import cv2
import numpy as np
import pytest
from helpers import make_photo

from realfill import Completions, RankConfig, Scene, rank
from realfill.errors import RealFillWarning, SceneError
from realfill.geometry.matching import Matcher, Matches
from realfill.results.completions import Completion
from realfill.results.provenance import hash_array

HOLE = (40, 30)  # centre of the scene's hole, (x, y)
OUTSIDE = (3, 3)


def make_matches(points, confidence=0.9):
    points = np.array(points, np.float32).reshape(-1, 2)
    return Matches(
        keypoints0=np.zeros_like(points),
        keypoints1=points,
        confidence=np.broadcast_to(np.float32(confidence), len(points)),
    )


def plant(planted):
    """Make a matcher that returns planted matches: ``planted`` maps (reference number, completion seed) to matches."""

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
    """Four completions, seeds 10 to 13, of a scene with references 0 and 1; a pixel of each image holds its number."""
    scene = Scene([mark(r, i) for i, r in enumerate(scene.references)], scene.target, scene.mask)
    items = tuple(
        Completion.from_image(mark(scene.target, s), scene, s, provenance={"base": "x"}) for s in range(10, 14)
    )
    return Completions(items=items, scene=scene)


def seeds(completions):
    return [c.seed for c in completions]


def ranked(marked, planted, **options):
    return rank(marked, matcher=plant(planted), progress=False, **options)


def test_more_matches_rank_higher(marked):
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
def test_ties_are_broken_by_confidence_then_by_seed(marked, order):
    confidences = {10: 0.5, 11: 0.7, 12: 0.5, 13: 0.5}
    items = tuple(sorted(marked.items, key=lambda c: order.index(c.seed)))
    planted = {(0, s): make_matches([HOLE] * 3, confidence) for s, confidence in confidences.items()}
    result = ranked(dataclasses.replace(marked, items=items), planted)
    assert seeds(result) == [11, 10, 12, 13]


def test_one_more_match_outweighs_any_confidence(marked):
    planted = {(0, 10): make_matches([HOLE] * 3, 0.99), (0, 12): make_matches([HOLE] * 4, 0.2)}
    assert ranked(marked, planted).best.seed == 12


def test_only_matches_in_the_hole_count(marked):
    planted = {(0, 10): make_matches([OUTSIDE] * 50), (1, 12): make_matches([HOLE] + [OUTSIDE] * 5)}
    result = ranked(marked, planted)
    assert result.best.seed == 12
    assert [c.num_matches for c in result] == [1, 0, 0, 0]


def test_matches_in_the_masked_part_of_a_reference_do_not_count(marked):
    excluded = np.zeros(marked.scene.references[0].shape[:2], bool)
    excluded[:5, :5] = True  # the planted keypoints of references lie in the corner
    scene = Scene(marked.scene.references, marked.scene.target, marked.scene.mask, reference_masks=[excluded, None])
    planted = {(0, 10): make_matches([HOLE] * 5), (1, 12): make_matches([HOLE])}
    result = ranked(dataclasses.replace(marked, scene=scene), planted)
    assert result.best.seed == 12 and [c.num_matches for c in result] == [1, 0, 0, 0]
    references = marked.scene.references
    assert ranked(marked, planted, references=references, reference_masks=[None, None]).best.seed == 10
    assert ranked(marked, planted, references=references, reference_masks=[excluded, None]).best.seed == 12
    with pytest.raises(SceneError, match="legal: one for each of 2"):
        ranked(marked, planted, references=references, reference_masks=[None])


def test_pixels_and_seeds_do_not_change_and_the_settings_are_recorded(marked):
    config = RankConfig(matcher="sift", max_ratio=0.7)
    result = ranked(marked, {(0, 12): make_matches([HOLE])}, config=config)
    assert result.scene is marked.scene
    assert marked.items[0].score is None
    for completion in result:
        before = next(c for c in marked if c.seed == completion.seed)
        assert completion.filled is before.filled
        assert completion.provenance == {**before.provenance, "rank": config.resolve({}).to_dict()}
    assert result.ranking == config.resolve({})
    assert result.references == tuple(hash_array(r) for r in marked.scene.references)


def test_ranking_twice_gives_the_same_order(marked):
    planted = {(0, s): make_matches([HOLE] * n) for s, n in ((10, 1), (11, 3), (12, 2))}
    once = ranked(marked, planted)
    twice = ranked(once, planted)
    assert seeds(once) == seeds(twice) == [11, 12, 10, 13]
    assert [c.score for c in once] == [c.score for c in twice]


def test_features_are_extracted_once_per_image(marked):
    matcher = plant({(0, 10): make_matches([HOLE])})
    rank(marked, matcher=matcher, progress=False)
    assert sorted(matcher.calls) == [0, 1, 10, 11, 12, 13]


def test_other_references_replace_those_of_the_scene(marked):
    planted = {(0, 10): make_matches([HOLE]), (7, 13): make_matches([HOLE])}
    result = ranked(marked, planted, references=[mark(marked.scene.references[0], 7)])
    assert seeds(result)[0] == 13
    assert result.best.num_matches_per_reference == (1,)


def test_without_any_match_the_order_is_by_seed_with_a_warning(marked):
    with pytest.warns(RealFillWarning, match="the order says nothing"):
        result = ranked(marked, {(0, 12): make_matches([OUTSIDE] * 9)})
    assert seeds(result) == [10, 11, 12, 13]
    assert result.ranked
    assert result.best.score == 0


@pytest.mark.parametrize("references", [None, []])
def test_ranking_without_references_is_an_error(marked, references):
    alone = dataclasses.replace(marked, scene=Scene([], marked.scene.target, marked.scene.mask))
    with pytest.raises(SceneError, match="no references"):
        ranked(alone, {}, references=references)


@pytest.fixture
def graded():
    """Completions of noise, an unrelated photo, the blurred truth and the truth, with a reference from another view."""
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


def test_the_truth_ranks_above_noise_and_an_unrelated_photo(graded):
    result = rank(graded, config=RankConfig(matcher="sift"), progress=False)
    scores = {c.seed: c.score for c in result}
    assert result.best.seed == 3
    assert scores[3] > 20
    assert scores[2] < scores[3] / 2
    assert max(scores[0], scores[1]) <= 2


def test_target_pixels_under_the_hole_have_no_influence(graded):
    config = RankConfig(matcher="sift")
    scene = graded.scene
    unrelated = np.where(scene.mask[:, :, None], make_photo(200, 240, 8), scene.target)
    other = dataclasses.replace(graded, scene=Scene(scene.references, unrelated, scene.mask))
    results = [rank(c, config=config, progress=False) for c in (graded, other)]
    assert [(c.seed, c.score) for c in results[0]] == [(c.seed, c.score) for c in results[1]]


def test_on_step_is_called_after_each_completion(marked):
    steps = []
    ranked(marked, {(0, 12): make_matches([HOLE])}, on_step=steps.append)
    assert [(s.phase, s.step, s.num_steps) for s in steps] == [("rank", i, 4) for i in (1, 2, 3, 4)]
    assert steps[-1].left_s == 0 and steps[0].left_s > 0
    assert [s.time_s for s in steps] == sorted(s.time_s for s in steps)


def test_false_from_on_step_returns_the_completions_as_they_were(marked):
    items = tuple(marked.items[i] for i in (2, 0, 3, 1))
    shuffled = dataclasses.replace(marked, items=items)
    with pytest.warns(RealFillWarning, match="stopped by on_step") as caught:
        result = ranked(shuffled, {(0, 11): make_matches([HOLE])}, on_step=lambda _: False)
    assert seeds(result) == [12, 10, 13, 11]
    assert all(c.score is None and c.num_matches is None for c in result)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("slow", ["extract", "match"])
def test_ranking_stops_within_two_seconds_however_many_pairs_there_are(marked, slow):
    class Slow(Matcher):
        def extract(self, image):
            time.sleep(0.3 if slow == "extract" else 0)
            return image

        def match(self, features0, features1):
            time.sleep(0.3 if slow == "match" else 0)
            return make_matches([HOLE])

    asked = []

    def on_step(progress):
        asked.append(time.monotonic())
        return len(asked) < 2

    start = time.monotonic()
    with pytest.warns(RealFillWarning, match="stopped"):
        rank(marked, matcher=Slow(), on_step=on_step, progress=False)
    assert time.monotonic() - start < 2
    assert asked[-1] - start > 0.9, "on_step is asked about twice a second"


def test_a_matcher_for_warped_references_is_an_error(marked):
    with pytest.raises(ValueError, match="a matcher is given, but score_by is 'warped_references'"):
        ranked(marked, {}, config=RankConfig(score_by="warped_references"))


def test_no_matcher_sees_the_masked_part_of_a_reference(marked):
    excluded = np.zeros(marked.scene.references[0].shape[:2], bool)
    excluded[20:50, 30:60] = True
    seen = []

    class Recorder(Matcher):
        def extract(self, image):
            seen.append(image.copy())
            return image

        def match(self, features0, features1):
            return make_matches([HOLE])

    for colour in (0, 255):
        photo = np.where(excluded[:, :, None], np.uint8(colour), marked.scene.references[0])
        rank(marked, [photo], reference_masks=[excluded], matcher=Recorder(), progress=False)
    assert len(seen) == 10 and np.array_equal(seen[0], seen[5])


def test_more_completions_than_are_held_at_a_time_are_all_ranked(marked):
    numbers = range(10, 30)
    items = tuple(Completion.from_image(mark(marked.scene.target, s), marked.scene, s) for s in numbers)
    planted = {(0, s): make_matches([HOLE] * (s - 9)) for s in numbers}
    result = ranked(dataclasses.replace(marked, items=items), planted)
    assert seeds(result) == list(reversed(numbers)) and [c.score for c in result] == list(range(20, 0, -1))


def test_completions_without_a_score_come_last(marked):
    from realfill.ranking.scores import best_first, scored

    scores = (None, 3.0, 5.0, None)
    ordered = best_first(scored(c, score) for c, score in zip(marked, scores, strict=True))
    assert seeds(ordered) == [12, 11, 10, 13]
