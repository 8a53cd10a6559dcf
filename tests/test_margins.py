"""Margins: what pixels, shares and aspects come to, and what is refused."""

import pytest

from realfill.errors import SceneError
from realfill.margins import Margins

NONE = dict.fromkeys(("left", "right", "top", "bottom"))
SIZE = (75, 101)


def sides(size=SIZE, margin=0, **given):
    return tuple(Margins.of_sides(size, margin=margin, **{**NONE, **given}).to_dict().values())


def aspect(value, anchor=0.5, size=SIZE):
    return tuple(Margins.of_aspect(size, value, anchor=anchor).to_dict().values())


def test_whole_numbers_are_pixels_and_fractions_shares():
    assert sides(left=7) == (7, 0, 0, 0)
    assert sides(right=0.5, bottom=1.0) == (0, 50, 0, 75)
    assert sides(margin=0.3) == (30, 30, 22, 22)
    assert sides(margin=4, top=0, left=0.1) == (10, 4, 0, 4)


@pytest.mark.parametrize(
    ("value", "expected"),
    [((16, 9), (16, 16, 0, 0)), (16 / 9, (16, 16, 0, 0)), (1, (0, 0, 13, 13)), ((1, 6), (0, 0, 266, 265))],
)
def test_an_aspect_grows_the_shorter_way(value, expected):
    left, right, top, bottom = aspect(value)
    assert (left, right, top, bottom) == pytest.approx(expected, abs=1)
    ratio = value if isinstance(value, float | int) else value[0] / value[1]
    assert (101 + left + right) / (75 + top + bottom) == pytest.approx(ratio, rel=0.01)


def test_an_anchor_says_where_the_photo_lies():
    assert aspect(2.0, 0)[:2] == (0, 49) and aspect(2.0, 1)[:2] == (49, 0)
    assert aspect(0.5, 0.25)[2:] == (32, 95)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (sides, "nothing to fill"),
        (lambda: sides(left=0.001), "nothing to fill"),
        (lambda: aspect((101, 75)), "nothing to fill"),
        (lambda: sides(left=-1), "left is -1; legal"),
        (lambda: sides(margin=-0.5), "margin is -0.5; legal"),
        (lambda: sides(top=float("nan")), "top is nan; legal"),
        (lambda: sides(top=True), "top is True; legal"),
        (lambda: sides(bottom="3"), "bottom is '3'; legal"),
        (lambda: sides(margin=8000), "legal: up to 178 million"),
        (lambda: sides(left=10**12), "legal: up to 178 million"),
        (lambda: aspect(1e9), "legal: up to 178 million"),
        (lambda: aspect(0), "aspect is 0; legal"),
        (lambda: aspect((16, -9)), r"aspect is \(16, -9\); legal"),
        (lambda: aspect((16, 9, 1)), "aspect is .*; legal"),
        (lambda: aspect(2.0, 1.5), "anchor is 1.5; legal"),
    ],
)
def test_nonsense_is_refused(make, words):
    with pytest.raises(SceneError, match=words):
        make()
