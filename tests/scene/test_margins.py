"""Margins: conversion of pixels, shares and aspects, and the refusal of illegal values."""

import pytest

from realfill.errors import SceneError
from realfill.scene.outpainting import Margins

NONE = dict.fromkeys(("left", "right", "top", "bottom"))
SIZE = (75, 101)


def sides(size=SIZE, margin=0, **given):
    return tuple(Margins.of_sides(size, margin=margin, **{**NONE, **given}).to_dict().values())


def aspect(value, anchor=0.5, size=SIZE):
    return tuple(Margins.of_aspect(size, value, anchor=anchor).to_dict().values())


def test_numbers_are_pixels_and_percentages_are_shares():
    assert sides(left=7) == sides(left="7") == sides(left=" 7 px ") == (7, 0, 0, 0)
    assert sides(right="50%", bottom="100%") == (0, 50, 0, 75)
    assert sides(margin="30%") == sides(margin="30.0 %") == (30, 30, 22, 22)
    assert sides(margin=4, top=0, left="10%") == (10, 4, 0, 4)


@pytest.mark.parametrize("number", [1, 30])
def test_an_integer_and_an_equal_float_mean_the_same(number):
    assert sides(left=number) == sides(left=float(number)) == sides(left=f"{float(number)}px") == (number, 0, 0, 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((16, 9), (16, 16, 0, 0)),
        ("16:9", (16, 16, 0, 0)),
        (16 / 9, (16, 16, 0, 0)),
        (1, (0, 0, 13, 13)),
        ("1.0", (0, 0, 13, 13)),
        ((1, 6), (0, 0, 266, 265)),
    ],
)
def test_an_aspect_extends_the_side_that_is_too_short(value, expected):
    left, right, top, bottom = aspect(value)
    assert (left, right, top, bottom) == pytest.approx(expected, abs=1)
    ratio = {"16:9": 16 / 9, "1.0": 1, (16, 9): 16 / 9, (1, 6): 1 / 6}.get(value, value)
    assert (101 + left + right) / (75 + top + bottom) == pytest.approx(ratio, rel=0.01)


def test_an_anchor_places_the_photo_on_the_canvas():
    assert aspect(2.0, 0)[:2] == (0, 49) and aspect(2.0, 1)[:2] == (49, 0)
    assert aspect(0.5, 0.25)[2:] == (32, 95)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (sides, "nothing to fill"),
        (lambda: sides(left="0.1%"), "nothing to fill"),
        (lambda: sides(left=0.3), 'left is 0.3, which is not a whole number of pixels; legal: .* "30%"'),
        (lambda: sides(left="1.5px"), "left is '1.5px', which is not a whole number of pixels; legal"),
        (lambda: aspect((101, 75)), "nothing to fill"),
        (lambda: sides(left=-1), "left is -1; legal"),
        (lambda: sides(margin="-5%"), "margin is '-5%'; legal"),
        (lambda: sides(top=float("nan")), "top is nan; legal"),
        (lambda: sides(top=True), "top is True; legal"),
        (lambda: sides(bottom="3em"), "bottom is '3em'; legal"),
        (lambda: sides(bottom=""), "bottom is ''; legal"),
        (lambda: sides(bottom="%"), "bottom is '%'; legal"),
        (lambda: sides(margin=8000), "legal: up to 178 million"),
        (lambda: sides(left=10**12), "legal: up to 178 million"),
        (lambda: aspect(1e9), "legal: up to 178 million"),
        (lambda: aspect(0), "aspect is 0; legal"),
        (lambda: aspect("wide"), "aspect is 'wide'; legal"),
        (lambda: aspect("16:"), "aspect is '16:'; legal"),
        (lambda: aspect("16:9:1"), "aspect is '16:9:1'; legal"),
        (lambda: aspect("-16:9"), "aspect is '-16:9'; legal"),
        (lambda: aspect((16, -9)), r"aspect is \(16, -9\); legal"),
        (lambda: aspect((16, 9, 1)), "aspect is .*; legal"),
        (lambda: aspect(2.0, 1.5), "anchor is 1.5; legal"),
    ],
)
def test_illegal_margins_are_refused(make, words):
    with pytest.raises(SceneError, match=words):
        make()
