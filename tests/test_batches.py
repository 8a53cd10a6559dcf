"""Batches: what a training step sees."""

import numpy as np
import pytest
from conftest import make_photo

from realfill import FitConfig
from realfill.alignment import Similarity
from realfill.batches import AlignedHole, TrainingImage, draw_batch

CONFIG = FitConfig(batch_size=16, aligned_share=1.0, mask_dropout=0.0).resolve({})


BOX = (30, 50, 60, 80)


def marked(scale, shift):
    """A photo whose green square is what the target's hole hides, and where the hole lies in the target."""
    mask = np.zeros((96, 128), bool)
    mask[30:60, 50:80] = True
    photo = np.full((160, 200, 3), (120, 0, 60), np.uint8)
    (x0, y0), (x1, y1) = (np.round(scale * np.array(p) + shift).astype(int) for p in ((50, 30), (80, 60)))
    photo[y0:y1, x0:x1] = (0, 255, 0)
    similarity = Similarity(matrix=np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], float))
    return TrainingImage(
        image=photo,
        crop_sides_px=(60 * scale, 90 * scale),
        aligned=AlignedHole(mask=mask, similarity=similarity, boxes=(BOX,)),
    )


@pytest.mark.parametrize(("scale", "shift"), [(1.0, (10, 20)), (1.6, (-20, 10)), (0.6, (60, 50))])
def test_aligned_crops_hide_what_the_hole_hides(scale, shift):
    batch = draw_batch([marked(scale, shift)], CONFIG, 64, np.random.default_rng(0))
    green = batch.images[:, 1:2] > 0.5
    assert green.any(dim=(1, 2, 3)).all()
    agree = (batch.hidden == green).float().mean(dim=(1, 2, 3))
    assert agree.min() > 0.9


def test_their_share_is_kept_and_without_alignment_there_are_none():
    photo = marked(1.0, (10, 20))
    config = FitConfig(batch_size=400, aligned_share=0.25, mask_dropout=0.0).resolve({})
    batch = draw_batch([photo], config, 16, np.random.default_rng(0))
    green = batch.images[:, 1:2] > 0.5
    aligned = ((batch.hidden == green).float().mean(dim=(1, 2, 3)) > 0.85).float().mean()
    assert 0.15 < aligned < 0.4
    plain = TrainingImage(image=make_photo(64, 64), crop_sides_px=(32, 64))
    assert draw_batch([plain], CONFIG, 32, np.random.default_rng(0)).learnt.all()


def test_a_place_beyond_the_photo_still_gives_crops():
    far = marked(1.0, (10, 20))
    moved = Similarity(matrix=np.array([[1.0, 0, 500], [0, 1.0, -900]]))
    photo = TrainingImage(
        image=far.image,
        crop_sides_px=(60, 90),
        aligned=AlignedHole(mask=far.aligned.mask, similarity=moved, boxes=(BOX,)),
    )
    assert draw_batch([photo], CONFIG, 32, np.random.default_rng(0)).images.isfinite().all()
