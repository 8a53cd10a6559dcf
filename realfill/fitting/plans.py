"""Plans: what a fit will take on this machine, told before it starts, and how its batches are computed."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING

import torch

from realfill.capacity import free_bytes
from realfill.config import FitConfig
from realfill.fitting.footprint import MemoryPlan, StepFootprint, plan_memory
from realfill.models.adapter import Trainable
from realfill.models.bases import download_bytes, is_present
from realfill.models.inpainter import Inpainter

if TYPE_CHECKING:
    from accelerate import Accelerator

_LONG, _LONG_S = 1000, 300.0  # steps, and seconds of budget, from which compiling pays


def plan_fit(inpainter: Inpainter, trainable: Trainable, config: FitConfig, accelerator: Accelerator) -> MemoryPlan:
    """Choose how a batch is computed, by what is free on the device; processes on a CPU share that.

    What the config says of pieces and checkpointing is kept.

    Raises:
        ValueError: the batch can't be shared by the processes.
    """
    device, side = inpainter.device, inpainter.resolution
    half = config.mixed_precision != "no" or inpainter.dtype != torch.float32
    channels, height, width = inpainter.latent_shape((side, side))
    footprint = StepFootprint(
        num_trained=sum(p.numel() for _, p in trainable.parameters()),
        width=inpainter.width,
        num_latents=height * width,
        num_pixels=side * side,
        value_bytes=2 if half else 4,
        bank_bytes=4 * config.bank_size * (3 * channels + 2) * height * width,
    )
    free = free_bytes(device) // (1 if device.type == "cuda" else accelerator.num_processes)
    return plan_memory(
        free, footprint, config.batch_size,
        num_processes=accelerator.num_processes, pieces=config.gradient_accumulation_steps,
        checkpointing=config.gradient_checkpointing,
    )  # fmt: skip


def compiling_pays(config: FitConfig, device: torch.device) -> bool:
    """Tell whether a fit is long enough for compiling, which takes a minute or so, and only a GPU gains by."""
    long = config.num_steps >= _LONG and (config.time_budget_s or math.inf) >= _LONG_S
    return device.type == "cuda" and long and importlib.util.find_spec("triton") is not None


def describe_fit(inpainter: Inpainter, config: FitConfig, plan: MemoryPlan) -> str:
    """Say in a line what a fit will take."""
    budget = "" if config.time_budget_s is None else f", at most {config.time_budget_s:g} s"
    ways = [f"in {plan.pieces} pieces of {config.batch_size // plan.pieces}"] if plan.pieces > 1 else []
    ways += ["with gradient checkpointing"] if plan.checkpointing else []
    ways += ["compiled"] if config.compile else []
    gigabytes = (inpainter.num_bytes + plan.total_bytes) / 1e9
    return (
        f"fit: {config.num_steps:,} steps of {config.batch_size} crops at {inpainter.resolution} px{budget}, on "
        f"{inpainter.device}; about {gigabytes:.1f} GB of memory{''.join(f', {way}' for way in ways)}"
    )


def describe_download(base: str, *, local_files_only: bool = False) -> str | None:
    """Say in a line what there is to download before a base can be used; ``None`` if nothing, or it isn't known."""
    size = None if local_files_only or is_present(base) else download_bytes(base)
    return None if size is None else f"downloading the base model {base!r}, {size / 1e9:.1f} GB"
