"""Trainer: the state of a fit, and one step of it (paper, section 3.2)."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from realfill.config import FitConfig
from realfill.devices import send
from realfill.errors import AdapterError, TrainingError
from realfill.fitting.bank import Bank
from realfill.fitting.batches import Crops, TrainingImage, draw_crops, draw_noising, step_rng
from realfill.fitting.denoising import Denoiser, Latents, denoising_loss, encode_crops
from realfill.fitting.footprint import legal_pieces
from realfill.fitting.loading import Loader, threads_for
from realfill.fitting.plans import compiling_pays, plan_fit
from realfill.models.adapter import Trainable
from realfill.models.inpainter import Inpainter

if TYPE_CHECKING:
    from accelerate import Accelerator

_CHECK_EVERY = 10  # steps between looks at the loss, each of which waits for the device


class Trainer:
    """The state of a fit: what changes, its optimizer, its running average, how far it has come.

    Attributes:
        step: steps done.
        time_s: seconds spent on them, before an interruption too; whoever drives it keeps it up to date.
        losses: of the steps done, as far as they were read.
    """

    def __init__(self, inpainter: Inpainter, trainable: Trainable, config: FitConfig, accelerator: Accelerator) -> None:
        """Set up a fit; the inpainter is changed in place.

        Args:
            inpainter: on its device.
            trainable: what of it may change.
            config: resolved.
            accelerator: from accelerate: precision and processes.

        Raises:
            ValueError: the batch can't be shared by the processes.
        """
        self.plan = plan_fit(inpainter, trainable, config, accelerator)
        config = dataclasses.replace(
            config,
            gradient_accumulation_steps=self.plan.pieces,
            gradient_checkpointing=self.plan.checkpointing,
            compile=compiling_pays(config, inpainter.device) if config.compile is None else config.compile,
        )
        self.inpainter, self.config, self.accelerator = inpainter, config, accelerator
        self.trainable = trainable
        rates = {"unet": config.learning_rate, "text_encoder": config.text_encoder_learning_rate}
        groups = [
            {"params": list(named.values()), "lr": rates[group], "base_lr": rates[group]}
            for group, named in self.trainable.groups.items()
        ]
        self._prepare()
        for layer in trainable.lora_layers:  # autocast has the last word; peft's convolutions would go over single
            layer.cast_input_dtype_enabled = config.mixed_precision == "no"
        fused = inpainter.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            groups, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay, fused=fused
        )
        self.optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        self.denoiser: nn.Module = Denoiser(inpainter, config.prompt)
        if accelerator.num_processes > 1:
            self.denoiser = accelerator.prepare_model(self.denoiser, device_placement=False)
        self.average = {n: p.detach().clone() for n, p in self.trainable.parameters()} if config.ema_decay else {}
        self._scales = torch.ones(len(trainable.lora_layers), device=inpainter.device)
        self.loader = Loader(self._draw, config.num_steps, num_threads=threads_for(inpainter.device))
        self.bank = Bank(inpainter, config, accelerator) if config.bank_size else None
        self.step = 0
        self.time_s = 0.0
        self.losses: list[float] = []
        self._pending: list[torch.Tensor] = []
        self._whole = True

    def train_step(self, photos: Sequence[TrainingImage]) -> None:
        """Make one optimizer step on a batch drawn from photos.

        The loss is the mean over all latents of the batch that count, however they are spread over crops, processes
        and pieces. (Unstated in the paper.)
        """
        config, inpainter, accelerator = self.config, self.inpainter, self.accelerator
        latents, rng, generator = self._latents(photos)
        shape = inpainter.latent_shape((inpainter.resolution, inpainter.resolution))
        noising = draw_noising(config, shape, rng, generator)[self._mine]
        counted: torch.Tensor = accelerator.reduce(latents.weights.sum(), "sum")  # type: ignore[assignment]
        weights = latents.weights / (counted.clamp(min=1) * shape[0])
        self._drop_layers(rng)
        self._set_learning_rates()
        total = torch.zeros((), device=inpainter.device)
        for start in range(0, len(weights), self._piece):
            rows = slice(start, start + self._piece)
            last = rows.stop >= len(weights)
            with _hold_sync(accelerator, self.denoiser, hold=not last):
                loss = denoising_loss(inpainter, latents[rows], weights[rows], noising[rows], self._predict)
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

    @property
    def can_shrink(self) -> bool:
        """Tell whether a step that ran out of memory can be tried again in a smaller way."""
        alone = self.accelerator.num_processes == 1  # else others wait for this one's gradients
        return self._whole and alone and (self._piece > 1 or not self.plan.checkpointing)

    def shrink(self) -> None:
        """Compute the next steps in smaller pieces or, where they are single crops, with checkpointing."""
        if self._piece > 1:
            pieces = next(n for n in legal_pieces(self.config.batch_size) if n > self.plan.pieces)
            self.plan = dataclasses.replace(self.plan, pieces=pieces)
        else:
            self.plan = dataclasses.replace(self.plan, checkpointing=True)
            self._prepare()
        self.config = dataclasses.replace(
            self.config, gradient_accumulation_steps=self.plan.pieces, gradient_checkpointing=self.plan.checkpointing
        )
        self.optimizer.zero_grad(set_to_none=True)
        if self.inpainter.device.type == "cuda":
            torch.cuda.empty_cache()

    def read_losses(self) -> None:
        """Wait for the device and take over the losses of the steps done.

        Raises:
            TrainingError: one of them isn't a number.
        """
        self.losses += [float(x) for x in self._pending]
        new = range(len(self.losses) - len(self._pending), len(self.losses))
        self._pending.clear()
        step = next((i + 1 for i in new if not math.isfinite(self.losses[i])), None)
        if step is not None:
            raise TrainingError(
                f"the loss at step {step} is {self.losses[step - 1]}: the fit diverged. Lower learning_rate "
                f"({self.config.learning_rate}), or set mixed_precision to 'bf16' or 'no'"
            )

    def _require_finite(self) -> None:
        self.read_losses()
        largest = torch.finfo(torch.float16).max  # in which an adapter is written
        if not all(bool((p.detach().abs() <= largest).all()) for _, p in self.trainable.parameters()):
            raise TrainingError(f"the fit diverged at its last step; lower learning_rate ({self.config.learning_rate})")

    def save(self, path: Path, identity: str) -> None:
        """Write a checkpoint, whole or not at all.

        Args:
            path: the file.
            identity: of the fit; only a fit with the same one resumes from it.

        Raises:
            TrainingError: the fit diverged.
        """
        if not self._whole:
            return
        self._require_finite()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "identity": identity,
            "step": self.step,
            "time_s": self.time_s,
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
                f"the checkpoint {str(path)!r} is damaged ({error}); remove or overwrite it to start again"
            ) from error
        if found != identity:
            raise AdapterError(
                f"the checkpoint {str(path)!r} belongs to a fit with another config, scene or base; "
                "choose another checkpoint_dir, or overwrite it"
            )
        with torch.no_grad():
            for name, parameter in self.trainable.parameters():
                parameter.copy_(state["parameters"][name])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"]:  # empty: it was gone on in another precision
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.time_s, self.losses = state["step"], state.get("time_s", 0.0), state["losses"]

    def export(self) -> dict[str, torch.Tensor]:
        """Build the adapter's tensors from the running average, or where there is none from the last weights."""
        self._require_finite()
        with torch.no_grad():
            for name, parameter in self.trainable.parameters() if self.average else ():
                parameter.copy_(self.average[name])
        return self.trainable.export()

    @property
    def _piece(self) -> int:
        """Crops that this process computes at a time."""
        return self.config.batch_size // self.plan.pieces // self.accelerator.num_processes

    @property
    def _mine(self) -> slice:
        """The rows of a batch that this process computes."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    def _latents(self, photos: Sequence[TrainingImage]) -> tuple[Latents, np.random.Generator, torch.Generator]:
        """Get this process's share of the step's crops, encoded: from the bank, or drawn for this step.

        And the generators for what else the step draws.
        """
        with self.accelerator.autocast():
            if self.bank is not None:
                kept = self.bank.take(photos, self.step, self._piece)[self._mine]
                return kept, *step_rng(self.config.seed, self.step)
            crops, rng, generator = self.loader.take(photos, self.step)
            own = encode_crops(self.inpainter, crops[self._mine], self.config.visible_weight, self._piece)
            return own, rng, generator

    def _draw(self, photos: Sequence[TrainingImage], step: int) -> tuple[Crops, np.random.Generator, torch.Generator]:
        """Draw a step's crops; with the generators that they left behind, for what else the step draws."""
        rng, generator = step_rng(self.config.seed, step)
        crops = draw_crops(photos, self.config, self.inpainter.resolution, self.config.batch_size, rng)
        return crops, rng, generator

    def _prepare(self) -> None:
        self.inpainter.prepare_training(
            gradient_checkpointing=self.plan.checkpointing, compiled=bool(self.config.compile),
            half_precision=self.config.mixed_precision != "no",
        )  # fmt: skip

    def _predict(self, *inputs: torch.Tensor) -> torch.Tensor:
        with self.accelerator.autocast():
            return self.denoiser(*inputs)

    def _drop_layers(self, rng: np.random.Generator) -> None:
        """Leave LoRA layers out of this step, whole ones, and scale up the others (paper, section 3.2)."""
        layers, rate = self.trainable.lora_layers, self.config.lora_dropout
        scale = self.config.lora_alpha / self.config.lora_rank / (1 - rate)
        kept = rng.random(len(layers)) >= rate
        if self.config.compile:  # compiled code takes numbers for constants, but not tensors
            self._scales.copy_(send(torch.from_numpy(kept * scale).float(), self._scales.device))
            scales: Sequence[float | torch.Tensor] = self._scales.unbind()
        else:
            scales = (kept * scale).tolist()
        for layer, value in zip(layers, scales, strict=True):
            for name in layer.active_adapters:
                layer.scaling[name] = value  # type: ignore[assignment]

    @property
    def learning_rate_factor(self) -> float:
        """The factor on the learning rates of the next step."""
        return learning_rate_factor(self.config, self.step, self.time_s)

    def _set_learning_rates(self) -> None:
        factor = self.learning_rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _update_average(self) -> None:
        if not self.average:
            return
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        values = [p.detach() for _, p in self.trainable.parameters()]
        torch._foreach_lerp_(list(self.average.values()), values, 1 - decay)


def learning_rate_factor(config: FitConfig, step: int, time_s: float = 0.0) -> float:
    """Compute the factor on the learning rate: a real warm-up, then the schedule, by steps or time spent.

    Args:
        config: resolved.
        step: counted from 0.
        time_s: seconds spent so far; they count where there is a ``time_budget_s``.
    """
    if step < config.num_warmup_steps:
        return (step + 1) / config.num_warmup_steps
    done = (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps)
    if config.time_budget_s is not None:
        done = max(done, min(1.0, time_s / config.time_budget_s))
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.lr_scheduler]


def _hold_sync(accelerator: Accelerator, model: nn.Module, *, hold: bool) -> AbstractContextManager[object]:
    """Put off the exchange of gradients between processes until a batch's last piece."""
    return accelerator.no_sync(model) if hold else nullcontext()
