"""Alignment: scales and homographies from matched points."""

import numpy as np
import pytest

from realfill.alignment import find_homography, find_scale

SIZE = (480, 640)


def points(count, seed=0):
    return np.random.default_rng(seed).uniform((0, 0), SIZE[::-1], (count, 2)).astype(np.float32)


def turned(xy, scale, degrees, shift):
    a = np.deg2rad(degrees)
    return (scale * xy @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + shift).astype(np.float32)


def test_a_planted_scale_is_found_among_wrong_matches():
    here = points(60)
    there = turned(here, 1.7, 12, (30, -20))
    there[:20] = points(20, seed=1)
    assert find_scale(here, there, SIZE) == pytest.approx(1.7, rel=0.01)


@pytest.mark.parametrize(("here", "there"), [(points(7), points(7)), (points(60), points(60, seed=1))])
def test_too_few_or_unrelated_matches_give_nothing(here, there):
    assert find_scale(here, there, SIZE) is None
    assert find_homography(here, there, SIZE) is None


def test_a_scale_beyond_belief_gives_nothing():
    here = points(60)
    assert find_scale(here, turned(here, 10, 0, (0, 0)), SIZE) is None


def project(matrix, xy):
    there = np.concatenate([xy, np.ones((len(xy), 1))], axis=1) @ matrix.T
    return (there[:, :2] / there[:, 2:]).astype(np.float32)


def test_a_planted_homography_is_found_among_wrong_matches():
    matrix = np.array([[1.1, 0.05, 12], [-0.03, 0.95, 7], [1e-4, -5e-5, 1]])
    here = points(80)
    there = project(matrix, here)
    there[:25] = points(25, seed=1)
    found = find_homography(here, there, SIZE)
    assert found is not None
    assert np.allclose(project(found, here[25:]), there[25:], atol=1)


def test_a_mirrored_view_gives_nothing():
    here = points(80)
    assert find_homography(here, here * (-1, 1) + np.float32((640, 0)), SIZE) is None
