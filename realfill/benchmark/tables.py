"""The tables of a benchmark's report, as text in cells: the Markdown and the page show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from realfill.benchmark.cells import NOTHING, Table, count, figure_text, label
from realfill.benchmark.comparisons import correlations, filtered, means, numbers_of_references, paired, selections
from realfill.benchmark.figures import cases_of, figure, methods_of, metrics_of, numbers_of
from realfill.benchmark.records import Results, Run
from realfill.benchmark.statistics import scene_means, summarize
from realfill.metrics import METRICS

_MAIN_METRICS = ("psnr", "ssim", "lpips", "dreamsim")
_BETTER = {True: "higher", False: "lower", None: "1"}


def build_tables(results: Results, *, baseline: str | None = None) -> list[Table]:
    """Build all tables that the results have something for.

    Args:
        results: of a benchmark.
        baseline: the method that every other is compared with; ``None``: ``realfill``, with the most references, else
            the first.
    """
    methods = methods_of(results)
    if baseline is None:
        most = next(reversed(numbers_of(results).get("realfill", {0: "realfill"}).values()))
        baseline = most if most in methods else next(iter(methods), None)
    summaries = summarize(results)
    tables = [means(results, summaries), *selections(results, summaries)]
    if baseline is not None:
        tables += [paired(results, baseline, top_ranked=top) for top in (False, True)]
    tables += [numbers_of_references(results)]
    tables += [filtered(results), correlations(results), _metrics(results), _cost(results), _scenes(results)]
    return [table for table in (*tables, _gaps(results)) if table.rows]


def overview(results: Results) -> list[str]:
    """Say in a few sentences what was measured and what wasn't."""
    cases = cases_of(results)
    failed = sum(run.error is not None for run in results.runs)
    counts = [(cases, "scene"), (methods_of(results), "method"), (results.runs, "run"), (results.records, "completion")]
    lines = [", ".join(count(items, noun) for items, noun in counts) + "."]
    if failed or results.skipped:
        lines.append(f"Failed runs: {failed}. Skipped scenes: {len(results.skipped)}. Their reasons are listed below.")
    lines += [f"Not measured: {name} ({reason})." for name, reason in results.missing_metrics.items()]
    return lines


def _metrics(results: Results) -> Table:
    rows = []
    found = metrics_of(results)
    for metric in [*found, *(name for name in results.missing_metrics if name not in found)]:
        known = METRICS.get(metric)
        better = _BETTER[known.higher_is_better] if known else "unknown, taken as higher"
        number = sum(figure(record, metric) is not None for record in results.records)
        measured = f"{number} of {len(results.records)} completions"
        if metric in results.missing_metrics:
            measured += f": {results.missing_metrics[metric]}"
        rows.append((metric, better, known.unit if known else "", known.meaning if known else "", measured))
    return Table(title="Metrics", header=("metric", "better", "unit", "meaning", "measured"), rows=rows)


def _cost(results: Results) -> Table:
    rows = []
    for method in methods_of(results):
        runs = [run for run in results.runs if run.method == method]
        done = [run for run in runs if run.error is None]
        times = [[getattr(run, name) for run in done] for name in ("fit_s", "sample_s", "rank_s")]
        peaks = [run.peak_memory_mb for run in done]
        cells = [f"{median(values):.1f}" if values else NOTHING for values in times]
        cells += [f"{value:.0f}" for value in (median(peaks), max(peaks))] if peaks else [NOTHING] * 2
        if runs:
            rows.append((method, str(len(runs)), str(len(runs) - len(done)), *cells))
    header = ("method", "runs", "failed", "fit (s)", "sample (s)", "rank (s)", "peak (MB)", "highest peak (MB)")
    return Table(title="Time and memory", notes=["Medians over runs that didn't fail."], header=header, rows=rows)


def _scenes(results: Results) -> Table:
    metrics = [m for m in _MAIN_METRICS if m in metrics_of(results)] or metrics_of(results)[:4]
    methods = methods_of(results)
    means = {(method, metric): scene_means(results, method, metric) for method in methods for metric in metrics}
    rows = []
    for case in cases_of(results):
        for method in methods:
            found = [(metric, means[method, metric].get(case)) for metric in metrics]
            cells = [NOTHING if value is None else figure_text(metric, value) for metric, value in found]
            runs = [run for run in results.runs if (run.case, run.method) == (case, method)]
            rows.append((case, method, *cells, *_cost_cells(runs)))
    header = ("scene", "method", *map(label, metrics), "time (s)", "peak (MB)", "failed runs")
    notes = ["Means over a scene's completions; time of a whole run, mean over fit seeds; highest peak."]
    return Table(title="Scenes", notes=notes, header=header, rows=rows)


def _cost_cells(runs: Sequence[Run]) -> tuple[str, str, str]:
    done = [run for run in runs if run.error is None]
    failed = f"{len(runs) - len(done)} of {len(runs)}" if runs else "not run"
    if not done:
        return NOTHING, NOTHING, failed
    time_s = sum(run.fit_s + run.sample_s + run.rank_s for run in done) / len(done)
    return f"{time_s:.1f}", f"{max(run.peak_memory_mb for run in done):.0f}", failed


def _gaps(results: Results) -> Table:
    rows = [("metric", name, reason) for name, reason in results.missing_metrics.items()]
    rows += [("scene", name, reason) for name, reason in results.skipped.items()]
    rows += [
        ("run", f"{run.method} on {run.case}, fit seed {run.fit_seed}", run.error)
        for run in results.runs
        if run.error is not None
    ]
    return Table(title="What is missing", header=("what", "which", "why"), rows=rows)
