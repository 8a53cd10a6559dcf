"""The figures of a benchmark's completions, run by run, and which completion of a run is chosen."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeAlias

from realfill.benchmark.records import Record, Results
from realfill.metrics import METRICS

PSNR_CEILING_DB = 100.0
"""What an infinite PSNR, a hole equal to the truth, counts as, so that means and differences stay finite."""

Runs: TypeAlias = dict[str, list[list[Record]]]
"""Case to its fit seeds to their completions, in the order of seeds."""


def methods_of(results: Results) -> list[str]:
    """List the methods in the order in which they first ran, failed ones too."""
    return list(dict.fromkeys(item.method for item in (*results.runs, *results.records)))


def numbers_of(results: Results) -> dict[str, dict[int, str]]:
    """Find the methods that ran with several numbers of references: name to number to the name of that arm."""
    found: dict[str, dict[int, str]] = {}
    for arm in methods_of(results):
        parts = re.fullmatch(r"(.+)-(\d)ref", arm)
        if parts:
            found.setdefault(parts[1], {})[int(parts[2])] = arm
    return {method: dict(sorted(arms.items())) for method, arms in found.items()}


def cases_of(results: Results) -> list[str]:
    """List the scenes that anything ran on, in order."""
    return list(dict.fromkeys(item.case for item in (*results.runs, *results.records)))


def metrics_of(results: Results) -> list[str]:
    """List the metrics that any completion has: those of ``METRICS`` in its order, then others."""
    found = dict.fromkeys(name for record in results.records for name in record.metrics)
    return [*(name for name in METRICS if name in found), *(name for name in found if name not in METRICS)]


def quality(metric: str, value: float) -> float:
    """Turn a metric's figure into one that rises with quality: itself, its negative, or minus its distance from 1.

    A metric that isn't in ``METRICS`` is taken as better when higher.
    """
    higher = METRICS[metric].higher_is_better if metric in METRICS else True
    if higher is None:
        return -abs(value - 1)
    return value if higher else -value


def figure(record: Record, metric: str) -> float | None:
    """Get a completion's figure: finite, or ``None`` where it has none; an infinite PSNR is the ceiling."""
    value = record.metrics.get(metric)
    if value is None or math.isnan(value):
        return None
    if metric == "psnr":
        return min(value, PSNR_CEILING_DB)
    return value if math.isfinite(value) else None


def is_ranked(run: Sequence[Record]) -> bool:
    """Tell whether a run has scores, of more than one completion."""
    return len(run) > 1 and any(record.score is not None for record in run)


def by_score(run: Sequence[Record]) -> list[Record]:
    """Sort a run's completions, the highest score first, no score last; equal ones stay as they were ranked."""
    return sorted(run, key=lambda r: math.inf if r.score is None else -r.score)


def top_of(run: Sequence[Record]) -> Record | None:
    """Get a run's completion of the highest score, or its only one; ``None`` where nothing was ranked."""
    return by_score(run)[0] if len(run) == 1 or is_ranked(run) else None


def runs_of(results: Results, method: str) -> Runs:
    """Collect a method's completions: case to one list for each fit seed, as they were ranked."""
    found: dict[str, dict[int, list[Record]]] = {}
    for record in results.records:
        if record.method == method:
            found.setdefault(record.case, {}).setdefault(record.fit_seed, []).append(record)
    return {case: [fits[fit] for fit in sorted(fits)] for case, fits in found.items()}


def ranked_runs(runs: Runs) -> Runs:
    """Keep runs of several ranked completions, the highest score first."""
    kept = {case: [by_score(run) for run in rs if is_ranked(run)] for case, rs in runs.items()}
    return {case: rs for case, rs in kept.items() if rs}
