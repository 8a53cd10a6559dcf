"""What a benchmark's figures say: means, paired differences, and the paper's studies of the score.

Every figure is a mean over completions' figures, never the figure of an averaged picture, and each scene counts once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from realfill.benchmark.bootstrap import Estimate, Nested, case_means, estimate, estimate_difference
from realfill.benchmark.figures import Runs, figure, methods_of, metrics_of, quality, ranked_runs, runs_of, top_of
from realfill.benchmark.records import Record, Results

FILTER_SHARES = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One metric of one method.

    Attributes:
        mean: over all completions.
        top: over each run's completion of the highest score; ``None`` where nothing was ranked.
        best: over each run's best completion by this very metric, which no method can know.
    """

    mean: Estimate
    top: Estimate | None
    best: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStudy:
    """A figure that each run of several ranked completions has.

    Attributes:
        estimate: its mean, or ``None`` where no run has it; counts runs.
        num_excluded: runs in which it isn't defined: all scores, or all of the metric's figures, are equal.
    """

    estimate: Estimate | None
    num_excluded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much better one method is than another by one metric.

    Attributes:
        estimate: mean over shared scenes; above 0: the first is better.
        num_better: scenes in which the first is better.
        per_case: scene to difference.
    """

    estimate: Estimate
    num_better: int
    per_case: Mapping[str, float]


def summarize(results: Results, *, seed: int = 0) -> dict[str, dict[str, Summary]]:
    """Average each metric of each method: over all completions, the top-ranked ones, and the best ones.

    Intervals of the last two draw cases and fit seeds, not seeds: the best of redrawn seeds is biased.

    Args:
        results: of a benchmark.
        seed: of the bootstrap.

    Returns:
        Method to metric to its summary; a metric that a method has no figures of is absent.
    """
    found: dict[str, dict[str, Summary]] = {}
    for method in methods_of(results):
        runs = runs_of(results, method)
        found[method] = {}
        for metric in metrics_of(results):
            mean = estimate(_figures(runs, metric), seed=seed)
            best = estimate(_figures(runs, metric, _best), seed=seed)
            if mean is not None and best is not None:
                top = estimate(_figures(runs, metric, _top), seed=seed)
                found[method][metric] = Summary(mean=mean, top=top, best=best)
    return found


def ranking_gain(results: Results, *, seed: int = 0) -> dict[str, dict[str, RunStudy]]:
    """Measure how much of what choosing could gain, choosing by score gains: (top - mean) / (best - mean).

    1 where the top-ranked completion of every run is its best, 0 as by chance, negative if worse; by quality, so the
    same for every metric.

    Args:
        results: of a benchmark.
        seed: of the bootstrap.

    Returns:
        Method to metric to the mean over runs; methods without several ranked completions are absent.
    """

    def gain(scores: NDArray, qualities: NDArray) -> float | None:
        del scores  # the run is in their order
        if np.ptp(qualities) == 0:
            return None
        return float((qualities[0] - qualities.mean()) / (qualities.max() - qualities.mean()))

    return _run_study(results, gain, seed)


def rank_correlation(results: Results, *, seed: int = 0) -> dict[str, dict[str, RunStudy]]:
    """Compute Spearman's correlation between score and quality within each run.

    Args:
        results: of a benchmark.
        seed: of the bootstrap.

    Returns:
        Method to metric to the mean over runs, above 0 where completions of a higher score are better, whichever way
        the metric counts; methods without several ranked completions are absent.
    """
    return _run_study(results, _spearman, seed)


def scene_means(results: Results, method: str, metric: str) -> dict[str, float]:
    """Average a metric over a method's completions of each scene: scene to mean, where there is any."""
    return case_means(_figures(runs_of(results, method), metric))


def paired_differences(
    results: Results, method: str, other: str, *, top_ranked: bool = False, seed: int = 0
) -> dict[str, Difference]:
    """Compare two methods scene by scene, in the scenes that both have.

    Args:
        results: of a benchmark.
        method: the first.
        other: what it is compared with.
        top_ranked: compare the top-ranked completions instead of all of them.
        seed: of the bootstrap, over scenes, then each method's fit seeds and seeds.

    Returns:
        Metric to the difference in quality, in the metric's unit: above 0 the first is better, whichever way the metric
        counts. For a metric whose best is 1, the difference of distances from 1. Without shared figures, absent.
    """
    pick = _top if top_ranked else _all
    runs = [runs_of(results, name) for name in (method, other)]
    found: dict[str, Difference] = {}
    for metric in metrics_of(results):
        a, b = (_figures(of_method, metric, pick, as_quality=True) for of_method in runs)
        mean = estimate_difference(a, b, seed=seed)
        if mean is not None:
            means = case_means(a), case_means(b)
            per_case = {case: means[0][case] - means[1][case] for case in a if case in b}
            better = sum(d > 0 for d in per_case.values())
            found[metric] = Difference(estimate=mean, num_better=better, per_case=per_case)
    return found


def filter_study(
    results: Results, shares: Sequence[float] = FILTER_SHARES, *, seed: int = 0
) -> dict[str, dict[float, dict[str, Estimate]]]:
    """Drop the worst share of each run's completions by score, and average each metric over those that stay.

    Intervals draw cases and fit seeds.

    Args:
        results: of a benchmark.
        shares: what to drop, each in [0, 1); rounded down to whole completions.
        seed: of the bootstrap.

    Returns:
        Method to share to metric; methods without several ranked completions are absent.

    Raises:
        ValueError: a share isn't legal.
    """
    if any(not 0 <= share < 1 for share in shares):
        raise ValueError(f"shares are {tuple(shares)}; legal: each at least 0 and less than 1")
    found: dict[str, dict[float, dict[str, Estimate]]] = {}
    for method in methods_of(results):
        runs = ranked_runs(runs_of(results, method))
        for share in shares if runs else ():
            kept = {case: [r[: len(r) - math.floor(share * len(r) + 1e-9)] for r in rs] for case, rs in runs.items()}
            figures = {metric: _figures(kept, metric, _mean) for metric in metrics_of(results)}
            estimates = {metric: estimate(values, seed=seed) for metric, values in figures.items()}
            found.setdefault(method, {})[share] = {m: e for m, e in estimates.items() if e is not None}
    return found


_Pick: TypeAlias = Callable[[Sequence[Record], str], list[float]]


def _all(run: Sequence[Record], metric: str) -> list[float]:
    return [value for record in run if (value := figure(record, metric)) is not None]


def _mean(run: Sequence[Record], metric: str) -> list[float]:
    values = _all(run, metric)
    return [float(np.mean(values))] if values else []


def _top(run: Sequence[Record], metric: str) -> list[float]:
    top = top_of(run)
    return _all([top], metric) if top else []


def _best(run: Sequence[Record], metric: str) -> list[float]:
    values = _all(run, metric)
    return [max(values, key=lambda v: quality(metric, v))] if values else []


def _figures(runs: Runs, metric: str, pick: _Pick = _all, *, as_quality: bool = False) -> Nested:
    """Pick figures of each run; runs and cases without any are left out."""
    picked = {case: [values for run in rs if (values := pick(run, metric))] for case, rs in runs.items()}
    if as_quality:
        picked = {case: [[quality(metric, v) for v in run] for run in rs] for case, rs in picked.items()}
    return {case: rs for case, rs in picked.items() if rs}


def _run_study(
    results: Results, study: Callable[[NDArray, NDArray], float | None], seed: int
) -> dict[str, dict[str, RunStudy]]:
    """Apply a function of scores and qualities, both (N,), best score first, to each run of ranked completions."""
    found: dict[str, dict[str, RunStudy]] = {}
    for method in methods_of(results):
        runs = ranked_runs(runs_of(results, method))
        for metric in metrics_of(results) if runs else ():
            values: dict[str, list[list[float]]] = {}
            excluded = 0
            for case, run in ((case, run) for case, rs in runs.items() for run in rs):
                pairs = [(r.score, quality(metric, v)) for r in run if (v := figure(r, metric)) is not None]
                scores, qualities = (np.array([p[i] for p in pairs if p[0] is not None], float) for i in (0, 1))
                if len(scores) < 2:
                    continue
                value = None if np.ptp(scores) == 0 else study(scores, qualities)
                if value is None:
                    excluded += 1
                else:
                    values.setdefault(case, []).append([value])
            found.setdefault(method, {})[metric] = RunStudy(estimate=estimate(values, seed=seed), num_excluded=excluded)
    return found


def _spearman(a: NDArray, b: NDArray) -> float | None:
    """Correlate the ranks of two series (N,); ``None`` where one is constant."""
    x, y = _mean_ranks(a), _mean_ranks(b)
    return None if np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.corrcoef(x, y)[0, 1])


def _mean_ranks(values: NDArray) -> NDArray[np.float64]:
    """Rank values (N,) from the lowest; equal ones share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
