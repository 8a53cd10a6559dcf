"""Noise schedules: the one that a base model was trained on, and samplers for it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

from realfill.config import Scheduler

_DPM = {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}
_SCHEDULERS: dict[Scheduler, tuple[Any, dict[str, Any]]] = {
    "ddpm": (DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_small"}),
    # first-order DPM-Solver++ is DDIM; diffusers' own DDIM skips timesteps unless their number divides 1000
    "ddim": (DPMSolverMultistepScheduler, {**_DPM, "solver_order": 1}),
    "dpm++": (DPMSolverMultistepScheduler, _DPM),
    "unipc": (UniPCMultistepScheduler, {"final_sigmas_type": "zero"}),
    "euler": (EulerDiscreteScheduler, {"final_sigmas_type": "zero"}),
}
_LEAST_SIGNAL = 1e-3  # below which an estimate from predicted noise is not enlarged further
_LEAST_NOISE = 0.02  # variance of the noise below which the weight of a latent's error stays constant


def training_schedule(schedule: Any) -> DDPMScheduler:
    """Return the noise schedule that a base model was trained on, whichever sampler its files name."""
    if isinstance(schedule, DDPMScheduler):
        return schedule
    return DDPMScheduler.from_config(schedule.config, clip_sample=False)  # type: ignore[return-value]


def diffuse(
    schedule: Any, latents: torch.Tensor, noise: torch.Tensor, quantiles: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add noise for a training step, see ``DiffusionFamily.diffuse``."""
    num_timesteps = schedule.config.num_train_timesteps
    timesteps = (quantiles * num_timesteps).long().clamp(0, num_timesteps - 1).to(latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    prediction_type = schedule.config.prediction_type
    weights = torch.ones(len(latents), 1, 1, 1, device=latents.device)
    if prediction_type == "v_prediction":
        return noisy, timesteps, schedule.get_velocity(latents, noise, timesteps), weights
    if prediction_type == "sample":
        variance = 1 - schedule.alphas_cumprod.to(latents.device)[timesteps]
        return noisy, timesteps, latents, weights / variance.clamp(min=_LEAST_NOISE).view_as(weights)
    return noisy, timesteps, noise, weights


def estimate_clean(
    schedule: Any, noisy: torch.Tensor, timesteps: torch.Tensor, model_pred: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimate clean latents, see ``DiffusionFamily.estimate_clean``; the signal is the root of alpha bar."""
    squares = schedule.alphas_cumprod.to(noisy.device)[timesteps]
    signal, noise = squares.sqrt().view(-1, 1, 1, 1), (1 - squares).sqrt().view(-1, 1, 1, 1)
    prediction_type = schedule.config.prediction_type
    if prediction_type == "sample":
        return model_pred, squares.sqrt()
    if prediction_type == "v_prediction":
        return signal * noisy - noise * model_pred, squares.sqrt()
    return (noisy - noise * model_pred) / signal.clamp(min=_LEAST_SIGNAL), squares.sqrt()


def make_scheduler(schedule: Any, name: Scheduler, num_inference_steps: int, *, strength: float) -> Any:
    """Build a sampler for a noise schedule, see ``DiffusionFamily.make_scheduler``."""
    kind, options = _SCHEDULERS[name]
    config = dict(schedule.config)
    for key in ("clip_sample", "thresholding", "skip_prk_steps"):
        config.pop(key, None)
    if config.get("rescale_betas_zero_snr"):
        options = {**options, "timestep_spacing": "trailing"}
    scheduler = kind.from_config(config, **options)
    total = round(num_inference_steps / strength)
    scheduler.set_timesteps(total)  # on the CPU, because samplers read them, and reading from a GPU waits for it
    if total > num_inference_steps and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(total - num_inference_steps)  # as diffusers' image-to-image pipelines do
    return scheduler


def add_noise(
    scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor | None
) -> torch.Tensor:
    """Add the noise of a sampler's current noise level to clean latents.

    Args:
        scheduler: a sampler from ``make_scheduler``.
        latents: (B, C, h, w).
        noise: (B, C, h, w), standard normal.
        timestep: next timestep of the sampler. ``None``: the sampler is done, and no noise is left.
    """
    if timestep is None:
        return latents
    return scheduler.add_noise(latents, noise, timestep.expand(len(latents)))
