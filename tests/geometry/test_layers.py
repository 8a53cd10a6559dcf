"""Layers: where warps lead, and what a candidate is expected to err by."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from worlds import SIZE, TARGET, blob, view

from realfill.geometry.cameras import Camera
from realfill.geometry.fields import WarpField, grid_of, points_of, tear_of, warp_by_plane, warp_by_points
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


def warp_of(map_):
    """A warp by depth whose map is valid everywhere."""
    valid, hidden = np.ones(map_.shape[:2], bool), np.zeros(map_.shape[:2], bool)
    return WarpField(reference=0, kind="depth", map=map_.astype(np.float32), valid_mask=valid, hidden=hidden)


@pytest.mark.parametrize("jump", [-3, 3])
@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_a_map_is_torn_by_as_many_of_the_targets_pixels_as_it_jumps(scale, jump):
    """Whatever the size of the reference, and in which direction."""
    whole = grid_of((60, 80)) * scale
    assert tear_of(warp_of(whole)).max() < 1e-4
    torn = whole.copy()
    torn[:, 40:, 1] += jump * scale
    for tear in (tear_of(warp_of(torn)), tear_of(warp_of(torn.transpose(1, 0, 2)[..., ::-1])).T):
        assert tear.shape == (60, 80) and tear[:, 37:43] == pytest.approx(3, abs=1e-4)
        assert tear[:, :37].max() < 1e-4 and tear[:, 43:].max() < 1e-4


@pytest.mark.parametrize("turn", [-1, 1])
def test_a_map_that_bends_one_way_is_torn_there(turn):
    bent = grid_of((60, 80))
    bent[..., 0] += turn * 0.5 * np.maximum(grid_of((60, 80))[..., 0] - 40, 0)
    assert tear_of(warp_of(bent))[:, 38:43] == pytest.approx(0.5, rel=0.3)
    assert tear_of(warp_of(bent))[:, :37].max() < 1e-4


def test_no_more_than_four_pixels_of_a_tear_count_and_what_is_not_valid_does_not_set_its_unit():
    map_, valid = grid_of((60, 80)) * 2, np.zeros((60, 80), bool)
    valid[:, :30] = True
    map_[:, 15:, 1] += 4
    map_[:, 40:] = 1e6
    tear = tear_of(replace(warp_of(map_), valid_mask=valid))
    assert tear[:, 13:17] == pytest.approx(2, abs=1e-4) and tear.max() == 4
    assert not tear_of(replace(warp_of(map_), valid_mask=np.zeros_like(valid))).any()


@pytest.mark.parametrize(
    "matrix", [((1.1, 0.05, 3), (0.02, 0.9, 5), (4e-4, -2e-4, 1)), ((1, 0, 0), (0, 1, -90), (0, 8e-3, -0.6))]
)
def test_a_plane_is_not_torn_not_even_at_its_horizon(matrix):
    plane = warp_by_plane(0, np.array(matrix, float), SIZE, SIZE)
    assert plane.valid_mask.any() and not tear_of(plane).any()


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
    assert covered[inner] == pytest.approx(whole[inner] + 1.25 * 16, abs=1e-3)  # nothing confirms it
    beside = np.abs(np.arange(SIZE[1] // 2) - middle / 2) < 1
    assert (torn - whole)[inner & beside].min() > 6
    away = np.arange(SIZE[1] // 2) < middle / 2 - 8
    assert (torn - whole)[inner & away] == pytest.approx(0, abs=0.01)


def test_points_behind_a_near_square_are_hidden_and_the_checked_depth_has_a_map_of_its_own():
    """Seen from the right, the square covers a strip of the wall to its left."""
    size = (60, 80)
    target, other = (
        Camera(size=size, focal=80.0, distortion=0.0, rotation=np.eye(3), translation=np.array([-x, 0.0, 0.0]))
        for x in (0.0, 1.0)
    )
    depth = np.full(size, 16.0)
    depth[20:40, 30:50] = 8.0
    points = points_of(target, depth, size)
    warp = warp_by_points(3, other, points, points_of(target, np.full(size, 4.0), size))
    assert warp.reference == 3 and warp.kind == "depth" and points[30, 40] == pytest.approx((0.05, 0.05, 8), abs=1e-5)
    assert warp.map[30, 40] == pytest.approx((40 - 10, 30), abs=1e-4)
    assert warp.map[30, 10] == pytest.approx((10 - 5, 30), abs=1e-4)
    assert warp.checked_map is not None and warp.checked_map[30, 40] == pytest.approx((40 - 20, 30), abs=1e-4)
    strip = np.zeros(size, bool)
    strip[20:40, 25:30] = True
    core = cv2.erode(strip.astype(np.uint8), np.ones((3, 3))) > 0
    near = cv2.dilate(strip.astype(np.uint8), np.ones((3, 3))) > 0
    assert warp.hidden[core].all() and not warp.hidden[~near].any()


PART = np.zeros(SIZE, bool)
PART[64:86, 80:100] = True  # in the hole, of whole pixels at half size


def by_depth(reference, **changes):
    return replace(shifted_warp(reference), kind="depth", **changes)


def layers_of(*warps):
    """Build layers of photos that are all taken from the target's place; sort them by their references."""
    layers = build_layers(warps, [view(np.eye(3))] * 2, KNOWN, HOLE)
    return sorted(layers, key=lambda layer: layer.warp.reference)


@pytest.mark.parametrize("covered", [0, 1])
def test_hidden_pixels_cost_more_and_confirm_no_other_reference(covered):
    other, part = 1 - covered, PART[::2, ::2]
    (alone,), both = layers_of(by_depth(other)), layers_of(by_depth(0), by_depth(1))
    found = layers_of(*(by_depth(n, hidden=PART & (n == covered)) for n in (0, 1)))
    np.testing.assert_allclose(found[covered].cost, both[covered].cost + 40 * part, atol=1e-3)
    np.testing.assert_allclose(found[other].cost, np.where(part, alone.cost, both[other].cost), atol=1e-3)
    np.testing.assert_allclose(found[other].error, np.where(part, alone.error, both[other].error), atol=1e-3)
    assert (alone.cost - both[other].cost)[part].min() > 10


def test_a_pixel_errs_more_where_the_colours_of_the_only_other_reference_differ(monkeypatch):
    """By the levels, of the nearest one: a third reference that agrees takes the doubt away."""

    def errors(num_tinted, num_plain=1):
        plain, tinted = view(np.eye(3)), view(np.eye(3)).copy()
        tinted[PART] = np.where(tinted[PART] > 127, tinted[PART] - 60, tinted[PART] + 60)
        photos = [plain] * num_plain + [tinted] * num_tinted
        layers = build_layers([by_depth(n) for n in range(len(photos))], photos, KNOWN, HOLE)
        return min(layers, key=lambda layer: layer.warp.reference).error

    def of_colour(*numbers):
        counted = errors(*numbers)
        with monkeypatch.context() as patch:
            patch.setattr("realfill.geometry.confidence._LEVELS_PER_LEVEL", 0.0)
            return counted - errors(*numbers)

    inner = cv2.erode(PART.astype(np.uint8), np.ones((9, 9)))[::2, ::2] > 0
    away = cv2.dilate(PART.astype(np.uint8), np.ones((25, 25)))[::2, ::2] == 0
    contradicted, confirmed = of_colour(1), of_colour(1, 2)
    assert contradicted[inner].mean() > 0.16 * 60 * 0.7 and contradicted[inner].max() < 0.16 * 60 * 1.1
    assert np.abs(contradicted[away & HOLE[::2, ::2]]).max() < 0.5
    assert np.abs(confirmed[inner]).max() < 0.5


def test_warps_of_one_reference_do_not_confirm_each_other():
    (alone,), layers = layers_of(by_depth(0)), layers_of(by_depth(0), by_depth(0))
    assert len(layers) == 2
    for layer in layers:
        np.testing.assert_array_equal(layer.cost, alone.cost)
        np.testing.assert_array_equal(layer.error, alone.error)


def test_what_a_layer_does_not_show_has_the_largest_cost_and_error():
    (whole,), (layer,) = layers_of(by_depth(0)), layers_of(by_depth(0, valid_mask=shifted_warp(0).valid_mask & ~PART))
    part = PART[::2, ::2]
    assert (layer.cost[part] == 500).all() and (layer.error[part] == 500).all()
    assert whole.cost[part].max() < 300
    np.testing.assert_allclose(layer.cost[~part], whole.cost[~part], atol=1e-3)


def test_distances_at_half_size_are_shares_of_the_longer_side():
    from realfill.geometry.layers import HalfSize

    hole = np.zeros((120, 200), bool)
    hole[:, 100:] = True
    half = HalfSize.of(np.zeros((120, 200, 3), np.uint8), hole)
    assert half.hole.shape == (60, 100) and np.array_equal(half.hole, hole[::2, ::2])
    assert (
        half.distance_to_hole[30, 20] == pytest.approx(60 / 200, abs=0.01)
        and not half.distance_to_hole[half.hole].any()
    )
    assert half.depth_in_hole[30, 80] == pytest.approx(62 / 200, abs=0.01) and not half.depth_in_hole[~half.hole].any()


def test_of_many_layers_the_best_are_kept_and_those_that_show_something_new():
    """So that the work does not grow with the square of the references."""
    photos = [view(np.eye(3)) for _ in range(31)]
    columns = np.flatnonzero(HOLE.any(axis=0))
    left = np.arange(SIZE[1]) < np.median(columns)
    warps = [shifted_warp(n, 0.05 * n) for n in range(31)]
    warps = [replace(warp, valid_mask=warp.valid_mask & (left | ~HOLE)) for warp in warps[:-1]] + warps[-1:]
    kept = [layer.warp.reference for layer in build_layers(warps, photos, KNOWN, HOLE)]
    assert len(kept) == 25 and set(range(24)) < set(kept) and 30 in kept
    assert 24 not in kept and 29 not in kept
