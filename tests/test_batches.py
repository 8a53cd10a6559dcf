"""Batches: what a training step sees."""

import dataclasses

import cv2
import numpy as np
import pytest
from conftest import make_photo

from realfill import FitConfig
from realfill.fitting.batches import Hole, TrainingImage, draw_crops, reduced
from realfill.masks import bounding_box

CONFIG = FitConfig(batch_size=16, mask_dropout=0.0, hole_margin_px=0).resolve({})


def marked(where=(slice(30, 60), slice(50, 80)), known=None):
    """A photo whose green part is its hole."""
    hole = np.zeros((160, 200), bool)
    hole[where] = True
    image = np.where(hole[:, :, None], np.uint8((0, 255, 0)), np.uint8((120, 0, 60)))
    rows, columns = where
    boxes = ((rows.start, columns.start, rows.stop, columns.stop),)
    return TrainingImage(image=image, known=known, crop_sides_px=(60, 90), hole=Hole(mask=hole, boxes=boxes))


CORNER = (slice(0, 20), slice(180, 200))


@pytest.mark.parametrize("where", [(slice(30, 60), slice(50, 80)), CORNER], ids=["inside", "corner"])
@pytest.mark.parametrize("mirror", [False, True])
def test_crops_around_a_hole_show_it_and_hide_it_and_nothing_else(where, mirror):
    photo = dataclasses.replace(marked(where), mirror=mirror)
    batch = draw_crops([photo], CONFIG, 64, 16, np.random.default_rng(0))
    green = batch.images[..., 1] > 127
    assert green.any(axis=(1, 2)).all()
    assert not (green & ~batch.hidden).any()
    assert (batch.hidden == green).mean(axis=(1, 2)).min() > 0.9
    assert batch.learnt.all()


def test_a_point_of_the_hole_is_in_the_middle_where_the_photo_reaches():
    rng = np.random.default_rng(0)
    batch = draw_crops([marked((slice(70, 90), slice(90, 110)))] * 4, CONFIG, 64, 16, rng)
    assert batch.hidden[:, 28:36, 28:36].any(axis=(1, 2)).all()


def test_what_is_not_known_beside_the_hole_is_hidden_and_does_not_count():
    known = np.ones((160, 200), bool)
    known[:, 65:] = False
    batch = draw_crops([marked(known=known)], CONFIG, 64, 16, np.random.default_rng(0))
    assert (batch.hidden | batch.learnt).all() and not batch.learnt.all()
    assert (batch.learnt & batch.hidden).any(), "the known part of the hole is to be learnt"


def test_without_a_hole_masks_are_random():
    plain = TrainingImage(image=make_photo(64, 64), crop_sides_px=(32, 64))
    batch = draw_crops([plain], CONFIG, 32, 16, np.random.default_rng(0))
    assert batch.learnt.all()
    shares = batch.hidden.mean(axis=(1, 2))
    assert shares.std() > 0.1


@pytest.mark.parametrize("times", [8, 20])
def test_a_large_photo_is_shrunk_to_what_its_crops_need_and_gives_the_same_crops(times):
    small = dataclasses.replace(marked(), hole=None)
    size = (small.image.shape[1] * times, small.image.shape[0] * times)
    large = TrainingImage(
        image=cv2.resize(small.image, size, interpolation=cv2.INTER_CUBIC), crop_sides_px=(60 * times, 90 * times)
    )
    photo = reduced(large, 32)
    assert photo.image.shape[:2] == (round(160 * 64 / 60), round(200 * 64 / 60))  # however large it was
    for seed in range(4):
        drawn = [draw_crops([p], CONFIG, 32, 1, np.random.default_rng(seed)) for p in (large, photo)]
        assert np.abs(drawn[0].images.astype(int) - drawn[1].images).mean() < 8
        assert (drawn[0].hidden == drawn[1].hidden).mean() > 0.9


def test_what_is_known_of_a_shrunk_photo_is_known_of_all_that_it_averages():
    known = np.ones((640, 640), bool)
    known[100:201, 300:401] = False
    image = np.where(known[:, :, None], 200, 0).astype(np.uint8)
    photo = reduced(TrainingImage(image=np.repeat(image, 3, 2), known=known, crop_sides_px=(500, 640)), 32)
    assert photo.image.shape[0] < 100
    assert (photo.image[photo.known] == 200).all()
    assert 0.9 < photo.known.mean() < 1


def test_a_photo_that_is_no_larger_than_needed_is_left_alone():
    photo = marked()
    assert reduced(photo, 32) is photo


def test_crops_larger_than_the_photo_show_it_smaller_and_nothing_beyond():
    image = make_photo(100, 160, 2)
    photo = TrainingImage(image=image, crop_sides_px=(199, 201), reach_px=200)
    drawn = draw_crops([photo], CONFIG, 64, 20, np.random.default_rng(0))
    assert np.allclose(drawn.known.mean(axis=(1, 2)), 100 * 160 / 200**2, atol=0.02)
    assert (drawn.hidden | drawn.known).all() and not (drawn.learnt & ~drawn.known).any()
    small = cv2.resize(image, (51, 32), interpolation=cv2.INTER_AREA)
    for crop, known in zip(drawn.images, drawn.known, strict=True):
        top, left, bottom, right = bounding_box(known)
        shown = crop[top:bottom, left:right]
        assert np.abs(cv2.resize(shown, (51, 32)).astype(int) - small).mean() < 8
    corners = {bounding_box(known)[:2] for known in drawn.known}
    assert len(corners) > 10  # the photo lies anywhere in them
    within = draw_crops([dataclasses.replace(photo, reach_px=0)], CONFIG, 64, 4, np.random.default_rng(0))
    assert within.known.all()
