"""Fit and complete with a base on a GPU, also within less memory than the card has.

    python examples/speed/untrained.py random-sd2 SD2
    python examples/gpu_check.py SD2 --limits-gb 0 12 8

A limit holds for torch's own memory and the plan of the fit does not see it, as when another program takes the rest.
0: no limit. Prints a line for each fit and each completion, and the error of one that fails.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from pathlib import Path

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent / "speed"))
from workloads import make_scene

from realfill import FitConfig, GeometryConfig, RankConfig, SampleConfig, complete, fit
from realfill.compute.progress import Progress

_FIRST = 2  # steps that are not timed
_SCENE_PX = 768


def check(base: Path, limit_gb: float, num_steps: int, num_seeds: int, *, compiled: bool) -> None:
    """Fit and complete once, and print times and peak memory."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_gb * 1e9 / total) if limit_gb else 1.0)
    scene, geometry, marks = make_scene(_SCENE_PX), GeometryConfig(enabled=False), {}

    def mark(report: Progress) -> None:
        if report.step in (_FIRST, num_steps):
            torch.cuda.synchronize()
            marks[report.step] = time.monotonic()

    torch.cuda.reset_peak_memory_stats()
    config = FitConfig(base=str(base), num_steps=num_steps, compile=compiled)
    adapter = fit(scene, config, geometry=geometry, device="cuda", on_step=mark)
    step_s = (marks[num_steps] - marks[_FIRST]) / (num_steps - _FIRST)
    peak_gb = torch.cuda.max_memory_allocated() / 1e9
    losses = f"loss {adapter.losses[0]:.3f} to {adapter.losses[-1]:.3f}"
    print(f"limit {limit_gb:g} GB: {step_s:.3f} s a step of the fit, {losses}, peak {peak_gb:.1f} GB", flush=True)

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = time.monotonic()
    sampling, ranking = SampleConfig(num_samples=num_seeds, num_inference_steps=50), RankConfig(matcher="sift")
    completions = complete(scene, adapter, sampling, ranking=ranking, geometry=geometry, device="cuda")
    peak_gb = torch.cuda.max_memory_allocated() / 1e9
    exact = all((c.image == scene.target)[~scene.mask].all() for c in completions)
    print(
        f"limit {limit_gb:g} GB: {time.monotonic() - start:.1f} s for {num_seeds} seeds of 50 steps with loading and "
        f"ranking, peak {peak_gb:.1f} GB, known pixels {'exact' if exact else 'CHANGED'}", flush=True,
    )  # fmt: skip


def main(
    base: tyro.conf.Positional[Path],
    /,
    limits_gb: tuple[float, ...] = (0, 12, 8),
    num_steps: int = 60,
    num_seeds: int = 4,
    *,
    compiled: bool = False,
) -> None:
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device")
    for limit_gb in limits_gb:
        try:
            check(base, limit_gb, num_steps, num_seeds, compiled=compiled)
        except Exception:  # noqa: BLE001 - the next limit is checked all the same
            traceback.print_exc()
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
