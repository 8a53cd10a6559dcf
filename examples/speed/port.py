"""A port of what public scripts do in each step, for comparison.

Fit: image and masked image are encoded separately for each crop of each step, the text encoder runs on every row, and
autocast works on single-precision weights. Sampling: one seed at a time in single precision, with the prompt and the
masked image encoded for each. Ranking: pair by pair, with the features of both images computed for each pair. Nothing
is compiled, weights keep the memory layout of their files, and LoRA layers are peft's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from realfill.compute.devices import DTYPES
from realfill.config import FitSettings, SampleSettings
from realfill.geometry.matching import Matcher, Matches
from realfill.io.images import ImageArray
from realfill.models.diffusion.lora import Trainable
from realfill.models.diffusion.sampling import sample
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.crops import TrainingImage, draw_crops, draw_noising, step_rng


def load_plainly(base: str, device: torch.device) -> StableDiffusionInpainter:
    """Load a base model in single precision, with the memory layout of its files."""
    inpainter = StableDiffusionInpainter.load(base).to(device, torch.float32)
    for part in (inpainter.unet, inpainter.pipeline.vae):
        part.to(memory_format=torch.contiguous_format)
    return inpainter


class PortedFit:
    """The training loop of a public script, on the same model and the same crops."""

    def __init__(self, inpainter: StableDiffusionInpainter, trainable: Trainable, settings: FitSettings) -> None:
        """Build the optimizer.

        Args:
            inpainter: the result of ``load_plainly``.
            trainable: its trainable parameters.
            settings: the recipe.
        """
        self._inpainter, self._settings = inpainter, settings
        self._parameters = [p for _, p in trainable.parameters()]
        inpainter.unet.train()
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            betas=(0.9, settings.adam_beta2),
            weight_decay=settings.weight_decay,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda _: 1.0)
        self._scaler = torch.amp.GradScaler(inpainter.device.type, enabled=settings.mixed_precision == "fp16")
        self._step = 0

    def train_step(self, photos: Sequence[TrainingImage]) -> float:
        """Do one optimizer step and return the loss."""
        settings, inpainter = self._settings, self._inpainter
        device, parts = inpainter.device, inpainter.pipeline
        rng, generator = step_rng(settings.seed, self._step)
        side = inpainter.resolution
        crops = draw_crops(photos, settings, side, settings.batch_size, rng)
        noising = draw_noising(settings, inpainter.latent_shape((side, side)), rng, generator)
        images = torch.from_numpy(crops.images).to(device).permute(0, 3, 1, 2) / 127.5 - 1
        hidden, learnt = (torch.from_numpy(mask[:, None]).to(device) for mask in (crops.hidden, crops.learnt))
        dtype = DTYPES[settings.mixed_precision or "no"]
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            with torch.no_grad():
                latents = parts.vae.encode(images).latent_dist.sample() * parts.vae.config.scaling_factor
                masked = parts.vae.encode(images.masked_fill(hidden, 0)).latent_dist.sample()
                masked = masked * parts.vae.config.scaling_factor
            mask = F.interpolate(hidden.float(), size=latents.shape[-2:])
            noise = torch.randn_like(latents)
            noisy, timesteps, target, _ = inpainter.diffuse(latents, noise, noising.quantiles.to(device))
            states = inpainter.encode_prompt(
                [settings.prompt if prompted else "" for prompted in noising.prompted.tolist()]
            )
            inputs = torch.cat([noisy, mask, masked], dim=1)
            model_pred = parts.unet(inputs, timesteps, encoder_hidden_states=states).sample
            weights = F.interpolate(learnt.float(), size=latents.shape[-2:])
            loss = (F.mse_loss(model_pred.float(), target.float(), reduction="none") * weights).mean()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, settings.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._step += 1
        return loss.item()


def sample_one_by_one(
    inpainter: StableDiffusionInpainter,
    image: torch.Tensor,
    hole: torch.Tensor,
    seeds: Sequence[int],
    settings: SampleSettings,
) -> torch.Tensor:
    """Sample each seed in a call of its own; the arguments are those of ``sampling.sample``."""
    return torch.cat([sample(inpainter, image, hole, seeds=[seed], settings=settings) for seed in seeds])


def match_pair_by_pair(
    matcher: Matcher, references: Sequence[ImageArray], images: Sequence[ImageArray]
) -> list[Matches]:
    """Match each image with each reference, without sharing anything between pairs."""
    return [
        matcher.match(matcher.extract(reference), matcher.extract(image))
        for image in images
        for reference in references
    ]
