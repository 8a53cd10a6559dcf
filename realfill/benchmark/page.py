"""The report of a benchmark as one HTML page with pictures side by side and all tables; it opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from realfill.benchmark.cells import NOTHING, Table, figure_text
from realfill.benchmark.extra import DataFrame, jinja2, pd
from realfill.benchmark.records import Results
from realfill.benchmark.report import TITLE, about_text
from realfill.benchmark.statistics import case_means, completion_frame, metrics_of, nested
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """A small copy of a picture.

    Attributes:
        uri: data URI, or ``None`` if the picture cannot be shown.
        alt: description.
        name: path of the picture's file, relative to the page.
    """

    uri: str | None
    alt: str
    name: str | None = None

    @property
    def link(self) -> str | None:
        return None if self.name is None else quote(PurePath(self.name).as_posix())


def html(results: Results, folder: Path, *, tables: Sequence[Table] | None = None) -> str:
    """Write a page that contains small copies of all pictures, loads nothing, and links to the files beside it.

    Args:
        results: results of a benchmark.
        folder: the benchmark's output folder with the pictures. A missing picture is replaced by its name.
        tables: the result of ``build_tables``. ``None``: they are built here.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("realfill.benchmark"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    frame, metrics = completion_frame(results), metrics_of(results)
    return environment.get_template("page.html.jinja").render(
        title=TITLE,
        overview=overview(results),
        tables=build_tables(results) if tables is None else tables,
        bar=colour_bar(),
        levels=DIFFERENCE_LEVELS,
        cases=[_case(case, results, frame, metrics, folder) for case in results.cases],
        about=about_text(results),
    )


def _picture(folder: Path, name: str, alt: str, max_size_px: int = THUMBNAIL_PX) -> _Picture:
    return _Picture(uri=thumbnail(folder / name, max_size_px=max_size_px), alt=alt, name=name)


def _case(case: str, results: Results, frame: DataFrame, metrics: Sequence[str], folder: Path) -> dict[str, Any]:
    """Collect a case's references, target, ground truth, and the completions of every method."""
    inputs = f"cases/{case}/input"
    target, mask = (folder / inputs / f"{name}.png" for name in ("target", "mask"))
    files = sorted((folder / inputs).glob("reference_*.png"), key=natural_key)
    rows = frame[frame["case"] == case]
    methods = []
    for method in results.methods:
        runs = [run for run in results.runs if (run.case, run.method) == (case, method)]
        errors = [f"fit seed {run.fit_seed} failed: {run.error}" for run in runs if run.error is not None]
        completions = _method(case, method, rows[rows["method"] == method], metrics, folder)
        methods.append({"name": method, "errors": errors, **completions})
    return {
        "name": case,
        "references": [
            _picture(folder, f"{inputs}/{file.name}", f"{case}, reference {i}", SMALL_PX)
            for i, file in enumerate(files)
        ],
        "target": _Picture(
            uri=marked_hole(target, mask), alt=f"{case}, target, hole striped", name=f"{inputs}/target.png"
        ),
        "truth": _picture(folder, f"{inputs}/truth.png", f"{case}, ground truth"),
        "methods": methods,
    }  # fmt: skip


def _method(case: str, method: str, rows: DataFrame, metrics: Sequence[str], folder: Path) -> dict[str, Any]:
    """Collect a method's chosen completion of its first run, its difference map, its means, and all completions."""
    completions = []
    for row in rows.sort_values("fit_seed", kind="stable").to_dict("records"):
        name = f"fit seed {row['fit_seed']}, seed {row['seed']}"
        lines = [
            name,
            f"score {NOTHING if pd.isna(row['score']) else format(row['score'], 'g')}",
            ", ".join(f"{metric} {figure_text(metric, row[metric])}" for metric in metrics),
        ]
        completions.append((_picture(folder, row["image"], f"{case}, {method}, {name}", SMALL_PX), lines))
    if not completions:
        return {"chosen": None, "completions": []}
    first = rows[rows["fit_seed"] == rows["fit_seed"].min()]
    chosen = first.iloc[0]
    reason = "highest score" if chosen["is_ranked"] else "the only one" if len(first) == 1 else "not ranked: the first"
    score = "" if pd.isna(chosen["score"]) else f", score {chosen['score']:g}"
    alt = f"{case}, {method}, seed {chosen['seed']}"
    truth, mask = (folder / "cases" / case / "input" / f"{name}.png" for name in ("truth", "mask"))
    means = {metric: case_means(nested(rows, metric)).get(case) for metric in metrics}
    return {
        "chosen": _picture(folder, chosen["image"], alt),
        "difference": _Picture(
            uri=difference_map(folder / chosen["image"], truth, mask), alt=f"{alt}, difference from the ground truth"
        ),
        "why": f"fit seed {chosen['fit_seed']}, seed {chosen['seed']}, {reason}{score}",
        "means": ", ".join(f"{m} {figure_text(m, mean)}" for m, mean in means.items() if mean is not None) or NOTHING,
        "completions": completions,
    }  # fmt: skip
