"""The losses of a training on photos that it does not learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from realfill.training.crops import Crops, Noising, draw_noising, step_rng
from realfill.training.loop import predict, summed_loss
from realfill.training.objective import Latents, encode_crops
from realfill.training.trainer import Trainer


@torch.no_grad()
def validation_loss(trainer: Trainer, crops: Crops, seed: int) -> float:
    """Compute the mean loss of crops with noise that depends on the seed alone; the model is not changed.

    Losses between images do not count, so that the result is comparable with that of other recipes.

    Args:
        trainer: the state of the fit. Its LoRA layers have no dropout.
        crops: the crops, which share nothing with those that are trained on.
        seed: seed of noise and noise levels.
    """
    latents, noising = _draw_validation(trainer, crops, seed)
    total = torch.zeros((), device=trainer.inpainter.device)
    for piece in _pieces(trainer, len(crops)):
        total += summed_loss(trainer, latents[piece], noising[piece], latents.weights[piece])
    return float(total / (latents.weights.sum().clamp(min=1) * latents.mean.shape[1]))


@torch.no_grad()
def combiner_error(trainer: Trainer, crops: Crops, seed: int) -> float | None:
    """Compute which share of the error of enlarged predictions the combiner leaves; 1 if it changes nothing.

    The noise and the crops are those of ``validation_loss``. The result is ``None`` if the recipe has no combiner.
    """
    structure = trainer.structure
    if structure is None or structure.combiner is None:
        return None
    latents, noising = _draw_validation(trainer, crops, seed)
    errors = torch.zeros(2, device=trainer.inpainter.device)
    for piece in _pieces(trainer, len(crops)):
        noisy_latents, timesteps, _, _, model_pred = predict(trainer, latents[piece], noising[piece])
        errors += structure.combiner_errors(trainer.inpainter, latents[piece], noisy_latents, timesteps, model_pred)
    return float(errors[0] / errors[1].clamp(min=1e-9))


def _draw_validation(trainer: Trainer, crops: Crops, seed: int) -> tuple[Latents, Noising]:
    """Encode crops, and draw noise and noise levels that depend on the seed alone."""
    settings = dataclasses.replace(
        trainer.settings, batch_size=len(crops), gradient_accumulation_steps=1, prompt_dropout=0.0, noise_bias=1.0
    )
    with trainer.accelerator.autocast():
        latents = encode_crops(trainer.inpainter, crops, settings.visible_weight, trainer.piece_size)
    num_channels, height, width = latents.mean.shape[1:]
    noising = draw_noising(settings, (num_channels, height, width), *step_rng(seed, 0))
    return latents, noising.to(trainer.inpainter.device)


def _pieces(trainer: Trainer, length: int) -> Iterator[slice]:
    """Divide rows into pieces that the device can compute at a time."""
    return (slice(first, first + trainer.piece_size) for first in range(0, length, trainer.piece_size))
