"""A straight port of what public scripts do per step, to be compared with.

Fit: image and masked image are encoded separately for each crop of each step, the text encoder runs on every row, and
autocast computes over single-precision weights. Sampling: one seed at a time in single precision, the prompt and the
masked image encoded for each. Ranking: pair by pair, both images read anew for each pair. Everything runs eagerly, on
weights as their files hold them and LoRA layers as peft computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from realfill.config import FitConfig, SampleConfig
from realfill.devices import DTYPES
from realfill.filling.sampling import sample
from realfill.fitting.batches import TrainingImage, draw_crops, draw_noising, step_rng
from realfill.io.images import ImageArray
from realfill.models.adapter import Trainable
from realfill.models.inpainter import Inpainter
from realfill.models.matcher import Matcher, Matches


def load_plainly(base: str, device: torch.device) -> Inpainter:
    """Load a base in single precision, its convolutions' weights laid out as in the files."""
    inpainter = Inpainter.load(base).to(device, torch.float32)
    for part in (inpainter.unet, inpainter.pipeline.vae):
        part.to(memory_format=torch.contiguous_format)
    return inpainter


class PortedFit:
    """The training loop of a public script, step by step, on the same model and the same crops."""

    def __init__(self, inpainter: Inpainter, trainable: Trainable, config: FitConfig) -> None:
        """Set up.

        Args:
            inpainter: as ``load_plainly`` gives it.
            trainable: what changes in it.
            config: resolved.
        """
        self._inpainter, self._config = inpainter, config
        self._parameters = [p for _, p in trainable.parameters()]
        inpainter.unet.train()
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda _: 1.0)
        self._scaler = torch.amp.GradScaler(inpainter.device.type, enabled=config.mixed_precision == "fp16")
        self._step = 0

    def train_step(self, photos: Sequence[TrainingImage]) -> float:
        """Make one optimizer step; returns the loss."""
        config, inpainter = self._config, self._inpainter
        device, parts = inpainter.device, inpainter.pipeline
        rng, generator = step_rng(config.seed, self._step)
        side = inpainter.resolution
        crops = draw_crops(photos, config, side, config.batch_size, rng)
        noising = draw_noising(config, inpainter.latent_shape((side, side)), rng, generator)
        images = torch.from_numpy(crops.images).to(device).permute(0, 3, 1, 2) / 127.5 - 1
        hidden, learnt = (torch.from_numpy(mask[:, None]).to(device) for mask in (crops.hidden, crops.learnt))
        dtype = DTYPES[config.mixed_precision or "no"]
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            with torch.no_grad():
                latents = parts.vae.encode(images).latent_dist.sample() * parts.vae.config.scaling_factor
                masked = parts.vae.encode(images.masked_fill(hidden, 0)).latent_dist.sample()
                masked = masked * parts.vae.config.scaling_factor
            mask = F.interpolate(hidden.float(), size=latents.shape[-2:])
            noise = torch.randn_like(latents)
            noisy, timesteps, wanted, _ = inpainter.diffuse(latents, noise, noising.quantiles.to(device))
            states = inpainter.embed([config.prompt if prompted else "" for prompted in noising.prompted.tolist()])
            inputs = torch.cat([noisy, mask, masked], dim=1)
            guess = parts.unet(inputs, timesteps, encoder_hidden_states=states).sample
            weights = F.interpolate(learnt.float(), size=latents.shape[-2:])
            loss = (F.mse_loss(guess.float(), wanted.float(), reduction="none") * weights).mean()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, config.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._step += 1
        return loss.item()


def sample_one_by_one(
    inpainter: Inpainter, image: torch.Tensor, hole: torch.Tensor, seeds: Sequence[int], config: SampleConfig
) -> torch.Tensor:
    """Sample seeds as so many calls of a pipeline; arguments as of ``realfill.filling.sampling.sample``."""
    return torch.cat([sample(inpainter, image, hole, seeds=[seed], config=config) for seed in seeds])


def match_pair_by_pair(
    matcher: Matcher, references: Sequence[ImageArray], images: Sequence[ImageArray]
) -> list[Matches]:
    """Match each image with each reference as if no other pair were there."""
    return [
        matcher.match(matcher.extract(reference), matcher.extract(image))
        for image in images
        for reference in references
    ]
