"""Trainer: the state of a fit, which the training loop advances step by step (paper, section 3.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import nn

from realfill.compute.devices import send
from realfill.config import FitSettings
from realfill.errors import TrainingError
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.lora import Trainable
from realfill.training.crops import Crops, TrainingImage, draw_crops, step_rng
from realfill.training.latent_cache import LatentCache
from realfill.training.objective import Denoiser, Latents, encode_crops
from realfill.training.plan import MemoryPlan, compiling_pays, legal_pieces, plan_fit
from realfill.training.planted_hints import hinted
from realfill.training.prefetch import Prefetcher, threads_for
from realfill.training.structure import StructureTraining

if TYPE_CHECKING:
    from accelerate import Accelerator

DrawBatch: TypeAlias = Callable[[int, np.random.Generator], Crops]

_READ_LOSSES_EVERY = 10  # steps on a GPU, because each reading waits for the device


class Trainer:
    """The state of a fit: model, optimizer, moving average, source of batches, and progress.

    Attributes:
        settings: the recipe; it states the number of pieces, checkpointing and compiling that are in use.
        plan: the plan for computing a batch.
        average: parameter name to moving average; empty without ``ema_decay``.
        step: optimizer steps done.
        time_s: seconds spent on these steps, including those before an interruption; the training loop updates it.
        losses: the loss of each step, as far as it has been read from the device.
        notes: tensors and JSON values of the caller, which checkpoints keep.
        is_updating: whether parameters, average and step count are being changed and do not belong together yet.
    """

    def __init__(
        self,
        inpainter: DiffusionFamily,
        trainable: Trainable,
        settings: FitSettings,
        accelerator: Accelerator,
        draw_batch: DrawBatch | None = None,
        structure: StructureTraining | None = None,
    ) -> None:
        """Set up a fit, and the inpainter for training, in place.

        Args:
            inpainter: the base model, on its device.
            trainable: the parameters to train.
            settings: the recipe.
            accelerator: accelerate's driver for precision and processes.
            draw_batch: draws the crops of a step from its number and its generator, and depends on nothing else.
                ``None``: random crops of the photos that the training loop is given.
            structure: what is trained beside the LoRA; ``None``: nothing.

        Raises:
            ValueError: the processes cannot share the batch.
        """
        self.inpainter, self.trainable, self.accelerator, self.structure = inpainter, trainable, accelerator, structure
        plan = plan_fit(inpainter, trainable, settings, accelerator)
        compiled = compiling_pays(settings, inpainter.device) if settings.compile is None else settings.compile
        self.settings = dataclasses.replace(settings, compile=compiled)
        self._use_plan(plan)
        self._prepare_model()
        for layer in trainable.lora_layers:  # autocast decides; peft would compute convolutions in single precision
            layer.cast_input_dtype_enabled = settings.mixed_precision == "no"
        self.optimizer: Any = accelerator.prepare_optimizer(
            _make_optimizer(trainable, settings, inpainter.device), device_placement=False
        )
        self.denoiser: nn.Module = Denoiser(inpainter, settings.prompt, structure and structure.categories)
        if accelerator.num_processes > 1:
            self.denoiser = accelerator.prepare_model(self.denoiser, device_placement=False)
        self.average = {n: p.detach().clone() for n, p in trainable.parameters()} if settings.ema_decay else {}
        self._scales = torch.ones(len(trainable.lora_layers), device=inpainter.device)
        self._prefetcher = Prefetcher(self._draw_crops, settings.num_steps, num_threads=threads_for(inpainter.device))
        self._latent_cache = LatentCache(inpainter, settings, accelerator) if settings.latent_cache_size else None
        self._draw_batch = draw_batch
        self.notes: dict[str, Any] = {}
        self.step = 0
        self.time_s = 0.0
        self.losses: list[float] = []
        self._unread_losses: list[torch.Tensor] = []
        self.is_updating = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters."""
        return [parameter for _, parameter in self.trainable.parameters()]

    @property
    def rows(self) -> slice:
        """The rows of a batch that this process computes."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    @property
    def piece_size(self) -> int:
        """Number of crops that this process computes at a time."""
        return self.settings.batch_size // self.plan.pieces // self.accelerator.num_processes

    def next_batch(self, photos: Sequence[TrainingImage]) -> tuple[Latents, np.random.Generator, torch.Generator]:
        """Return this process's rows of the step's encoded crops, from the latent cache or newly drawn.

        Returns:
            The encoded crops, and the generators for the step's other draws.
        """
        with self.accelerator.autocast():
            if self._latent_cache is not None:
                latents = self._latent_cache.take(photos, self.step, self.piece_size)[self.rows]
                return latents, *step_rng(self.settings.seed, self.step)
            crops, rng, generator = self._prefetcher.take(photos, self.step)
            latents = encode_crops(self.inpainter, crops[self.rows], self.settings.visible_weight, self.piece_size)
            return latents, rng, generator

    def drop_lora_layers(self, rng: np.random.Generator) -> None:
        """Drop whole LoRA layers from this step, and scale up the others (paper, section 3.2)."""
        layers, dropout = self.trainable.lora_layers, self.settings.lora_dropout
        scale = self.settings.lora_alpha / self.settings.lora_rank / (1 - dropout)
        kept = rng.random(len(layers)) >= dropout
        if self.settings.compile:  # compiled code treats numbers as constants, but not tensors
            self._scales.copy_(send(torch.from_numpy(kept * scale).float(), self._scales.device))
            scales: Sequence[float | torch.Tensor] = self._scales.unbind()
        else:
            scales = (kept * scale).tolist()
        for layer, value in zip(layers, scales, strict=True):
            for name in layer.active_adapters:
                layer.scaling[name] = value  # type: ignore[assignment]

    def shrink(self) -> str | None:
        """After a step ran out of memory, make its pieces smaller or, if they are single crops, use checkpointing.

        Returns:
            The new plan of the batch, in words; ``None`` if it cannot be smaller.
        """
        if self.accelerator.num_processes > 1:  # the others wait for this process's gradients
            return None
        if self.piece_size > 1:
            pieces = next(n for n in legal_pieces(self.settings.batch_size) if n > self.plan.pieces)
            self._use_plan(dataclasses.replace(self.plan, pieces=pieces))
        elif not self.plan.checkpointing:
            self._use_plan(dataclasses.replace(self.plan, checkpointing=True))
            self._prepare_model()
        else:
            return None
        self.optimizer.zero_grad(set_to_none=True)
        return f"the batch in {self.plan.pieces} pieces{', with gradient checkpointing' * self.plan.checkpointing}"

    def set_learning_rates(self) -> None:
        """Set the learning rate of each parameter group for the next step."""
        factor = learning_rate_factor(self.settings, self.step, self.time_s)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def update_average(self) -> None:
        """Move the average of the parameters towards their current values."""
        if self.average:
            decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.parameters], 1 - decay)

    def record_loss(self, loss: torch.Tensor) -> None:
        """Note the loss of a step, summed over all processes, without waiting for the device."""
        self._unread_losses.append(self.accelerator.reduce(loss, "sum"))  # type: ignore[arg-type]

    def read_losses(self, *, if_due: bool = False) -> None:
        """Read the losses of the last steps from the device.

        Args:
            if_due: on a GPU, read only after every tenth step.

        Raises:
            TrainingError: a loss is not a finite number.
        """
        if if_due and self.inpainter.device.type != "cpu" and len(self._unread_losses) < _READ_LOSSES_EVERY:
            return
        num_read = len(self.losses)
        self.losses += [float(loss) for loss in self._unread_losses]
        self._unread_losses.clear()
        for step, loss in enumerate(self.losses[num_read:], num_read + 1):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss at step {step} is {loss}: the fit diverged. Lower learning_rate "
                    f"({self.settings.learning_rate}), or set mixed_precision to 'bf16' or 'no'"
                )

    def require_finite(self) -> None:
        """Check that neither the losses nor the parameters have diverged.

        Raises:
            TrainingError: they have.
        """
        self.read_losses()
        largest = torch.finfo(torch.float16).max  # adapters are stored in half precision
        if not all(bool((p.detach().abs() <= largest).all()) for p in self.parameters):
            raise TrainingError(
                f"the fit diverged in its last step; lower learning_rate ({self.settings.learning_rate})"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed fit needs."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "time_s": self.time_s,
            "losses": self.losses,
            "notes": self.notes,
            "parameters": {n: p.detach() for n, p in self.trainable.parameters()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    @property
    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint: parameters, AdamW's two averages of each, and their moving average."""
        tensors = [*self.parameters * 3, *self.average.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of an interrupted fit."""
        with torch.no_grad():
            for name, parameter in self.trainable.parameters():
                parameter.copy_(state["parameters"][name])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"]:  # empty after steps in another precision
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.time_s, self.losses = state["step"], state["time_s"], state["losses"]
        self.notes = state["notes"]

    def export(self) -> dict[str, torch.Tensor]:
        """Build the adapter's tensors from the moving average or, without one, from the last parameters.

        Raises:
            TrainingError: the fit diverged.
        """
        self.require_finite()
        with torch.no_grad():
            for name, parameter in self.trainable.parameters() if self.average else ():
                parameter.copy_(self.average[name])
        return self.trainable.export()

    def _draw_crops(
        self, photos: Sequence[TrainingImage], step: int
    ) -> tuple[Crops, np.random.Generator, torch.Generator]:
        rng, generator = step_rng(self.settings.seed, step)
        if self._draw_batch is not None:
            return self._draw_batch(step, rng), rng, generator
        crops = draw_crops(photos, self.settings, self.inpainter.resolution, self.settings.batch_size, rng)
        if self.inpainter.reads_hints:
            crops = hinted(crops, self.settings.hint_share, rng)
        return crops, rng, generator

    def _use_plan(self, plan: MemoryPlan) -> None:
        self.plan = plan
        self.settings = dataclasses.replace(
            self.settings, gradient_accumulation_steps=plan.pieces, gradient_checkpointing=plan.checkpointing
        )

    def _prepare_model(self) -> None:
        self.inpainter.prepare_training(
            gradient_checkpointing=self.plan.checkpointing, compiled=bool(self.settings.compile),
            half_precision=self.settings.mixed_precision != "no",
        )  # fmt: skip


def learning_rate_factor(settings: FitSettings, step: int, time_s: float = 0.0) -> float:
    """Compute the factor on the learning rate: a linear warm-up, then the schedule, by steps or by time.

    Args:
        settings: the recipe.
        step: the step, counted from 0.
        time_s: seconds spent so far, which matter only with a ``time_budget_s``.
    """
    if step < settings.num_warmup_steps:
        return (step + 1) / settings.num_warmup_steps
    done = (step - settings.num_warmup_steps) / max(1, settings.num_steps - settings.num_warmup_steps)
    if settings.time_budget_s is not None:
        done = max(done, min(1.0, time_s / settings.time_budget_s))
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[settings.lr_scheduler]


def _make_optimizer(trainable: Trainable, settings: FitSettings, device: torch.device) -> torch.optim.AdamW:
    rates = {"text_encoder": settings.text_encoder_learning_rate, **trainable.learning_rates}
    groups = [
        {"params": list(named.values()), "lr": (rate := rates.get(part, settings.learning_rate)), "base_lr": rate}
        for part, named in trainable.groups.items()
    ]
    return torch.optim.AdamW(
        groups, betas=(0.9, settings.adam_beta2), weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )  # fmt: skip
