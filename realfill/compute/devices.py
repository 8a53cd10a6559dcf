"""Devices: the choice of device and precision, and the accelerator that drives training on it."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from realfill.config import Precision

DTYPES: dict[Precision, torch.dtype] = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """Return the given device; without one, return CUDA, else MPS, else the CPU.

    Under ``accelerate launch`` and ``torchrun`` each process gets a GPU of its own, unless ``device`` names one.

    Raises:
        ValueError: torch does not know the device, or this machine does not have it.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen == torch.device("cuda") and torch.distributed.is_torchelastic_launched():
            chosen = PartialState().device or chosen
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the device {str(device)!r} cannot be used ({str(error).splitlines()[0]}); legal: a device of this "
            "machine, such as 'cpu', 'cuda', 'cuda:1' or 'mps', or None for the best available"
        ) from error
    return chosen


def resolve_dtype(device: torch.device, dtype: torch.dtype | None = None) -> torch.dtype:
    """Return ``dtype`` if given, else half precision on a CUDA device and single precision elsewhere."""
    if dtype is not None:
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if _has_bf16(device) else torch.float16
    return torch.float32


def resolve_frozen_dtype(dtype: torch.dtype | None, precision: Precision) -> torch.dtype:
    """Return the precision of the frozen weights under a LoRA: ``dtype``, else that of the computation."""
    return dtype or DTYPES[precision]


def _has_bf16(device: torch.device) -> bool:
    """Tell whether a GPU has bf16 in hardware; older ones emulate it, which is slow."""
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device without waiting for work that a GPU still has to finish."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def resolve_precision(device: torch.device, mixed_precision: Precision | None) -> Precision:
    """Return ``mixed_precision`` if given, else bf16 where the device is fast in it, else fp16 on CUDA, else "no".

    Raises:
        ValueError: ``mixed_precision`` is fp16 and the device is a CPU.
    """
    if mixed_precision == "fp16" and device.type == "cpu":
        raise ValueError("mixed_precision is 'fp16', and a CPU cannot train in it; legal on a CPU: 'bf16', 'no'")
    if mixed_precision is not None:
        return mixed_precision
    if device.type == "cuda":
        return "bf16" if _has_bf16(device) else "fp16"
    return "bf16" if device.type == "cpu" and _is_cpu_fast_in_bf16() else "no"


def _is_cpu_fast_in_bf16() -> bool:
    """Tell whether the CPU multiplies faster in bf16 than in single precision.

    CPUs with AMX do, and so do AMD's with AVX-512 bf16. Intel's with AVX-512 bf16 but without AMX (virtual machines
    often hide it) took twice as long for a matrix product, and 1.4 times as long for a training step.
    """
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    avx512 = features.get("avx512_bf16") and "Intel" not in str(features.get("cpu_name"))
    return bool(features.get("amx_bf16") or avx512)


def make_accelerator(device: torch.device, mixed_precision: Precision | None) -> Accelerator:
    """Make the accelerator for a device; in a single process, it does not inherit the precision of an earlier one."""
    precision = resolve_precision(device, mixed_precision)
    distributed = torch.distributed
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        # accelerate has no public way to change the precision within a process
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu", gradient_accumulation_steps=1)


def is_main_process() -> bool:
    """Tell whether this process writes the output; one of several that train together does."""
    if torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"  # torchrun sets it before the processes know each other


def in_any_process(condition: bool) -> bool:  # noqa: FBT001 - it is what the function is about
    """Tell whether a condition is true in any of the processes that train together; all of them must ask."""
    if not torch.distributed.is_initialized():
        return condition
    answers = [False] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(answers, condition)
    return any(answers)
