"""Training: the denoising loss on what is known, the state of a fit, and the loop (paper, section 3.2)."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from realfill.batches import Batch, TrainingImage, draw_batch, step_rng
from realfill.config import FitConfig
from realfill.errors import AdapterError, TrainingError
from realfill.models.adapter import Trainable
from realfill.models.inpainter import Inpainter

if TYPE_CHECKING:
    from accelerate import Accelerator

CHECKPOINT_NAME = "checkpoint.pt"
_CHECK_EVERY = 10  # steps between looks at the loss, each of which waits for the device


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What ``on_step`` is told: steps done and to do, the last loss, its learning rate, seconds since the start."""

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    time_s: float


def loss_weights(inpainter: Inpainter, batch: Batch, visible_weight: float) -> torch.Tensor:
    """Weigh each latent: 0 unless all of its pixels count, 1 where the model isn't shown it, else ``visible_weight``.

    Returns:
        (B, 1, h, w) float32.
    """
    shown = inpainter.known_latents(~batch.hidden)
    return inpainter.known_latents(batch.learnt) * torch.where(shown, visible_weight, 1.0)


def denoising_loss(
    inpainter: Inpainter,
    batch: Batch,
    weights: torch.Tensor,
    noise: torch.Tensor,
    predict: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """Sum the weighted squared errors of the prediction over a batch (paper, equation 3).

    Args:
        inpainter: the base model.
        batch: B crops.
        weights: (B, 1, h, w).
        noise: (2, B, C, h, w) standard normal: for the VAE's posterior, and what is to be removed.
        predict: (noisy, timesteps, condition) to the model's prediction.

    Returns:
        A scalar; divide it by the sum of the weights times the channels for the mean.
    """
    noise = noise.to(inpainter.device)
    latents = inpainter.encode(batch.images, noise[0])
    condition = inpainter.condition(batch.images, batch.hidden)
    noisy, timesteps, wanted, counts = inpainter.diffuse(latents, noise[1], batch.quantiles)
    guess = predict(noisy, timesteps, condition)
    return ((guess - wanted) ** 2 * counts * weights.to(guess.device)).sum()


class _Denoiser(nn.Module):
    """The parts of the model as one module, for accelerate to wrap."""

    def __init__(self, inpainter: Inpainter, prompt: str) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(inpainter.parts)
        self._inpainter, self._prompts = inpainter, (prompt, "")

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor, prompted: torch.Tensor
    ) -> torch.Tensor:
        embeddings = self._inpainter.embed(self._prompts)[(~prompted).long()]
        return self._inpainter.predict(noisy, timesteps, condition, embeddings)


class Trainer:
    """The state of a fit: what changes, its optimizer, its running average, how far it has come."""

    def __init__(self, inpainter: Inpainter, trainable: Trainable, config: FitConfig, accelerator: Accelerator) -> None:
        """Set up a fit; the inpainter is changed in place.

        Args:
            inpainter: on its device.
            trainable: what of it may change.
            config: resolved.
            accelerator: from accelerate: precision and processes.

        Raises:
            ValueError: a piece of the batch is smaller than the number of processes.
        """
        share = config.batch_size // config.gradient_accumulation_steps
        if share % accelerator.num_processes:
            raise ValueError(f"a batch piece of {share} crops can't be shared by {accelerator.num_processes} processes")
        self.inpainter, self.config, self.accelerator = inpainter, config, accelerator
        self.trainable = trainable
        rates = {"unet": config.learning_rate, "text_encoder": config.text_encoder_learning_rate}
        groups = [
            {"params": list(named.values()), "lr": rates[group], "base_lr": rates[group]}
            for group, named in self.trainable.groups.items()
        ]
        inpainter.prepare_training(gradient_checkpointing=config.gradient_checkpointing)
        fused = inpainter.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            groups, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay, fused=fused
        )
        self.optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        self.denoiser: nn.Module = _Denoiser(inpainter, config.prompt)
        if accelerator.num_processes > 1:
            self.denoiser = accelerator.prepare_model(self.denoiser, device_placement=False)
        self.average = {n: p.detach().clone() for n, p in self.trainable.parameters()} if config.ema_decay else {}
        self.step = 0
        self.losses: list[float] = []
        self._pending: list[torch.Tensor] = []
        self._whole = True

    def train_step(self, photos: Sequence[TrainingImage]) -> None:
        """Make one optimizer step on a batch drawn from photos.

        The loss is the mean over all latents of the batch that count, however they are spread over crops, processes
        and pieces. (Unstated in the paper.)
        """
        config, inpainter, accelerator = self.config, self.inpainter, self.accelerator
        rng, generator = step_rng(config.seed, self.step)
        batch = draw_batch(photos, config, inpainter.resolution, rng)
        shape = inpainter.latent_shape((inpainter.resolution, inpainter.resolution))
        noise = torch.randn((2, config.batch_size, *shape), generator=generator)
        weights = loss_weights(inpainter, batch, config.visible_weight)
        weights /= weights.sum().clamp(min=1) * shape[0]
        self._drop_layers(rng)
        self._set_learning_rates()
        total = torch.zeros((), device=inpainter.device)
        pieces = torch.arange(config.batch_size).chunk(config.gradient_accumulation_steps)
        for i, piece in enumerate(pieces):
            mine = piece[accelerator.process_index :: accelerator.num_processes]
            part = Batch(**{name: getattr(batch, name)[mine] for name in Batch.__slots__})
            with _attention(inpainter.device), _hold_sync(accelerator, self.denoiser, hold=i + 1 < len(pieces)):
                loss = denoising_loss(inpainter, part, weights[mine], noise[:, mine], self._predictor(part.prompted))
                accelerator.backward(loss * accelerator.num_processes)  # which averages over processes
            total += loss.detach()
        accelerator.clip_grad_norm_([p for _, p in self.trainable.parameters()], config.max_grad_norm)
        self._whole = False  # until the end of the step, an interruption leaves nothing to save
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        self._pending.append(accelerator.reduce(total, "sum"))  # type: ignore[arg-type]
        self._whole = True
        if self.inpainter.device.type == "cpu" or len(self._pending) >= _CHECK_EVERY:
            self.read_losses()

    def read_losses(self) -> None:
        """Wait for the device and take over the losses of the steps done.

        Raises:
            TrainingError: one of them isn't a number.
        """
        self.losses += [float(x) for x in self._pending]
        self._pending.clear()
        if self.losses and not np.isfinite(self.losses).all():
            step = int(np.flatnonzero(~np.isfinite(self.losses))[0]) + 1
            raise TrainingError(
                f"the loss at step {step} is {self.losses[step - 1]}: the fit diverged. Lower learning_rate "
                f"({self.config.learning_rate}), or set mixed_precision to 'bf16' or 'no'"
            )

    def save(self, path: Path, identity: str) -> None:
        """Write a checkpoint, whole or not at all.

        Args:
            path: the file.
            identity: of the fit; only a fit with the same one resumes from it.
        """
        if not self._whole:
            return
        self.read_losses()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "identity": identity,
            "step": self.step,
            "losses": self.losses,
            "parameters": {n: p.detach() for n, p in self.trainable.parameters()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path, identity: str) -> None:
        """Go on from a checkpoint.

        Raises:
            AdapterError: it is damaged, or of another fit.
        """
        try:
            state = torch.load(path, map_location=self.inpainter.device, weights_only=True)
            found = state["identity"]
        except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise AdapterError(
                f"the checkpoint {str(path)!r} is damaged ({error}); remove it to start again"
            ) from error
        if found != identity:
            raise AdapterError(
                f"the checkpoint {str(path)!r} belongs to a fit with another config, scene or base; "
                "choose another checkpoint_dir, or remove it"
            )
        with torch.no_grad():
            for name, parameter in self.trainable.parameters():
                parameter.copy_(state["parameters"][name])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.losses = state["step"], state["losses"]

    def export(self) -> dict[str, torch.Tensor]:
        """Build the adapter's tensors from the running average, or where there is none from the last weights."""
        self.read_losses()
        with torch.no_grad():
            for name, parameter in self.trainable.parameters() if self.average else ():
                parameter.copy_(self.average[name])
        tensors = self.trainable.export()
        if not all(t.isfinite().all() for t in tensors.values()):
            raise TrainingError(f"the fit diverged at its last step; lower learning_rate ({self.config.learning_rate})")
        return tensors

    def _predictor(self, prompted: torch.Tensor) -> Callable[..., torch.Tensor]:
        prompted = prompted.to(self.inpainter.device)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            with self.accelerator.autocast():
                return self.denoiser(noisy, timesteps, condition, prompted)

        return predict

    def _drop_layers(self, rng: np.random.Generator) -> None:
        """Leave LoRA layers out of this step, whole ones, and scale up the others (paper, section 3.2)."""
        layers, rate = self.trainable.lora_layers, self.config.lora_dropout
        scale = self.config.lora_alpha / self.config.lora_rank
        for layer, kept in zip(layers, rng.random(len(layers)) >= rate, strict=True):
            for name in layer.active_adapters:
                layer.scaling[name] = scale / (1 - rate) * bool(kept)

    def _set_learning_rates(self) -> None:
        factor = learning_rate_factor(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _update_average(self) -> None:
        if not self.average:
            return
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        values = [p.detach() for _, p in self.trainable.parameters()]
        torch._foreach_lerp_(list(self.average.values()), values, 1 - decay)


def learning_rate_factor(config: FitConfig, step: int) -> float:
    """Compute the factor on the learning rate for a step, counted from 0: a real warm-up, then the schedule."""
    if step < config.num_warmup_steps:
        return (step + 1) / config.num_warmup_steps
    done = (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.lr_scheduler]


def train(
    trainer: Trainer,
    photos: Sequence[TrainingImage],
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    on_step: Callable[[Progress], bool | None] | None = None,
    progress: bool = True,
) -> None:
    """Run a fit to its end, or until ``on_step`` returns ``False``.

    With a checkpoint file it goes on where the file stands, and draws what an uninterrupted run would have drawn. An
    interruption (Ctrl-C) writes one before it is passed on.

    Raises:
        TrainingError: the loss is no longer a number.
        AdapterError: the checkpoint is damaged or of another fit.
    """
    config = trainer.config
    if checkpoint is not None and checkpoint.exists():
        trainer.load(checkpoint, identity)
    elif checkpoint is not None:
        trainer.save(checkpoint, identity)  # shows now whether it can be written
    diverged = False
    start = time.monotonic()
    bar = tqdm(
        total=config.num_steps, initial=trainer.step, desc="fit", unit="step",
        disable=not progress or not trainer.accelerator.is_main_process,
    )  # fmt: skip
    try:
        while trainer.step < config.num_steps:
            trainer.train_step(photos)
            loss = float(np.mean(trainer.losses[-50:])) if trainer.losses else math.nan
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if checkpoint is not None and trainer.step % config.checkpoint_every == 0:
                trainer.save(checkpoint, identity)
            rate = config.learning_rate * learning_rate_factor(config, trainer.step - 1)
            report = Progress(
                step=trainer.step, num_steps=config.num_steps, learning_rate=rate,
                loss=trainer.losses[-1] if trainer.losses else math.nan, time_s=time.monotonic() - start,
            )  # fmt: skip
            if on_step is not None and on_step(report) is False:
                break
    except TrainingError:
        diverged = True
        if checkpoint is not None:  # it would only lead to the same end
            checkpoint.unlink(missing_ok=True)
        raise
    finally:
        bar.close()
        if checkpoint is not None and not diverged:
            trainer.save(checkpoint, identity)


def _attention(device: torch.device) -> AbstractContextManager[object]:
    """Choose plain attention on a CPU, where the fused kernel's backward pass is slower."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _hold_sync(accelerator: Accelerator, model: nn.Module, *, hold: bool) -> AbstractContextManager[object]:
    """Put off the exchange of gradients between processes until a batch's last piece."""
    return accelerator.no_sync(model) if hold else nullcontext()
