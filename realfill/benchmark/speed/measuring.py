"""Measuring: variants that take turns, the FLOPs of their work, the machine's own peak, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch.compiler import set_stance
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from realfill.benchmark.config import SpeedPart
from realfill.capacity import peak_bytes

_MATMUL_SIDES = {"cuda": 8192}
_MATMUL_SIDE = 1024
_MATMUL_TIMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a piece of work took: seconds, and of what is done once before it."""

    seconds: float
    set_up_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to do a piece of work.

    Attributes:
        part: which piece.
        name: which way.
        steps: steps that ``run`` makes: of the optimizer, of denoising over all samples, or pairs of images.
        samples: what comes out of them: crops trained on, images sampled or ranked.
        dtype: what it computes in.
        run: does it, and tells the time.
        flops: counts the floating point operations of what ``run`` times; ``None``: of all that it does.
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
    """What was measured of a variant; times are medians over the rounds.

    Attributes:
        part: which piece of work.
        variant: which way to do it.
        dtype: what it computes in.
        seconds_a_step: as ``Variant`` says what a step is.
        samples_a_second: likewise.
        gflop_a_sample: 10^9 floating point operations, by torch's counter: matrix products and convolutions.
        peak_gflops: 10^9 such operations a second of the machine's fastest large matrix product in this ``dtype``.
        roofline_share: operations a second of the work over those of that product.
        peak_mb: the most memory in tensors at a time, 10^6 bytes, of one run on its own.
        set_up_s: what is done once before, in the first run of all. On CUDA what is compiled is compiled in it;
            elsewhere that run counts tensors, which is slower, and compiles nothing.
        rounds_s: seconds of each round.
    """

    part: SpeedPart
    variant: str
    dtype: str
    seconds_a_step: float
    samples_a_second: float
    gflop_a_sample: float
    peak_gflops: float
    roofline_share: float
    peak_mb: float
    set_up_s: float
    rounds_s: tuple[float, ...]


def synchronize(device: torch.device) -> None:
    """Wait for all that a device has been told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(work: Callable[[], object], device: torch.device) -> Timing:
    """Time a piece of work."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return Timing(seconds=time.perf_counter() - start)


def count_flops(work: Callable[[], object]) -> float:
    """Count the floating point operations of a piece of work.

    Attention is computed plainly meanwhile: the counter doesn't know a CPU's fused kernel. Nothing is compiled, since
    it doesn't see into compiled code, and what is met under it first would never be compiled after.
    """
    with set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the machine: operations a second of its fastest of a few large matrix products."""
    side = _MATMUL_SIDES.get(device.type, _MATMUL_SIDE)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    seconds = min(timed(lambda: torch.mm(a, b), device).seconds for _ in range(_MATMUL_TIMES))
    return 2 * side**3 / seconds


def measure(variants: Sequence[Variant], device: torch.device, rounds: int) -> list[Figures]:
    """Measure variants: memory and FLOPs once, time in rounds in which they take turns, the machine's peak with them.

    The run that measures memory warms up what is kept between runs.
    """
    first = [peak_bytes(v.run, device) for v in variants]
    flops = [count_flops(v.run) if v.flops is None else v.flops() for v in variants]
    timings: list[list[Timing]] = [[] for _ in variants]
    best: dict[torch.dtype, float] = {}
    for _ in range(rounds):
        for dtype in dict.fromkeys(v.dtype for v in variants):
            best[dtype] = max(best.get(dtype, 0.0), matmul_flops(device, dtype))
        for variant, found in zip(variants, timings, strict=True):
            found.append(variant.run())
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
        seconds_a_step=seconds / variant.steps,
        samples_a_second=variant.samples / seconds,
        gflop_a_sample=flops / variant.samples / 1e9,
        peak_gflops=best / 1e9,
        roofline_share=flops / seconds / best,
        peak_mb=peak_mb,
        set_up_s=set_up_s,
        rounds_s=tuple(t.seconds for t in timings),
    )
