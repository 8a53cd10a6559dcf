"""Flow matching: the noise schedule of FLUX.2 klein, x_t = (1 - sigma) x + sigma n with the target n - x."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

LEAST_SIGMA = 1e-3  # noise level of the last training timestep


class FlowSampler(FlowMatchEulerDiscreteScheduler):
    """The Euler sampler of a flow, with the methods that sampling expects of any sampler."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the sample unchanged."""
        del timestep
        return sample

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mix latents (B, C, h, w) with noise of that shape at timesteps (B,)."""
        sigmas = (timesteps / self.config["num_train_timesteps"]).to(latents).view(-1, 1, 1, 1)
        return mix(latents, noise, sigmas)


def mix(latents: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Return (1 - sigma) x + sigma n."""
    return (1 - sigmas) * latents + sigmas * noise


def make_flow_sampler(
    schedule: FlowMatchEulerDiscreteScheduler, num_inference_steps: int, *, strength: float, num_latents: int
) -> FlowSampler:
    """Build a sampler whose last ``num_inference_steps`` timesteps cover ``strength`` of the schedule, on the CPU.

    Noise levels are shifted by the number of latents and of steps, as the authors do.

    Args:
        schedule: the scheduler of the base model's files.
        num_inference_steps: number of steps to take.
        strength: share of the schedule, in (0, 1].
        num_latents: latents of the image, height times width.
    """
    sampler: Any = FlowSampler.from_config(schedule.config)
    total = round(num_inference_steps / strength)
    mu = compute_empirical_mu(image_seq_len=num_latents, num_steps=total)
    sampler.set_timesteps(sigmas=np.linspace(1.0, 1 / total, total).tolist(), mu=mu)
    if total > num_inference_steps:
        sampler.set_begin_index(total - num_inference_steps)
    return sampler


def diffuse_flow(
    latents: torch.Tensor, noise: torch.Tensor, quantiles: torch.Tensor, num_timesteps: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add noise for a training step, see ``DiffusionFamily.diffuse``; the noise level is the quantile."""
    sigmas = quantiles.to(latents).clamp(LEAST_SIGMA, 1.0)
    spread = sigmas.view(-1, 1, 1, 1)
    return mix(latents, noise, spread), sigmas * num_timesteps, noise - latents, torch.ones_like(spread)
