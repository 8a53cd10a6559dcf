"""The loader: the same crops, whether they are drawn ahead or when they are asked for."""

import numpy as np
import torch
from conftest import make_photo

from realfill import FitConfig
from realfill.fitting.batches import TrainingImage, draw_crops, step_rng
from realfill.fitting.loading import Loader, threads_for

CONFIG = FitConfig(batch_size=3, seed=4).resolve({})
PHOTOS = [TrainingImage(image=make_photo(64, 80, i), crop_sides_px=(30, 60)) for i in range(2)]


def draw(photos, number):
    rng, generator = step_rng(CONFIG.seed, number)
    return draw_crops(photos, CONFIG, 32, CONFIG.batch_size, rng), rng, generator


def test_crops_drawn_ahead_are_those_of_their_step_whatever_was_asked_for_before():
    now, ahead = (Loader(draw, 6, num_threads=n) for n in (0, 3))
    for step in (0, 1, 2, 2, 5, 4):  # a step that ran out of memory comes again; a resumed fit starts anywhere
        (one, rng0, generator0), (other, rng1, generator1) = now.take(PHOTOS, step), ahead.take(PHOTOS, step)
        for name in ("images", "known", "learnt", "hidden"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
        assert rng0.random() == rng1.random()
        assert torch.equal(torch.rand(2, generator=generator0), torch.rand(2, generator=generator1))


def test_no_more_is_drawn_ahead_than_there_are_threads_and_steps():
    loader = Loader(draw, 6, num_threads=2)
    loader.take(PHOTOS, 1)
    assert set(loader._coming) == {2, 3}
    loader.take(PHOTOS, 5)
    assert not loader._coming


def test_a_cpu_draws_its_crops_itself():
    assert threads_for(torch.device("cpu")) == 0
    assert 1 <= threads_for(torch.device("cuda")) <= 8
