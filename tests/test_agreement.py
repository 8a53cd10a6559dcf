"""Ranking by references laid over the target: the truth first, foreign pixels last."""

import cv2
import numpy as np
import pytest
from test_stitching import SHIFTED, TARGET, blob, make_world, turned, view

from realfill import RankConfig, Scene, rank
from realfill.agreement import compare
from realfill.errors import RealFillWarning
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
    alone, beside = (compare(Scene(r, TARGET, HOLE), fills()) for r in ([view(SHIFTED)], [foreign, view(SHIFTED)]))
    assert [a.per_reference[1] for a in beside] == [a.per_reference[0] for a in alone]
    assert all(a.per_reference[0] == 0 for a in beside)
    assert [a.total for a in alone] == pytest.approx([a.total for a in beside])


def test_without_a_reference_over_the_hole_completions_judge_each_other_and_it_is_told():
    with pytest.warns(RealFillWarning, match="agree with each other"):
        ranked = rank(completions([make_world(9)[:150, :200]]), config=CONFIG, progress=False)
    assert ranked[-1].seed == 3


def test_what_lies_under_the_hole_of_the_target_has_no_influence():
    other = TARGET.copy()
    other[HOLE] = 0
    first, second = (compare(Scene([view(SHIFTED)], target, HOLE), fills()) for target in (TARGET, other))
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
