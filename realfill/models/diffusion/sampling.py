"""Sampling: one image for each seed in one window, independent of the batch (paper, section 3.3).

A window of the base model's resolution is denoised as a whole, from noise. A larger one is refined: denoising starts
from an image, part of the way down the noise schedule, in overlapping tiles whose predictions are averaged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from realfill.compute.devices import send
from realfill.compute.memory import count_that_fits, peak_bytes
from realfill.compute.progress import Interrupted, OnStep, Progress
from realfill.config import SampleSettings
from realfill.io.bands import bands
from realfill.io.images import to_shares
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.schedules import add_noise
from realfill.models.diffusion.structure import FOREGROUND
from realfill.models.diffusion.tiles import Tiles
from realfill.scene.masks import fill_smooth


@torch.no_grad()
def sample(
    inpainter: DiffusionFamily,
    image: torch.Tensor,
    hole: torch.Tensor,
    *,
    seeds: Sequence[int],
    settings: SampleSettings,
    stage: int = 0,
    start: torch.Tensor | None = None,
    confidence: torch.Tensor | None = None,
    batch_size: int | None = None,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Fill the hole of a window once for each seed.

    Each seed has its own generator on the CPU, so its noise depends neither on the batch nor on the device.

    Args:
        inpainter: the base model, with the adapter attached. With ``guidance_from="base"`` it is guided away from
            ``inpainter.unfitted``; if that is ``None``, or the model sees hints, there is no guidance.
        image: (1, 3, H, W), uint8 or in [0, 1]; H and W are multiples of ``inpainter.vae_scale_factor``. The pixels in
            the hole have no influence, except for hints.
        hole: (1, 1, H, W) bool, True = fill.
        seeds: N seeds.
        settings: settings of the sampler.
        stage: index of the stage whose steps, guidance and strength apply; 0 is the first.
        start: (N, 3, H, W), uint8 or in [0, 1]: the images that a later stage refines, from the stage's strength up the
            noise schedule (SDEdit, Meng et al. 2022), in tiles of the base model's resolution. Known latents follow
            them at every noise level, and tiles without a hole are left out. ``None``: start from noise, in one piece.
        confidence: (1, 1, H, W) float32 in [0, 1], the confidence of the hints among the hole's pixels; 0 without a
            hint. ``None``: there are none.
        batch_size: largest number of windows or tiles in a batch. ``None``: all.
        on_step: called after each denoising step. If it returns ``False``, sampling stops before the next step.

    A family that ``generates_whole`` starts from noise too, but its known latents follow the image at every noise level
    except the last, whose result shows where the model itself places the known pixels.

    Returns:
        (N, 3, H, W) in [0, 1], float32, on the device of the base model. Outside the hole it shows the model's
        reconstruction of the image, or the image itself where no tile lies.

    Raises:
        Interrupted: ``on_step`` returned ``False``, and steps remained.
    """
    num_steps, guidance_scale, strength = settings.stage(stage)
    strength = 1.0 if start is None else strength
    shape = inpainter.latent_shape((image.shape[-2], image.shape[-1]))
    tiles = Tiles.cover(shape[1:], max(shape[1:]), 0) if start is None else lay_tiles(inpainter, hole, settings)
    scheduler = inpainter.make_scheduler(
        settings.scheduler, num_steps, strength=strength, num_latents=math.prod(tiles.size)
    )
    timesteps = scheduler.timesteps[-num_steps:]
    pixels = tiles.times(inpainter.vae_scale_factor)
    denoiser = _Denoiser(
        tiles=tiles,
        mask_latents=_prepare_tiles(inpainter, pixels, image, hole, confidence),
        positive=_Prompted(inpainter, inpainter.encode_prompt([settings.prompt or ""])),
        negative=_choose_negative(
            inpainter, settings, guidance_scale, hinted=_shows_hints(inpainter, hole, confidence)
        ),
        guidance_scale=guidance_scale,
        batch_size=batch_size,
    )
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.cat([torch.randn((1, *shape), generator=g) for g in generators]).to(inpainter.device)
    stochastic = {"generator": generators} if settings.scheduler == "ddpm" else {}
    known = origin = None
    if start is not None or inpainter.generates_whole:
        known = inpainter.known_latents(~hole.to(inpainter.device))
        pieces = pixels.cut(fill_smooth(to_shares(image), hole) if start is None else start)
        origin = tiles.merge(inpainter.encode(piece)[0] for piece in pieces)
    latents = noise * scheduler.init_noise_sigma
    if start is not None and origin is not None:
        latents = add_noise(scheduler, origin, noise, timesteps[0])
    on_device = send(timesteps, inpainter.device)
    started = time.monotonic()
    for step, timestep in enumerate(timesteps):
        model_pred = denoiser(scheduler.scale_model_input(latents, timestep), on_device[step])
        latents = scheduler.step(model_pred, timestep, latents, **stochastic).prev_sample
        next_timestep = timesteps[step + 1] if step + 1 < len(timesteps) else None
        is_own = start is None and next_timestep is None  # the last result shows where the model places things
        if known is not None and origin is not None and not is_own:
            latents = torch.where(known, add_noise(scheduler, origin, noise, next_timestep), latents)
        done = Progress(phase="sample", step=step + 1, num_steps=num_steps, time_s=time.monotonic() - started)
        if on_step is not None and on_step(done) is False and next_timestep is not None:
            raise Interrupted
    return _decode(inpainter, latents, tiles, image)


def _prepare_tiles(
    inpainter: DiffusionFamily, pixels: Tiles, image: torch.Tensor, hole: torch.Tensor, confidence: torch.Tensor | None
) -> torch.Tensor:
    """Prepare the mask latents (T, M, h, w) of each tile; see ``sample``."""
    images, holes = pixels.cut(image), pixels.cut(hole)
    confidences = [None] * len(images) if confidence is None else pixels.cut(confidence)
    return torch.cat([
        inpainter.prepare_mask_latents(*parts) for parts in zip(images, holes, confidences, strict=True)
    ])  # fmt: skip


def _decode(inpainter: DiffusionFamily, latents: torch.Tensor, tiles: Tiles, image: torch.Tensor) -> torch.Tensor:
    """Decode latents tile by tile; where no tile lies, copy the image."""
    pixels = tiles.times(inpainter.vae_scale_factor)
    decoded = pixels.merge(inpainter.decode(piece) for piece in tiles.cut(latents))
    covered = pixels.covered()
    for rows in bands(pixels.canvas):
        torch.where(
            covered[rows].to(decoded.device), decoded[..., rows, :],
            to_shares(image[..., rows, :].to(decoded.device)), out=decoded[..., rows, :],
        )  # fmt: skip
    return decoded


def lay_tiles(inpainter: DiffusionFamily, hole: torch.Tensor, settings: SampleSettings) -> Tiles:
    """Lay the tiles of a later stage, of the base model's resolution, wherever a window has a hole.

    Args:
        inpainter: the base model.
        hole: (1, 1, H, W) bool, True = fill.
        settings: settings of the sampler.

    Returns:
        The tiles, in latents.
    """
    unknown = ~inpainter.known_latents(~hole)[0, 0]
    side = inpainter.resolution // inpainter.vae_scale_factor
    return Tiles.cover((unknown.shape[0], unknown.shape[1]), side, settings.tile_overlap).meeting(unknown)


@torch.no_grad()
def largest_batch(inpainter: DiffusionFamily, size: tuple[int, int]) -> int:
    """Find how many windows can be sampled at a time, from the memory that one takes in the denoiser.

    Decoding does not count, because it processes one image at a time.

    Args:
        inpainter: the base model, on its device.
        size: (height, width) of the window in pixels.
    """
    device, shape = inpainter.device, inpainter.latent_shape(size)
    latents = torch.zeros(1, *shape, device=device)
    height, width = size
    mask_latents = inpainter.prepare_mask_latents(
        torch.zeros(1, 3, height, width), torch.ones(1, 1, height, width, dtype=torch.bool)
    )
    timesteps = torch.zeros(1, dtype=torch.long, device=device)
    embeddings = inpainter.encode_prompt([""])
    _, num_bytes = peak_bytes(lambda: inpainter.predict(latents, timesteps, mask_latents, embeddings), device)
    return count_that_fits(device, num_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class _Prompted:
    """A base model with the embedding (1, L, D) of its prompt."""

    inpainter: DiffusionFamily
    embedding: torch.Tensor

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, mask_latents: torch.Tensor) -> torch.Tensor:
        """Predict (N, C, h, w) from noisy latents of that shape and mask latents (N, M, h, w)."""
        embeddings = self.embedding.repeat_interleave(len(latents), dim=0)
        return self.inpainter.predict(latents, timestep.expand(len(latents)), mask_latents, embeddings)


def _shows_hints(inpainter: DiffusionFamily, hole: torch.Tensor, confidence: torch.Tensor | None) -> bool:
    """Tell whether the model sees hints among the pixels of the hole."""
    return confidence is not None and inpainter.reads_hints and bool((confidence * hole).any())


def _choose_negative(
    inpainter: DiffusionFamily, settings: SampleSettings, guidance_scale: float, *, hinted: bool
) -> _Prompted | None:
    """Choose the model and prompt that guidance leads away from; ``None`` without guidance."""
    if guidance_scale == 1 or (hinted and settings.guidance_from == "base"):
        return None
    if settings.guidance_from == "negative_prompt":
        return _Prompted(inpainter, inpainter.encode_prompt([settings.negative_prompt]))
    if settings.guidance_from == "foreground":
        if inpainter.structure is None or not inpainter.structure.embeddings:
            raise ValueError(
                "SampleConfig.guidance_from is 'foreground', but no adapter with learnt categories is attached; legal: "
                "an adapter of `realfill adapt --preset structure`, or guidance_from 'negative_prompt' or 'base'"
            )
        return _Prompted(inpainter, inpainter.encode_prompt([FOREGROUND]))
    unfitted = inpainter.unfitted
    return None if unfitted is None else _Prompted(unfitted, unfitted.encode_prompt([settings.prompt or ""]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Denoiser:
    """Predicts for a canvas, tile by tile, with guidance.

    Attributes:
        tiles: T tiles of the canvas, in latents.
        mask_latents: (T, M, h, w), for each tile.
        positive: model and prompt to sample from.
        negative: model and prompt that guidance leads away from.
        guidance_scale: strength of the guidance.
        batch_size: largest number of tiles in a batch. ``None``: all.
    """

    tiles: Tiles
    mask_latents: torch.Tensor
    positive: _Prompted
    negative: _Prompted | None
    guidance_scale: float
    batch_size: int | None

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Predict (N, C, H, W) from noisy latents (N, C, H, W); overlapping tiles are averaged."""
        return self.tiles.merge(self._predict_tiles(latents, timestep))

    def _predict_tiles(self, latents: torch.Tensor, timestep: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the prediction (N, C, h, w) of each tile; a batch holds several tiles, each with all N seeds."""
        pieces = self.tiles.cut(latents)
        count = self.batch_size or len(pieces) * len(latents)
        num_tiles = max(1, count // len(latents))
        for start in range(0, len(pieces), num_tiles):
            group = slice(start, start + num_tiles)
            noisy = torch.cat(pieces[group])
            mask_latents = self.mask_latents[group].repeat_interleave(len(latents), dim=0)
            batches = zip(noisy.split(count), mask_latents.split(count), strict=True)
            yield from torch.cat([self._predict(*batch, timestep) for batch in batches]).split(len(latents))

    def _predict(self, noisy: torch.Tensor, mask_latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        positive = self.positive(noisy, timestep, mask_latents)
        if self.negative is None:
            return positive
        negative = self.negative(noisy, timestep, mask_latents)
        return negative + self.guidance_scale * (positive - negative)
