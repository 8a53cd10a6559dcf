r"""Pre-train a base model like the packaged one on a GPU, where even crops, masks and planted hints are drawn there.

    python examples/pretrain_on_gpu.py PHOTOS -o START --seconds 275 --batch-size 512 --num-warmup-steps 500
    python examples/pretrain_on_gpu.py PHOTOS -o BASE --init START --seconds 455 --learning-rate 4e-4 --hint-share 0.5
    python examples/pretrain_on_gpu.py PHOTOS --init BASE --seconds 0 --hint-share 1

``docs/mini.md`` says what it has trained. The recipe is that of ``realfill pretrain``, but for larger
batches; for crops that begin at the model's resolution, and average four samples a pixel; and for steps that are one
graph of kernels, since starting thousands of them takes longer than running them. The learning rate falls to zero
within the given seconds. The loss on photos that ``holdout.txt`` names is printed as it goes, beside that on as many
crops of the photos that are trained on. Pixels whose hints count as known are learnt as much as other hidden ones.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from holdout import HOLDOUT

from realfill.errors import TrainingError
from realfill.io.images import ImageArray, resize
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.objective import loss_weights
from realfill.training.planted_hints import Draws, plant_hints
from realfill.training.pretrain_config import PretrainConfig
from realfill.training.pretraining import build_start, load_photos
from realfill.training.trainer import learning_rate_factor

_READ_EVERY = 10  # steps between looks at the clock
_REPORT_EVERY_S = 60
_NUM_REPORTED = 2  # draws for the losses of a report
_NUM_DRAWN = 1024  # crops drawn at once, since many small draws take longer
_NUM_TRIALS = 3  # steps before the steps are captured as one graph of kernels
_SIDE_PX = 416  # shorter side to which photos are shrunk


@dataclass(frozen=True, kw_only=True)
class Options:
    """Pre-train a base model on a GPU."""

    photos: Annotated[Path, tyro.conf.Positional]
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """Folder for the base model."""
    seconds: float = 300
    """Time to train for. 0: print the losses of ``init`` and write nothing."""
    init: Path | None = None
    """Folder of the base model to go on from, with fresh moments. None: random weights."""
    batch_size: int = 128
    learning_rate: float = 1e-3
    num_warmup_steps: int = 200
    hint_share: float = 0.0
    """Share of the crops with planted hints."""
    device: str = "cuda"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seconds and self.output is None:
            raise ValueError("output is missing; legal: a folder")
        if not self.seconds and self.init is None:
            raise ValueError("seconds is 0 and there is no init to measure; legal: a base model, or more seconds")
        if self.init is not None and not self.init.is_dir():
            raise ValueError(f"init is {str(self.init)!r}; legal: the folder of a base model")


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
            height, width = part.shape[:2]
            canvas[:, :height, :width] = torch.from_numpy(part).to(device).permute(2, 0, 1) / 255
            canvas[:, height:, :width] = canvas[:, height - 1 : height, :width]  # samples between two pixels see both
            canvas[:, :, width:] = canvas[:, :, width - 1 : width]
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


class Batch(NamedTuple):
    """What a step trains on: what the U-Net gets, what it should predict, and how much each latent counts."""

    inputs: torch.Tensor
    timesteps: torch.Tensor
    embeddings: torch.Tensor
    target: torch.Tensor
    weights: torch.Tensor
    """Factors on squared errors; their sum over all latents that count is 1 for the whole batch."""


class Pretraining:
    """Model, optimizer and moving average."""

    def __init__(self, inpainter: StableDiffusionInpainter, photos: PhotoStack, options: Options) -> None:
        self.inpainter, self.photos, self.options = inpainter, photos, options
        self.device = inpainter.device
        config = PretrainConfig(
            photos=options.photos, output=options.output or Path(), batch_size=options.batch_size, seed=options.seed,
            learning_rate=options.learning_rate, num_warmup_steps=options.num_warmup_steps,
        )  # fmt: skip
        self.settings = dataclasses.replace(
            config.fit_settings(), num_steps=10**9, time_budget_s=options.seconds or None
        )
        self.unet = inpainter.unet
        self.unet.requires_grad_(requires_grad=True).train()
        self.parameters = list(self.unet.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=torch.zeros((), device=self.device), betas=(0.9, self.settings.adam_beta2),
            weight_decay=self.settings.weight_decay, fused=on_gpu, capturable=on_gpu,
        )  # fmt: skip
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batches: list[Batch] = []
        with torch.no_grad():
            self.embeddings = inpainter.encode_prompt((self.settings.prompt, ""))
        self.steps, self.time_s, self.losses = 0, 0.0, []

    @torch.no_grad()
    def draw_batches(self, stack: PhotoStack, draws: Draws, hint_share: float) -> list[Batch]:
        """Draw crops, masks, hints, noise levels and noise, of a few batches at once."""
        inpainter, settings, size = self.inpainter, self.settings, self.options.batch_size
        number = size * max(1, _NUM_DRAWN // size)
        crops = stack.draw(number, inpainter.resolution, draws)
        hidden = draw_masks(number, inpainter.resolution, settings, draws)
        mask_latents = self.mask_latents(crops, hidden, *plant_hints(crops, hint_share, draws) if hint_share else ())
        quantiles = 1 - draws.uniform(number) ** settings.noise_bias
        latents = inpainter.encode(crops)[0]
        noisy, timesteps, target, scale = inpainter.diffuse(latents, draws.normal(*latents.shape), quantiles)
        embeddings = self.embeddings[(draws.uniform(number) < settings.prompt_dropout).long()]
        weights = loss_weights(inpainter, torch.ones_like(hidden), hidden, settings.visible_weight)
        weights = torch.cat([part / (part.sum() * target.shape[1]) for part in weights.split(size)]) * scale
        drawn = (torch.cat([noisy, mask_latents], dim=1), timesteps, embeddings, target, weights)
        return [Batch(*parts) for parts in zip(*(each.split(size) for each in drawn), strict=True)]

    def mask_latents(
        self,
        crops: torch.Tensor,
        hidden: torch.Tensor,
        hints: torch.Tensor | None = None,
        confidence: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode masked images with their masks; where a hint counts as known, nothing is hidden."""
        if hints is None or confidence is None:
            return self.inpainter.prepare_mask_latents(crops, hidden)
        confidence = confidence * hidden
        shown = torch.where(confidence > 0, hints, crops)
        return self.inpainter.prepare_mask_latents(shown, hidden & (confidence < 1), confidence)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Compute the weighted mean of squared errors, as ``realfill.training.loop.compute_gradients`` does."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self.unet(batch.inputs, batch.timesteps, encoder_hidden_states=batch.embeddings)
        return ((output.sample.float() - batch.target) ** 2 * batch.weights).sum()

    def next_batch(self, draws: Draws) -> Batch:
        """Return a batch that was drawn already, or draw more."""
        if not self.batches:
            self.batches = self.draw_batches(self.photos, draws, self.options.hint_share)
        return self.batches.pop()

    def capture(self, draws: Draws) -> None:
        """Record a step as one graph of kernels."""
        self.batch = Batch(*(each.clone() for each in self.next_batch(draws)))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_NUM_TRIALS):  # at a learning rate of 0
                self.update(self.batch)
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.graph_loss = self.update(self.batch)
        self.graph = graph
        for moments in self.optimizer.state.values():
            torch._foreach_zero_(list(moments.values()))

    def update(self, batch: Batch) -> torch.Tensor:
        """Change the weights once, and return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm, foreach=True)
        self.optimizer.step()
        return loss.detach()

    def step(self, draws: Draws) -> None:
        """Take one step."""
        factor = learning_rate_factor(self.settings, self.steps, self.time_s)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(self.options.learning_rate * factor)
        batch = self.next_batch(draws)
        if self.graph is None:
            self.losses.append(self.update(batch))
        else:
            torch._foreach_copy_(list(self.batch), list(batch))
            self.graph.replay()
            self.losses.append(self.graph_loss.clone())
        self.steps += 1
        decay = min(self.settings.ema_decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def run(self, report: Callable[[Pretraining], None]) -> None:
        """Train until the time is over.

        Raises:
            TrainingError: the loss is not a finite number.
        """
        draws = Draws(torch.Generator(self.device).manual_seed(self.options.seed))
        if self.device.type == "cuda" and self.options.seconds:
            self.capture(draws)
        start, reported_s = time.monotonic(), 0.0
        while self.time_s < self.options.seconds:
            self.step(draws)
            if self.steps % _READ_EVERY == 0 and not math.isfinite(self.losses[-1].item()):  # waits for the device
                raise TrainingError(f"the loss at step {self.steps} is {self.losses[-1].item()}; lower learning_rate")
            self.time_s = time.monotonic() - start
            if self.time_s - reported_s > _REPORT_EVERY_S:
                reported_s = self.time_s
                report(self)
        report(self)

    @property
    def recent_loss(self) -> float:
        """The mean loss of the last 500 steps."""
        return float(torch.stack(self.losses[-500:]).mean()) if self.losses else math.nan

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving average in place of the weights for a while."""
        weights = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average)
            yield
            torch._foreach_copy_(self.parameters, weights)


def shrunk(photo: ImageArray) -> ImageArray:
    """Shrink a photo so that its smallest crops have about its own resolution."""
    factor = min(1.0, _SIDE_PX / min(photo.shape[:2]))
    return resize(photo, (round(factor * photo.shape[0]), round(factor * photo.shape[1])))


def describe(training: Pretraining, *, held_out: PhotoStack, start: float) -> None:
    """Print the losses of the averaged weights on photos kept out and on those trained on."""
    draws = Draws(torch.Generator(training.device).manual_seed(1))
    losses = []
    with training.averaged():
        for share in (0.0, 1.0) if training.options.hint_share else (0.0,):
            for stack in (held_out, training.photos):
                batches = [b for _ in range(_NUM_REPORTED) for b in training.draw_batches(stack, draws, share)]
                losses.append(np.mean([float(training.loss(batch)) for batch in batches]))
    names = ("kept out", "trained", "kept out, with hints", "trained, with hints")
    print(
        f"{time.monotonic() - start:7.1f} s, step {training.steps}: loss {training.recent_loss:.4f}; of the average: "
        + ", ".join(f"{name} {loss:.4f}" for name, loss in zip(names, losses, strict=False)),
        flush=True,
    )


def build(options: Options, photos: Sequence[ImageArray]) -> StableDiffusionInpainter:
    """Load the base model to go on from, or build one with random weights."""
    if options.init is not None:
        inpainter = StableDiffusionInpainter.load(str(options.init))
    else:
        config = PretrainConfig(photos=options.photos, output=options.output or Path(), seed=options.seed)
        inpainter = build_start(config, photos)
    if options.hint_share:
        if inpainter.card.masked_image != "smooth":
            raise ValueError(f"hints need a masked image that is 'smooth'; it is {inpainter.card.masked_image!r}")
        fit = {**inpainter.card.fit, "hint_share": options.hint_share}
        inpainter.card = dataclasses.replace(inpainter.card, reads_hints=True, fit=fit)
    return inpainter


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    start, device = time.monotonic(), torch.device(options.device)
    photos, held_out = load_photos(options.photos, 0, HOLDOUT, shrink=shrunk)
    print(f"{len(photos)} photos, {len(held_out)} kept out; read in {time.monotonic() - start:.1f} s", flush=True)
    inpainter = build(options, photos).to(device, torch.float32)
    training = Pretraining(inpainter, PhotoStack(photos, device), options)
    training.run(partial(describe, held_out=PhotoStack(held_out, device), start=start))
    if options.output is None:
        return
    summary = {
        "steps": training.steps, "samples": training.steps * options.batch_size,
        "loss_of_last_500_steps": round(training.recent_loss, 4),
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
    }  # fmt: skip
    with training.averaged():
        about = {**inpainter.card.about, "pretraining": summary}
        inpainter.save(options.output, dataclasses.replace(inpainter.card, about=about))
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
