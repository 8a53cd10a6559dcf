"""Batches: what a training step sees."""

import dataclasses

import numpy as np
import pytest
from conftest import make_photo

from realfill import FitConfig
from realfill.batches import Hole, TrainingImage, draw_batch

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
    batch = draw_batch([photo], CONFIG, 64, np.random.default_rng(0))
    green = batch.images[:, 1:2] > 0.5
    assert green.any(dim=(1, 2, 3)).all()
    assert not (green & ~batch.hidden).any()
    assert (batch.hidden == green).float().mean(dim=(1, 2, 3)).min() > 0.9
    assert batch.learnt.all()


def test_a_point_of_the_hole_is_in_the_middle_where_the_photo_reaches():
    rng = np.random.default_rng(0)
    batch = draw_batch([marked((slice(70, 90), slice(90, 110)))] * 4, CONFIG, 64, rng)
    assert batch.hidden[:, :, 28:36, 28:36].any(dim=(1, 2, 3)).all()


def test_what_is_not_known_beside_the_hole_is_hidden_and_does_not_count():
    known = np.ones((160, 200), bool)
    known[:, 65:] = False
    batch = draw_batch([marked(known=known)], CONFIG, 64, np.random.default_rng(0))
    assert (batch.hidden | batch.learnt).all() and not batch.learnt.all()
    assert (batch.learnt & batch.hidden).any(), "the known part of the hole is to be learnt"


def test_without_a_hole_masks_are_random():
    plain = TrainingImage(image=make_photo(64, 64), crop_sides_px=(32, 64))
    batch = draw_batch([plain], CONFIG, 32, np.random.default_rng(0))
    assert batch.learnt.all()
    shares = batch.hidden.float().mean(dim=(1, 2, 3))
    assert shares.std() > 0.1
