"""Stitching: planted homographies and colours are undone, wrong references are left out, only the hole changes."""

import warnings

import cv2
import numpy as np
import pytest
from conftest import make_photo

from realfill import Scene
from realfill.baselines.classical import inpaint_telea
from realfill.baselines.stitching import Stitching
from realfill.errors import RealFillWarning, SceneError
from realfill.metrics import psnr
from realfill.registration import _find_homographies, _fit_line, _Ground, _registered, _warp, register

SIZE = (150, 200)
HEIGHT, WIDTH = SIZE


def make_world(seed=0, size=(300, 400)):
    """Draw what can be matched: smooth patches and fine detail, values from 40 to 215."""
    rng = np.random.default_rng(seed)
    image = make_photo(*size, seed).astype(np.float32)
    fine = rng.random((size[0] // 3, size[1] // 3, 1)).astype(np.float32)
    image += 160 * (cv2.resize(fine, size[::-1], interpolation=cv2.INTER_CUBIC)[:, :, None] - 0.5)
    return image.clip(40, 215).astype(np.uint8)


WORLD = make_world()
TARGET = WORLD[75:225, 100:300].copy()
OFFSET = np.array([[1, 0, -100], [0, 1, -75], [0, 0, 1.0]])  # from the world to the target


def view(matrix, size=SIZE, world=WORLD):
    """Take a photo of the world: ``matrix`` brings the target's points to the photo's."""
    return cv2.warpPerspective(world, np.array(matrix, float) @ OFFSET, size[::-1], flags=cv2.INTER_CUBIC)


def turned(degrees, scale=1.0):
    return np.vstack([cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, scale), (0, 0, 1)])


SHIFTED = ((1, 0, 9), (0, 1, -6), (0, 0, 1))
VIEWS = {
    "same": np.eye(3),
    "shifted": SHIFTED,
    "turned": turned(35),
    "closer": turned(5, 1.4),
    "further": turned(-8, 0.7),
    "aslant": ((1.1, 0.08, -12), (0.02, 1.05, -4), (4e-4, 3e-4, 1)),
}


def blob(center=(100, 75), axes=(30, 22)):
    return cv2.ellipse(np.zeros(SIZE, np.uint8), center, axes, 0, 0, 360, 1, -1) > 0


def holes():
    pixel, corner, edge, row, pieces, frame = (np.zeros(SIZE, bool) for _ in range(6))
    pixel[70, 90] = True
    corner[0, 0] = corner[-1, -1] = True
    edge[:, :70] = True
    row[80] = True
    pieces[20:45, 20:45] = pieces[90:130, 120:200] = True
    frame[:] = True
    frame[35:115, 45:155] = False
    return {"pixel": pixel, "corner": corner, "edge": edge, "row": row, "pieces": pieces, "frame": frame}


HOLES = {"blob": blob()} | holes()


def make_scene(references, hole, target=TARGET, under=0):
    return Scene(references, np.where(hole[:, :, None], np.uint8(under), target), hole)


def stitch(references, hole, target=TARGET, under=0):
    (image,) = Stitching().prepare(make_scene(references, hole, target, under), None, 0)([0])
    return image


def telea(hole, target=TARGET):
    return inpaint_telea(np.where(hole[:, :, None], np.uint8(0), target), hole)


@pytest.mark.parametrize("name", VIEWS)
def test_a_planted_homography_is_found_and_undone(name):
    hole = HOLES["blob"]
    image = stitch([view(VIEWS[name])], hole)
    found, without = psnr(image, TARGET, hole), psnr(telea(hole), TARGET, hole)
    assert found > 25 and found > without + 8, f"PSNR {found:.1f} dB, Telea {without:.1f} dB"


@pytest.mark.parametrize("shape", HOLES)
def test_only_hole_pixels_change(shape):
    hole = HOLES[shape]
    image = stitch([view(SHIFTED), view(turned(10, 0.8))], hole)
    assert image.shape == TARGET.shape and image.dtype == np.uint8
    assert np.array_equal(image[~hole], TARGET[~hole])
    assert image[hole].min() > 15, "a pixel of the hole stayed black"
    assert psnr(image, TARGET, hole) > 20


@pytest.mark.parametrize("shape", ["blob", "pieces", "frame"])
def test_what_lies_under_the_hole_has_no_influence_and_a_second_run_gives_the_same(shape):
    first, second = (stitch([view(turned(7)), view(SHIFTED)], HOLES[shape], under=under) for under in (0, 255))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("size", [(120, 260), (400, 90), (420, 560)])
def test_references_may_have_other_sizes(size):
    scale = size[1] / WIDTH * 0.9
    reference = view(np.diag([scale, scale, 1.0]), size)
    covered = blob(axes=(20, 12), center=(100, 50))
    assert psnr(stitch([reference], covered), TARGET, covered) > 22


def test_other_exposure_and_white_balance_are_compensated():
    hole, wide = HOLES["frame"], view(((1, 0, 20), (0, 1, 20), (0, 0, 1)), (190, 240))
    other = (wide * np.array([0.55, 0.75, 0.9]) + np.array([60, 10, -20])).clip(0, 255).round().astype(np.uint8)
    assert psnr(other[20:-20, 20:-20], TARGET, hole) < 20
    assert psnr(stitch([other], hole), TARGET, hole) > 30


def test_the_line_through_colours_ignores_what_does_not_belong():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 255, 4000)
    wanted = 0.7 * values + 20 + rng.normal(0, 1, 4000)
    wanted[:1000] = 255 - values[:1000] / 2
    gain, bias = _fit_line(values, wanted)
    assert gain == pytest.approx(0.7, abs=0.05) and bias == pytest.approx(20, abs=6)
    assert np.polyfit(values, wanted, 1)[0] < 0.5  # what a plain fit gives


@pytest.mark.parametrize("values", [np.full(100, 30), np.arange(100)])
def test_a_line_through_one_colour_or_falling_ones_is_level(values):
    gain, bias = _fit_line(values, 200 - values)
    assert gain == 0 and bias == pytest.approx(np.mean(200 - values), abs=1)


def flat(value):
    return np.full((*SIZE, 3), value, np.uint8)


@pytest.mark.parametrize(
    "references", [[], [make_world(7)], [flat(90)], [make_world(7), flat(0)]], ids=["none", "stranger", "flat", "both"]
)
def test_without_a_usable_reference_the_hole_is_inpainted_with_a_warning(references):
    hole = HOLES["blob"]
    with pytest.warns(RealFillWarning, match="no reference could be laid"):
        image = stitch(references, hole)
    assert np.array_equal(image, telea(hole))


def test_a_flat_target_is_inpainted_too():
    hole, target = HOLES["blob"], flat(120)
    with pytest.warns(RealFillWarning):
        image = stitch([WORLD], hole, target)
    assert np.array_equal(image, telea(hole, target))


def test_a_stranger_beside_a_usable_reference_changes_nothing():
    good = view(SHIFTED)
    hole = HOLES["blob"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(stitch([make_world(7), good], hole), stitch([good], hole))


def test_the_reference_that_fits_best_around_the_hole_is_taken_wherever_it_stands():
    good, hole = view(SHIFTED), HOLES["blob"]
    noise = np.random.default_rng(0).normal(0, 40, good.shape)
    bad = (view(turned(4)) + noise).clip(0, 255).astype(np.uint8)
    image = stitch([bad, good], hole)
    assert np.array_equal(image, stitch([good, bad], hole)) and np.array_equal(image, stitch([good], hole))
    assert not np.array_equal(image, stitch([bad], hole))


def test_a_second_reference_fills_what_the_first_leaves_and_the_rest_is_inpainted():
    hole = np.zeros(SIZE, bool)
    hole[50:100, 20:180] = True
    left, right = view(np.eye(3))[:, :90], view(np.eye(3))[:, 110:]
    parts = [hole & (np.arange(WIDTH) < 80), hole & (np.arange(WIDTH) > 120)]
    one, both = stitch([left], hole), stitch([left, right], hole)
    assert [psnr(both, TARGET, part) > 25 for part in parts] == [True, True]
    assert [psnr(one, TARGET, part) > 25 for part in parts] == [True, False]
    middle = hole.copy()
    middle[:, :95] = middle[:, 106:] = False
    assert both[middle].min() > 15, "what neither covers stayed black"


def test_the_plane_around_the_hole_wins_over_the_one_with_most_matches():
    """A thing that stands nearer than the scene behind it moves further; the hole lies in the thing."""
    size, thing = (300, 400), make_world(5, (130, 170))
    target, reference = make_world(3), make_world(3)
    target[80:210, 110:280], reference[80:210, 140:310] = thing, thing
    hole = np.zeros(size, bool)
    hole[120:170, 160:230] = True
    image = stitch([reference], hole, target)
    assert psnr(reference, target, hole) < 16
    assert psnr(image, target, hole) > 22


def test_homographies_of_planted_planes_come_in_the_order_of_their_matches():
    rng = np.random.default_rng(0)
    planes = [np.array(VIEWS["aslant"]), np.array([[1, 0, 69], [0, 1, 34], [0, 0, 1.0]])]
    target = rng.uniform(0, 150, (300, 2)).astype(np.float32)
    there = [cv2.perspectiveTransform(target[None], plane)[0] for plane in planes]
    points = np.where((np.arange(300) < 200)[:, None], *there)
    points[260:] = rng.uniform(0, 200, (40, 2))
    found = _find_homographies(points, target, SIZE)
    assert len(found) == 2
    for matrix, plane in zip(found, planes, strict=True):
        moved = [cv2.perspectiveTransform(target[None], m)[0] for m in (matrix, plane)]
        assert np.abs(moved[0] - moved[1]).max() < 1
    again = _find_homographies(points, target, SIZE)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("num", [0, 1, 4, 8, 9, 40, 400])
def test_random_matches_give_no_homography(num):
    rng = np.random.default_rng(num)
    points = [rng.uniform(0, 200, (num, 2)).astype(np.float32) for _ in range(2)]
    assert _find_homographies(points[0], points[1], SIZE) == []


@pytest.mark.parametrize("spread", [(0, 0), (1, 0)], ids=["point", "line"])
def test_matches_on_a_point_or_a_line_give_no_usable_homography(spread):
    points = (np.arange(60)[:, None] * np.array(spread) * 3 + 20).astype(np.float32)
    for matrix in _find_homographies(points, points, SIZE):
        assert np.isfinite(matrix).all()


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[-1, 0, WIDTH - 1], [0, 1, 0], [0, 0, 1.0]]),
        np.diag([20.0, 20, 1]),
        np.diag([0.05, 0.05, 1]),
    ],
    ids=["mirrored", "tiny", "huge"],
)
def test_impossible_warps_cover_nothing(matrix):
    assert not _warp(WORLD, matrix, SIZE)[1].any()


def test_nothing_beyond_the_horizon_is_covered():
    matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # w is 0 at x = 100
    _, covers = _warp(make_world(1, (600, 800)), matrix, SIZE)
    assert covers[15:40, 15:40].all() and not covers[:, 95:].any()


def test_the_frame_of_a_reference_is_not_used_and_shrinking_does_not_alias():
    fine = np.where(np.indices((600, 800)).sum(axis=0)[:, :, None] % 2, 255, 0).astype(np.uint8).repeat(3, axis=2)
    image, covers = _warp(fine, np.diag([4.0, 4, 1]), SIZE)
    assert np.abs(image[10:-10, 10:-10].astype(int) - 128).max() < 5
    assert not covers[0].any() and not covers[:, -1].any() and covers[6:-6, 6:-6].all()


def test_a_reference_that_looks_unlike_the_target_is_left_out():
    hole = HOLES["blob"]
    known = np.where(hole[:, :, None], np.uint8(128), TARGET)
    ground = _Ground(known=known, mask=hole, reach=20, to_target=np.eye(3))
    assert _registered(0, TARGET, np.eye(3), ground) is not None
    assert _registered(0, 255 - TARGET, np.eye(3), ground) is None
    assert _registered(0, make_world(7, SIZE), np.eye(3), ground) is None
    assert _registered(0, flat(100), np.eye(3), ground) is None
    assert _registered(0, TARGET[:, :60], np.eye(3), ground) is None, "it shows nothing of the hole"


def test_small_targets_and_seeds():
    target = TARGET[:32, :40]
    hole = np.zeros((32, 40), bool)
    hole[10:20, 12:24] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RealFillWarning)
        sampler = Stitching().prepare(make_scene([WORLD, target], hole, target), "words", 4)
    first, second = sampler([3, 8])
    assert np.array_equal(first, second) and np.array_equal(first[~hole], target[~hole])
    first[:] = 0
    assert sampler([3])[0].any()
    assert not Stitching.uses_seed and not Stitching.uses_fit_seed


def test_an_empty_canvas_is_refused():
    with pytest.raises(SceneError, match="covers the whole target"):
        Stitching().prepare(Scene.canvas((40, 50), [WORLD]), None, 0)


def test_a_region_of_a_smaller_target_is_registered_as_it_is_in_the_whole_one():
    hole, size, region = HOLES["blob"], (SIZE[0] // 2, SIZE[1] // 2), (20, 25, 60, 80)
    known = np.where(hole[:, :, None], np.uint8(0), TARGET)
    references = [view(SHIFTED), view(turned(10, 0.8))]
    whole = {x.reference: x for x in register(known, hole, references)}
    parts = register(known, hole, references, size=size, region=region)
    assert len(parts) == len(whole) == 2
    for part in parts:
        other = cv2.resize(whole[part.reference].image.astype(float), size[::-1], interpolation=cv2.INTER_AREA)
        other = other[region[0] : region[2], region[1] : region[3]]
        assert part.image.shape == (40, 55, 3) and part.covers.mean() > 0.9
        assert np.abs(part.image - other)[part.covers].mean() < 4
