"""Plans: the expected memory of a fit, and the split of its batches that fits into free memory."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from realfill.compute.memory import free_bytes
from realfill.config import FitSettings
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.hub import download_bytes, is_present
from realfill.models.diffusion.lora import Trainable

if TYPE_CHECKING:
    from accelerate import Accelerator

_ENCODER_VALUES = 512  # values per pixel that a convolutional VAE holds at a time while it encodes
_TRAINED_BYTES = 16  # per trained value: gradient, AdamW's two averages, moving average
USABLE_SHARE = 0.85  # share of free memory; the rest is for fragmentation and for memory that is not counted
_LONG_STEPS, _LONG_S = 1000, 300.0  # steps, and seconds of time budget, from which compiling pays off


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFootprint:
    """The quantities that determine the memory of a training step.

    Attributes:
        num_trained: number of trained values.
        width: channels of the denoiser's first level.
        kept_values: values kept for the backward pass, for each latent and channel: without and with checkpointing.
        num_latents: latents that the denoiser processes for a crop.
        num_pixels: pixels of a crop.
        value_bytes: bytes of an activation: 2 in half precision, else 4.
        cache_bytes: bytes of the latent cache.
    """

    num_trained: int
    width: int
    kept_values: tuple[int, int]
    num_latents: int
    num_pixels: int
    value_bytes: int
    cache_bytes: int = 0

    def crop_bytes(self, *, checkpointing: bool) -> int:
        """Estimate the largest memory per crop of a piece, while it is encoded or trained on."""
        values = self.num_latents * self.width * self.kept_values[checkpointing]
        return self.value_bytes * max(values, self.num_pixels * _ENCODER_VALUES)

    def total_bytes(self, num_crops: int, *, checkpointing: bool) -> int:
        """Estimate the memory of a step, apart from the weights, for pieces of ``num_crops`` crops."""
        fixed = self.num_trained * _TRAINED_BYTES + self.cache_bytes
        return fixed + num_crops * self.crop_bytes(checkpointing=checkpointing)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """A plan for computing a batch within free memory.

    Attributes:
        pieces: number of pieces of the batch, which are computed one after the other.
        checkpointing: whether activations are recomputed in the backward pass.
        total_bytes: expected memory, apart from the weights.
    """

    pieces: int
    checkpointing: bool
    total_bytes: int


def legal_pieces(batch_size: int, num_processes: int = 1) -> list[int]:
    """List the numbers of pieces into which a batch can be split, if several processes share each piece."""
    return [n for n in range(1, batch_size + 1) if batch_size % n == 0 and batch_size // n % num_processes == 0]


def plan_fit(
    inpainter: DiffusionFamily, trainable: Trainable, settings: FitSettings, accelerator: Accelerator
) -> MemoryPlan:
    """Choose how a batch is computed, by the device's free memory, which processes on a CPU share.

    The plan keeps the number of pieces and the checkpointing that ``settings`` states.

    Raises:
        ValueError: the processes cannot share the batch.
    """
    device, side = inpainter.device, inpainter.resolution
    is_half = settings.mixed_precision != "no" or inpainter.dtype != torch.float32
    channels, height, width = inpainter.latent_shape((side, side))
    footprint = StepFootprint(
        num_trained=sum(p.numel() for _, p in trainable.parameters()),
        width=inpainter.width,
        kept_values=inpainter.kept_values,
        num_latents=inpainter.num_latents((side, side)),
        num_pixels=side * side,
        value_bytes=2 if is_half else 4,
        cache_bytes=4 * settings.latent_cache_size * (3 * channels + 2) * height * width,
    )
    free = free_bytes(device) // (1 if device.type == "cuda" else accelerator.num_processes)
    return plan_memory(
        free, footprint, settings.batch_size,
        num_processes=accelerator.num_processes, pieces=settings.gradient_accumulation_steps,
        checkpointing=settings.gradient_checkpointing,
    )  # fmt: skip


def plan_memory(
    free_bytes: int,
    footprint: StepFootprint,
    batch_size: int,
    *,
    num_processes: int = 1,
    pieces: int | None = None,
    checkpointing: bool | None = None,
) -> MemoryPlan:
    """Choose the fastest plan that is expected to fit: the whole batch, else pieces, else checkpointing as well.

    All plans give the same result up to rounding.

    Args:
        free_bytes: free memory after the weights are loaded.
        footprint: the quantities that determine the memory of a step.
        batch_size: crops of a step, over all processes.
        num_processes: number of processes that share each piece.
        pieces: the number of pieces; ``None``: choose it.
        checkpointing: whether to use gradient checkpointing; ``None``: choose it.

    Raises:
        ValueError: the processes cannot share the batch.
    """
    legal = legal_pieces(batch_size, num_processes)
    if not legal:
        raise ValueError(
            f"batch_size is {batch_size}, which {num_processes} processes cannot share; legal: multiples of "
            f"{num_processes}"
        )
    if pieces is not None and pieces not in legal:
        raise ValueError(
            f"gradient_accumulation_steps is {pieces}; legal for a batch of {batch_size} crops and {num_processes} "
            f"processes: {', '.join(map(str, legal))}"
        )
    plans = [
        MemoryPlan(
            pieces=n,
            checkpointing=recompute,
            total_bytes=footprint.total_bytes(batch_size // n // num_processes, checkpointing=recompute),
        )
        for recompute in ((False, True) if checkpointing is None else (checkpointing,))
        for n in (legal if pieces is None else [pieces])
    ]
    fitting = (plan for plan in plans if plan.total_bytes <= free_bytes * USABLE_SHARE)
    return next(fitting, plans[-1])


def compiling_pays(settings: FitSettings, device: torch.device) -> bool:
    """Tell whether compiling saves time: only on a GPU, and in fits long enough to make up for about a minute."""
    is_long = settings.num_steps >= _LONG_STEPS and (settings.time_budget_s or math.inf) >= _LONG_S
    return device.type == "cuda" and is_long and importlib.util.find_spec("triton") is not None


def describe_plan(inpainter: DiffusionFamily, settings: FitSettings, plan: MemoryPlan) -> str:
    """Describe in one line the steps, the memory and the plan of a fit."""
    budget = "" if settings.time_budget_s is None else f", at most {settings.time_budget_s:g} s"
    options = [f"in {plan.pieces} pieces of {settings.batch_size // plan.pieces}"] if plan.pieces > 1 else []
    options += ["with gradient checkpointing"] if plan.checkpointing else []
    options += ["compiled"] if settings.compile else []
    gigabytes = (inpainter.num_bytes + plan.total_bytes) / 1e9
    return (
        f"fit: {settings.num_steps:,} steps of {settings.batch_size} crops at {inpainter.resolution} px{budget}, on "
        f"{inpainter.device}; about {gigabytes:.1f} GB of memory{''.join(f', {option}' for option in options)}"
    )


def describe_download(base: str, *, local_files_only: bool = False) -> str | None:
    """Describe in one line the download that a base model needs; ``None`` if it needs none or its size is unknown."""
    size = None if local_files_only or is_present(base) else download_bytes(base)
    return None if size is None else f"downloading the base model {base!r}, {size / 1e9:.1f} GB"
