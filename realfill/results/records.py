"""The records of completions in ``scores.json``, whose values are checked, because the folder may be a stranger's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from realfill.config.base import MAX_SEED
from realfill.io.containment import is_plain_name
from realfill.results.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What ``scores.json`` states of one completion.

    Attributes:
        file: name of its image in the same folder.
        values: seed, scores, numbers of matches and verdict, by the names of the fields of ``Completion``.
        provenance: the part of the provenance that differs between the completions of the folder.
    """

    file: str
    values: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """Read a record.

        Raises:
            KeyError: a value is missing.
            TypeError: the record or its verdict is no object.
            ValueError: a value is not legal, for example a path instead of a name.
        """
        if not is_plain_name(values["file"]):
            raise ValueError(f"file is {values['file']!r}; legal: the name of a file in the same folder")
        numbers = {
            "score": _number(values["score"], "score"),
            "num_matches": _whole(values["num_matches"], "num_matches"),
            "scores_per_reference": tuple(_number(n, "a score") for n in values["scores_per_reference"]),
            "num_matches_per_reference": tuple(
                _whole(n, "num_matches", optional=False) for n in values["num_matches_per_reference"]
            ),
        }
        verdict, provenance = values.get("verdict"), values.get("provenance", {})
        if not isinstance(provenance, dict):
            raise TypeError("the provenance of a completion is no object")
        return cls(
            file=values["file"],
            values={
                "seed": read_seed(values["seed"]), **numbers, "verdict": _verdict(verdict) if verdict else None,
            },
            provenance=provenance,
        )  # fmt: skip


def read_seed(value: Any) -> int | None:
    """Check a seed that a file states; ``None`` is legal.

    Raises:
        ValueError: it is none.
    """
    seed = _whole(value, "seed")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}; legal: from 0 to {MAX_SEED}")
    return seed


def read_score(value: Any) -> float | None:
    """Check a score that a file states; ``None`` is legal.

    Raises:
        ValueError: it is none.
    """
    return _number(value, "score")


def require_different(records: Sequence[Record]) -> None:
    """Check that no two records have the same file or seed.

    Raises:
        ValueError: two have.
    """
    for values in ([r.file for r in records], [r.values["seed"] for r in records]):
        if len(set(values)) < len(values):
            raise ValueError("two completions have the same file or seed")


def _verdict(values: Mapping[str, Any]) -> Verdict:
    verdict = Verdict(**values)
    if verdict.kind not in ("authentic", "doubtful", "unsupported") or not isinstance(verdict.reason, str):
        raise ValueError(f"the verdict is {verdict.kind!r}; legal: authentic, doubtful and unsupported, with a reason")
    for name in ("expected_error", "coverage", "contradicted", "invented"):
        if _number(getattr(verdict, name), name) is None:
            raise ValueError(f"{name} is missing")
    return verdict


def _number(value: Any, name: str) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if value is not None and not is_number:
        raise ValueError(f"{name} is {value!r}; legal: a number")
    return value


def _whole(value: Any, name: str, *, optional: bool = True) -> Any:
    if not (isinstance(value, int) and not isinstance(value, bool)) and not (optional and value is None):
        raise ValueError(f"{name} is {value!r}; legal: a whole number")
    return value
