"""Statistics of a benchmark: means with bootstrap intervals, paired differences, and the paper's studies of the score.

Each result is a mean over the values of completions, never the value of an averaged picture. Each scene counts once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from realfill.benchmark.extra import DataFrame, Series, pd, stats
from realfill.benchmark.metrics import METRICS
from realfill.benchmark.records import Results

LEVEL = 0.95
NUM_DRAWS = 2000
PSNR_CEILING_DB = 100.0
"""The value that replaces an infinite PSNR (a hole equal to the truth), so that means and differences stay finite."""

Values: TypeAlias = Mapping[str, Sequence[Sequence[float]]]
"""Case to its runs, one for each fit seed, and to each run's values, one for each seed. None of them is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and its bootstrap interval.

    Attributes:
        mean: mean over cases of the mean over fit seeds of the mean over seeds.
        low: lower end of the 95 % interval; ``None`` for a single value.
        high: upper end of the interval; ``None`` for a single value.
        num_cases: number of cases. For a single case, the interval covers seeds alone, not other scenes.
        num_values: number of values.
    """

    mean: float
    low: float | None
    high: float | None
    num_cases: int
    num_values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStudy:
    """The mean of a statistic over runs with several ranked completions.

    Attributes:
        estimate: mean over runs, or ``None`` if the statistic is defined in no run.
        num_excluded: number of runs without the statistic, because all scores or all qualities are equal.
    """

    estimate: Estimate | None
    num_excluded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference in quality between two methods by one metric; above 0, the first method is better.

    Attributes:
        estimate: mean over the scenes that both methods have.
        per_case: scene to difference.
    """

    estimate: Estimate
    per_case: Mapping[str, float]

    @property
    def num_better(self) -> int:
        """Number of scenes in which the first method is better."""
        return sum(difference > 0 for difference in self.per_case.values())


def metrics_of(results: Results) -> list[str]:
    """List the metrics that any completion has, in the order of ``METRICS``; unknown ones come last."""
    names = dict.fromkeys(name for record in results.records for name in record.metrics)
    return [*(name for name in METRICS if name in names), *(name for name in names if name not in METRICS)]


def completion_frame(results: Results) -> DataFrame:
    """Build a data frame with one row for each completion, the highest score of each run first.

    Its columns are those of ``Record``; one for each metric, NaN where it is not finite; ``run``, a number for each
    method, case and fit seed; ``is_ranked``, whether the run has several completions and scores; and ``is_top``,
    whether the completion has the highest score of its run or is its only one.
    """
    metrics = metrics_of(results)
    rows = [{**asdict(record), **record.metrics} for record in results.records]
    frame = pd.DataFrame(rows, columns=["case", "method", "fit_seed", "seed", "score", "image", *metrics])
    frame = frame.astype(dict.fromkeys(["score", *metrics], float))
    if "psnr" in metrics:
        frame["psnr"] = frame["psnr"].clip(upper=PSNR_CEILING_DB)
    frame[metrics] = frame[metrics].replace([math.inf, -math.inf], math.nan)
    frame["run"] = frame.groupby(["method", "case", "fit_seed"], sort=False).ngroup()
    frame = frame.sort_values(["run", "score"], ascending=[True, False])  # equal scores keep their order
    scores = frame.groupby("run")["score"]
    sizes = scores.transform("size")
    frame["is_ranked"] = (sizes > 1) & (scores.transform("count") > 0)
    frame["is_top"] = (scores.cumcount() == 0) & (frame["is_ranked"] | (sizes == 1))
    return frame


def quality(values: Series, metric: str) -> Series:
    """Convert a metric's values to values that rise with quality: themselves, negated, or minus the distance from 1.

    An unknown metric counts as better when higher.
    """
    higher = METRICS[metric].higher_is_better if metric in METRICS else True
    if higher is None:
        return -(values - 1).abs()
    return values if higher else -values


def nested(frame: DataFrame, metric: str) -> Values:
    """Collect a metric of one method's rows by case and fit seed, without missing values."""
    return {
        str(case): [run[metric].tolist() for _, run in runs.groupby("fit_seed")]
        for case, runs in frame.dropna(subset=[metric]).groupby("case", sort=False)
    }


def best_by(frame: DataFrame, metric: str) -> DataFrame:
    """Select each run's best completion by a metric, which no method can know."""
    measured = frame.dropna(subset=[metric])
    return measured.loc[quality(measured[metric], metric).groupby(measured["run"]).idxmax()]


def case_means(values: Values) -> dict[str, float]:
    """Compute each case's mean over fit seeds of the mean over seeds."""
    return {case: float(np.mean([np.mean(run) for run in runs])) for case, runs in values.items()}


def estimate(values: Values, minus: Values | None = None, *, seed: int = 0) -> Estimate | None:
    """Estimate the mean over cases, or the mean paired difference of two methods, with a bootstrap interval.

    Each draw takes cases with replacement, in each case fit seeds, and in each of these seeds. Intervals are a little
    too wide where seeds differ much, and too narrow for a handful of cases.

    Args:
        values: the values of a method.
        minus: the values of the method to subtract. Cases that only one method has are ignored. Each draw takes the
            same cases for both, and then fit seeds and seeds independently.
        seed: seed of the draws; the global random state is not used.

    Returns:
        The estimate, or ``None`` without any case.
    """
    methods = [(1, values)] if minus is None else [(1, values), (-1, minus)]
    cases = [case for case in values if all(case in of_method for _, of_method in methods)]
    if not cases:
        return None
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(cases), size=(NUM_DRAWS, len(cases)))
    draws = np.zeros(picks.shape)
    for i, case in enumerate(cases):
        for sign, of_method in methods:
            draws[picks == i] += sign * _draw_means(of_method[case], int((picks == i).sum()), rng)
    numbers = [sum(len(run) for case in cases for run in of_method[case]) for _, of_method in methods]
    low = high = None
    if max(numbers) > 1:
        tail = (1 - LEVEL) / 2
        low, high = (float(q) for q in np.quantile(draws.mean(axis=1), [tail, 1 - tail]))
    means = [sign * case_means(of_method)[case] for case in cases for sign, of_method in methods]
    return Estimate(
        mean=sum(means) / len(cases), low=low, high=high, num_cases=len(cases), num_values=sum(numbers)
    )  # fmt: skip


def _draw_means(runs: Sequence[Sequence[float]], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw runs with replacement and values within them, and return ``count`` means of the means."""
    picks = rng.integers(len(runs), size=(count, len(runs)))
    means = np.empty(picks.shape)
    for i, run in enumerate(runs):
        means[picks == i] = rng.choice(run, ((picks == i).sum(), len(run))).mean(axis=1)
    return means.mean(axis=1)


def compare(first: DataFrame, second: DataFrame, metric: str) -> Difference | None:
    """Compare two methods scene by scene; ``None`` if they share no scene with this metric.

    Args:
        first: rows of the first method.
        second: rows of the second method.
        metric: name of the metric. Differences are of quality, in the metric's unit.
    """
    a, b = (nested(rows.assign(**{metric: quality(rows[metric], metric)}), metric) for rows in (first, second))
    difference = estimate(a, b)
    if difference is None:
        return None
    means = case_means(a), case_means(b)
    return Difference(estimate=difference, per_case={case: means[0][case] - means[1][case] for case in a if case in b})


def keep_highest_scores(frame: DataFrame, dropped_share: float) -> DataFrame:
    """Drop the share of each run's completions with the lowest scores, rounded down to whole completions.

    Args:
        frame: rows of one method. Runs without several ranked completions are left out.
        dropped_share: share in [0, 1) of the completions that is dropped.

    Returns:
        The mean of each metric over the completions that stay, one row for each case and fit seed.

    Raises:
        ValueError: the share is illegal.
    """
    if not 0 <= dropped_share < 1:
        raise ValueError(f"the share to drop is {dropped_share}; legal: at least 0 and less than 1")
    ranked = frame[frame["is_ranked"]]
    runs = ranked.groupby("run")["run"]
    sizes = runs.transform("size")
    kept = ranked[runs.cumcount() < sizes - np.floor(dropped_share * sizes + 1e-9)]
    return kept.groupby(["case", "fit_seed"], sort=False).mean(numeric_only=True).reset_index()


def ranking_gain(scores: Series, qualities: Series) -> float:
    """Compute (top-ranked - mean) / (best - mean) of one run's qualities, the highest score first.

    1 if the top-ranked completion is the best, 0 for a choice by chance, negative for a worse choice.
    """
    del scores
    return float((qualities.iloc[0] - qualities.mean()) / (qualities.max() - qualities.mean()))


def rank_correlation(scores: Series, qualities: Series) -> float:
    """Compute Spearman's correlation of one run's scores and qualities."""
    correlation: Any = stats.spearmanr(scores, qualities)
    return float(correlation.statistic)


def study_runs(frame: DataFrame, metric: str, figure: Callable[[Series, Series], float]) -> RunStudy:
    """Average a statistic over one method's runs of several ranked completions.

    Args:
        frame: rows of one method.
        metric: name of the metric that quality is measured by.
        figure: computes the statistic from one run's scores and qualities, such as ``ranking_gain``.
    """
    values: dict[str, list[list[float]]] = {}
    num_excluded = 0
    rows = frame[frame["is_ranked"]].dropna(subset=["score", metric])
    for (case, _), run in rows.groupby(["case", "fit_seed"], sort=False):
        qualities = quality(run[metric], metric)
        if len(run) > 1 and min(run["score"].nunique(), qualities.nunique()) > 1:
            values.setdefault(case, []).append([figure(run["score"], qualities)])
        elif len(run) > 1:
            num_excluded += 1
    return RunStudy(estimate=estimate(values), num_excluded=num_excluded)
