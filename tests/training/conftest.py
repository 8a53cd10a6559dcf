"""Fixtures of the training tests."""

import numpy as np
import pytest
import torch
from helpers import TINY_FIT

from realfill import AdaptConfig, FitConfig
from realfill.compute.devices import make_accelerator
from realfill.models.diffusion.lora import trainable_lora
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.crops import Crops
from realfill.training.loop import train
from realfill.training.structure import StructureTraining
from realfill.training.trainer import Trainer


@pytest.fixture
def make_trainer(tiny_sd):
    """A function that sets up a fit of the tiny base on the CPU; its keywords change ``FitConfig``."""

    def make(base=tiny_sd, dtype=torch.float32, **changes):
        settings = FitConfig(base=base, **{**TINY_FIT, **changes}).resolve({})
        inpainter = StableDiffusionInpainter.load(base).to(torch.device("cpu"), dtype)
        accelerator = make_accelerator(torch.device("cpu"), settings.mixed_precision)
        return Trainer(inpainter, trainable_lora(inpainter, settings), settings, accelerator)

    return make


@pytest.fixture
def train_steps():
    """A function that runs some steps of the training loop."""

    def run(trainer, photos, num_steps=1):
        last = trainer.step + num_steps
        train(trainer, photos, on_step=lambda report: report.step < last, progress=False)

    return run


@pytest.fixture(scope="session")
def four_crops():
    """Crops of two categories, in three stages."""
    rng = np.random.default_rng(0)
    hidden = np.zeros((4, 32, 32), bool)
    hidden[:, 8:24, 8:20] = True
    known = np.ones_like(hidden)
    return Crops(
        images=rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8), known=known, learnt=known, hidden=hidden,
        references=np.full(4, -1), categories=np.array([0, 1, 0, 1]), stages=np.array([0, 1, 2, 0]),
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_structured(tiny_sd, four_crops):
    """A function that sets up the training of a structure recipe on the same four crops."""

    def trainer_of(**changes):
        settings = AdaptConfig(base=tiny_sd, batch_size=4, mixed_precision="no", **changes).resolve({})
        fit = settings.fit_settings(1, {})
        inpainter = StableDiffusionInpainter.load(tiny_sd).to(torch.device("cpu"), torch.float32)
        trainable = trainable_lora(inpainter, fit)
        structure = StructureTraining.prepare(inpainter, settings)
        accelerator = make_accelerator(torch.device("cpu"), "no")
        return Trainer(
            inpainter, structure.added_to(trainable), fit, accelerator, draw_batch=lambda *_: four_crops,
            structure=structure,
        )  # fmt: skip

    return trainer_of
