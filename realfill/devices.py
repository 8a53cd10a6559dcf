"""Where to compute: the device, the precision there, and accelerate's driver for it."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from realfill.config import Precision

DTYPES: dict[Precision, torch.dtype] = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """Choose the device: the one that is named, else CUDA, else MPS, else the CPU.

    Under ``accelerate launch`` and ``torchrun`` each process takes its own of several GPUs, unless one is named.

    Raises:
        ValueError: the device isn't known to torch or not on this machine.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen == torch.device("cuda") and torch.distributed.is_torchelastic_launched():
            chosen = PartialState().device or chosen
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {str(device)!r} can't be used: {str(error).splitlines()[0]}") from error
    return chosen


def resolve_dtype(device: torch.device, dtype: torch.dtype | None = None) -> torch.dtype:
    """Choose the precision of frozen weights: half on a CUDA device, single elsewhere."""
    if dtype is not None:
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if _has_bf16(device) else torch.float16
    return torch.float32


def resolve_frozen_dtype(dtype: torch.dtype | None, precision: Precision) -> torch.dtype:
    """Choose the precision of the weights under a LoRA: ``dtype``, else what is computed in."""
    return dtype or DTYPES[precision]


def _has_bf16(device: torch.device) -> bool:
    """Tell whether a GPU computes in bf16; older ones emulate it, slowly."""
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device, without waiting for what a GPU is still busy with."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def resolve_precision(device: torch.device, mixed_precision: Precision | None) -> Precision:
    """Choose the precision to compute in: bf16 where the device is fast in it, else fp16 on CUDA, else single.

    Raises:
        ValueError: fp16 is asked for on a processor.
    """
    if mixed_precision == "fp16" and device.type == "cpu":
        raise ValueError("mixed_precision is 'fp16', which a processor can't be fitted in; legal there: 'bf16', 'no'")
    if mixed_precision is not None:
        return mixed_precision
    if device.type == "cuda":
        return "bf16" if _has_bf16(device) else "fp16"
    return "bf16" if device.type == "cpu" and _is_processor_fast_in_bf16() else "no"


def _is_processor_fast_in_bf16() -> bool:
    """Tell whether the processor multiplies faster in bf16 than in single precision.

    With AMX it does, and AMD's with AVX-512's bf16. Intel's that have the latter alone (machines that hide AMX, say)
    took twice as long for a matrix product as in single precision, and 1.4 times as long for a step of a fit.
    """
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    alone = features.get("avx512_bf16") and "Intel" not in str(features.get("cpu_name"))
    return bool(features.get("amx_bf16") or alone)


def make_accelerator(device: torch.device, mixed_precision: Precision | None) -> Accelerator:
    """Make accelerate's driver for a device; for one process, without what an earlier fit in this process set."""
    precision = resolve_precision(device, mixed_precision)
    if not PartialState._shared_state or PartialState().num_processes == 1:  # noqa: SLF001 - no public way to ask
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - else it can't change precision
    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu", gradient_accumulation_steps=1)


def is_main_process() -> bool:
    """Tell whether this is the one that writes, of the processes that fit together."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
