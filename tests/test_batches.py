"""Batches: what a training step sees."""

import cv2
import numpy as np
import pytest
from conftest import make_photo

from realfill import FitConfig
from realfill.alignment import Similarity
from realfill.batches import AlignedHole, TrainingImage, draw_crops, reduced

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
        aligned=AlignedHole(mask=mask, similarity=similarity, box=BOX),
    )


@pytest.mark.parametrize(("scale", "shift"), [(1.0, (10, 20)), (1.6, (-20, 10)), (0.6, (60, 50))])
def test_aligned_crops_hide_what_the_hole_hides(scale, shift):
    batch = draw_crops([marked(scale, shift)], CONFIG, 64, 16, np.random.default_rng(0))
    green = batch.images[..., 1] > 127
    assert green.any(axis=(1, 2)).all()
    agree = (batch.hidden == green).mean(axis=(1, 2))
    assert agree.min() > 0.9


def test_their_share_is_kept_and_without_alignment_there_are_none():
    photo = marked(1.0, (10, 20))
    config = FitConfig(aligned_share=0.25, mask_dropout=0.0).resolve({})
    batch = draw_crops([photo], config, 16, 400, np.random.default_rng(0))
    green = batch.images[..., 1] > 127
    aligned = ((batch.hidden == green).mean(axis=(1, 2)) > 0.85).mean()
    assert 0.15 < aligned < 0.4
    plain = TrainingImage(image=make_photo(64, 64), crop_sides_px=(32, 64))
    assert draw_crops([plain], CONFIG, 32, 16, np.random.default_rng(0)).learnt.all()


def test_a_place_beyond_the_photo_still_gives_crops():
    far = marked(1.0, (10, 20))
    moved = Similarity(matrix=np.array([[1.0, 0, 500], [0, 1.0, -900]]))
    photo = TrainingImage(
        image=far.image, crop_sides_px=(60, 90), aligned=AlignedHole(mask=far.aligned.mask, similarity=moved, box=BOX)
    )
    assert len(draw_crops([photo], CONFIG, 32, 16, np.random.default_rng(0))) == 16


@pytest.mark.parametrize("times", [8, 20])
def test_a_large_photo_is_shrunk_to_what_its_crops_need_and_gives_the_same_crops(times):
    small = marked(1.0, (10, 20))
    large = TrainingImage(
        image=cv2.resize(small.image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC),
        crop_sides_px=(60 * times, 90 * times),
        aligned=AlignedHole(
            mask=small.aligned.mask, box=BOX,
            similarity=Similarity(matrix=np.array([[times, 0, 10.5 * times - 0.5], [0, times, 20.5 * times - 0.5]])),
        ),
    )  # fmt: skip
    photo = reduced(large, 32)
    assert photo.image.shape[:2] == (round(160 * 64 / 60), round(200 * 64 / 60))  # however large it was
    config = FitConfig(aligned_share=0.5, mask_dropout=0.0).resolve({})
    for seed in range(4):
        one, two = (draw_crops([p], config, 32, 1, np.random.default_rng(seed)) for p in (large, photo))
        assert np.abs(one.images.astype(int) - two.images).mean() < 6
        assert (one.hidden == two.hidden).mean() > 0.95


def test_what_is_known_of_a_shrunk_photo_is_known_of_all_that_it_averages():
    known = np.ones((640, 640), bool)
    known[100:201, 300:401] = False
    image = np.where(known[:, :, None], 200, 0).astype(np.uint8)
    photo = reduced(TrainingImage(image=np.repeat(image, 3, 2), known=known, crop_sides_px=(500, 640)), 32)
    assert photo.image.shape[0] < 100
    assert (photo.image[photo.known] == 200).all()
    assert 0.9 < photo.known.mean() < 1


def test_a_photo_that_is_no_larger_than_needed_is_left_alone():
    photo = marked(1.0, (10, 20))
    assert reduced(photo, 32) is photo
