"""Memory: the free memory of a device, the peak of a piece of work, and smaller work when memory runs out."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch.compiler import set_stance
from torch.utils._python_dispatch import TorchDispatchMode  # private, but torch documents no other place for it
from torch.utils._pytree import tree_leaves

from realfill.errors import warn

T = TypeVar("T")

_CGROUP = Path("/sys/fs/cgroup")
MAX_BATCH_ON_CPU = 16  # larger batches are not faster there
FREE_SHARE = 0.6  # share of free memory to plan with; the rest is for kernels, fragmentation and other programs


def free_bytes(device: torch.device) -> int:
    """Return how many bytes new tensors can take; on CUDA this includes what torch keeps for reuse."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(min(psutil.virtual_memory().available, _container_bytes()))


def _container_bytes() -> float:
    """Return how many bytes the limit of a container leaves (Linux, cgroup v2); infinity without a limit."""
    try:
        limit, current = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        values = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - current + int(values["inactive_file"]))  # the kernel can drop cached files
    except (OSError, ValueError, KeyError):  # no cgroups, or the limit is "max"
        return math.inf


def peak_bytes(work: Callable[[], T], device: torch.device) -> tuple[T, int]:
    """Run ``work`` and measure the peak of the memory that it allocates.

    On CUDA the number comes from the allocator and includes the workspace of kernels. On other devices it is the size
    of all tensors alive at the same time, which is reproducible but leaves out the workspace of kernels.

    Returns:
        The result of ``work``, and the peak in bytes above what was allocated before.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        return result, torch.cuda.max_memory_allocated(device) - before
    with set_stance("force_eager"), LiveTensors() as live:  # LiveTensors cannot see into compiled code
        result = work()
    return result, live.peak_bytes


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on any device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and should_reduce_batch_size(error)
    )


def release() -> None:
    """Return the memory of finished work to the device, so that other programs can have it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class LiveTensors(TorchDispatchMode):
    """Count the bytes of tensors that a ``with`` block creates, while they are alive.

    Attributes:
        peak_bytes: largest number of bytes alive at the same time.
    """

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self.peak_bytes = 0
        self._live_bytes = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            self._register(tensor, counts=False)  # an unknown input is older than the block
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self._register(tensor, counts=True)
        return result

    def _register(self, tensor: Any, *, counts: bool) -> None:
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes() if counts else 0

        def forget(_: object) -> None:
            del self._known[key]
            self._live_bytes -= size

        self._known[key] = weakref.ref(storage, forget)
        self._live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)


def fits(device: torch.device, num_bytes: int) -> bool:
    """Tell whether ``num_bytes`` bytes fit into free memory, with a reserve."""
    return num_bytes <= FREE_SHARE * free_bytes(device)


def count_that_fits(device: torch.device, bytes_each: int) -> int:
    """Return how many items of a size fit into free memory, with a reserve: at least 1, and at most 16 on a CPU."""
    count = max(1, int(FREE_SHARE * free_bytes(device) / max(1, bytes_each)))
    return min(count, MAX_BATCH_ON_CPU) if device.type == "cpu" else count


def until_it_fits(work: Callable[[], T], shrink: Callable[[], str | None], device: torch.device) -> T:
    """Do work; each time memory runs out, warn, make the work smaller and try again.

    Args:
        work: the work, which is called again after each failure. It raises an error when memory runs out.
        shrink: makes the next attempt smaller and says how the work continues ("8 images at a time"). It returns
            ``None`` if the work cannot be smaller.
        device: where ``work`` runs.

    Returns:
        The result of ``work``.

    Raises:
        RuntimeError: memory ran out and the work cannot be smaller, or ``work`` failed for another reason.
        MemoryError: memory ran out outside torch, and the work cannot be smaller.
    """
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = shrink()
            if smaller is None:
                raise
        if device.type == "cuda":  # not inside the handler, where the exception still holds tensors
            torch.cuda.empty_cache()
        warn(f"out of memory; continuing with {smaller}")
