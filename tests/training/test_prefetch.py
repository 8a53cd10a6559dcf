"""Prefetching: the same crops, whether they are drawn ahead or when they are taken."""

import numpy as np
import torch
from helpers import make_photo

from realfill import FitConfig
from realfill.training.crops import TrainingImage, draw_crops, step_rng
from realfill.training.prefetch import Prefetcher, threads_for

SETTINGS = FitConfig(batch_size=3, seed=4).resolve({})
PHOTOS = [TrainingImage(image=make_photo(64, 80, i), crop_sides_px=(30, 60)) for i in range(2)]


def draw(photos, number):
    rng, generator = step_rng(SETTINGS.seed, number)
    return draw_crops(photos, SETTINGS, 32, SETTINGS.batch_size, rng), rng, generator


def test_a_step_gets_the_same_crops_whatever_was_taken_before():
    direct, ahead = (Prefetcher(draw, 6, num_threads=n) for n in (0, 3))
    for step in (0, 1, 2, 2, 5, 4):  # a step that ran out of memory is repeated; a resumed fit starts anywhere
        (crops0, rng0, generator0), (crops1, rng1, generator1) = direct.take(PHOTOS, step), ahead.take(PHOTOS, step)
        for name in ("images", "known", "learnt", "hidden"):
            assert np.array_equal(getattr(crops0, name), getattr(crops1, name))
        assert rng0.random() == rng1.random()
        assert torch.equal(torch.rand(2, generator=generator0), torch.rand(2, generator=generator1))


def test_as_many_batches_are_drawn_ahead_as_there_are_threads_and_steps():
    prefetcher = Prefetcher(draw, 6, num_threads=2)
    prefetcher.take(PHOTOS, 1)
    assert set(prefetcher._pending) == {2, 3}
    prefetcher.take(PHOTOS, 5)
    assert not prefetcher._pending


def test_nothing_is_drawn_ahead_on_a_cpu():
    assert threads_for(torch.device("cpu")) == 0
    assert 1 <= threads_for(torch.device("cuda")) <= 8
