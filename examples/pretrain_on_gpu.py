r"""Pre-train the packaged base model on a GPU, where even crops, masks and planted hints are drawn on the device.

    python examples/pretrain_on_gpu.py PHOTOS -o PLAIN --seconds 275 --num-warmup-steps 500
    python examples/pretrain_on_gpu.py PHOTOS -o MORE --init PLAIN --seconds 185 --learning-rate 5e-4 --seed 1
    python examples/pretrain_on_gpu.py PHOTOS -o HINTED --init PLAIN --seconds 185 --learning-rate 5e-4 --seed 1 \
        --hint-share 0.5
    python examples/add_training.py PLAIN MORE HINTED -o BASE

The recipe is that of ``realfill pretrain``, with larger batches: the CPU could not draw crops fast enough for a large
card. The learning rate falls to zero within the given seconds. Photos that ``holdout.txt`` names, with any suffix, are
kept out, and the loss on them is printed as it goes, with as many draws of the photos that are trained on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from holdout import HOLDOUT

from realfill.config import GeometryConfig
from realfill.io.images import ImageArray, read_image, resize
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.feedforward.completion import CompletionNetwork
from realfill.training.objective import loss_weights
from realfill.training.pretrain_config import PretrainConfig
from realfill.training.pretraining import build_start
from realfill.training.trainer import learning_rate_factor

_READ_EVERY = 10  # steps between looks at the clock
_SIDE_PX = 416  # shorter side to which photos are shrunk
_LEVELS = 255.0
_SCALE = 15.0  # levels of error at which confidence has fallen to 1/e, as in ``realfill.geometry.confidence``


@dataclass(frozen=True, kw_only=True)
class Options:
    """Pre-train a base model on a GPU."""

    photos: Annotated[Path, tyro.conf.Positional]
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    seconds: float = 300
    """Time to train for. 0: print the loss of ``init`` and write nothing."""
    init: Path | None = None
    """Folder of the base model to go on from, with fresh moments. None: random weights."""
    batch_size: int = 512
    learning_rate: float = 1e-3
    num_warmup_steps: int = 200
    hint_share: float = 0.0
    """Share of the crops with planted hints."""
    fill: Literal["smooth", "completion"] = "smooth"
    """What fills the hole of the masked image."""
    device: str = "cuda"
    seed: int = 0


class PhotoStack:
    """Photos on the device, from which random crops are drawn."""

    def __init__(self, photos: Sequence[ImageArray], device: torch.device) -> None:
        """Put the photos on square canvases; of panoramas only the middle is used."""
        side = max(min(max(p.shape[:2]), 2 * min(p.shape[:2])) for p in photos)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.canvases = torch.zeros(len(photos), 3, side, side, dtype=dtype, device=device)
        sizes = []
        for canvas, photo in zip(self.canvases, photos, strict=True):
            top, left = (max(0, (n - side) // 2) for n in photo.shape[:2])
            part = photo[top : top + side, left : left + side]
            canvas[:, : part.shape[0], : part.shape[1]] = torch.from_numpy(part).to(device).permute(2, 0, 1) / _LEVELS
            sizes.append(part.shape[:2])
        self.sizes = torch.tensor(sizes, device=device, dtype=torch.float32)

    def draw(self, number: int, resolution: int, draws: Draws) -> torch.Tensor:
        """Draw crops, (B, 3, R, R) float32 in [0, 1], each averaged from 2 x 2 samples a pixel."""
        chosen = draws.integers(len(self.canvases), number)
        sizes = self.sizes[chosen]
        shorter = sizes.amin(dim=1)
        smallest = torch.full_like(shorter, resolution).minimum(shorter)
        sides = smallest * (shorter / smallest) ** draws.uniform(number)
        corners = (sizes - sides[:, None]) * draws.uniform(number, 2)
        steps = (torch.arange(2 * resolution, device=sides.device) + 0.5) / (2 * resolution)
        rows = corners[:, :1] + sides[:, None] * steps
        columns = corners[:, 1:] + sides[:, None] * torch.where(draws.uniform(number, 1) < 0.5, steps, 1 - steps)
        canvas = self.canvases.shape[-1]
        grid = torch.stack(
            [columns[:, None, :].expand(-1, 2 * resolution, -1), rows[:, :, None].expand(-1, -1, 2 * resolution)], -1
        ) / canvas * 2 - 1  # fmt: skip
        crops = [
            F.grid_sample(self.canvases[part].float(), places, align_corners=False, padding_mode="border")
            for part, places in zip(chosen.split(64), grid.split(64), strict=True)
        ]
        return F.avg_pool2d(torch.cat(crops), 2).clamp(0, 1)


@dataclass(frozen=True)
class Draws:
    """Random numbers on a device."""

    generator: torch.Generator

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device)

    def between(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * self.uniform(*shape)

    def log_between(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low * (high / low) ** self.uniform(*shape)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=self.generator, device=self.generator.device)


def draw_masks(number: int, resolution: int, settings: Any, draws: Draws) -> torch.Tensor:
    """Draw what crops hide, (B, 1, R, R) bool, as ``realfill.scene.masks.random_mask`` and ``draw_crops`` do."""
    low, high = settings.num_rectangles
    places = torch.arange(resolution, device=draws.generator.device)
    count = low + draws.integers(high - low + 1, number)
    hidden = torch.zeros(number, resolution, resolution, dtype=torch.bool, device=places.device)
    for index in range(high):
        inside = []
        for _ in range(2):
            side = (draws.between(*settings.rectangle_size, number) * resolution).round().clamp(min=1)
            start = (draws.uniform(number) * (resolution - side + 1)).floor()
            inside.append((places >= start[:, None]) & (places < (start + side)[:, None]))
        hidden |= (inside[0][:, :, None] & inside[1][:, None, :]) & (index < count)[:, None, None]
    hidden ^= (draws.uniform(number) < settings.complement_share)[:, None, None]
    return (hidden | (draws.uniform(number) < settings.mask_dropout)[:, None, None])[:, None]


def plant_hints(crops: torch.Tensor, share: float, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
    """Plant hints: slightly wrong warps of crops, with a confidence that is right on average, as that of a composite.

    A hint is the crop, displaced by a smooth field, in slightly other colours and less sharp, with parts that are
    displaced more, show another crop, or have one colour. Its confidence stands for the error that a regression over
    the batch expects from the blurred and disturbed error.

    Args:
        crops: (B, 3, R, R) in [0, 1].
        share: share of the crops that get hints.
        draws: source of all randomness.

    Returns:
        The hints (B, 3, R, R), and their confidence (B, 1, R, R): 0 = no hint, 1 = the pixel counts as known.
    """
    number, _, side, _ = crops.shape
    size, settings = (side, side), GeometryConfig().resolve({})
    hints = _recoloured(_warped(crops, draws.log_between(0.15, 4.0, number), draws), draws)
    for layer_share in (0.7, 0.35):
        kind, is_covered = draws.uniform(number, 1, 1, 1), draws.uniform(number, 1, 1, 1) < layer_share
        far = _warped(crops, draws.log_between(1.0, 12.0, number), draws)
        plain = F.adaptive_avg_pool2d(hints, 1).expand_as(hints)
        layer = torch.where(kind < 0.15, plain, torch.where(kind < 0.4, crops.roll(1, 0), far))
        part = _region(draws.between(0.05, 0.4, number), size, draws) & is_covered
        hints = torch.lerp(hints, layer, F.avg_pool2d(part.float(), 5, 1, 2, count_include_pad=False))
    hints = hints.clamp(0, 1)
    error = (hints - crops).abs().mean(1, keepdim=True) * _LEVELS
    noise = (draws.normal(number, 1, 1, 1) * 0.3 + 0.5 * _noise(size, number, draws)).exp()
    guess = (_smoothed(error, 12) + draws.between(1, 5, number, 1, 1, 1)) * noise
    centred = guess - guess.mean()
    expected = (error.mean() + (centred * error).mean() / (centred**2).mean() * centred).clamp(min=1.0)
    confidence = (-expected / _SCALE).exp()
    confidence = torch.where(confidence < settings.corrected_confidence, 0.0, confidence)
    confidence = torch.where(confidence >= settings.photographed_confidence, 1.0, confidence)
    is_whole = draws.uniform(number, 1, 1, 1) < 0.5
    confidence = confidence * (is_whole | _region(draws.between(0.2, 0.95, number), size, draws))
    return hints, confidence * (draws.uniform(number, 1, 1, 1) < share)


def _noise(size: tuple[int, int], number: int, draws: Draws) -> torch.Tensor:
    """Draw smooth noise (B, 1, h, w) of mean 0 and variance 1, whose hills have another size in each row."""
    cells = draws.normal(number, 1, 16, 16)
    zoom = draws.log_between(0.12, 0.8, number)[:, None, None]
    theta = torch.cat([torch.eye(2, device=zoom.device) * zoom, draws.between(-1, 1, number, 2, 1) * (0.9 - zoom)], 2)
    grid = F.affine_grid(theta, [number, 1, *size], align_corners=False)
    field = F.grid_sample(cells, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return (field - field.mean((2, 3), keepdim=True)) / field.std((2, 3), keepdim=True).clamp(min=1e-3)


def _region(shares: torch.Tensor, size: tuple[int, int], draws: Draws) -> torch.Tensor:
    """Draw smooth regions (B, 1, h, w) bool that cover about the given shares."""
    field = _noise(size, len(shares), draws)
    threshold = torch.special.ndtri((1 - shares).clamp(0.01, 0.99))
    return field > threshold[:, None, None, None]


def _warped(crops: torch.Tensor, amplitudes_px: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Displace crops by smooth fields."""
    number, side = len(crops), crops.shape[-1]
    fields = torch.cat([_noise((side, side), number, draws) + draws.normal(number, 1, 1, 1) for _ in range(2)], 1)
    shift = (fields * amplitudes_px[:, None, None, None] * 2 / side).permute(0, 2, 3, 1)
    identity = F.affine_grid(torch.eye(2, 3, device=crops.device)[None], [1, 1, side, side], align_corners=False)
    return F.grid_sample(crops, identity + shift, padding_mode="reflection", align_corners=False)


def _recoloured(crops: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Blur half of the crops a little, and change their colours."""
    number, side = len(crops), crops.shape[-1]
    blurred = F.avg_pool2d(F.avg_pool2d(crops, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False)
    amount = draws.uniform(number, 1, 1, 1) * (draws.uniform(number, 1, 1, 1) < 0.5)
    gain = (0.06 * draws.normal(number, 3, 1, 1) + 0.05 * _noise((side, side), number, draws)).exp()
    return torch.lerp(crops, blurred, amount) * gain + draws.normal(number, 3, 1, 1) * 5 / _LEVELS


def _smoothed(field: torch.Tensor, radius_px: int) -> torch.Tensor:
    """Blur (B, 1, h, w) over about a radius."""
    for _ in range(2):
        field = F.avg_pool2d(field, radius_px + 1, 1, radius_px // 2, count_include_pad=False)
    return field


class Pretraining:
    """Model, optimizer and moving average."""

    def __init__(self, inpainter: StableDiffusionInpainter, photos: PhotoStack, options: Options) -> None:
        self.inpainter, self.photos, self.options = inpainter, photos, options
        self.device = inpainter.device
        config = PretrainConfig(
            photos=options.photos, output=options.output, batch_size=options.batch_size, seed=options.seed,
            learning_rate=options.learning_rate, num_warmup_steps=options.num_warmup_steps,
        )  # fmt: skip
        self.settings = dataclasses.replace(config.fit_settings(), time_budget_s=options.seconds or None)
        self.unet = inpainter.unet
        self.unet.requires_grad_(requires_grad=True).train()
        self.parameters = list(self.unet.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=options.learning_rate, betas=(0.9, self.settings.adam_beta2),
            weight_decay=self.settings.weight_decay, fused=self.device.type == "cuda",
        )  # fmt: skip
        with torch.no_grad():
            self.embeddings = inpainter.encode_prompt((self.settings.prompt, ""))
        self.completion = CompletionNetwork.load(None, self.device) if options.fill == "completion" else None
        self.steps, self.time_s, self.losses = 0, 0.0, []

    def loss(self, stack: PhotoStack, draws: Draws, hint_share: float) -> torch.Tensor:
        """Draw a batch and compute its loss, as ``realfill.training.loop.compute_gradients`` does."""
        inpainter, settings, number = self.inpainter, self.settings, self.options.batch_size
        with torch.no_grad():
            crops = stack.draw(number, inpainter.resolution, draws)
            hidden = draw_masks(number, inpainter.resolution, settings, draws)
            latents, mask_latents = self.encode(crops, hidden, hint_share, draws)
            weights = loss_weights(inpainter, torch.ones_like(hidden), hidden, settings.visible_weight)
            quantiles = 1 - draws.uniform(number) ** settings.noise_bias
            noisy, timesteps, target, scale = inpainter.diffuse(latents, draws.normal(*latents.shape), quantiles)
            embeddings = self.embeddings[(draws.uniform(number) < settings.prompt_dropout).long()]
            inputs = torch.cat([noisy, mask_latents], dim=1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            prediction = self.unet(inputs, timesteps, encoder_hidden_states=embeddings).sample.float()
        return ((prediction - target) ** 2 * scale * weights).sum() / (weights.sum() * target.shape[1])

    def encode(
        self, crops: torch.Tensor, hidden: torch.Tensor, hint_share: float, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode crops, and their masked images with their masks."""
        inpainter, confidence, shown, hole = self.inpainter, None, crops, hidden
        if hint_share:
            hints, confidence = plant_hints(crops, hint_share, draws)
            confidence = confidence * hidden
            shown = torch.where(confidence > 0, hints, crops)
            hole = hidden & (confidence < 1)
        if self.completion is not None:
            empty = hole if confidence is None else hole & (confidence <= 0)
            shown = torch.where(empty, self.completion(shown, empty), shown)
            confidence = torch.full_like(hole, 1e-6, dtype=torch.float32) if confidence is None else confidence + 1e-6
        return inpainter.encode(crops)[0], inpainter.prepare_mask_latents(shown, hole, confidence)

    def step(self, draws: Draws) -> None:
        """Take one step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * learning_rate_factor(self.settings, self.steps, self.time_s)
        loss = self.loss(self.photos, draws, self.options.hint_share)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        decay = min(self.settings.ema_decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        self.losses.append(loss.detach())

    def run(self, report: Callable[[Pretraining], None]) -> None:
        """Train until the time is over."""
        draws, start = Draws(torch.Generator(self.device).manual_seed(self.options.seed)), time.monotonic()
        while self.time_s < self.options.seconds:
            self.step(draws)
            if self.steps % _READ_EVERY == 0:
                self.losses[-1].item()  # waits for the device, so that the clock tells the truth
            self.time_s = time.monotonic() - start
            if self.steps % 1000 == 0:
                report(self)
        report(self)

    @property
    def recent_loss(self) -> float:
        return float(torch.stack(self.losses[-500:]).mean()) if self.losses else math.nan

    def use_average(self) -> list[torch.Tensor]:
        """Put the moving average in place of the weights, and return these."""
        weights = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.copy_(mean)
        return weights


def _read(path: Path) -> ImageArray:
    """Read a photo, shrunk so that its smallest crops have about its own resolution."""
    photo = read_image(path, path.name)[0]
    factor = min(1.0, _SIDE_PX / min(photo.shape[:2]))
    return resize(photo, (round(factor * photo.shape[0]), round(factor * photo.shape[1])))


def load(folder: Path) -> tuple[list[ImageArray], list[ImageArray]]:
    """Read the photos of a folder: those to train on, and those that are kept out, which may have another suffix."""
    lines = HOLDOUT.read_text(encoding="utf-8").splitlines()
    held = {Path(line).stem for line in lines if line and not line.startswith("#")}
    paths = sorted(p for p in folder.iterdir() if p.is_file())
    with ThreadPoolExecutor() as threads:
        photos = list(threads.map(_read, paths))
    return (
        [photo for photo, path in zip(photos, paths, strict=True) if path.stem not in held],
        [photo for photo, path in zip(photos, paths, strict=True) if path.stem in held],
    )


def _describe(training: Pretraining, *, held_out: PhotoStack, start: float) -> None:
    with torch.no_grad():
        weights = training.use_average()
        draws = Draws(torch.Generator(training.device).manual_seed(1))
        stacks = (held_out, training.photos)
        shares = (0.0, 1.0) if training.options.hint_share else (0.0,)
        losses = [
            [np.mean([float(training.loss(stack, draws, share)) for _ in range(4)]) for stack in stacks]
            for share in shares
        ]
        for parameter, weight in zip(training.parameters, weights, strict=True):
            parameter.copy_(weight)
    print(
        f"{time.monotonic() - start:7.1f} s, step {training.steps}: loss {training.recent_loss:.4f}; average's, held "
        f"out and trained: {'; with hints '.join(f'{a:.4f} {b:.4f}' for a, b in losses)}",
        flush=True,
    )


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    start, device = time.monotonic(), torch.device(options.device)
    photos, held_out = load(options.photos)
    print(f"{len(photos)} photos, {len(held_out)} kept out; read in {time.monotonic() - start:.1f} s", flush=True)
    begin = options.init or options.output / "start"
    if not begin.exists():
        config = PretrainConfig(photos=options.photos, output=options.output, seed=options.seed)
        inpainter = build_start(config, photos)
        inpainter.save(begin, inpainter.card)
    inpainter = StableDiffusionInpainter.load(str(begin)).to(device, torch.float32)
    inpainter.card = dataclasses.replace(inpainter.card, reads_hints=True)
    training = Pretraining(inpainter, PhotoStack(photos, device), options)
    training.run(partial(_describe, held_out=PhotoStack(held_out, device), start=start))
    if not training.steps:
        return
    training.use_average()
    summary = {
        "steps": training.steps, "batch_size": options.batch_size, "samples": training.steps * options.batch_size,
        "loss_of_last_500_steps": round(training.recent_loss, 4),
    }  # fmt: skip
    about = {**inpainter.card.about, "pretraining": summary}
    inpainter.save(options.output, dataclasses.replace(inpainter.card, about=about))
    losses = torch.stack(training.losses).cpu().numpy().astype(np.float16)
    np.save(options.output / "losses.npy", losses)
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
