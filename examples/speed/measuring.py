"""Measurements of variants of a piece of work: time, floating point operations, peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

import torch
from torch.compiler import set_stance
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from realfill.compute.memory import peak_bytes

SpeedPart: TypeAlias = Literal["fit", "sample", "rank"]

_NUM_PRODUCTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of a piece of work, and of the set-up before it."""

    seconds: float
    set_up_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One implementation of a piece of work.

    Attributes:
        part: the piece of work.
        name: name of the implementation.
        steps: steps of a run: optimizer steps, denoising steps over all samples, or pairs of images.
        samples: results of a run: crops trained on, images sampled, or images ranked.
        dtype: precision of the computation.
        run: does the work and measures its time.
        flops: counts the floating point operations of the timed work; ``None``: those of all work of ``run``.
    """

    part: SpeedPart
    name: str
    steps: int
    samples: int
    dtype: torch.dtype
    run: Callable[[], Timing]
    flops: Callable[[], float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The measurements of a variant; times are medians over the rounds.

    Attributes:
        part: the piece of work.
        variant: name of the variant.
        dtype: precision of the computation.
        step_s: seconds per step.
        samples_per_s: samples per second.
        sample_gflop: 10^9 floating point operations per sample (matrix products and convolutions).
        peak_gflops: 10^9 operations per second of the machine's fastest large matrix product in this precision.
        roofline_share: operations per second of the work over ``peak_gflops``.
        peak_mb: peak memory in tensors, 10^6 bytes, of one run.
        set_up_s: seconds of the set-up in the first run. On CUDA it includes compilation; elsewhere that run counts
            tensors, which is slower, and compiles nothing.
        rounds_s: seconds of each round.
    """

    part: SpeedPart
    variant: str
    dtype: str
    step_s: float
    samples_per_s: float
    sample_gflop: float
    peak_gflops: float
    roofline_share: float
    peak_mb: float
    set_up_s: float
    rounds_s: tuple[float, ...]


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(work: Callable[[], object], device: torch.device) -> Timing:
    """Measure the time of a piece of work."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return Timing(seconds=time.perf_counter() - start)


def count_flops(work: Callable[[], object]) -> float:
    """Count the floating point operations of a piece of work.

    Attention runs without fused kernels, which the counter does not know on a CPU, and nothing is compiled, since the
    counter does not see compiled code.
    """
    with set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of the fastest of a few large matrix products."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    seconds = min(timed(lambda: torch.mm(a, b), device).seconds for _ in range(_NUM_PRODUCTS))
    return 2 * side**3 / seconds


def measure(variants: Sequence[Variant], device: torch.device, rounds: int) -> list[Figures]:
    """Measure memory and FLOPs once, and time in rounds in which the variants and the matrix product take turns.

    The run that measures memory also warms up caches.
    """
    first = [peak_bytes(v.run, device) for v in variants]
    flops = [count_flops(v.run) if v.flops is None else v.flops() for v in variants]
    timings: list[list[Timing]] = [[] for _ in variants]
    best: dict[torch.dtype, float] = {}
    for _ in range(rounds):
        for dtype in dict.fromkeys(v.dtype for v in variants):
            best[dtype] = max(best.get(dtype, 0.0), matmul_flops(device, dtype))
        for variant, of_variant in zip(variants, timings, strict=True):
            of_variant.append(variant.run())
    return [
        _figures(v, t, f, best[v.dtype], peak_mb=peak / 1e6, set_up_s=once.set_up_s)
        for v, t, f, (once, peak) in zip(variants, timings, flops, first, strict=True)
    ]


def _figures(
    variant: Variant, timings: Sequence[Timing], flops: float, best: float, *, peak_mb: float, set_up_s: float
) -> Figures:
    seconds = median(t.seconds for t in timings)
    return Figures(
        part=variant.part,
        variant=variant.name,
        dtype=str(variant.dtype).removeprefix("torch."),
        step_s=seconds / variant.steps,
        samples_per_s=variant.samples / seconds,
        sample_gflop=flops / variant.samples / 1e9,
        peak_gflops=best / 1e9,
        roofline_share=flops / seconds / best,
        peak_mb=peak_mb,
        set_up_s=set_up_s,
        rounds_s=tuple(t.seconds for t in timings),
    )
