"""Tables as text in cells, and how figures are written in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from realfill.benchmark.bootstrap import Estimate
from realfill.metrics import METRICS

NOTHING = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as people read it.

    Attributes:
        title: one line.
        notes: sentences on how to read it.
        header: names of the columns.
        rows: as many cells as there are columns.
    """

    title: str
    notes: Sequence[str] = ()
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def figure_text(metric: str, value: float, *, sign: bool = False) -> str:
    """Write a metric's figure: two decimals for decibels, three for the others."""
    decimals = 2 if metric in METRICS and METRICS[metric].unit == "dB" else 3
    return f"{value:{'+' if sign else ''}.{decimals}f}"


def count(items: Collection, noun: str) -> str:
    """Say how many there are."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def label(metric: str) -> str:
    """Name a metric with the way that is better and its unit."""
    if metric not in METRICS:
        return f"{metric} ↑?"
    higher, unit = METRICS[metric].higher_is_better, METRICS[metric].unit
    arrow = "→ 1" if higher is None else "↑" if higher else "↓"
    return f"{metric} {arrow}" + (f" ({unit})" if unit else "")


def cell(metric: str, estimate: Estimate | None, *, sign: bool = False) -> str:
    """Write an estimate of a metric and its interval."""
    if estimate is None:
        return NOTHING
    text = figure_text(metric, estimate.mean, sign=sign)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{figure_text(metric, estimate.low, sign=sign)}, {figure_text(metric, estimate.high, sign=sign)}]"
