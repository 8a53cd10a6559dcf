"""The report of a benchmark as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from realfill.benchmark.cells import Table
from realfill.benchmark.records import Results
from realfill.benchmark.tables import build_tables, overview

TITLE = "RealFill benchmark"


def markdown(results: Results, *, tables: Sequence[Table] | None = None) -> str:
    """Write all tables, the missing measurements, and the conditions of the measurement.

    Args:
        results: results of a benchmark.
        tables: the result of ``build_tables``. ``None``: they are built here.
    """
    parts = [f"# {TITLE}", *(_escape(line) for line in overview(results))]
    parts += [table_text(table) for table in (build_tables(results) if tables is None else tables)]
    about = about_text(results)
    longest = max((len(ticks) for ticks in re.findall("`+", about)), default=0)
    fence = "`" * max(3, longest + 1)
    parts += ["## About", f"{fence}json\n{about}\n{fence}"]
    return "\n\n".join(parts) + "\n"


def about_text(results: Results) -> str:
    """Write versions, machine and configs as indented JSON."""
    return json.dumps(dict(results.about), indent=2, ensure_ascii=False, default=str)


def table_text(table: Table) -> str:
    """Write a table with its title and notes as Markdown."""
    lines = [_row(table.header), "|" + " --- |" * len(table.header), *(_row(row) for row in table.rows)]
    notes = " ".join(_escape(note) for note in table.notes)
    return "\n\n".join(part for part in (f"## {_escape(table.title)}", notes, "\n".join(lines)) if part)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    """Escape what Markdown or HTML would interpret, and put the text on one line."""
    return re.sub(r"[\\`*<>|]|(?<!\w)_|_(?!\w)|(?<=\])\(", r"\\\g<0>", " ".join(text.split()))
