"""The losses of a training on photos that it does not learn from."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch

from realfill.training.crops import Crops, Noising, draw_noising, step_rng
from realfill.training.loop import predict
from realfill.training.objective import Latents, encode_crops
from realfill.training.trainer import Trainer


class ValidationLosses(NamedTuple):
    """The losses of a state of the training.

    Attributes:
        loss: the mean loss of the noise. Losses between images do not count, so that it is comparable with that of
            other recipes.
        combiner_error: the share of the error of enlarged predictions that the combiner leaves, 1 if it changes
            nothing; ``None`` if the recipe has no combiner.
    """

    loss: float
    combiner_error: float | None


@torch.no_grad()
def validate(trainer: Trainer, crops: Crops, seed: int) -> ValidationLosses:
    """Compute the losses of crops with noise that depends on the seed alone; the model is not changed.

    Args:
        trainer: the state of the fit. Its LoRA layers have no dropout.
        crops: the crops, which share nothing with those that are trained on.
        seed: seed of noise and noise levels.
    """
    latents, noising = _draw_validation(trainer, crops, seed)
    structure, device = trainer.structure, trainer.inpainter.device
    has_combiner = structure is not None and structure.combiner is not None
    total, of_combiner = torch.zeros((), device=device), torch.zeros(2, device=device)
    for first in range(0, len(crops), trainer.piece_size):
        piece = slice(first, first + trainer.piece_size)
        prediction = predict(trainer, latents[piece], noising[piece])
        total += prediction.errors(latents.weights[piece]).sum()
        if structure is not None and has_combiner:
            of_combiner += structure.combiner_errors(
                trainer.inpainter, latents[piece], prediction.noisy_latents, prediction.timesteps, prediction.model_pred
            )
    return ValidationLosses(
        loss=float(total / (latents.weights.sum().clamp(min=1) * latents.mean.shape[1])),
        combiner_error=float(of_combiner[0] / of_combiner[1].clamp(min=1e-9)) if has_combiner else None,
    )


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
