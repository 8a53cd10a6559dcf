"""Rendering at full size: tiles that do not show, depth, ends in between, and fields corrected beside the hole."""

import tracemalloc

import cv2
import numpy as np
import pytest
from worlds import make_world

from realfill.benchmark.metrics import detail, psnr
from realfill.geometry import rendering
from realfill.geometry.alignment import FullLayer, find_parts
from realfill.geometry.rendering import Plan, blank_labels, fill_rest, render
from realfill.geometry.sampling import Pyramid
from realfill.geometry.seamless import correct

SIZE, SMALL = (360, 480), (90, 120)
WORLD = make_world(4, (420, 540))
TRUTH = WORLD[30:390, 30:510]


def field(shift=(0.0, 0.0)):
    """Return the field, at the small size, of a reference that shows the target moved by (30, 30) and a shift."""
    y, x = ((np.arange(n) + 0.5) * 4 - 0.5 for n in SMALL)
    return (np.stack(np.meshgrid(x, y), axis=-1) + 30 + np.array(shift)).astype(np.float32)


def layer(image=WORLD, shift=(0.0, 0.0), colours=None, mask=None):
    colours = np.eye(4, 3, dtype=np.float32) if colours is None else colours
    return FullLayer(field=field(shift), colours=colours, reference=Pyramid(image), mask=mask, size=SIZE)


def make_plan(layers, hole, labels):
    small_hole = cv2.resize(hole.astype(np.uint8) * 255, SMALL[::-1], interpolation=cv2.INTER_AREA) > 0
    known = cv2.resize(np.where(hole[..., None], np.uint8(0), TRUTH), SMALL[::-1], interpolation=cv2.INTER_AREA)
    whole = slice(0, SIZE[0]), slice(0, SIZE[1])
    images = [cv2.resize(one.render(whole)[0], SMALL[::-1], interpolation=cv2.INTER_AREA) for one in layers]
    rest = np.full((*SMALL, 3), 90, np.float32)
    stack = np.stack([*images, rest])
    correction = correct(stack, labels, known, small_hole)
    chosen = np.take_along_axis(stack, labels[None, ..., None], axis=0)[0]
    return Plan(
        layers=layers, rest=rest, labels=labels, small_hole=small_hole, correction=correction,
        preview=chosen + correction, size=SIZE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def hole():
    mask = np.zeros(SIZE, np.uint8)
    cv2.ellipse(mask, (240, 180), (130, 90), 0, 0, 360, 1, -1)
    mask[:40, 430:] = 1
    return mask > 0


@pytest.fixture(scope="module")
def plan(hole):
    darker = np.diag([0.9, 0.9, 0.9, 1])[:, :3].astype(np.float32)
    labels = (np.arange(SMALL[1])[None] > 62).astype(int) * np.ones((SMALL[0], 1), int)
    return make_plan([layer(), layer(colours=darker)], hole, labels)


def fill(plan, hole, dtype=np.uint8, check=None):
    image = np.where(hole[..., None], 0, TRUTH.astype(dtype) * (257 if dtype == np.uint16 else 1)).astype(dtype)
    labels = blank_labels(SIZE)
    render(image, labels, hole, plan, check)
    return image, labels


def test_the_hole_shows_the_references_own_pixels(plan, hole):
    image, labels = fill(plan, hole)
    assert np.array_equal(image[~hole], TRUTH[~hole]) and (labels[~hole] == 255).all()
    assert set(np.unique(labels[hole])) == {0, 1}
    assert psnr(image, TRUTH, hole) > 30
    assert 0.9 < detail(image, TRUTH, hole) < 1.1


def test_tiles_do_not_show(plan, hole, monkeypatch):
    whole, labels = fill(plan, hole)
    monkeypatch.setattr(rendering, "_TILE_PX", 64)
    tiled, other = fill(plan, hole)
    assert (labels != other)[hole].mean() < 0.01
    difference = np.abs(whole.astype(int) - tiled).max(axis=2)
    assert difference.max() <= 6 and difference[hole].mean() < 0.5


def test_sixteen_bits_are_filled_in_sixteen_bits(plan, hole):
    shallow, _ = fill(plan, hole)
    deep, _ = fill(plan, hole, np.uint16)
    assert deep.dtype == np.uint16 and np.array_equal(deep[~hole], TRUTH[~hole].astype(np.uint16) * 257)
    assert np.abs(deep / 257 - shallow)[hole].max() < 0.6
    assert (deep[hole] % 257 != 0).mean() > 0.9, "values between the levels of 8 bits"


def test_an_end_in_between_keeps_finished_tiles_and_enlarges_the_rest(plan, hole, monkeypatch):
    monkeypatch.setattr(rendering, "_TILE_PX", 120)
    whole, _ = fill(plan, hole)
    image, labels = np.where(hole[..., None], np.uint8(0), TRUTH), blank_labels(SIZE)

    def stop(share):
        if share > 0.4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        render(image, labels, hole, plan, stop)
    finished = labels != 255
    assert 0 < finished.sum() < hole.sum() and np.array_equal(image[finished], whole[finished])
    fill_rest(image, labels, hole, plan)
    assert np.array_equal(image[finished], whole[finished]) and np.array_equal(image[~hole], TRUTH[~hole])
    assert (labels[hole] != 255).all() and psnr(image, TRUTH, hole & ~finished) > 18


def test_a_field_that_is_off_is_corrected_by_the_known_pixels():
    hole = np.zeros(SIZE, bool)
    hole[130:230, 190:290] = True
    known = np.where(hole[..., None], np.uint8(0), TRUTH)
    ((rows, columns),) = find_parts(cv2.resize(hole.astype(np.uint8), SMALL[::-1]) > 0, SIZE)
    off = layer(shift=(1.7, -1.3))
    ring = cv2.dilate(hole.astype(np.uint8), np.ones((31, 31), np.uint8))[rows, columns] > 0
    exact = layer().places((rows, columns))
    before, after = (np.linalg.norm(one.places((rows, columns)) - exact, axis=2)[ring].mean()
                     for one in (off, off.corrected((rows, columns), known, hole)))  # fmt: skip
    assert before > 2 and after < 0.8


def test_parts_lie_apart_and_contain_the_hole_with_its_surroundings():
    hole = np.zeros((100, 200), bool)
    hole[10:20, 10:20] = hole[80:90, 150:170] = hole[12:18, 30:40] = True
    parts = find_parts(hole, (1000, 2000))
    assert len(parts) == 2, "holes whose surroundings overlap are one part"
    (top, left), (bottom, right) = parts
    assert top.stop <= bottom.start or left.stop <= right.start
    assert top.start == 0 and left.start == 0 and left.stop >= 400 + 160
    assert bottom.start <= 800 - 160 and right.stop >= 1700 + 160


def test_the_part_of_a_reference_that_is_left_out_is_not_shown():
    mask = np.zeros(WORLD.shape[:2], bool)
    mask[60:100, 40:90] = True
    part = slice(20, 80), slice(0, 70)
    (image, shown), (whole, all_shown) = layer(mask=mask).render(part), layer().render(part)
    assert all_shown.all() and (image == whole).all()
    expected = mask[50:110, 30:100]  # the field moves by (30, 30)
    assert (shown != ~expected).mean() < 0.01


def peak_of(size, num_references):
    """Return the bytes that rendering takes at most, where stripes of the hole come from one reference after another.

    Stripes are wide enough for a tile to show two of them at most.
    """
    truth = make_world(4, size)
    small = cv2.resize(truth, (size[1] // 4, size[0] // 4), interpolation=cv2.INTER_AREA).astype(np.float32)
    y, x = ((np.arange(n) + 0.5) * 4 - 0.5 for n in small.shape[:2])
    places = np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)
    colours = np.eye(4, 3, dtype=np.float32)
    layers = [
        FullLayer(field=places, colours=colours, reference=Pyramid(truth.copy()), mask=None, size=size)
        for _ in range(num_references)
    ]
    hole, small_hole = np.zeros(size, bool), np.ones(small.shape[:2], bool)
    hole[16:-16, 16:-16] = True
    plan = Plan(
        layers=layers, rest=small, labels=np.broadcast_to(x // 160 % num_references, small_hole.shape).astype(int),
        small_hole=small_hole, correction=np.zeros_like(small), preview=small, size=size,
    )  # fmt: skip
    image, labels = np.where(hole[..., None], np.uint8(0), truth), blank_labels(size)
    tracemalloc.start()
    try:
        render(image, labels, hole, plan)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(np.unique(labels[hole])) == num_references
    return peak


def test_memory_depends_neither_on_the_number_of_references_nor_on_the_size_of_the_photo(monkeypatch):
    monkeypatch.setattr(rendering, "_TILE_PX", 96)
    of_two = peak_of((240, 960), 2)
    assert peak_of((240, 960), 6) < 1.15 * of_two
    assert peak_of((480, 960), 2) < 1.15 * of_two
