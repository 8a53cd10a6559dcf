"""Layers: what a candidate is expected to err by."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from worlds import SIZE, TARGET, blob, view

from realfill.geometry.fields import grid_of, tear_of, warp_by_plane
from realfill.geometry.layers import build_layers

HOLE = blob()
KNOWN = np.where(HOLE[..., None], np.uint8(0), TARGET)


def shifted_warp(reference, shift=0.0):
    matrix = np.array(((1, 0, shift), (0, 1, 0), (0, 0, 1.0)))
    return warp_by_plane(reference, matrix, SIZE, SIZE)


def test_a_warp_is_judged_by_its_checked_map():
    right = shifted_warp(0)
    wrong_check = replace(right, checked_map=(grid_of(SIZE) + np.array((5, 0))).astype(np.float32))
    references = [view(np.eye(3))]
    honest = build_layers([replace(right, kind="depth")], references, KNOWN, HOLE)[0]
    doubted = build_layers([replace(wrong_check, kind="depth")], references, KNOWN, HOLE)[0]
    np.testing.assert_array_equal(honest.image, doubted.image)
    assert doubted.misfit > honest.misfit + 10
    assert doubted.cost[HOLE[::2, ::2]].mean() > honest.cost[HOLE[::2, ::2]].mean() + 10


def test_a_depth_that_no_other_reference_confirms_costs_more_far_from_the_known_pixels():
    """It was carried in from there; a plane pays for the distance, too."""
    photo = view(np.eye(3))
    depth = [replace(shifted_warp(number), kind="depth") for number in (0, 1)]
    alone = build_layers(depth[:1], [photo], KNOWN, HOLE)[0]
    plane = build_layers([shifted_warp(0)], [photo], KNOWN, HOLE)[0]
    confirmed = build_layers(depth, [photo, photo], KNOWN, HOLE)[0]
    inside = cv2.distanceTransform(HOLE[::2, ::2].astype(np.uint8), cv2.DIST_L2, 5)
    deep, shallow = inside > 0.8 * inside.max(), (inside > 0) & (inside < 0.3 * inside.max())
    risen = [layer.cost[deep].mean() - layer.cost[shallow].mean() for layer in (alone, plane, confirmed)]
    assert risen[0] > risen[2] + 2
    assert abs(risen[0] - risen[1]) < 1


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_a_map_is_torn_by_as_many_of_the_targets_pixels_as_it_jumps(scale):
    """Whatever the size of the reference."""
    whole = (grid_of((60, 80)) * scale).astype(np.float32)
    assert tear_of(whole).max() < 1e-4
    torn = whole.copy()
    torn[:, 40:, 1] -= 3 * scale
    tear = tear_of(torn)
    assert tear.shape == (60, 80) and tear[:, 38:42] == pytest.approx(3, abs=1e-4)
    assert tear[:, :36].max() < 1e-4 and tear[:, 44:].max() < 1e-4


def test_a_plane_seen_at_a_slant_is_not_torn():
    slanted = warp_by_plane(0, np.array(((1.1, 0.05, 3), (0.02, 0.9, 5), (4e-4, -2e-4, 1.0))), SIZE, SIZE)
    assert tear_of(slanted.map).max() < 0.02


def test_pixels_beside_a_tear_and_hidden_ones_are_expected_to_err_more():
    photo, intact = view(np.eye(3)), replace(shifted_warp(0), kind="depth")
    middle = int(np.flatnonzero(HOLE.any(axis=0)).mean())
    map_, hidden = intact.map.copy(), np.zeros(SIZE, bool)
    map_[HOLE & (np.arange(SIZE[1]) >= middle), 0] += 4
    hidden[HOLE] = True
    whole, torn, covered = (
        build_layers([warp], [photo], KNOWN, HOLE)[0].error
        for warp in (intact, replace(intact, map=map_), replace(intact, hidden=hidden))
    )
    inner = cv2.erode(HOLE[::2, ::2].astype(np.uint8), np.ones((9, 9))) > 0
    assert covered[inner] == pytest.approx(whole[inner] + 12, abs=1e-3)
    beside = np.abs(np.arange(SIZE[1] // 2) - middle / 2) < 1
    assert (torn - whole)[inner & beside].min() > 3
    away = np.arange(SIZE[1] // 2) < middle / 2 - 8
    assert np.median((torn - whole)[inner & away]) == pytest.approx(0, abs=0.01)
