"""Edges of the choice: borders without stair steps, and where the layers agree."""

import numpy as np

from realfill.geometry.edges import Labels, SmoothLabels, continue_labels, settle


def test_a_slanted_border_of_small_labels_becomes_a_straight_line():
    size, small = (240, 240), (24, 24)
    y, x = np.mgrid[: small[0], : small[1]]
    labels = (y > 0.4 * x + 6).astype(int)
    hole = np.ones(small, bool)
    found = SmoothLabels(labels, hole, size).enlarge(slice(0, 240), slice(0, 240)).first
    border = found.argmax(axis=0)[30:210]
    column = np.arange(30, 210)
    slope, offset = np.polyfit(column, border, 1)
    assert abs(slope - 0.4) < 0.03
    assert np.abs(border - slope * column - offset).max() < 3.5, "a step of the small labels has ten pixels"


def test_parts_of_enlarged_labels_are_those_of_the_whole():
    labels = np.random.default_rng(0).integers(0, 4, (12, 15))
    smooth = SmoothLabels(labels, np.ones((12, 15), bool), (120, 150))
    whole, part = smooth.enlarge(slice(0, 120), slice(0, 150)), smooth.enlarge(slice(31, 77), slice(40, 99))
    for name in ("first", "second", "lead"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[31:77, 40:99], atol=1e-5)


def test_labels_are_continued_from_the_nearest_pixel_of_the_hole():
    hole = np.zeros((9, 9), bool)
    hole[3:6, 2:7] = True
    labels = np.where(np.arange(9)[None] < 4, 1, 2) * np.ones((9, 1), int)
    found = continue_labels(np.where(hole, labels, 0), hole)
    assert (found[:, :4] == 1).all() and (found[:, 5:] == 2).all()


def border_between(images, lead=None):
    size = images.shape[1:3]
    middle = size[1] // 2
    x = np.broadcast_to(np.arange(size[1]), size)
    first = (x >= middle).astype(np.uint8)
    lead = np.minimum(np.abs(x - middle + 0.5) / 20, 1).astype(np.float32) if lead is None else lead
    labels = Labels(first=first, second=1 - first, lead=lead)
    return labels, settle(labels, images, np.ones(size, bool), np.full(size, -1))


def test_a_border_moves_to_where_the_layers_agree():
    apart = np.full((40, 80), 50.0)
    apart[:, 48:50] = 0  # the layers agree on a line beside the middle
    images = np.stack([np.zeros((40, 80, 3)), np.repeat(apart[..., None], 3, axis=2)]).astype(np.float32)
    _, settled = border_between(images)
    assert np.isin(settled.argmax(axis=1), (48, 49, 50)).all()


def test_a_border_stays_where_nothing_speaks_for_another():
    images = np.stack([np.zeros((40, 80, 3)), np.full((40, 80, 3), 30.0)]).astype(np.float32)
    labels, settled = border_between(images)
    assert np.abs(settled.argmax(axis=1) - 40).max() <= 1 and np.array_equal(settled > 0, settled == 1)
    assert np.array_equal(settled[:, :20], labels.first[:, :20])


def test_settled_labels_stay_and_are_continued():
    images = np.stack([np.zeros((40, 80, 3)), np.full((40, 80, 3), 30.0)]).astype(np.float32)
    labels, _ = border_between(images)
    final = np.full((40, 80), -1)
    final[:10] = (np.arange(80) >= 33).astype(int)  # above, the border lies elsewhere
    settled = settle(labels, images, np.ones((40, 80), bool), final)
    assert np.array_equal(settled[:10], final[:10])
    assert abs(int(settled[-1].argmax()) - 40) <= 1
