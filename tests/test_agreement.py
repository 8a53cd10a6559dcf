"""Ranking by references laid over the target: the truth first, foreign pixels last."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from test_stitching import SHIFTED, TARGET, blob, make_world, turned, view

from realfill import RankConfig, Scene, rank
from realfill.agreement import _boxes, compare
from realfill.errors import RealFillWarning
from realfill.metrics import psnr
from realfill.models.matcher import SiftMatcher
from realfill.results import Completion, Completions

HOLE = blob()
CONFIG = RankConfig(matcher="registered")


def fills():
    """Build completions from the truth to what has nothing to do with it: seed 0 is best."""
    truth, shares = TARGET.astype(np.float32), (0, 0.2, 0.45, 0.8)
    others = [make_world(5 + i)[:150, :200].astype(np.float32) for i in range(len(shares))]
    soft = [cv2.GaussianBlur((1 - s) * truth + s * other, (0, 0), 1.5) for s, other in zip(shares, others, strict=True)]
    return [image.clip(0, 255).astype(np.uint8) for image in soft]


def completions(references):
    scene = Scene(references, TARGET, HOLE)
    items = [Completion.from_image(image, scene, seed) for seed, image in enumerate(fills())]
    return Completions(items=tuple(items[i] for i in (2, 0, 3, 1)), scene=scene)


@pytest.mark.parametrize("matrix", [SHIFTED, turned(5, 1.4)], ids=["shifted", "closer"])
@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_the_nearer_to_the_truth_the_higher(matrix, gain):
    photo = (gain * view(matrix) + 20 * (1 - gain)).astype(np.uint8)
    ranked = rank(completions([photo]), config=CONFIG, progress=False)
    assert [c.seed for c in ranked] == [0, 1, 2, 3]
    scores = [c.score for c in ranked]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1] + 3
    assert all(c.num_matches is None and len(c.scores_per_reference) == 1 for c in ranked)
    assert ranked.best.provenance["rank"]["matcher"] == "registered"


def test_a_reference_of_something_else_counts_nothing():
    foreign = make_world(9)[:150, :200]
    alone, beside = (compare(TARGET, HOLE, r, fills()) for r in ([view(SHIFTED)], [foreign, view(SHIFTED)]))
    assert [a.per_reference[1] for a in beside] == [a.per_reference[0] for a in alone]
    assert all(a.per_reference[0] is None for a in beside)
    assert [a.total for a in alone] == pytest.approx([a.total for a in beside])


def test_without_a_reference_over_the_hole_completions_judge_each_other_and_it_is_told():
    with pytest.warns(RealFillWarning, match="agree with each other"):
        ranked = rank(completions([make_world(9)[:150, :200]]), config=CONFIG, progress=False)
    assert ranked[-1].seed == 3


def test_what_lies_under_the_hole_of_the_target_has_no_influence():
    other = TARGET.copy()
    other[HOLE] = 0
    first, second = (compare(target, HOLE, [view(SHIFTED)], fills()) for target in (TARGET, other))
    assert first == second


def test_a_hole_of_one_pixel_and_other_references_than_the_scenes_own():
    hole = np.zeros_like(HOLE)
    hole[75, 100] = True
    scene = Scene([], TARGET, hole)
    wrong = TARGET.copy()
    wrong[hole] = 255 - wrong[hole]
    items = tuple(Completion.from_image(image, scene, seed) for seed, image in enumerate((wrong, TARGET)))
    ranked = rank(Completions(items=items, scene=scene), [view(SHIFTED)], CONFIG, progress=False)
    assert ranked.best.seed == 1


def test_a_single_completion_is_compared_with_references_alone_and_without_any_with_nothing():
    (near,), (far,) = (compare(TARGET, HOLE, [view(SHIFTED)], [fills()[i]]) for i in (0, 3))
    assert near.total == near.per_reference[0]
    assert far.total is not None
    assert near.total > far.total + 3
    (alone,) = compare(TARGET, HOLE, [make_world(9)[:150, :200]], [fills()[0]])
    assert alone.total is None


def test_an_empty_canvas_is_ordered_by_agreement_with_any_number_of_references():
    photos = [view(SHIFTED)] * 6
    hole = np.ones_like(HOLE)
    found = compare(TARGET, hole, photos, fills())
    assert all(a.per_reference == (None,) * 6 and a.total is not None for a in found)


def test_a_large_target_is_registered_small(monkeypatch):
    sizes = []

    def look(known, mask, references):
        sizes.append(known.shape[:2])
        assert known.shape[:2] == mask.shape
        return []

    monkeypatch.setattr("realfill.agreement.register", look)
    for height, width, side in ((3000, 4000, 1500), (3000, 4000, 40), (300, 400, 90)):
        target, hole = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
        hole[100 : 100 + side, 50 : 50 + side] = True
        compare(target, hole, [TARGET], [target, target])
    assert sizes == [(768, 1024), (1536, 2048), (300, 400)]


def with_holes(*boxes):
    hole = np.zeros((600, 900), bool)
    for top, left, bottom, right in boxes:
        hole[top:bottom, left:right] = True
    return hole


def test_holes_far_apart_are_looked_at_each_at_its_own_scale(monkeypatch):
    rng = np.random.default_rng(0)
    truth, other = rng.integers(0, 256, (2, 600, 900, 3)).astype(np.uint8)
    layer = SimpleNamespace(image=truth, covers=np.ones(truth.shape[:2], bool), error=1.0, reference=0)
    monkeypatch.setattr("realfill.agreement.register", lambda *_: [layer])
    hole = with_holes((10, 10, 50, 50), (540, 830, 590, 890))
    (right,), (wrong,) = (compare(truth, hole, [truth], [image]) for image in (truth, other))
    assert right.total == 100
    assert wrong.total < 10  # shrunk together to 128 pixels, noise would be grey and alike


def test_holes_count_by_their_pixels(monkeypatch):
    truth = np.full((600, 900, 3), 100, np.uint8)
    layer = SimpleNamespace(image=truth, covers=np.ones(truth.shape[:2], bool), error=1.0, reference=0)
    monkeypatch.setattr("realfill.agreement.register", lambda *_: [layer])
    hole = with_holes((10, 10, 50, 50), (340, 640, 590, 890))  # the second is shrunk
    wrong = truth.copy()
    wrong[10:50, 10:50] = 130
    (found,) = compare(truth, hole, [truth], [wrong])
    assert found.total == pytest.approx(psnr(wrong, truth, hole), abs=0.02)


@pytest.mark.parametrize(
    ("boxes", "count"),
    [
        ([(10, 10, 70, 70), (540, 800, 600, 860)], 2),
        ([(10, 10, 70, 70), (20, 75, 80, 125)], 1),
        ([(0, 0, 600, 60), (0, 840, 600, 900)], 1),
        ([(5, 5, 6, 6)], 1),
    ],
)
def test_what_is_compared_by_itself_lies_far_apart_for_its_size(boxes, count):
    assert len(_boxes(with_holes(*boxes))) == count


def test_a_given_matcher_needs_its_config():
    with pytest.raises(ValueError, match="give its config as well"):
        rank(completions([view(SHIFTED)]), config=CONFIG, matcher=SiftMatcher(RankConfig().resolve({})), progress=False)


def test_ranked_completions_are_written_read_and_ranked_again(tmp_path):
    ranked = rank(completions([view(SHIFTED)]), config=CONFIG, progress=False)
    ranked.save(tmp_path / "out")
    again = rank(Completions.load(tmp_path / "out", ranked.scene), progress=False)
    assert [c.seed for c in again] == [c.seed for c in ranked]
    assert again.best.num_matches is None
    assert again.best.score == pytest.approx(ranked.best.score, abs=0.01)
