"""The parts of the page that change with the visit, as HTML; every text from outside is escaped."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import jinja2

from realfill.app.page.records import RefusedError, Round
from realfill.app.page.uploads import MAX_BYTES, MAX_PIXELS
from realfill.app.page.visits import Visit
from realfill.config.fit import MAX_FIT_REFERENCES, MAX_REFERENCES
from realfill.results.folder import EVIDENCE_NAME, SCORES_NAME

PARTS = ("photos", "hole", "people", "coverage", "results", "keeping")
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A result in the gallery.

    Attributes:
        place: in the round, from 0, the best.
        file: its image.
        caption: seed or engine, score and verdict.
        kind: of the verdict; empty if there is none.
        reason: of the verdict.
    """

    place: int
    file: str
    caption: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The results of a round.

    Attributes:
        round: the round.
        cards: its results, best first.
        evidence: the shares of photographed, corrected and invented pixels, in a line.
        has_map: whether there is a picture of the evidence.
    """

    round: Round
    cards: tuple[Card, ...]
    evidence: str
    has_map: bool


class Fragments:
    """Renders the parts."""

    def __init__(self, *, keep_days: float, place: str | None) -> None:
        """Load the templates.

        Args:
            keep_days: days after its last use after which a visit is removed.
            place: folder of the visits, to be shown; ``None`` hides it from visitors from elsewhere.
        """
        self._keep_days, self._place = keep_days, place
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("realfill.app.page"), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip

    def render(self, name: str, visit: Visit) -> str:
        """Render a part.

        Raises:
            RefusedError: there is no such part.
        """
        if name not in PARTS:
            raise RefusedError("this part does not exist; reload the page")
        values: dict[str, Any] = {"visit": visit}
        if name == "photos":
            values |= {
                "max_mb": MAX_BYTES // 10**6, "max_megapixels": MAX_PIXELS // 10**6, "max_references": MAX_REFERENCES,
                "max_fitted": MAX_FIT_REFERENCES,
            }  # fmt: skip
        if name == "results":
            values["shelves"] = [shelf for found in reversed(visit.rounds) if (shelf := _shelf(visit, found))]
        if name == "keeping":
            until = time.strftime("%d %B %Y, %H:%M", time.localtime(visit.used + self._keep_days * _DAY_S))
            values |= {"until": until, "place": self._place}
        return self._environment.get_template(f"{name}.html").render(values)


def _shelf(visit: Visit, found: Round) -> Shelf | None:
    """Read what a round's folder says of its results; ``None`` if it is damaged."""
    folder = visit.round_folder(found.number)
    try:
        values = json.loads((folder / SCORES_NAME).read_text(encoding="utf-8"))
        unit = _unit(values["ranking"])
        cards = tuple(_card(place, record, unit) for place, record in enumerate(values["completions"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    shares = values.get("evidence") or {}
    evidence = ", ".join(
        f"{100 * shares[kind]:.0f} % {kind}" for kind in ("photographed", "corrected", "invented") if shares.get(kind)
    )
    return Shelf(round=found, cards=cards, evidence=evidence, has_map=(folder / EVIDENCE_NAME).is_file())


def _card(place: int, record: dict[str, Any], unit: str) -> Card:
    verdict = record.get("verdict") or {}
    parts = ["no model" if record["seed"] is None else f"seed {record['seed']}"]
    if record["score"] is not None:
        parts.append(f"{record['score']:.4g} {unit}".strip())
    if verdict:
        parts.append(verdict["kind"])
    return Card(
        place=place, file=PurePath(record["file"]).name, caption=", ".join(parts), kind=verdict.get("kind", ""),
        reason=verdict.get("reason", ""),
    )  # fmt: skip


def _unit(ranking: dict[str, Any] | None) -> str:
    return "" if ranking is None else "matches" if "keypoints" in str(ranking.get("score_by")) else "dB"
