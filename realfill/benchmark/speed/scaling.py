"""How cost grows: operations and time at one, two and three times the work, and the memory of a fit by its photos."""

from __future__ import annotations

import dataclasses
import gc
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from realfill.benchmark.config import SpeedPart
from realfill.benchmark.speed.measuring import Timing, count_flops
from realfill.benchmark.speed.workloads import (
    Workplace,
    make_scene,
    rank_variants,
    run_fit,
    sample_variants,
)
from realfill.capacity import peak_bytes
from realfill.config import RankConfig

_TIMES = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Cost at one size of the work.

    Attributes:
        what: grows.
        size: of it.
        gflop: 10^9 operations; 0 where they aren't counted.
        seconds: that it took, once.
        peak_mb: most memory in tensors at a time, 10^6 bytes; 0 where it isn't measured.
        arrays_mb: likewise in arrays on the CPU: the photos' copies, and what laying references over the target takes.
    """

    what: str
    size: int
    gflop: float
    seconds: float
    peak_mb: float = 0.0
    arrays_mb: float = 0.0


def growth(place: Workplace, ranking: RankConfig, parts: Sequence[SpeedPart], *, photo_px: int) -> list[Growth]:
    """Measure small pieces of work at one, two and three times their size."""
    return [row for part in parts for row in _ROWS[part](place, ranking, photo_px)]


def _fit_rows(place: Workplace, _: RankConfig, __: int) -> Iterator[Growth]:
    scene = place.scene()
    once = count_flops(partial(run_fit, place, scene, 0))
    for steps in _TIMES:
        run = partial(run_fit, place, scene, steps)
        gflop = (count_flops(run) - once) / 1e9
        yield Growth(what="fit: steps", size=steps, gflop=gflop, seconds=run().seconds)
    side = place.resolution
    for what, scenes in (
        ("fit: number of references", {n: make_scene(side, n) for n in _TIMES}),
        ("fit: side of the photos (px)", {n * side: make_scene(n * side) for n in _TIMES}),
    ):
        for size, photos in scenes.items():
            gc.collect()  # or what an earlier fit left is freed at one time or another
            tracemalloc.start()
            timing, peak = peak_bytes(partial(run_fit, place, photos, 1), place.device)
            arrays = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            yield Growth(
                what=what, size=size, gflop=0.0, seconds=timing.seconds, peak_mb=peak / 1e6, arrays_mb=arrays / 1e6
            )


def _sample_rows(place: Workplace, _: RankConfig, __: int) -> Iterator[Growth]:
    def row(what: str, samples: int, steps: int, size: int) -> Growth:
        config = dataclasses.replace(place.sample, num_samples=samples, num_inference_steps=steps)
        (variant,) = sample_variants(dataclasses.replace(place, sample=config), port=False)
        return _counted(what, size, variant.run)

    for n in _TIMES:
        yield row("sample: samples", n, 2, n)
    for n in _TIMES:
        yield row("sample: denoising steps", 1, 2 * n, 2 * n)


def _rank_rows(place: Workplace, ranking: RankConfig, photo_px: int) -> Iterator[Growth]:
    for what in ("rank: references", "rank: samples"):
        for n in _TIMES:
            references, samples = (n, 1) if what == "rank: references" else (1, n)
            variant, _ = rank_variants(
                place.device, ranking, side=photo_px, num_references=references, num_samples=samples, port=False
            )
            yield _counted(what, n, variant.run)


def _counted(what: str, size: int, run: Callable[[], Timing]) -> Growth:
    return Growth(what=what, size=size, gflop=count_flops(run) / 1e9, seconds=run().seconds)


_ROWS: dict[SpeedPart, Callable[[Workplace, RankConfig, int], Iterator[Growth]]] = {
    "fit": _fit_rows,
    "sample": _sample_rows,
    "rank": _rank_rows,
}
