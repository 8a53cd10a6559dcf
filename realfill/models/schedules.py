"""Noise schedules: the one that a base was trained on, and samplers for it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

from realfill.config import Scheduler


class _TemperedDDPM(DDPMScheduler):
    """DDPM whose added noise has ``temperature`` times its standard deviation."""

    temperature = 1.0

    def _get_variance(self, t: Any, predicted_variance: Any = None, variance_type: Any = None) -> Any:
        return self.temperature**2 * super()._get_variance(t, predicted_variance, variance_type)


_DPM = {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}
_SCHEDULERS: dict[Scheduler, tuple[Any, dict[str, Any]]] = {
    "ddpm": (_TemperedDDPM, {"clip_sample": False, "variance_type": "fixed_small"}),
    # first-order DPM-Solver++ is DDIM; diffusers' own DDIM misses timesteps where their number doesn't divide 1000
    "ddim": (DPMSolverMultistepScheduler, {**_DPM, "solver_order": 1}),
    "dpm++": (DPMSolverMultistepScheduler, _DPM),
    "unipc": (UniPCMultistepScheduler, {"final_sigmas_type": "zero"}),
    "euler": (EulerDiscreteScheduler, {"final_sigmas_type": "zero"}),
}
_LEAST_NOISE = 0.02  # variance below which a predicted latent's error isn't weighted up further


def training_schedule(schedule: Any) -> DDPMScheduler:
    """Turn whatever sampler a base's files name into the noise schedule that it was trained on."""
    if isinstance(schedule, DDPMScheduler):
        return schedule
    return DDPMScheduler.from_config(schedule.config, clip_sample=False)  # type: ignore[return-value]


def diffuse(
    schedule: Any, latents: torch.Tensor, noise: torch.Tensor, quantiles: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add noise for a training step; the others as for ``Inpainter.diffuse``."""
    steps = schedule.config.num_train_timesteps
    timesteps = (quantiles * steps).long().clamp(0, steps - 1).to(latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    kind = schedule.config.prediction_type
    counts = torch.ones(len(latents), 1, 1, 1, device=latents.device)
    if kind == "v_prediction":
        return noisy, timesteps, schedule.get_velocity(latents, noise, timesteps), counts
    if kind == "sample":
        variance = 1 - schedule.alphas_cumprod.to(latents.device)[timesteps]
        return noisy, timesteps, latents, counts / variance.clamp(min=_LEAST_NOISE).view_as(counts)
    return noisy, timesteps, noise, counts


def make_scheduler(
    schedule: Any,
    name: Scheduler,
    num_inference_steps: int,
    *,
    temperature: float,
    strength: float,
) -> Any:
    """Build a sampler for a base's noise schedule; the others as for ``Inpainter.make_scheduler``."""
    kind, options = _SCHEDULERS[name]
    config = dict(schedule.config)
    for key in ("clip_sample", "thresholding", "skip_prk_steps"):
        config.pop(key, None)
    if config.get("rescale_betas_zero_snr"):
        options = {**options, "timestep_spacing": "trailing"}
    scheduler = kind.from_config(config, **options)
    if name == "ddpm":
        scheduler.temperature = temperature
    total = round(num_inference_steps / strength)
    scheduler.set_timesteps(total)  # on the CPU: samplers look them up, and a GPU would be waited for
    if total > num_inference_steps and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(total - num_inference_steps)  # as diffusers' image-to-image pipelines do
    return scheduler


def add_noise(
    scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor | None
) -> torch.Tensor:
    """Bring clean latents to the noise level that a sampler has reached.

    Args:
        scheduler: a sampler, as ``make_scheduler`` builds it.
        latents: (B, C, h, w).
        noise: the same shape, standard normal.
        timestep: the one it takes next; ``None``: it has taken all, and no noise is left.
    """
    if timestep is None:
        return latents
    return scheduler.add_noise(latents, noise, timestep.expand(len(latents)))
