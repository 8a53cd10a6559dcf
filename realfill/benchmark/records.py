"""Records: what a benchmark measured, one for each completion, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One completion, measured.

    Attributes:
        case: name of the scene.
        method: name of the method.
        fit_seed: that the method was prepared with.
        seed: that the completion was sampled with.
        score: as ``ranking.rank`` gives it, comparable within a run; higher is better; ``None``: not ranked.
        metrics: name to value; one that couldn't be had is absent.
        image: path of the picture, relative to the results.
    """

    case: str
    method: str
    fit_seed: int
    seed: int
    score: float | None
    metrics: Mapping[str, float]
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A method on a case with a fit seed: what it took, or why it failed.

    Attributes:
        case: name of the scene.
        method: name of the method.
        fit_seed: that it was prepared with.
        fit_s: seconds to prepare.
        sample_s: seconds to sample all seeds.
        rank_s: seconds to rank them.
        peak_memory_mb: the most memory held at any time while it ran, in 10^6 bytes: the GPU's where it computed on
            one, else the process's.
        error: why there are no records, or ``None``.
        warnings: what the method had to say.
    """

    case: str
    method: str
    fit_seed: int
    fit_s: float = 0.0
    sample_s: float = 0.0
    rank_s: float = 0.0
    peak_memory_mb: float = 0.0
    error: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All of a benchmark.

    Attributes:
        records: one for each completion.
        runs: one for each method, case and fit seed.
        skipped: scenes that couldn't be measured, and why.
        missing_metrics: metrics that couldn't be had, and why.
        about: versions, machine, configs; plain JSON values.
    """

    records: tuple[Record, ...]
    runs: tuple[Run, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    missing_metrics: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write ``results.json``, whole or not at all."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what ``save`` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        records = tuple(Record(**r) for r in values.pop("records"))
        return cls(
            records=records,
            runs=tuple(Run(**{**r, "warnings": tuple(r["warnings"])}) for r in values.pop("runs")),
            **values,
        )
