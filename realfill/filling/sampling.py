"""Sampling: one sample per seed for one window, the same whatever batch it was drawn in (paper, section 3.3).

A window of the base's own resolution is denoised whole, from noise. A larger one is refined: it starts from an image,
part of the way down the noise schedule, and is denoised in overlapping tiles whose predictions are averaged at every
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from realfill.capacity import FREE_SHARE, MAX_BATCH_ON_CPU, free_bytes, is_out_of_memory, peak_bytes
from realfill.config import SampleConfig
from realfill.devices import send
from realfill.filling.tiles import Tiles
from realfill.io.bands import bands
from realfill.io.images import to_shares
from realfill.models.inpainter import Inpainter
from realfill.models.schedules import add_noise


@torch.no_grad()
def sample(
    inpainter: Inpainter,
    image: torch.Tensor,
    hole: torch.Tensor,
    *,
    seeds: Sequence[int],
    config: SampleConfig,
    stage: int = 0,
    start: torch.Tensor | None = None,
    batch_size: int | None = None,
    on_step: Callable[[], object] | None = None,
) -> torch.Tensor:
    """Fill the hole of a window, once for each seed.

    Each seed has a generator of its own, on the CPU: a sample's noise depends on neither batch nor device.

    Args:
        inpainter: the base model, with the adapter in it.
        image: (1, 3, H, W), uint8 or in [0, 1]; H and W multiples of ``inpainter.latent_px``. Not read under the hole.
        hole: (1, 1, H, W) bool, True = fill.
        seeds: N of them.
        config: resolved. What guidance leads away from by ``guidance_from="base"`` is what ``inpainter.unfitted``
            predicts; without that it is nothing.
        stage: whose steps, guidance and strength are taken.
        start: (N, 3, H, W), uint8 or in [0, 1], in the hole too: what a later stage refines, its ``strength`` up the
            noise schedule (SDEdit, Meng et al. 2022), in tiles of the base's resolution. Known latents follow it at
            every noise level, and tiles without a hole are left out. ``None``: from noise, the window at once.
        batch_size: windows or tiles that the U-Net sees at a time; ``None``: all.
        on_step: called after each denoising step.

    Returns:
        (N, 3, H, W) in [0, 1], float32, on the inpainter's device. Outside the hole, too, it is the model's, but where
        no tile is.
    """
    num_inference_steps, guidance_scale, strength = config.stage(stage)
    strength = 1.0 if start is None else strength
    steps = inpainter.make_scheduler(
        config.scheduler, num_inference_steps, temperature=config.temperature, strength=strength
    )
    timesteps = steps.timesteps[-num_inference_steps:]
    shape = inpainter.latent_shape((image.shape[-2], image.shape[-1]))
    canvas = shape[1:]
    known = None
    if start is None:
        tiles = Tiles.cover(canvas, max(canvas), 0)
    else:
        known = inpainter.known_latents(~hole.to(inpainter.device))
        tiles = lay_tiles(inpainter, hole, config)
    pixels = tiles.times(inpainter.latent_px)
    condition = torch.cat([inpainter.condition(i, h) for i, h in zip(pixels.cut(image), pixels.cut(hole), strict=True)])
    prompts = [config.prompt or ""]
    wanted = _Branch(inpainter, inpainter.embed(prompts))
    unwanted = None
    if guidance_scale != 1 and config.guidance_from == "negative_prompt":
        unwanted = _Branch(inpainter, inpainter.embed([config.negative_prompt]))
    elif guidance_scale != 1 and inpainter.unfitted is not None:
        unwanted = _Branch(inpainter.unfitted, inpainter.unfitted.embed(prompts))
    model = _Model(tiles, condition, wanted, unwanted, guidance_scale, batch_size)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.cat([torch.randn((1, *shape), generator=g) for g in generators]).to(inpainter.device)
    stochastic = {"generator": generators} if config.scheduler == "ddpm" else {}
    if start is None:
        origin = None
        latents = noise * steps.init_noise_sigma
    else:
        origin = tiles.merge(inpainter.posterior(piece)[0] for piece in pixels.cut(start))
        latents = add_noise(steps, origin, noise, timesteps[0])
    placed = send(timesteps, inpainter.device)
    for timestep, there, following in zip(timesteps, placed, [*timesteps[1:], None], strict=True):
        guess = model(steps.scale_model_input(latents, timestep), there)
        latents = steps.step(guess, timestep, latents, **stochastic).prev_sample
        if known is not None and origin is not None:
            latents = torch.where(known, add_noise(steps, origin, noise, following), latents)
        if on_step is not None:
            on_step()
    made = pixels.merge(inpainter.decode(piece) for piece in tiles.cut(latents))
    covered = pixels.covered()
    for rows in bands(pixels.canvas):
        torch.where(
            covered[rows].to(made.device), made[..., rows, :], to_shares(image[..., rows, :].to(made.device)),
            out=made[..., rows, :],
        )  # fmt: skip
    return made


def lay_tiles(inpainter: Inpainter, hole: torch.Tensor, config: SampleConfig) -> Tiles:
    """Lay the tiles of a later stage, of the base's resolution, over a window wherever it has a hole: in latents.

    Args:
        inpainter: the base model.
        hole: (1, 1, H, W) bool, True = fill.
        config: resolved.
    """
    unknown = ~inpainter.known_latents(~hole)[0, 0]
    side = inpainter.resolution // inpainter.latent_px
    return Tiles.cover((unknown.shape[0], unknown.shape[1]), side, config.tile_overlap).meeting(unknown)


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """A base that is asked with a prompt, (1, L, D)."""

    inpainter: Inpainter
    embedding: torch.Tensor

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Predict (N, C, h, w) from latents of that shape and (N, C + 1, h, w)."""
        embeddings = self.embedding.repeat_interleave(len(latents), dim=0)
        return self.inpainter.predict(latents, timestep.expand(len(latents)), condition, embeddings)


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """The prediction for a canvas, tile by tile.

    Attributes:
        tiles: of the canvas, in latents.
        condition: (T, C + 1, h, w), of each tile.
        wanted: what predicts.
        unwanted: what guidance leads away from.
        guidance_scale: how far.
        batch_size: tiles at a time; ``None``: all.
    """

    tiles: Tiles
    condition: torch.Tensor
    wanted: _Branch
    unwanted: _Branch | None
    guidance_scale: float
    batch_size: int | None

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Predict (N, C, H, W) from (N, C, H, W): the mean of the tiles' predictions where they overlap."""
        return self.tiles.merge(self._predict(latents, timestep))

    def _predict(self, latents: torch.Tensor, timestep: torch.Tensor) -> Iterator[torch.Tensor]:
        """Predict tile by tile, (N, C, h, w) each; at a time as many, with all seeds of each, as one batch holds."""
        pieces = self.tiles.cut(latents)
        count = self.batch_size or len(pieces) * len(latents)
        num_tiles = max(1, count // len(latents))
        for start in range(0, len(pieces), num_tiles):
            tiles = slice(start, start + num_tiles)
            group = torch.cat(pieces[tiles])  # tile by tile, each with all seeds
            conditions = self.condition[tiles].repeat_interleave(len(latents), dim=0)
            parts = zip(group.split(count), conditions.split(count), strict=True)
            yield from torch.cat([self._guess(*part, timestep) for part in parts]).split(len(latents))

    def _guess(self, latents: torch.Tensor, condition: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        guess = self.wanted(latents, timestep, condition)
        if self.unwanted is None:
            return guess
        unwanted = self.unwanted(latents, timestep, condition)
        return unwanted + self.guidance_scale * (guess - unwanted)


@torch.no_grad()
def largest_batch(inpainter: Inpainter, size: tuple[int, int]) -> int:
    """Find how many seeds can be sampled at a time: what is free over what one seed takes.

    What a seed takes is measured on one pass of the U-Net; decoding goes image by image and doesn't count.

    Args:
        inpainter: on its device.
        size: (height, width) of the window.
    """
    channels, height, width = inpainter.latent_shape(size)
    latents = torch.zeros(1, channels, height, width, device=inpainter.device)
    condition = torch.zeros(1, channels + 1, height, width, device=inpainter.device)
    timesteps = torch.zeros(1, dtype=torch.long, device=inpainter.device)
    embeddings = inpainter.embed([""])
    free = free_bytes(inpainter.device)
    try:
        _, taken = peak_bytes(lambda: inpainter.predict(latents, timesteps, condition, embeddings), inpainter.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 1
    found = max(1, int(FREE_SHARE * free / taken))
    return min(found, MAX_BATCH_ON_CPU) if inpainter.device.type == "cpu" else found
