"""Random crops: the pixels that a training step sees, hides and learns from."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from helpers import make_photo

from realfill import FitConfig
from realfill.scene.masks import bounding_box
from realfill.training.crops import Hole, TrainingImage, draw_crops, draw_noising, shrink_photo, step_rng

PAPER = FitConfig().resolve({})
SETTINGS = FitConfig(batch_size=16, mask_dropout=0.0, hole_margin_px=0).resolve({})
CORNER = (slice(0, 20), slice(180, 200))


def rng():
    return np.random.default_rng(0)


def noising(settings, shape=(4, 2, 2)):
    return draw_noising(settings, shape, rng(), torch.Generator().manual_seed(0))


def with_hole(where=(slice(30, 60), slice(50, 80)), known=None):
    """A photo whose hole is green."""
    hole = np.zeros((160, 200), bool)
    hole[where] = True
    image = np.where(hole[:, :, None], np.uint8((0, 255, 0)), np.uint8((120, 0, 60)))
    rows, columns = where
    boxes = ((rows.start, columns.start, rows.stop, columns.stop),)
    return TrainingImage(image=image, known=known, crop_sides_px=(60, 90), hole=Hole(mask=hole, boxes=boxes))


def half_known(share=1.0):
    known = np.zeros((64, 64), bool)
    known[:, :32] = True
    image = np.where(known[:, :, None], make_photo(64, 64), 0).astype(np.uint8)
    return TrainingImage(image=image, known=known, crop_sides_px=(64, 64), share=share)


def whole(share=1.0):
    return TrainingImage(image=make_photo(64, 96), crop_sides_px=(20, 60), share=share)


@pytest.mark.parametrize("where", [(slice(30, 60), slice(50, 80)), CORNER], ids=["inside", "corner"])
@pytest.mark.parametrize("mirror", [False, True])
def test_crops_around_a_hole_show_it_and_hide_exactly_it(where, mirror):
    photo = dataclasses.replace(with_hole(where), mirror=mirror)
    crops = draw_crops([photo], SETTINGS, 64, 16, rng())
    green = crops.images[..., 1] > 127
    assert green.any(axis=(1, 2)).all()
    assert not (green & ~crops.hidden).any()
    assert (crops.hidden == green).mean(axis=(1, 2)).min() > 0.9
    assert crops.learnt.all()


def test_crops_are_centred_on_a_point_of_the_hole():
    crops = draw_crops([with_hole((slice(70, 90), slice(90, 110)))] * 4, SETTINGS, 64, 16, rng())
    assert crops.hidden[:, 28:36, 28:36].any(axis=(1, 2)).all()


def test_unknown_pixels_beside_the_hole_are_hidden_and_do_not_count():
    known = np.ones((160, 200), bool)
    known[:, 65:] = False
    crops = draw_crops([with_hole(known=known)], SETTINGS, 64, 16, rng())
    assert (crops.hidden | crops.learnt).all() and not crops.learnt.all()
    assert (crops.learnt & crops.hidden).any(), "the known part of the hole counts"


def test_masks_are_random_without_a_hole():
    crops = draw_crops([TrainingImage(image=make_photo(64, 64), crop_sides_px=(32, 64))], SETTINGS, 32, 16, rng())
    assert crops.learnt.all() and crops.known.all()
    assert crops.hidden.mean(axis=(1, 2)).std() > 0.1


def test_the_target_hides_its_hole_too_and_learns_from_known_pixels_only():
    settings = dataclasses.replace(PAPER, hole_margin_px=4, mask_dropout=0.0)
    crops = draw_crops([half_known()], settings, 64, 16, rng())
    assert crops.hidden[..., 32:].all()
    assert crops.hidden[..., :32].mean() > 0.1
    assert not crops.hidden[..., :32].all(axis=(1, 2)).all()
    assert not crops.learnt[..., 28:].any()
    assert crops.learnt[..., :28].all()


def test_photos_are_cropped_by_their_shares():
    crops = draw_crops([half_known(0.5), whole(share=1.5)], PAPER, 16, 400, rng())
    assert (~crops.learnt.all(axis=(1, 2))).mean() == pytest.approx(0.25, abs=0.07)


def test_sides_are_log_uniform_within_their_range():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 200, 3))
    photo = TrainingImage(image=np.ascontiguousarray(ramp), crop_sides_px=(20, 180))
    images = draw_crops([photo], SETTINGS, 10, 500, rng()).images.astype(float)
    sides = (images[:, -1, 0, 0] - images[:, 0, 0, 0]) * 10 / 9
    assert 18 <= sides.min() < 22 and 175 < sides.max() <= 182
    assert np.median(sides) == pytest.approx(60, abs=5)


def test_prompts_and_masks_are_dropped_at_their_rates():
    settings = dataclasses.replace(PAPER, batch_size=1000, prompt_dropout=0.3, mask_dropout=0.2)
    assert noising(settings).prompted.float().mean() == pytest.approx(0.7, abs=0.05)
    without = draw_crops([whole()], dataclasses.replace(settings, mask_dropout=0.0), 8, 1000, rng())
    crops = draw_crops([whole()], settings, 8, 1000, rng())
    shares = [float(c.hidden.all(axis=(1, 2)).mean()) for c in (crops, without)]
    assert shares[0] - shares[1] == pytest.approx(0.2 * (1 - shares[1]), abs=0.04)


def test_noise_bias_favours_much_noise():
    uniform, biased = (noising(dataclasses.replace(PAPER, batch_size=500, noise_bias=b)) for b in (1.0, 2.0))
    assert uniform.quantiles.mean() == pytest.approx(0.5, abs=0.05)
    assert biased.quantiles.mean() == pytest.approx(2 / 3, abs=0.05)
    assert biased.quantiles.min() >= 0 and biased.quantiles.max() <= 1


def test_draws_are_standard_normal_and_indexed_by_row():
    draws = noising(dataclasses.replace(PAPER, batch_size=6), (4, 8, 8))
    assert draws.noise.shape == (2, 6, 4, 8, 8)
    assert not torch.equal(draws.noise[0], draws.noise[1])
    assert float(draws.noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(draws.noise.std()) == pytest.approx(1, abs=0.05)
    odd = draws[1::2]
    assert torch.equal(odd.noise, draws.noise[:, 1::2])
    assert torch.equal(odd.quantiles, draws.quantiles[1::2]) and torch.equal(odd.prompted, draws.prompted[1::2])


def test_mirrored_photos_are_flipped_half_the_time_with_their_masks():
    known = np.zeros((16, 16), bool)
    known[:, :4] = True
    image = np.where(known[:, :, None], np.uint8(255), np.uint8(0)) * np.ones(3, np.uint8)
    photo = TrainingImage(image=image, known=known, crop_sides_px=(16, 16), mirror=True)
    crops = draw_crops([photo], SETTINGS, 16, 200, rng())
    assert (crops.images[:, 0, 0, 0] > 0).mean() == pytest.approx(0.5, abs=0.12)
    assert np.array_equal(crops.images[..., 0] > 0, crops.known)
    plain = draw_crops([dataclasses.replace(photo, mirror=False)], SETTINGS, 16, 50, rng())
    assert (plain.images[:, 0, 0, 0] > 0).all()


def test_the_draws_of_a_step_depend_on_seed_and_step_alone():
    first, second = (step_rng(3, 7) for _ in range(2))
    assert first[0].random() == second[0].random()
    assert torch.equal(torch.rand(4, generator=first[1]), torch.rand(4, generator=second[1]))
    for other in ((3, 8), (4, 7)):
        assert step_rng(*other)[0].random() != step_rng(3, 7)[0].random()
        assert step_rng(*other)[1].initial_seed() != step_rng(3, 7)[1].initial_seed()


@pytest.mark.parametrize("times", [8, 20])
def test_a_large_photo_is_shrunk_and_gives_the_same_crops(times):
    small = dataclasses.replace(with_hole(), hole=None)
    size = (small.image.shape[1] * times, small.image.shape[0] * times)
    large = TrainingImage(
        image=cv2.resize(small.image, size, interpolation=cv2.INTER_CUBIC), crop_sides_px=(60 * times, 90 * times)
    )
    photo = shrink_photo(large, 32)
    assert photo.image.shape[:2] == (round(160 * 64 / 60), round(200 * 64 / 60))  # whatever its size was
    for seed in range(4):
        drawn = [draw_crops([p], SETTINGS, 32, 1, np.random.default_rng(seed)) for p in (large, photo)]
        assert np.abs(drawn[0].images.astype(int) - drawn[1].images).mean() < 8
        assert (drawn[0].hidden == drawn[1].hidden).mean() > 0.9


def test_a_known_pixel_of_a_shrunk_photo_averages_known_pixels_only():
    known = np.ones((640, 640), bool)
    known[100:201, 300:401] = False
    image = np.where(known[:, :, None], 200, 0).astype(np.uint8)
    photo = shrink_photo(TrainingImage(image=np.repeat(image, 3, 2), known=known, crop_sides_px=(500, 640)), 32)
    assert photo.image.shape[0] < 100
    assert (photo.image[photo.known] == 200).all()
    assert 0.9 < photo.known.mean() < 1


def test_shrinking_keeps_how_far_crops_reach_beyond_the_photo():
    photo = TrainingImage(image=make_photo(300, 400), crop_sides_px=(300, 500), reach_px=600)
    shrunk = shrink_photo(photo, 32)
    assert shrunk.reach_px / shrunk.image.shape[0] == pytest.approx(2, rel=0.02)
    assert shrunk.crop_sides_px == pytest.approx([64, 64 * 5 / 3])


def test_a_photo_that_is_not_much_larger_than_needed_keeps_its_size():
    photo = with_hole()
    assert shrink_photo(photo, 32) is photo


def test_crops_larger_than_the_photo_show_it_smaller_and_nothing_beyond():
    image = make_photo(100, 160, 2)
    photo = TrainingImage(image=image, crop_sides_px=(199, 201), reach_px=200)
    crops = draw_crops([photo], SETTINGS, 64, 20, rng())
    assert np.allclose(crops.known.mean(axis=(1, 2)), 100 * 160 / 200**2, atol=0.02)
    assert (crops.hidden | crops.known).all() and not (crops.learnt & ~crops.known).any()
    small = cv2.resize(image, (51, 32), interpolation=cv2.INTER_AREA)
    for crop, known in zip(crops.images, crops.known, strict=True):
        top, left, bottom, right = bounding_box(known)
        shown = crop[top:bottom, left:right]
        assert np.abs(cv2.resize(shown, (51, 32)).astype(int) - small).mean() < 8
    corners = {bounding_box(known)[:2] for known in crops.known}
    assert len(corners) > 10  # the photo lies anywhere in the crops
    within = draw_crops([dataclasses.replace(photo, reach_px=0)], SETTINGS, 64, 4, rng())
    assert within.known.all()


def test_a_crop_that_shows_almost_nothing_known_is_drawn_again():
    known = np.zeros((200, 200), bool)
    known[:40, :40] = True
    photo = TrainingImage(image=make_photo(200, 200), known=known, crop_sides_px=(50, 50))
    shares = draw_crops([photo], SETTINGS, 25, 100, rng()).known.mean(axis=(1, 2))
    assert (shares >= 0.05).mean() > 0.6  # nine of ten squares show less, and 20 tries are not always enough
    nothing = dataclasses.replace(photo, known=np.zeros_like(known))
    assert not draw_crops([nothing], SETTINGS, 25, 1, rng()).known.any()
