"""Sampling: one sample per seed for one window, the same whatever batch it was drawn in (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from realfill.capacity import FREE_SHARE, free_bytes, is_out_of_memory, peak_bytes
from realfill.config import Scheduler
from realfill.models.inpainter import Inpainter


@torch.no_grad()
def sample(
    inpainter: Inpainter,
    image: torch.Tensor,
    hole: torch.Tensor,
    *,
    seeds: Sequence[int],
    scheduler: Scheduler,
    num_inference_steps: int,
    temperature: float = 1.0,
    guidance_scale: float = 1.0,
    prompt: str = "",
    negative_prompt: str = "",
    on_step: Callable[[], object] | None = None,
) -> torch.Tensor:
    """Fill the hole of a window, once for each seed, all in one batch.

    Each seed has a generator of its own, on the CPU: a sample's noise depends on neither batch nor device.

    Args:
        inpainter: the base model, with the adapter in it.
        image: (1, 3, H, W) in [0, 1]; H and W multiples of ``inpainter.latent_px``. Not read under the hole.
        hole: (1, 1, H, W) bool, True = fill.
        seeds: N of them.
        scheduler: by name.
        num_inference_steps: denoising steps.
        temperature: factor on the noise that ``ddpm`` adds.
        guidance_scale: classifier-free guidance; at 1 the negative prompt isn't looked at.
        prompt: what to sample with.
        negative_prompt: what guidance leads away from.
        on_step: called after each denoising step.

    Returns:
        (N, 3, H, W) in [0, 1], float32, on the inpainter's device. Outside the hole, too, it is the model's.
    """
    steps = inpainter.make_scheduler(scheduler, num_inference_steps, temperature=temperature)
    condition = inpainter.condition(image, hole)
    shape = (1, *inpainter.latent_shape((image.shape[-2], image.shape[-1])))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    latents = torch.cat([torch.randn(shape, generator=g) for g in generators]).to(inpainter.device)
    latents = latents * steps.init_noise_sigma
    guided = guidance_scale != 1
    embeddings = inpainter.embed([prompt, negative_prompt] if guided else [prompt])
    embeddings = embeddings.repeat_interleave(len(seeds), dim=0)
    conditions = condition.expand(len(embeddings), -1, -1, -1)
    stochastic = {"generator": generators} if scheduler == "ddpm" else {}
    for timestep in steps.timesteps:
        inputs = steps.scale_model_input(latents, timestep)
        inputs = torch.cat([inputs, inputs]) if guided else inputs
        guess = inpainter.predict(inputs, timestep.expand(len(inputs)), conditions, embeddings)
        if guided:
            guess, unwanted = guess.chunk(2)
            guess = unwanted + guidance_scale * (guess - unwanted)
        latents = steps.step(guess, timestep, latents, **stochastic).prev_sample
        if on_step is not None:
            on_step()
    return inpainter.decode(latents)


@torch.no_grad()
def largest_batch(inpainter: Inpainter, size: tuple[int, int], *, guided: bool) -> int:
    """Find how many seeds can be sampled at a time: what is free over what one seed takes.

    What a seed takes is measured on one pass of the U-Net; decoding goes image by image and doesn't count.

    Args:
        inpainter: on its device.
        size: (height, width) of the window.
        guided: whether guidance runs the U-Net twice for each seed.
    """
    rows = 1 + guided
    channels, height, width = inpainter.latent_shape(size)
    latents = torch.zeros(rows, channels, height, width, device=inpainter.device)
    condition = torch.zeros(rows, channels + 1, height, width, device=inpainter.device)
    timesteps = torch.zeros(rows, dtype=torch.long, device=inpainter.device)
    embeddings = inpainter.embed([""] * rows)
    free = free_bytes(inpainter.device)
    try:
        _, taken = peak_bytes(lambda: inpainter.predict(latents, timesteps, condition, embeddings), inpainter.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 1
    return max(1, int(FREE_SHARE * free / taken))
