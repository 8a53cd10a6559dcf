"""The loader: the same crops, whether they are drawn ahead or when they are asked for."""

import numpy as np
import torch
from conftest import make_photo

from realfill import FitConfig
from realfill.fitting.batches import TrainingImage
from realfill.fitting.loading import Loader, threads_for

CONFIG = FitConfig(num_steps=6, batch_size=3, seed=4).resolve({})
PHOTOS = [TrainingImage(image=make_photo(64, 80, i), crop_sides_px=(30, 60)) for i in range(2)]


def test_crops_drawn_ahead_are_those_of_their_step_whatever_was_asked_for_before():
    now, ahead = (Loader(CONFIG, 32, num_threads=n) for n in (0, 3))
    for step in (0, 1, 2, 2, 5, 4):  # a step that ran out of memory comes again; a resumed fit starts anywhere
        one, other = now.take(PHOTOS, step), ahead.take(PHOTOS, step)
        for name in ("images", "known", "learnt", "hidden"):
            assert np.array_equal(getattr(one.crops, name), getattr(other.crops, name))
        assert one.rng.random() == other.rng.random()
        assert torch.equal(torch.rand(2, generator=one.generator), torch.rand(2, generator=other.generator))


def test_no_more_is_drawn_ahead_than_there_are_threads_and_steps():
    loader = Loader(CONFIG, 32, num_threads=2)
    loader.take(PHOTOS, 1)
    assert set(loader._coming) == {2, 3}
    loader.take(PHOTOS, 5)
    assert not loader._coming


def test_a_cpu_draws_its_crops_itself():
    assert threads_for(torch.device("cpu")) == 0
    assert 1 <= threads_for(torch.device("cuda")) <= 4
