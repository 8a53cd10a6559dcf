"""Registration: scales from matched points."""

import numpy as np
import pytest

from realfill.models.matcher import Matches
from realfill.registration import find_scale

SIZE = (480, 640)


def points(count, seed=0):
    return np.random.default_rng(seed).uniform((0, 0), SIZE[::-1], (count, 2)).astype(np.float32)


def turned(xy, scale, degrees, shift):
    a = np.deg2rad(degrees)
    return (scale * xy @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + shift).astype(np.float32)


def scale_of(here, there):
    return find_scale(Matches(keypoints0=there, keypoints1=here, confidence=np.ones(len(here), np.float32)), SIZE)


def test_a_planted_scale_is_found_among_wrong_matches():
    here = points(60)
    there = turned(here, 1.7, 12, (30, -20))
    there[:20] = points(20, seed=1)
    assert scale_of(here, there) == pytest.approx(1.7, rel=0.01)


@pytest.mark.parametrize(("here", "there"), [(points(7), points(7)), (points(60), points(60, seed=1))])
def test_too_few_or_unrelated_matches_give_nothing(here, there):
    assert scale_of(here, there) is None


def test_a_scale_beyond_belief_gives_nothing():
    here = points(60)
    assert scale_of(here, turned(here, 10, 0, (0, 0))) is None
