"""The tables of a benchmark's report, with text in their cells; the Markdown and the page show the same ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from typing import TypeAlias

from realfill.benchmark.cells import NOTHING, Table, cell, count, figure_text, label
from realfill.benchmark.extra import DataFrame, Series, pd
from realfill.benchmark.metrics import METRICS
from realfill.benchmark.records import Results
from realfill.benchmark.statistics import (
    PSNR_CEILING_DB,
    RunStudy,
    best_by,
    case_means,
    compare,
    completion_frame,
    estimate,
    keep_highest_scores,
    metrics_of,
    nested,
    rank_correlation,
    ranking_gain,
    study_runs,
)

_DROPPED_SHARES = (0.0, 0.25, 0.5, 0.75)
_FEW_SCENES = 10
_MAIN_METRICS = ("psnr", "ssim", "lpips", "dreamsim")
_BETTER = {True: "higher", False: "lower", None: "1"}
_EXCLUDED = (
    "Runs with equal scores or equal figures are excluded; methods without several scored completions are not listed."
)
_RUN_INTERVALS = "Intervals cover scenes and fit seeds."

_Rows: TypeAlias = Iterable[tuple[Sequence[str], DataFrame]]
_Cell: TypeAlias = Callable[[DataFrame, str], str]


def build_tables(results: Results, *, baseline: str | None = None) -> list[Table]:
    """Build all tables for which the results have rows.

    Args:
        results: results of a benchmark.
        baseline: the method to compare all others with. ``None``: ``realfill`` with the most references, else the
            first method.
    """
    frame, metrics, methods = completion_frame(results), metrics_of(results), results.methods
    frames = {method: frame[frame["method"] == method] for method in methods}
    ranked = {method: rows for method, rows in frames.items() if rows["is_ranked"].any()}
    if baseline is None:
        arms = _arms_by_number(methods).get("realfill", {0: "realfill"})
        baseline = arms[max(arms)] if arms[max(arms)] in methods else next(iter(methods), None)
    tables = [_means(results, frames, metrics)]
    if ranked:
        tables += _selections(frames, ranked, metrics)
    if baseline is not None:
        tables += [_paired(frames, baseline, metrics), *([_paired_tops(frames, baseline, metrics)] if ranked else [])]
    filtered = [
        ((method, f"{100 * share:.0f} %"), keep_highest_scores(rows, share))
        for method, rows in ranked.items()
        for share in _DROPPED_SHARES
    ]
    tables += [
        _numbers_of_references(frames, metrics),
        _table(
            "Filtering by score", ("method", "dropped"), filtered, metrics, _mean_cell,
            notes=["Means without the share of each run that has the lowest scores.", _RUN_INTERVALS],
        ),
        _table(
            "Rank correlation", ("method",), _labelled(ranked), metrics, _study_cell(rank_correlation), plain=True,
            notes=[
                "Spearman's correlation of score and quality within each run, averaged over runs.",
                "Above 0, completions with a higher score are better, whichever direction the metric has.", _EXCLUDED,
            ],
        ),
        _metrics(results, frame, metrics), _cost(results), _scenes(results, frames, metrics), _gaps(results),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def overview(results: Results) -> list[str]:
    """Summarize in a few sentences the measurements and their gaps."""
    failed = sum(run.error is not None for run in results.runs)
    counts = [
        (results.cases, "scene"), (results.methods, "method"), (results.runs, "run"), (results.records, "completion")
    ]  # fmt: skip
    lines = [", ".join(count(len(items), noun) for items, noun in counts) + "."]
    if failed or results.skipped:
        lines.append(f"Failed runs: {failed}. Skipped scenes: {len(results.skipped)}. The reasons are listed below.")
    return lines + [f"Not measured: {name} ({reason})." for name, reason in results.missing_metrics.items()]


def _mean_cell(rows: DataFrame, metric: str) -> str:
    return cell(metric, estimate(nested(rows, metric)))


def _study_cell(figure: Callable[[Series, Series], float]) -> _Cell:
    """Make the cells of a study of runs."""

    def text(rows: DataFrame, metric: str) -> str:
        study: RunStudy = study_runs(rows, metric, figure)
        mean, excluded = study.estimate, f"{study.num_excluded} excluded"
        if mean is None:
            return f"{NOTHING} ({excluded})" if study.num_excluded else NOTHING
        interval = f" [{mean.low:.2f}, {mean.high:.2f}]" if mean.low is not None else ""
        runs = count(mean.num_values, "run") + (f", {excluded}" if study.num_excluded else "")
        return f"{mean.mean:.2f}{interval} ({runs})"

    return text


def _labelled(frames: dict[str, DataFrame]) -> _Rows:
    return [((method,), rows) for method, rows in frames.items()]


def _table(
    title: str, labels: Sequence[str], rows: _Rows, metrics: Sequence[str], text: _Cell, *,
    notes: Sequence[str], plain: bool = False,
) -> Table:  # fmt: skip
    """Build a table with a column for each metric; ``plain`` names the metrics without direction and unit."""
    header = (*labels, *(metrics if plain else map(label, metrics)))
    cells = [(*names, *(text(frame, metric) for metric in metrics)) for names, frame in rows]
    return Table(title=title, notes=notes, header=header, rows=cells)


def _means(results: Results, frames: dict[str, DataFrame], metrics: Sequence[str]) -> Table:
    """Build the main table: the mean of each metric over all completions of each method."""
    num_cases = len(results.cases)
    covered = {method: rows["case"].nunique() for method, rows in frames.items()}

    def text(rows: DataFrame, metric: str) -> str:
        measured = int(rows[metric].count())
        return _mean_cell(rows, metric) + (f" ({measured} of {len(rows)})" if 0 < measured < len(rows) else "")

    notes = ["Mean over all completions; each scene counts once [95 % bootstrap interval over scenes and seeds]."]
    if any(number < num_cases for number in covered.values()):
        notes.append("The methods cover different scenes: only the paired differences compare the same scenes.")
    if num_cases == 1:
        notes.append("One scene: intervals cover seeds, not other scenes.")
    elif num_cases < _FEW_SCENES:
        notes.append(f"With fewer than {_FEW_SCENES} scenes, intervals tend to be too narrow.")
    exact = sum(record.metrics.get("psnr") == math.inf for record in results.records)
    if exact:
        notes.append(f"Completions equal to the truth: {exact}; their PSNR counts as {PSNR_CEILING_DB:g} dB.")
    rows = [((m, f"{covered[m]} of {num_cases}", str(len(rows))), rows) for m, rows in frames.items()]
    return _table("Means", ("method", "scenes", "completions"), rows, metrics, text, notes=notes)


def _selections(frames: dict[str, DataFrame], ranked: dict[str, DataFrame], metrics: Sequence[str]) -> list[Table]:
    """Build the tables of top-ranked and best completions, and of the gain by ranking."""
    measured = {method: rows for method, rows in frames.items() if rows[list(metrics)].notna().any(axis=None)}
    tops = {method: rows[rows["is_top"]] for method, rows in measured.items() if rows["is_top"].any()}
    top_note = "The completion with the highest score of each run, or its only one; unscored methods are not listed."
    best_note = "The completion of each run that is best by the metric itself: an upper bound for any choice."
    gain_note = "(top-ranked - mean) / (best - mean): 1 if ranking finds the best completion, 0 for a choice by chance."
    return [
        _table(
            "Top-ranked completions", ("method",), _labelled(tops), metrics, _mean_cell,
            notes=[top_note, _RUN_INTERVALS],
        ),
        _table(
            "Best completions", ("method",), _labelled(measured), metrics,
            lambda rows, metric: _mean_cell(best_by(rows, metric), metric), notes=[best_note, _RUN_INTERVALS],
        ),
        _table(
            "What ranking finds", ("method",), _labelled(ranked), metrics, _study_cell(ranking_gain), plain=True,
            notes=[gain_note, _EXCLUDED],
        ),
    ]  # fmt: skip


def _paired(
    frames: dict[str, DataFrame], baseline: str, metrics: Sequence[str], which: str = "all completions"
) -> Table:
    """Build the table of the baseline's difference from every other method."""

    def text(rows: DataFrame, metric: str) -> str:
        difference = compare(frames[baseline], rows, metric)
        if difference is None:
            return NOTHING
        better = f"better in {difference.num_better} of {len(difference.per_case)}"
        return f"{cell(metric, difference.estimate, sign=True)}, {better}"

    notes = [
        f"How much better {baseline} is, scene by scene, in the scenes that both methods have.",
        "Above 0 it is better, whichever direction the metric has. An interval that contains 0 decides nothing.",
    ]
    ratios = [m for m in metrics if m in METRICS and METRICS[m].higher_is_better is None]
    if ratios:
        notes.append(f"For {' and '.join(ratios)}, the difference of the distances from 1.")
    rows = [((f"{baseline} against {method}",), other) for method, other in frames.items() if method != baseline]
    return _table(f"Paired differences, {which}", ("",), rows, metrics, text, notes=notes, plain=True)


def _paired_tops(frames: dict[str, DataFrame], baseline: str, metrics: Sequence[str]) -> Table:
    """Build the same table of top-ranked completions, for the methods that share scenes with the baseline's."""
    tops = {method: rows[rows["is_top"]] for method, rows in frames.items()}
    shared = {m: rows for m, rows in tops.items() if rows["case"].isin(tops[baseline]["case"]).any()}
    return _paired({baseline: tops[baseline], **shared}, baseline, metrics, "top-ranked completions")


def _arms_by_number(methods: Iterable[str]) -> dict[str, dict[int, str]]:
    """Find the methods that ran with several numbers of references: method to number to the name of that arm."""
    arms: dict[str, dict[int, str]] = {}
    for name in methods:
        parts = re.fullmatch(r"(.+)-(\d)ref", name)
        if parts:
            arms.setdefault(parts[1], {})[int(parts[2])] = name
    return {method: dict(sorted(of_method.items())) for method, of_method in arms.items()}


def _numbers_of_references(frames: dict[str, DataFrame], metrics: Sequence[str]) -> Table:
    """Build the table of different numbers of references (paper's supplement)."""
    rows = []
    for method, arms in _arms_by_number(frames).items():
        shared = set.intersection(*(set(frames[arm]["case"]) for arm in arms.values()))
        for number, arm in arms.items() if shared else ():
            cases = frames[arm][frames[arm]["case"].isin(shared)]
            rows.append(((method, str(number), str(len(shared))), cases))
    notes = ["Means over all completions of the scenes that ran with every number [95 % bootstrap interval]."]
    header = ("method", "references", "scenes")
    return _table("Number of references", header, rows, metrics, _mean_cell, notes=notes)


def _metrics(results: Results, frame: DataFrame, metrics: Collection[str]) -> Table:
    rows = []
    for name in [*metrics, *(name for name in results.missing_metrics if name not in metrics)]:
        metric = METRICS.get(name)
        better = _BETTER[metric.higher_is_better] if metric else "unknown, counts as higher"
        measured = f"{frame[name].count() if name in metrics else 0} of {len(frame)} completions"
        if name in results.missing_metrics:
            measured += f": {results.missing_metrics[name]}"
        rows.append((name, better, metric.unit if metric else "", metric.meaning if metric else "", measured))
    return Table(title="Metrics", header=("metric", "better", "unit", "meaning", "measured"), rows=rows)


def _cost(results: Results) -> Table:
    runs = pd.DataFrame([asdict(run) for run in results.runs], columns=["method", "error", *_COSTS])
    rows = []
    for method, of_method in runs.groupby("method", sort=False):
        done = of_method[of_method["error"].isna()]
        cells = [f"{done[name].median():.{decimals}f}" if len(done) else NOTHING for name, decimals in _COSTS.items()]
        cells.append(f"{done['peak_memory_mb'].max():.0f}" if len(done) else NOTHING)
        rows.append((str(method), str(len(of_method)), str(len(of_method) - len(done)), *cells))
    header = ("method", "runs", "failed", "fit (s)", "sample (s)", "rank (s)", "peak (MB)", "highest peak (MB)")
    return Table(title="Time and memory", notes=["Medians over the runs that succeeded."], header=header, rows=rows)


_COSTS = {"fit_s": 1, "sample_s": 1, "rank_s": 1, "peak_memory_mb": 0}  # name to decimals


def _scenes(results: Results, frames: dict[str, DataFrame], metrics: Sequence[str]) -> Table:
    metrics = [m for m in _MAIN_METRICS if m in metrics] or metrics[:4]
    means = {(m, metric): case_means(nested(rows, metric)) for m, rows in frames.items() for metric in metrics}
    rows = []
    for case in results.cases:
        for method in results.methods:
            values = [figure_text(metric, means[method, metric].get(case, math.nan)) for metric in metrics]
            runs = [run for run in results.runs if (run.case, run.method) == (case, method)]
            done = [run for run in runs if run.error is None]
            time_s = sum(run.fit_s + run.sample_s + run.rank_s for run in done) / max(1, len(done))
            peak_mb = max((run.peak_memory_mb for run in done), default=0)
            cost = (f"{time_s:.1f}", f"{peak_mb:.0f}") if done else (NOTHING, NOTHING)
            failed = f"{len(runs) - len(done)} of {len(runs)}" if runs else "not run"
            rows.append((case, method, *values, *cost, failed))
    header = ("scene", "method", *map(label, metrics), "time (s)", "peak (MB)", "failed runs")
    notes = ["Means over a scene's completions; the time of a whole run, mean over fit seeds; the highest peak."]
    return Table(title="Scenes", notes=notes, header=header, rows=rows)


def _gaps(results: Results) -> Table:
    rows = [("metric", name, reason) for name, reason in results.missing_metrics.items()]
    rows += [("scene", name, reason) for name, reason in results.skipped.items()]
    rows += [("run", f"{r.method} on {r.case}, fit seed {r.fit_seed}", r.error) for r in results.runs if r.error]
    return Table(title="What is missing", header=("what", "which", "why"), rows=rows)
