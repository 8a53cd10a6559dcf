"""Layers: what a candidate is expected to err by."""

from dataclasses import replace

import cv2
import numpy as np
from worlds import SIZE, TARGET, blob, view

from realfill.geometry.fields import grid_of, warp_by_plane
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
