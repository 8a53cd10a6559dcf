"""Tables that compare methods, and what choosing by score does to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from realfill.benchmark.cells import NOTHING, Table, cell, count, label
from realfill.benchmark.figures import PSNR_CEILING_DB, cases_of, is_ranked, methods_of, metrics_of, numbers_of, runs_of
from realfill.benchmark.records import Results
from realfill.benchmark.statistics import (
    RunStudy,
    Summary,
    filter_study,
    paired_differences,
    rank_correlation,
    ranking_gain,
    summarize,
)
from realfill.metrics import METRICS

_FEW_SCENES = 10
_EXCLUDED = (
    "Runs whose scores or figures are all equal are excluded; methods without several scored completions aren't here."
)
_RUN_INTERVALS = "Intervals draw scenes and fit seeds."


def means(results: Results, summaries: dict[str, dict[str, Summary]]) -> Table:
    """Build the main table: the mean of each metric over all completions of each method."""
    metrics = metrics_of(results)
    cases = cases_of(results)
    rows = []
    for method, summary in summaries.items():
        runs = runs_of(results, method)
        total = sum(len(run) for rs in runs.values() for run in rs)
        cells = []
        for metric in metrics:
            mean = summary[metric].mean if metric in summary else None
            part = f" ({mean.num_values} of {total})" if mean and mean.num_values < total else ""
            cells.append(cell(metric, mean) + part)
        rows.append((method, f"{len(runs)} of {len(cases)}", str(total), *cells))
    notes = ["Mean over all completions, each scene counts once [95 % bootstrap interval over scenes and seeds]."]
    if any(len(runs_of(results, method)) < len(cases) for method in summaries):
        notes.append("Methods cover different scenes here: only the paired differences compare like with like.")
    if len(cases) == 1:
        notes.append("One scene: intervals tell of seeds, not of other scenes.")
    elif len(cases) < _FEW_SCENES:
        notes.append(f"With fewer than {_FEW_SCENES} scenes, intervals tend to be too narrow.")
    infinite = sum(record.metrics.get("psnr") == math.inf for record in results.records)
    if infinite:
        notes.append(f"Completions equal to the truth: {infinite}; their PSNR counts as {PSNR_CEILING_DB:g} dB.")
    header = ("method", "scenes", "completions", *map(label, metrics))
    return Table(title="Means", notes=notes, header=header, rows=rows)


def selections(results: Results, summaries: dict[str, dict[str, Summary]]) -> list[Table]:
    """Build the tables of top-ranked and best completions, and of what the one gains of the other."""
    if not any(is_ranked(run) for method in summaries for run in _flat(results, method)):
        return []
    metrics = metrics_of(results)
    header = ("method", *map(label, metrics))
    top, best = (
        [
            (method, *(cell(m, getattr(summary[m], kind) if m in summary else None) for m in metrics))
            for method, summary in summaries.items()
            if any(getattr(s, kind) for s in summary.values())
        ]
        for kind in ("top", "best")
    )
    gain_note = (
        "(top-ranked - mean) / (best - mean): 1 if ranking finds the best completion of every run, 0 as by chance."
    )
    return [
        Table(
            title="Top-ranked completions",
            notes=[
                "Of each run the completion of the highest score, or its only one; unscored methods aren't here.",
                _RUN_INTERVALS,
            ],
            header=header,
            rows=top,
        ),
        Table(
            title="Best completions",
            notes=["Of each run the best by that very metric: the most that choosing could reach.", _RUN_INTERVALS],
            header=header,
            rows=best,
        ),
        Table(
            title="What ranking finds",
            notes=[gain_note, _EXCLUDED],
            header=("method", *metrics),
            rows=_study_rows(ranking_gain(results), metrics),
        ),
    ]


def _flat(results: Results, method: str) -> list:
    return [run for runs in runs_of(results, method).values() for run in runs]


def _study_rows(study: dict[str, dict[str, RunStudy]], metrics: Sequence[str]) -> list[tuple[str, ...]]:
    def text(of_metric: RunStudy) -> str:
        found, left_out = of_metric.estimate, f"{of_metric.num_excluded} excluded"
        if found is None:
            return f"{NOTHING} ({left_out})" if of_metric.num_excluded else NOTHING
        interval = f" [{found.low:.2f}, {found.high:.2f}]" if found.low is not None else ""
        runs = count(range(found.num_values), "run") + (f", {left_out}" if of_metric.num_excluded else "")
        return f"{found.mean:.2f}{interval} ({runs})"

    return [(method, *(text(by_metric[m]) for m in metrics)) for method, by_metric in study.items()]


def paired(results: Results, baseline: str, *, top_ranked: bool) -> Table:
    """Build the table of the baseline's difference from every other method."""
    metrics = metrics_of(results)
    rows = []
    for other in methods_of(results):
        found = paired_differences(results, baseline, other, top_ranked=top_ranked) if other != baseline else {}
        cells = [
            f"{cell(m, found[m].estimate, sign=True)}, better in {found[m].num_better} of {len(found[m].per_case)}"
            if m in found else NOTHING
            for m in metrics
        ]  # fmt: skip
        if other != baseline and (found or not top_ranked):
            rows.append((f"{baseline} against {other}", *cells))
    notes = [
        f"How much better {baseline} is, scene by scene, in the scenes that both have.",
        "Above 0 it is better, whichever way the metric counts. An interval that holds 0 decides nothing.",
    ]
    ratios = [m for m in metrics if m in METRICS and METRICS[m].higher_is_better is None]
    if ratios:
        notes.append(f"For {' and '.join(ratios)}, the difference of distances from 1.")
    title = f"Paired differences, {'top-ranked completions' if top_ranked else 'all completions'}"
    ranked = any(is_ranked(run) for method in methods_of(results) for run in _flat(results, method))
    return Table(title=title, notes=notes, header=("", *metrics), rows=rows if ranked or not top_ranked else ())


def numbers_of_references(results: Results) -> Table:
    """Build the table of what more references do (paper's supplement), over the scenes that ran with every number."""
    metrics = metrics_of(results)
    rows = []
    for method, arms in numbers_of(results).items():
        shared = set.intersection(*(set(runs_of(results, arm)) for arm in arms.values()))
        alike = dataclasses.replace(results, records=tuple(r for r in results.records if r.case in shared))
        summaries = summarize(alike)
        for number, arm in arms.items() if shared else ():
            means = [cell(m, summaries[arm][m].mean if m in summaries[arm] else None) for m in metrics]
            rows.append((method, str(number), str(len(shared)), *means))
    notes = ["Means over all completions of the scenes that ran with every number [95 % bootstrap interval]."]
    header = ("method", "references", "scenes", *map(label, metrics))
    return Table(title="Number of references", notes=notes, header=header, rows=rows)


def filtered(results: Results) -> Table:
    """Build the table of what dropping the worst completions by score does."""
    metrics = metrics_of(results)
    rows = [
        (method, f"{share:.0%}", *(cell(m, by_metric.get(m)) for m in metrics))
        for method, by_share in filter_study(results).items()
        for share, by_metric in by_share.items()
    ]
    notes = ["Means over what stays when the worst share of each run by score is dropped.", _RUN_INTERVALS]
    return Table(title="Filtering by score", notes=notes, header=("method", "dropped", *map(label, metrics)), rows=rows)


def correlations(results: Results) -> Table:
    """Build the table of rank correlations between score and quality."""
    metrics = metrics_of(results)
    notes = [
        "Spearman's correlation of score and quality within each run, averaged over runs.",
        "Above 0, completions of a higher score are better, whichever way the metric counts.",
        _EXCLUDED,
    ]
    rows = _study_rows(rank_correlation(results), metrics)
    return Table(title="Rank correlation", notes=notes, header=("method", *metrics), rows=rows)
