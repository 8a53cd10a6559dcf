"""Denoising: encoded crops, and the loss on what is known of them (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from realfill.devices import send
from realfill.fitting.batches import Crops, Noising
from realfill.masks import fill_smooth
from realfill.models.inpainter import Inpainter


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latents:
    """Encoded crops, float32 on the inpainter's device.

    Attributes:
        mean: (B, C, h, w) of the VAE's posterior, scaled for the U-Net.
        std: (B, C, h, w) of it, scaled likewise.
        condition: (B, C + 1, h, w): what the model is told of the known pixels.
        weights: (B, 1, h, w): how much each latent counts in the loss.
    """

    mean: torch.Tensor
    std: torch.Tensor
    condition: torch.Tensor
    weights: torch.Tensor

    def __getitem__(self, rows: slice | torch.Tensor) -> Latents:
        return Latents(**{name: getattr(self, name)[rows] for name in Latents.__slots__})


def loss_weights(
    inpainter: Inpainter, learnt: torch.Tensor, hidden: torch.Tensor, visible_weight: float
) -> torch.Tensor:
    """Weigh each latent: 0 unless all of its pixels count, 1 where the model isn't shown it, else ``visible_weight``.

    Args:
        inpainter: whose latents.
        learnt: (B, 1, H, W) bool: the pixels that count.
        hidden: (B, 1, H, W) bool: the pixels that the model isn't shown.
        visible_weight: as in the config.

    Returns:
        (B, 1, h, w) float32.
    """
    shown = inpainter.known_latents(~hidden)
    return inpainter.known_latents(learnt) * torch.where(shown, visible_weight, 1.0)


def encode_crops(inpainter: Inpainter, crops: Crops, visible_weight: float, num_at_a_time: int) -> Latents:
    """Encode crops and what is shown of them.

    Args:
        inpainter: the base model.
        crops: as they were drawn.
        visible_weight: as in the config.
        num_at_a_time: crops to encode together.
    """
    parts = [
        _encode(inpainter, crops[i : i + num_at_a_time], visible_weight) for i in range(0, len(crops), num_at_a_time)
    ]
    return Latents(**{name: torch.cat([getattr(part, name) for part in parts]) for name in Latents.__slots__})


def _encode(inpainter: Inpainter, crops: Crops, visible_weight: float) -> Latents:
    known, learnt, hidden = (
        send(torch.from_numpy(mask[:, None]), inpainter.device) for mask in (crops.known, crops.learnt, crops.hidden)
    )
    pixels = send(torch.from_numpy(crops.images), inpainter.device)
    images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255
    incomplete = np.flatnonzero(~crops.known.all(axis=(1, 2)))
    if incomplete.size:
        rows = send(torch.from_numpy(incomplete), inpainter.device)
        images[rows] = fill_smooth(images[rows], ~known[rows])
    mean, std = inpainter.posterior(images)
    return Latents(
        mean=mean,
        std=std,
        condition=inpainter.condition(images, hidden),
        weights=loss_weights(inpainter, learnt, hidden, visible_weight),
    )


def denoising_loss(
    inpainter: Inpainter,
    latents: Latents,
    weights: torch.Tensor,
    noising: Noising,
    predict: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """Sum the weighted squared errors of the prediction over a batch (paper, equation 3).

    Args:
        inpainter: the base model.
        latents: B encoded crops.
        weights: (B, 1, h, w).
        noising: the noise for each, and whether it comes with the prompt.
        predict: (noisy, timesteps, condition, prompted) to the model's prediction.

    Returns:
        A scalar; divide it by the sum of the weights times the channels for the mean.
    """
    noise, quantiles, prompted = (
        send(x, inpainter.device) for x in (noising.noise, noising.quantiles, noising.prompted)
    )
    noisy, timesteps, wanted, counts = inpainter.diffuse(latents.mean + latents.std * noise[0], noise[1], quantiles)
    guess = predict(noisy, timesteps, latents.condition, prompted)
    return ((guess - wanted) ** 2 * counts * weights).sum()


class Denoiser(nn.Module):
    """The parts of the model as one module, for accelerate to wrap."""

    def __init__(self, inpainter: Inpainter, prompt: str) -> None:
        """Wrap them, to be asked with a prompt and without."""
        super().__init__()
        self.parts = nn.ModuleDict(inpainter.parts)
        self._inpainter, self._prompts = inpainter, (prompt, "")
        self._learns_text = any(p.requires_grad for p in inpainter.text_encoder.parameters())
        self._fixed: torch.Tensor | None = None

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor, prompted: torch.Tensor
    ) -> torch.Tensor:
        """Predict; ``prompted`` (B,) bool, the others as for ``Inpainter.predict``."""
        embeddings = self._embed()[(~prompted).long()]
        return self._inpainter.predict(noisy, timesteps, condition, embeddings)

    def _embed(self) -> torch.Tensor:
        """Encode the two prompts, but once only where that gives the same each time."""
        if self._learns_text:
            return self._inpainter.embed(self._prompts)
        if self._fixed is None:
            self._fixed = self._inpainter.embed(self._prompts)
        return self._fixed
