"""A table with text in its cells, and the format of numbers in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from realfill.benchmark.metrics import METRICS
from realfill.benchmark.statistics import Estimate

NOTHING = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with text in its cells.

    Attributes:
        title: one line.
        notes: sentences on how to read the table.
        header: names of the columns.
        rows: one cell for each column.
    """

    title: str
    notes: Sequence[str] = ()
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def figure_text(metric: str, value: float, *, sign: bool = False) -> str:
    """Format a metric's value: two decimals for decibels, three otherwise."""
    decimals = 2 if metric in METRICS and METRICS[metric].unit == "dB" else 3
    return NOTHING if math.isnan(value) else f"{value:{'+' if sign else ''}.{decimals}f}"


def label(metric: str) -> str:
    """Format a metric's name with its better direction and its unit."""
    if metric not in METRICS:
        return f"{metric} ↑?"
    arrow = {True: "↑", False: "↓", None: "→ 1"}[METRICS[metric].higher_is_better]
    return f"{metric} {arrow}" + (f" ({METRICS[metric].unit})" if METRICS[metric].unit else "")


def count(number: int, noun: str) -> str:
    """Format a number with its noun, such as ``3 scenes``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def cell(metric: str, value: Estimate | None, *, sign: bool = False) -> str:
    """Format an estimate with its interval."""
    if value is None:
        return NOTHING
    text = figure_text(metric, value.mean, sign=sign)
    if value.low is None or value.high is None:
        return text
    return f"{text} [{figure_text(metric, value.low, sign=sign)}, {figure_text(metric, value.high, sign=sign)}]"
