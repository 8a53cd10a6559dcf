"""The report of a benchmark as one HTML page: pictures side by side, and the tables; opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath
from string import Template
from urllib.parse import quote

from realfill.benchmark.cells import NOTHING, Table, figure_text
from realfill.benchmark.figures import Runs, by_score, cases_of, figure, is_ranked, methods_of, metrics_of, runs_of
from realfill.benchmark.records import Record, Results, Run
from realfill.benchmark.report import TITLE, about_text
from realfill.benchmark.statistics import scene_means
from realfill.benchmark.tables import build_tables, overview
from realfill.benchmark.thumbnails import (
    DIFFERENCE_LEVELS,
    SMALL_PX,
    THUMBNAIL_PX,
    colour_bar,
    difference_map,
    marked_hole,
    thumbnail,
)
from realfill.io.images import natural_key

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --back: #fff; --text: #1c1c1e; --faint: #6b6b70; --line: #d8d8dc; --wrong: #b3261e }
@media (prefers-color-scheme: dark) {
  :root { --back: #17171a; --text: #ececee; --faint: #a0a0a6; --line: #3a3a40; --wrong: #ff8a80 }
}
body { margin: 0 auto; max-width: 1800px; padding: 1rem 1.5rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif }
h1, h2, h3 { line-height: 1.2 }
h2 { margin-top: 2.5rem }
h2 + p, figcaption, td small { color: var(--faint) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td { min-width: 4rem }
.grid { display: grid; gap: 1rem; margin: 1rem 0 }
.small { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)) }
.row { grid-auto-flow: column; grid-auto-columns: minmax(180px, 320px); justify-content: start; overflow-x: auto }
.row > :nth-child(2) { position: sticky; left: 0; background: var(--back) } /* the ground truth stays in sight */
figure { margin: 0; min-width: 0 }
figure img { display: block; width: 100%; height: auto; margin-bottom: .3rem }
figcaption { font-size: .85rem; overflow-wrap: anywhere }
figcaption strong { color: var(--text) }
.absent { padding: 2rem .6rem; border: 1px dashed var(--line); overflow-wrap: anywhere; margin-bottom: .3rem }
.error { color: var(--wrong); overflow-wrap: anywhere }
.bar { width: 16rem; max-width: 100%; height: .8rem; vertical-align: middle }
summary { cursor: pointer }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem }
</style>
</head>
<body>
<h1>$title</h1>
$overview
$first
<h2>Pictures</h2>
<p>Of each method, the completion of the highest score of its first run; all others are folded below. Under it the
difference from the ground truth in the hole, mean over the colour channels:
0 <img class="bar" alt="colours from dark to bright" src="$bar"> $levels of 255 or more.</p>
$cases
$tables
<h2>About</h2>
<pre>$about</pre>
</body>
</html>
""")


def html(results: Results, folder: Path, *, tables: Sequence[Table] | None = None) -> str:
    """Write a page that holds small copies of all pictures and loads nothing; pictures link to their files beside it.

    Args:
        results: of a benchmark.
        folder: the benchmark's output, where the pictures are; one that isn't there is named in its place.
        tables: of ``build_tables``, where they are there already.
    """
    first, *others = [_table(table) for table in (build_tables(results) if tables is None else tables)] or [""]
    cases = _Cases.from_results(results, folder)
    return _PAGE.substitute(
        title=escape(TITLE),
        overview="\n".join(f"<p>{escape(line)}</p>" for line in overview(results)),
        first=first,
        bar=colour_bar(),
        levels=DIFFERENCE_LEVELS,
        cases="\n".join(cases.section(case) for case in cases_of(results)),
        tables="\n".join(others),
        about=escape(about_text(results)),
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    notes = f"<p>{escape(' '.join(table.notes))}</p>\n" if table.notes else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n{notes}<div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cases:
    """What the sections of cases are written from.

    Attributes:
        folder: the benchmark's output.
        metrics: their names.
        records: method to its completions.
        runs: (case, method) to the runs.
        means: (method, metric) to each case's mean.
    """

    folder: Path
    metrics: Sequence[str]
    records: Mapping[str, Runs]
    runs: Mapping[tuple[str, str], Sequence[Run]]
    means: Mapping[tuple[str, str], Mapping[str, float]]

    @classmethod
    def from_results(cls, results: Results, folder: Path) -> _Cases:
        methods, metrics = methods_of(results), metrics_of(results)
        runs: dict[tuple[str, str], list[Run]] = {}
        for run in results.runs:
            runs.setdefault((run.case, run.method), []).append(run)
        means = {(method, metric): scene_means(results, method, metric) for method in methods for metric in metrics}
        records = {method: runs_of(results, method) for method in methods}
        return cls(folder=folder, metrics=metrics, records=records, runs=runs, means=means)

    def section(self, case: str) -> str:
        """Write a case: its references; target, ground truth and every method; folded, all completions."""
        inputs = f"cases/{case}/input"
        files = sorted((self.folder / inputs).glob("reference_*.png"), key=natural_key)
        references = [
            _figure(self._picture(f"{inputs}/{file.name}", f"{case}, reference {i}", SMALL_PX), f"reference {i}")
            for i, file in enumerate(files)
        ]
        target, mask = (self.folder / inputs / f"{name}.png" for name in ("target", "mask"))
        striped = _image(marked_hole(target, mask), f"{case}, target, hole striped", f"{inputs}/target.png")
        shown = [
            _figure(striped, "target, hole striped"),
            _figure(self._picture(f"{inputs}/truth.png", f"{case}, ground truth"), "ground truth"),
            *(self._method(case, method) for method in self.records),
        ]
        folded = "".join(self._completions(case, method) for method in self.records)
        return (
            f"<section>\n<h3>{escape(case)}</h3>\n{_grid(references, 'small') or '<p>no references</p>'}\n"
            f"{_grid(shown, 'row')}\n<details><summary>all completions</summary>{folded}</details>\n</section>"
        )

    def _method(self, case: str, method: str) -> str:
        """Write a method's chosen completion, its difference map, its means, and why runs failed."""
        fits = self.records[method].get(case, [])
        runs = self.runs.get((case, method), ())
        errors = "".join(_error(run) for run in runs if run.error is not None)
        name = f"<strong>{escape(method)}</strong>"
        if not fits:
            return _figure(errors or '<p class="absent">not run</p>', name)
        chosen = by_score(fits[0])[0]
        alt = f"{case}, {method}, seed {chosen.seed}"
        truth, mask = (self.folder / "cases" / case / "input" / f"{name}.png" for name in ("truth", "mask"))
        difference = difference_map(self.folder / chosen.image, truth, mask)
        pictures = self._picture(chosen.image, alt) + _image(difference, f"{alt}, difference from the ground truth")
        means = ((m, self.means[method, m].get(case)) for m in self.metrics)
        figures = ", ".join(f"{m} {figure_text(m, value)}" for m, value in means if value is not None)
        caption = f"{name}<br>{escape(_why(chosen, fits[0]))}<br>means: {escape(figures) or NOTHING}"
        return _figure(pictures + errors, caption)

    def _completions(self, case: str, method: str) -> str:
        """Write all of a method's completions, small, run by run, the highest score first."""
        figures = []
        for record in (record for run in self.records[method].get(case, []) for record in by_score(run)):
            measured = ((m, figure(record, m)) for m in self.metrics)
            lines = [
                f"fit seed {record.fit_seed}, seed {record.seed}",
                f"score {NOTHING if record.score is None else format(record.score, 'g')}",
                ", ".join(f"{m} {NOTHING if value is None else figure_text(m, value)}" for m, value in measured),
            ]
            picture = self._picture(record.image, f"{case}, {method}, {lines[0]}", SMALL_PX)
            figures.append(_figure(picture, "<br>".join(map(escape, lines))))
        return f"<h4>{escape(method)}</h4>\n{_grid(figures, 'small') or '<p>none</p>'}"

    def _picture(self, name: str, alt: str, max_size_px: int = THUMBNAIL_PX) -> str:
        return _image(thumbnail(self.folder / name, max_size_px=max_size_px), alt, name)


def _why(record: Record, run: Sequence[Record]) -> str:
    why = "highest score" if is_ranked(run) else "the only one" if len(run) == 1 else "not ranked: the first"
    return f"fit seed {record.fit_seed}, seed {record.seed}, {why}" + (
        "" if record.score is None else f", score {record.score:g}"
    )


def _error(run: Run) -> str:
    return f'<p class="error">fit seed {run.fit_seed} failed: {escape(run.error or "")}</p>'


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def _grid(figures: Sequence[str], kind: str) -> str:
    return f'<div class="grid {kind}">\n' + "\n".join(figures) + "\n</div>" if figures else ""


def _image(uri: str | None, alt: str, name: str | None = None) -> str:
    """Write a picture that links to its file, if it has one, or a placeholder with its name."""
    if uri is None:
        return f'<div class="absent">no picture: {escape(name or alt)}</div>'
    image = f'<img alt="{escape(alt)}" src="{uri}">'
    return image if name is None else f'<a href="{quote(PurePath(name).as_posix())}">{image}</a>'
