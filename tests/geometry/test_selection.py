"""Selection: the references that show the hole best together."""

import cv2
import numpy as np
import pytest
from worlds import OFFSET, TARGET, WORLD, blob, make_world, turned

from realfill.geometry.matching import match_references
from realfill.geometry.selection import View, choose_references, survey

HOLE = np.zeros((10, 100), bool)
HOLE[:, 20:80] = True


def view(left, right, quality=0.5):
    shown = np.zeros_like(HOLE)
    shown[:, left:right] = True
    return View(shown=shown & HOLE, quality=quality)


def test_each_choice_adds_the_most_that_no_earlier_one_shows():
    views = [view(20, 50), view(25, 65), view(60, 80), view(20, 24), view(30, 60, 0.9)]
    selection = choose_references(views, HOLE, 3)
    assert selection.references == (1, 2, 0) and selection.total == 5
    assert selection.covered == pytest.approx((40 / 60, 55 / 60, 1))
    assert selection.describe() == (
        "the fit learns from 3 of 5 references, 1 (+67 %), 2 (+25 %), 0 (+8 %): they show 100 % of the hole"
    )


def test_quality_decides_where_gains_are_equal_and_once_all_is_shown():
    views = [view(20, 80, 0.3), view(20, 80, 0.8), view(20, 22, 0.6), view(0, 0, 0.1), view(0, 0, 0.7)]
    assert choose_references(views, HOLE, 4).references == (1, 4, 2, 0)


def test_as_many_are_chosen_as_there_are():
    assert choose_references([view(20, 30), view(0, 0)], HOLE, 5).references == (0, 1)
    selection = choose_references([view(0, 0)] * 3, HOLE, 2)
    assert selection.covered == (0, 0) and "none can be aligned" in selection.describe()


def test_a_survey_tells_what_references_show():
    hole, size = blob(), (150, 200)
    shift = [np.array([[1, 0, dx], [0, 1, 0], [0, 0, 1.0]]) for dx in (-100, 100)]
    left, right = (cv2.warpPerspective(WORLD, s @ OFFSET, size[::-1]) for s in shift)
    whole = cv2.warpPerspective(WORLD, turned(4, 0.9) @ OFFSET, size[::-1])
    references = [left, right, make_world(7)[:150, :200], whole]
    views, small = survey(TARGET, hole, references, match_references(TARGET, hole, references))
    assert small.shape == hole.shape
    shares = [v.shown.sum() / hole.sum() for v in views]
    assert shares[0] < 0.6 and shares[1] < 0.6 and shares[2] == 0 and shares[3] > 0.95
    assert views[2].quality < 0.1 < views[3].quality
    columns = [np.nonzero(v.shown)[1].mean() for v in views[:2]]
    assert columns[0] > columns[1]
    assert choose_references(views, small, 2).references[0] == 3
