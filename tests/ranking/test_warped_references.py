"""Ranking by warped references: the closer to the truth, the higher the score."""

import dataclasses

import cv2
import numpy as np
import pytest
from worlds import SHIFTED, TARGET, blob, make_world, turned, view

from realfill import RankConfig, Scene, rank
from realfill.benchmark.metrics import psnr
from realfill.errors import OutputError, RealFillWarning
from realfill.geometry.warping import Warp
from realfill.ranking.warped_references import _boxes, compare
from realfill.results.completions import Completion, Completions

HOLE = blob()
CONFIG = RankConfig(score_by="warped_references")


def fills():
    """Build four images, from the truth to one that hardly resembles it; the first is the best."""
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
def test_completions_closer_to_the_truth_rank_higher(matrix, gain):
    photo = (gain * view(matrix) + 20 * (1 - gain)).astype(np.uint8)
    ranked = rank(completions([photo]), config=CONFIG, progress=False)
    assert [c.seed for c in ranked] == [0, 1, 2, 3]
    scores = [c.score for c in ranked]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1] + 3
    assert all(c.num_matches is None and len(c.scores_per_reference) == 1 for c in ranked)
    assert ranked.best.provenance["rank"]["score_by"] == "warped_references"


def test_an_unrelated_reference_has_no_influence():
    unrelated = make_world(9)[:150, :200]
    alone, beside = (compare(TARGET, HOLE, r, fills()) for r in ([view(SHIFTED)], [unrelated, view(SHIFTED)]))
    assert [s.score_per_reference[1] for s in beside] == [s.score_per_reference[0] for s in alone]
    assert all(s.score_per_reference[0] is None for s in beside)
    assert [s.score for s in alone] == pytest.approx([s.score for s in beside])


def test_each_image_that_is_read_is_reported():
    reports = []
    compare(TARGET, HOLE, [view(SHIFTED)], fills(), report=reports.append)
    assert sum(reports) == len(fills()) and reports[-1] == 1


def test_the_other_completions_count_beside_the_references():
    truth, other = fills()[0], fills()[3]
    beside_truths, beside_others = (
        compare(TARGET, HOLE, [view(SHIFTED)], [truth, *[beside] * 3])[0].score for beside in (truth, other)
    )
    assert beside_truths > beside_others + 1


def test_without_an_aligned_reference_completions_are_compared_with_each_other_with_a_warning():
    with pytest.warns(RealFillWarning, match="similarity to each other"):
        ranked = rank(completions([make_world(9)[:150, :200]]), config=CONFIG, progress=False)
    assert ranked[-1].seed == 3


def test_target_pixels_under_the_hole_have_no_influence():
    other = TARGET.copy()
    other[HOLE] = 0
    first, second = (compare(target, HOLE, [view(SHIFTED)], fills()) for target in (TARGET, other))
    assert first == second


def test_a_hole_of_one_pixel_is_ranked_by_given_references():
    hole = np.zeros_like(HOLE)
    hole[75, 100] = True
    scene = Scene([], TARGET, hole)
    wrong = TARGET.copy()
    wrong[hole] = 255 - wrong[hole]
    items = tuple(Completion.from_image(image, scene, seed) for seed, image in enumerate((wrong, TARGET)))
    ranked = rank(Completions(items=items, scene=scene), [view(SHIFTED)], CONFIG, progress=False)
    assert ranked.best.seed == 1


def test_a_single_completion_is_compared_with_the_references_only():
    (near,), (far,) = (compare(TARGET, HOLE, [view(SHIFTED)], [fills()[i]]) for i in (0, 3))
    assert near.score == near.score_per_reference[0]
    assert far.score is not None
    assert near.score > far.score + 3
    (alone,) = compare(TARGET, HOLE, [make_world(9)[:150, :200]], [fills()[0]])
    assert alone.score is None


def test_completions_of_an_empty_canvas_are_compared_with_each_other():
    photos = [view(SHIFTED)] * 6
    hole = np.ones_like(HOLE)
    similarities = compare(TARGET, hole, photos, fills())
    assert all(s.score_per_reference == (None,) * 6 and s.score is not None for s in similarities)


def test_references_are_warped_to_a_shrunk_copy_of_a_large_target(monkeypatch):
    sizes = []

    def record(known, mask, references, *, matches, size, reference_masks):
        sizes.append(size)
        assert known.shape[:2] == mask.shape
        return []

    monkeypatch.setattr("realfill.ranking.warped_references.warp_references", record)
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


def test_holes_far_apart_are_compared_each_at_its_own_scale(monkeypatch):
    rng = np.random.default_rng(0)
    truth, other = rng.integers(0, 256, (2, 600, 900, 3)).astype(np.uint8)
    warp = Warp(reference=0, image=truth, valid_mask=np.ones(truth.shape[:2], bool), error=1.0)
    monkeypatch.setattr("realfill.ranking.warped_references.warp_references", lambda *_, **__: [warp])
    hole = with_holes((10, 10, 50, 50), (540, 830, 590, 890))
    (right,), (wrong,) = (compare(truth, hole, [truth], [image]) for image in (truth, other))
    assert right.score == 100
    assert wrong.score < 10  # in a joint box of 128 pixels, noise would average to grey


def test_holes_are_weighted_by_their_pixels(monkeypatch):
    truth = np.full((600, 900, 3), 100, np.uint8)
    warp = Warp(reference=0, image=truth, valid_mask=np.ones(truth.shape[:2], bool), error=1.0)
    monkeypatch.setattr("realfill.ranking.warped_references.warp_references", lambda *_, **__: [warp])
    hole = with_holes((10, 10, 50, 50), (340, 640, 590, 890))  # the second is shrunk
    wrong = truth.copy()
    wrong[10:50, 10:50] = 130
    (similarity,) = compare(truth, hole, [truth], [wrong])
    assert similarity.score == pytest.approx(psnr(wrong, truth, hole), abs=0.02)


@pytest.mark.parametrize(
    ("boxes", "count"),
    [
        ([(10, 10, 70, 70), (540, 800, 600, 860)], 2),
        ([(10, 10, 70, 70), (20, 75, 80, 125)], 1),
        ([(0, 0, 600, 60), (0, 840, 600, 900)], 1),
        ([(5, 5, 6, 6)], 1),
    ],
)
def test_holes_are_compared_one_by_one_if_they_lie_far_apart_for_their_size(boxes, count):
    assert len(_boxes(with_holes(*boxes))) == count


def test_saved_completions_are_ranked_again_by_the_same_settings(tmp_path):
    ranked = rank(completions([view(SHIFTED)]), config=CONFIG, progress=False)
    ranked.save(tmp_path / "out")
    again = rank(Completions.load(tmp_path / "out", ranked.scene), progress=False)
    assert [c.seed for c in again] == [c.seed for c in ranked]
    assert again.best.num_matches is None
    assert again.best.score == pytest.approx(ranked.best.score, abs=0.01)


def test_ranking_can_be_stopped_while_references_are_matched(monkeypatch):
    monkeypatch.setattr("realfill.ranking.rank._POLL_EVERY_S", 0)
    steps = []

    def stop(progress):
        steps.append(progress.step)
        return False

    made = completions([view(SHIFTED)])
    with pytest.warns(RealFillWarning, match="stopped by on_step"):
        result = rank(made, config=CONFIG, on_step=stop, progress=False)
    assert steps == [0]
    assert result is made


def test_completions_added_later_are_ranked_with_the_earlier_ones(tmp_path):
    whole = completions([view(SHIFTED)])
    first, second = (dataclasses.replace(whole, items=whole.items[part]) for part in (slice(2), slice(2, 4)))
    expected = rank(whole, config=CONFIG, progress=False)
    rank(first, config=CONFIG, progress=False).save(tmp_path)
    ranked = rank(second, config=CONFIG, progress=False)
    with pytest.raises(OutputError, match="not comparable"):
        ranked.save(tmp_path, extend=True)
    merged = rank(Completions.load(tmp_path, whole.scene).merged(ranked), progress=False)
    merged.save(tmp_path, overwrite=True)
    loaded = Completions.load(tmp_path, whole.scene)
    assert [(c.seed, c.score) for c in loaded] == [(c.seed, c.score) for c in expected]


def flat(level):
    return np.full((*HOLE.shape, 3), level, np.uint8)


def planted(monkeypatch, *warps):
    """Plant warped references, each by its level, its error and where it is valid."""
    found = [
        Warp(reference=n, image=flat(level), valid_mask=valid, error=error)
        for n, (level, error, valid) in enumerate(warps)
    ]
    monkeypatch.setattr("realfill.ranking.warped_references.warp_references", lambda *_, **__: found)
    return [flat(0)] * len(found)


def test_references_are_weighted_by_the_inverse_of_their_squared_error(monkeypatch):
    whole = np.ones(HOLE.shape, bool)
    references = planted(monkeypatch, (100, 10.0, whole), (200, 20.0, whole))
    (similarity,) = compare(flat(0), HOLE, references, [flat(120)], matches=[])  # (4 * 100 + 200) / 5
    assert similarity.score > 60


def test_a_warp_counts_only_where_it_shows_the_hole(monkeypatch):
    left = np.broadcast_to(np.arange(HOLE.shape[1]) < 100, HOLE.shape)
    references = planted(monkeypatch, (50, 1.0, left), (150, 1.0, ~left))
    right = np.where(left[..., None], flat(50), flat(150))
    (similarity,) = compare(flat(0), HOLE, references, [right], matches=[])
    assert similarity.score > 30 and min(similarity.score_per_reference) > 30


def test_a_completion_is_not_compared_with_itself(monkeypatch):
    references = planted(monkeypatch, (100, 1.0, np.ones(HOLE.shape, bool)))
    one, other = compare(flat(0), HOLE, references, [flat(100), flat(140)], matches=[])
    assert one.score == pytest.approx(20 * np.log10(255 / 20), abs=1e-3)  # half of the other, half of the reference
    assert other.score == pytest.approx(20 * np.log10(255 / 40), abs=1e-3)
