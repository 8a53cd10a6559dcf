"""Fixtures of the training tests."""

import pytest
import torch
from helpers import TINY_FIT

from realfill import FitConfig
from realfill.compute.devices import make_accelerator
from realfill.models.diffusion.lora import trainable_lora
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.loop import train
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
