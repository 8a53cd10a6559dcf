"""Agreement with the composite: closer where it is trusted means a higher score."""

import numpy as np
import pytest
from worlds import SHIFTED, TARGET, blob, make_world, view

from realfill import RankConfig
from realfill.errors import RealFillWarning
from realfill.ranking.composite_agreement import agreement

HOLE = blob()
CONFIG = RankConfig(score_by="composite")
OTHER = make_world(9)[:150, :200]


def mixed(share):
    return np.where(HOLE[..., None], (1 - share) * TARGET + share * OTHER, TARGET).astype(np.uint8)


def test_completions_closer_to_the_composite_rank_higher(make_composite, ranked):
    result = ranked([mixed(s) for s in (0.5, 0.1, 0.9)], [view(SHIFTED)], make_composite([]), CONFIG)
    assert result.seeds == (1, 0, 2)
    assert [c.score for c in result] == sorted((c.score for c in result), reverse=True)
    assert all(c.num_matches is None and c.scores_per_reference == () for c in result)


def test_an_even_difference_gives_the_psnr_of_that_difference():
    confidence = np.ones(HOLE.shape)
    image = np.full((*HOLE.shape, 3), 100, np.uint8)
    assert agreement(image + np.uint8(8), image, confidence, HOLE) == pytest.approx(20 * np.log10(255 / 8), abs=1e-6)
    assert agreement(image, image, confidence, HOLE) == pytest.approx(100)


def test_each_pixel_counts_by_its_confidence():
    image = np.full((*HOLE.shape, 3), 100, np.uint8)
    left = HOLE & (np.arange(200) < 100)
    wrong = image.copy()
    wrong[left] = 200
    trusted, distrusted = (agreement(wrong, image, np.where(left, c, 1.0), HOLE) for c in (1.0, 0.1))
    assert agreement(wrong, image, np.where(left, 0.0, 1.0), HOLE) > distrusted + 3 > trusted + 6


def test_pixels_outside_the_hole_do_not_count():
    image = np.full((*HOLE.shape, 3), 100, np.uint8)
    outside = np.zeros_like(HOLE)
    outside[:30] = True
    assert not (outside & HOLE).any()
    wrong = np.where(outside[..., None], np.uint8(200), image)
    assert agreement(wrong, image, np.ones(HOLE.shape), HOLE) == pytest.approx(100)


def test_an_untrusted_composite_says_nothing(make_composite, ranked):
    composite = make_composite([], confidence=0.0)
    with pytest.warns(RealFillWarning, match="not trusted anywhere"):
        result = ranked([mixed(0.5), TARGET], [view(SHIFTED)], composite, CONFIG)
    assert result.seeds == (0, 1) and all(c.score is None for c in result)


def test_a_matcher_is_refused(make_composite, ranked):
    with pytest.raises(ValueError, match="score_by is 'composite', which uses none"):
        ranked([TARGET], [view(SHIFTED)], make_composite([]), CONFIG, matcher=object())


def test_a_small_trust_that_is_the_same_everywhere_changes_no_score():
    image = np.full((*HOLE.shape, 3), 100, np.uint8)
    score = agreement(image + np.uint8(8), image, np.full(HOLE.shape, 0.05), HOLE)
    assert score == pytest.approx(20 * np.log10(255 / 8), abs=1e-6)


def test_detail_finer_than_a_composite_can_place_hardly_counts():
    image = np.full((*HOLE.shape, 3), 100, np.uint8)
    striped = image.copy()
    striped[:, ::2] += 8
    even = agreement(image + np.uint8(4), image, np.ones(HOLE.shape), HOLE)
    assert agreement(striped, image, np.ones(HOLE.shape), HOLE) == pytest.approx(even, abs=0.1)


def test_a_trusted_composite_of_a_small_hole_is_compared():
    image, small = np.full((*HOLE.shape, 3), 100, np.uint8), np.zeros_like(HOLE)
    small[70:80, 90:100] = True
    assert agreement(image, image, small.astype(float), small) == pytest.approx(100)
