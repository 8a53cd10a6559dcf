"""Matches in the hole: each belongs to the pixel nearest to it."""

import itertools

import numpy as np
import pytest

from realfill.geometry.matching import Matches
from realfill.ranking.keypoints import matches_in_hole


def make_matches(points):
    points = np.array(points, np.float32).reshape(-1, 2)
    return Matches(
        keypoints0=np.zeros_like(points), keypoints1=points, confidence=np.full(len(points), 0.9, np.float32)
    )


def test_a_match_belongs_to_the_nearest_pixel():
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    steps = (-0.6, -0.4, 0.0, 0.4, 0.6)
    points = [(3 + dx, 2 + dy) for dx, dy in itertools.product(steps, steps)]
    kept = matches_in_hole(make_matches(points), mask).keypoints1
    assert len(kept) == 9
    assert np.abs(kept - (3, 2)).max() < 0.5


@pytest.mark.parametrize(("point", "inside"), [((-0.4, -0.4), True), ((5.4, 4.4), True), ((-0.4, 4.4), False)])
def test_matches_at_the_edge_belong_to_the_outermost_pixels(point, inside):
    mask = np.eye(5, 6, dtype=bool)
    mask[4, 4:] = True
    assert len(matches_in_hole(make_matches([point]), mask)) == inside


def test_no_matches_give_no_matches_in_the_hole():
    kept = matches_in_hole(make_matches([]), np.ones((4, 4), bool))
    assert kept.keypoints0.shape == kept.keypoints1.shape == (0, 2)
    assert kept.confidence.shape == (0,)
