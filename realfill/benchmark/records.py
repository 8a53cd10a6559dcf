"""Records: the measurements of each completion, and the cost of each run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from realfill.errors import OutputError
from realfill.io.files import write_text
from realfill.io.json_files import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The measurements of one completion.

    Attributes:
        case: name of the scene.
        method: name of the method.
        fit_seed: seed that the method was prepared with.
        seed: seed that the completion was sampled with.
        score: the completion's rank score; only comparable within a run; higher is better. ``None``: not ranked.
        metrics: metric name to value, without the metrics that could not be measured.
        image: path of the picture, relative to the results.
    """

    case: str
    method: str
    fit_seed: int
    seed: int
    score: float | None
    metrics: Mapping[str, float]
    image: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """Convert the values of ``dataclasses.asdict``, read from JSON, back to a record.

        Raises:
            TypeError: a value is missing, unknown or of another type, so the file is damaged.
        """
        record = cls(**{**values, "metrics": dict(values["metrics"])})
        _require_types(record, texts=("case", "method", "image"), wholes=("fit_seed", "seed"))
        numbers = (*record.metrics.values(), *([] if record.score is None else [record.score]))
        if not all(map(_is_number, numbers)):
            raise TypeError(f"a score or a metric is no number: {numbers}")
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The cost of one method on one case with one fit seed, or the reason why it failed.

    Attributes:
        case: name of the scene.
        method: name of the method.
        fit_seed: seed that the method was prepared with.
        fit_s: seconds to prepare the method.
        sample_s: seconds to sample all seeds.
        rank_s: seconds to rank the completions.
        peak_memory_mb: peak memory in 10^6 bytes: GPU memory if the method used a GPU, else that of the process.
        error: the reason why there are no records, or ``None``.
        warnings: messages of the warnings that the method issued.
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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Run:
        """Convert the values of ``dataclasses.asdict``, read from JSON, back to a run.

        Raises:
            TypeError: a value is missing, unknown or of another type, so the file is damaged.
        """
        run = cls(**{**values, "warnings": tuple(map(str, values["warnings"]))})
        _require_types(run, texts=("case", "method"), wholes=("fit_seed",))
        if not all(map(_is_number, (run.fit_s, run.sample_s, run.rank_s, run.peak_memory_mb))):
            raise TypeError("a time or the memory is no number")
        if not (run.error is None or isinstance(run.error, str)):
            raise TypeError(f"error is {run.error!r}; legal: a text or None")
        return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of a benchmark.

    Attributes:
        records: one for each completion.
        runs: one for each method, case and fit seed.
        skipped: scene name to the reason why it could not be used.
        missing_metrics: metric name to the reason why it could not be measured.
        about: versions, machine and configs as plain JSON values.
    """

    records: tuple[Record, ...]
    runs: tuple[Run, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    missing_metrics: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """Names of all scenes, in the order in which they ran."""
        return list(dict.fromkeys(item.case for item in (*self.runs, *self.records)))

    @property
    def methods(self) -> list[str]:
        """Names of all methods, failed ones included, in the order in which they first ran."""
        return list(dict.fromkeys(item.method for item in (*self.runs, *self.records)))

    def save(self, path: Path) -> None:
        """Write ``results.json``; an interruption leaves no half-written file."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a file that ``save`` wrote.

        Raises:
            OutputError: the file is missing or damaged.
        """
        try:
            values = dict(read_json(path))
            records = tuple(map(Record.from_dict, values.pop("records")))
            return cls(records=records, runs=tuple(map(Run.from_dict, values.pop("runs"))), **values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{str(path)!r} holds no results of a benchmark ({error}); run it again") from error


def _require_types(item: object, *, texts: Sequence[str], wholes: Sequence[str]) -> None:
    for name in texts:
        if not isinstance(getattr(item, name), str):
            raise TypeError(f"{name} is {getattr(item, name)!r}; legal: a text")
    for name in wholes:
        if type(getattr(item, name)) is not int:
            raise TypeError(f"{name} is {getattr(item, name)!r}; legal: a whole number")


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
