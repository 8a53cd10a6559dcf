"""The latent cache: crops that are encoded once and used several times."""

import collections

import numpy as np
import pytest
import torch
from helpers import TINY_FIT, make_photo

import realfill.training.latent_cache
from realfill import FitConfig, fit
from realfill.compute.devices import make_accelerator
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.crops import TrainingImage
from realfill.training.latent_cache import LatentCache
from realfill.training.objective import Latents

PHOTOS = [TrainingImage(image=make_photo(64, 96), crop_sides_px=(20, 60))]


def make_cache(base, **changes):
    changes = {**TINY_FIT, "latent_cache_size": 6, "latent_cache_uses": 3, **changes}
    settings = FitConfig(base=base, **changes).resolve({})
    return LatentCache(StableDiffusionInpainter.load(base), settings, make_accelerator(torch.device("cpu"), "no"))


def rows(latents):
    return [row.numpy().tobytes() for row in latents.mean]


def test_each_crop_is_used_as_often_as_configured_and_then_replaced(tiny_sd):
    cache = make_cache(tiny_sd)
    first = [rows(cache.take(PHOTOS, step, 2)) for step in range(9)]
    uses = collections.Counter(row for batch in first for row in batch)
    assert len(uses) == 6 and set(uses.values()) == {3}
    for turn in range(3):
        assert len({row for batch in first[3 * turn : 3 * turn + 3] for row in batch}) == 6
    assert first[:3] != first[3:6]  # another order
    later = {row for step in range(9, 12) for row in rows(cache.take(PHOTOS, step, 2))}
    assert len(later) == 6 and not later & set(uses)


@pytest.mark.parametrize("step", [0, 4, 10])
def test_a_batch_depends_neither_on_earlier_steps_nor_on_how_many_crops_are_encoded_together(tiny_sd, step):
    cache = make_cache(tiny_sd)
    for earlier in range(step):
        cache.take(PHOTOS, earlier, 2)
    one, two = cache.take(PHOTOS, step, 2), make_cache(tiny_sd).take(PHOTOS, step, 1)
    for name in Latents.__slots__:
        torch.testing.assert_close(getattr(one, name), getattr(two, name), atol=1e-5, rtol=1e-4)


def test_the_seed_changes_the_content(tiny_sd):
    one, two = (make_cache(tiny_sd, seed=seed).take(PHOTOS, 0, 2) for seed in (0, 1))
    assert not torch.equal(one.mean, two.mean)


def test_the_vae_encodes_fewer_images(scene, tiny_sd, monkeypatch):
    batch_sizes = []
    real = StableDiffusionInpainter.encode
    monkeypatch.setattr(StableDiffusionInpainter, "encode", lambda self, x: batch_sizes.append(len(x)) or real(self, x))

    def count(**changes):
        batch_sizes.clear()
        fit(scene, FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 8, **changes}), progress=False)
        return sum(batch_sizes)

    assert count() == 8 * 2 * 2  # steps, crops, image and masked image
    assert count(latent_cache_size=4, latent_cache_uses=4) == 4 * 2


def test_each_use_of_a_crop_draws_new_latents_and_noise_levels(make_trainer, train_steps, monkeypatch):
    trainer = make_trainer(latent_cache_size=2, latent_cache_uses=4, num_steps=4)
    draws = []
    real = StableDiffusionInpainter.diffuse

    def diffuse(self, latents, noise, quantiles):
        draws.append((latents.clone(), quantiles.clone()))
        return real(self, latents, noise, quantiles)

    monkeypatch.setattr(StableDiffusionInpainter, "diffuse", diffuse)
    train_steps(trainer, PHOTOS, 4)
    crops = torch.cat([latents for latents, _ in draws])
    assert len({row.numpy().tobytes() for row in crops}) == 8  # two crops, four times each
    assert len({float(q) for _, quantiles in draws for q in quantiles}) == 8


def test_a_fit_with_a_latent_cache_learns(scene, tiny_sd):
    config = {**TINY_FIT, "num_steps": 40, "batch_size": 8, "learning_rate": 3e-3, "trainable": "all"}
    losses = fit(
        scene, FitConfig(base=tiny_sd, **config, lora_targets=("*",), latent_cache_size=64), progress=False
    ).losses  # fmt: skip
    assert np.mean(losses[-10:]) < 0.98 * np.mean(losses[:10])


def test_the_size_is_rounded_up_to_whole_batches(tiny_sd):
    cache = make_cache(tiny_sd, latent_cache_size=3, latent_cache_uses=1)
    assert len({row for step in range(2) for row in rows(cache.take(PHOTOS, step, 2))}) == 4


def test_crops_that_are_drawn_ahead_are_the_same(tiny_sd, monkeypatch):
    direct = make_cache(tiny_sd)
    monkeypatch.setattr(realfill.training.latent_cache, "threads_for", lambda _: 2)
    ahead = make_cache(tiny_sd, num_steps=12)
    for step in (0, 1, 4, 9, 11):
        assert rows(direct.take(PHOTOS, step, 2)) == rows(ahead.take(PHOTOS, step, 2))
    assert not ahead._prefetcher._pending  # these steps need no further groups
