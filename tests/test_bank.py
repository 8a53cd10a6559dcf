"""The bank: crops encoded ahead."""

import collections

import numpy as np
import pytest
import torch
from conftest import TINY_FIT, make_photo

import realfill.fitting.bank
from realfill import FitConfig, fit
from realfill.devices import make_accelerator
from realfill.fitting.bank import Bank
from realfill.fitting.batches import TrainingImage
from realfill.fitting.denoising import Latents
from realfill.models.inpainter import Inpainter

PHOTOS = [TrainingImage(image=make_photo(64, 96), crop_sides_px=(20, 60))]


def make_bank(base, **changes):
    config = FitConfig(base=base, **{**TINY_FIT, "bank_size": 6, "bank_uses": 3, **changes}).resolve({})
    return Bank(Inpainter.load(base), config, make_accelerator(torch.device("cpu"), "no"))


def rows(latents):
    return [row.numpy().tobytes() for row in latents.mean]


def test_each_crop_is_used_as_often_as_asked_then_all_are_new(tiny_sd):
    bank = make_bank(tiny_sd)
    first = [rows(bank.take(PHOTOS, step, 2)) for step in range(9)]
    used = collections.Counter(row for batch in first for row in batch)
    assert len(used) == 6 and set(used.values()) == {3}
    for turn in range(3):
        assert len({row for batch in first[3 * turn : 3 * turn + 3] for row in batch}) == 6
    assert first[:3] != first[3:6]  # another order
    later = {row for step in range(9, 12) for row in rows(bank.take(PHOTOS, step, 2))}
    assert len(later) == 6 and not later & set(used)


@pytest.mark.parametrize("step", [0, 4, 10])
def test_what_a_step_gets_depends_on_neither_earlier_steps_nor_the_pieces_of_the_encoding(tiny_sd, step):
    gone_through = make_bank(tiny_sd)
    for earlier in range(step):
        gone_through.take(PHOTOS, earlier, 2)
    one, two = gone_through.take(PHOTOS, step, 2), make_bank(tiny_sd).take(PHOTOS, step, 1)
    for name in Latents.__slots__:
        torch.testing.assert_close(getattr(one, name), getattr(two, name), atol=1e-5, rtol=1e-4)


def test_another_seed_is_another_bank(tiny_sd):
    one, two = (make_bank(tiny_sd, seed=seed).take(PHOTOS, 0, 2) for seed in (0, 1))
    assert not torch.equal(one.mean, two.mean)


def test_the_vae_encodes_less(scene, tiny_sd, monkeypatch):
    encoded = []
    real = Inpainter.posterior
    monkeypatch.setattr(Inpainter, "posterior", lambda self, x: encoded.append(len(x)) or real(self, x))

    def count(**changes):
        encoded.clear()
        fit(scene, FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 8, **changes}), progress=False)
        return sum(encoded)

    assert count() == 8 * 2 * 2  # steps, crops, the image and what is shown of it
    assert count(bank_size=4, bank_uses=4) == 4 * 2


def test_latents_are_drawn_afresh_at_each_use(tiny_sd, monkeypatch):
    from test_training import make_trainer

    trainer = make_trainer(tiny_sd, bank_size=2, bank_uses=4, num_steps=4)
    noisy = []
    real = Inpainter.diffuse

    def watch(self, latents, noise, quantiles):
        noisy.append((latents.clone(), quantiles.clone()))
        return real(self, latents, noise, quantiles)

    monkeypatch.setattr(Inpainter, "diffuse", watch)
    for _ in range(4):
        trainer.train_step(PHOTOS)
    crops = torch.cat([latents for latents, _ in noisy])
    assert len({row.numpy().tobytes() for row in crops}) == 8  # two crops, four times each
    assert len({float(q) for _, quantiles in noisy for q in quantiles}) == 8


def test_a_fit_with_a_bank_learns_as_one_without(scene, tiny_sd):
    config = {**TINY_FIT, "num_steps": 40, "batch_size": 8, "learning_rate": 3e-3, "trainable": "all"}
    losses = fit(
        scene, FitConfig(base=tiny_sd, **config, lora_targets=("*",), bank_size=64), progress=False
    ).losses  # fmt: skip
    assert np.mean(losses[-10:]) < 0.98 * np.mean(losses[:10])


def test_the_bank_holds_whole_batches(tiny_sd):
    bank = make_bank(tiny_sd, bank_size=3, bank_uses=1)
    assert len({row for step in range(2) for row in rows(bank.take(PHOTOS, step, 2))}) == 4


def test_crops_that_are_drawn_ahead_are_the_same(tiny_sd, monkeypatch):
    now = make_bank(tiny_sd)
    monkeypatch.setattr(realfill.fitting.bank, "threads_for", lambda _: 2)
    ahead = make_bank(tiny_sd, num_steps=12)
    for step in (0, 1, 4, 9, 11):
        assert rows(now.take(PHOTOS, step, 2)) == rows(ahead.take(PHOTOS, step, 2))
    assert not ahead._loader._coming  # there are no further groups in these steps
