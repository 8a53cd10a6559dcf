"""Memory: how much is free on a device, how much a piece of work takes, and whether an error says that it ran out."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch.compiler import set_stance
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")

_CGROUP = Path("/sys/fs/cgroup")
MAX_BATCH_ON_CPU = 16  # more isn't faster there
FREE_SHARE = 0.6  # of free memory that is planned with; the rest is for kernels, fragments and other programs


def free_bytes(device: torch.device) -> int:
    """Tell how many bytes new tensors could take: on CUDA what the driver has and what torch keeps for reuse."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(min(psutil.virtual_memory().available, _container_bytes()))


def _container_bytes() -> float:
    """Tell how many bytes a container's limit leaves (Linux, cgroup v2); infinite where there is none."""
    try:
        limit, current = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        values = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - current + int(values["inactive_file"]))  # files that were read can be forgotten
    except (OSError, ValueError, KeyError):  # no such system, or "max"
        return math.inf


def peak_bytes(work: Callable[[], T], device: torch.device) -> tuple[T, int]:
    """Run a piece of work and measure the most bytes that it held at a time, beyond what was held before.

    Returns its result, and that number.

    On CUDA the allocator tells, what kernels need for themselves included. Elsewhere the tensors are counted while
    they live, which gives the same number each time; what kernels need for themselves isn't seen.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        return result, torch.cuda.max_memory_allocated(device) - before
    with set_stance("force_eager"), LiveTensors() as live:  # it doesn't see into compiled code
        result = work()
    return result, live.peak_bytes


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and should_reduce_batch_size(error)
    )


class LiveTensors(TorchDispatchMode):
    """Count the bytes of tensors that come to be within a ``with`` block, from their creation to their end.

    Attributes:
        peak_bytes: the most at a time.
    """

    def __init__(self) -> None:
        """Set up; nothing is counted yet."""
        super().__init__()
        self.peak_bytes = 0
        self._live_bytes = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            self._note(tensor, counts=False)  # whatever goes in unseen was there before
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self._note(tensor, counts=True)
        return result

    def _note(self, tensor: Any, *, counts: bool) -> None:
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._seen:
            return
        size = storage.nbytes() if counts else 0

        def end(_: object) -> None:
            del self._seen[key]
            self._live_bytes -= size

        self._seen[key] = weakref.ref(storage, end)
        self._live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
