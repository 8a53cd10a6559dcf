"""The parts of the page that change with the visit, as HTML; every text from outside is escaped."""

from __future__ import annotations

import json
import time
from pathlib import PurePath
from typing import Any

import jinja2
from PIL import Image

from realfill.app.flow.engines import list_engines
from realfill.app.flow.pictures import describe_job as describe
from realfill.app.flow.pictures import draw_losses, share_done
from realfill.app.flow.results import Result
from realfill.app.flow.state import Flow
from realfill.app.flow.uploads import MAX_BYTES, MAX_PIXELS
from realfill.app.page.visit import RefusedError, Visit
from realfill.config.fit import MAX_FIT_REFERENCES, MAX_REFERENCES
from realfill.results.folder import EVIDENCE_NAME, SCORES_NAME

PARTS = ("photos", "hole", "people", "engines", "coverage", "results", "keeping")
_DAY_S = 86_400.0


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
        values: dict[str, Any] = {"visit": visit, "photos": visit.photos, "choice": visit.flow.choice}
        if name == "photos":
            values |= {
                "max_mb": MAX_BYTES // 10**6, "max_megapixels": MAX_PIXELS // 10**6, "max_references": MAX_REFERENCES,
                "max_fitted": MAX_FIT_REFERENCES,
            }  # fmt: skip
        if name == "results":
            values["shelves"] = [shelf for found in reversed(visit.flow.results) if (shelf := _shelf(found))]
        if name == "engines":
            values["engines"] = list_engines(visit.flow.settings)
        if name == "keeping":
            until = time.strftime("%d %B %Y, %H:%M", time.localtime(visit.used + self._keep_days * _DAY_S))
            values |= {"until": until, "place": self._place}
        return self._environment.get_template(f"{name}.html").render(values)


def describe_job(flow: Flow) -> dict[str, Any] | None:
    """Describe the last job for the page, as plain JSON values; ``None`` if there was none."""
    job = flow.job
    if job is None:
        return None
    return {
        "state": job.state, "phase": f"{job.title}: {job.phase}", "text": describe(job, flow.num_before),
        "message": job.message if job.state == "failed" else "", "share": share_done(job) if job.progress else None,
        "curve": draw_losses(job.losses), "preview": job.num_previews, "can_stop": job.can_stop and not job.is_ending,
        "ending": job.is_ending,
    }  # fmt: skip


def _shelf(result: Result) -> dict[str, Any] | None:
    """Read what the folder of a result says of it, for the template; ``None`` if it is damaged."""
    assert result.folder is not None
    try:
        values = json.loads((result.folder / SCORES_NAME).read_text(encoding="utf-8"))
        ranking = values["ranking"]
        unit = "" if ranking is None else "matches" if "keypoints" in str(ranking.get("score_by")) else "dB"
        cards = [_card(record, unit) for record in values["completions"]]
        with Image.open(result.folder / "before.png") as before:
            width, height = before.size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    shares = values.get("evidence") or {}
    kinds = ("photographed", "corrected", "invented")
    return {
        "number": result.number, "title": result.title, "width": width, "height": height, "cards": cards,
        "evidence": ", ".join(f"{100 * shares[kind]:.0f} % {kind}" for kind in kinds if shares.get(kind)),
        "has_map": (result.folder / EVIDENCE_NAME).is_file(),
    }  # fmt: skip


def _card(record: dict[str, Any], unit: str) -> dict[str, str]:
    verdict = record.get("verdict") or {"kind": "", "reason": ""}
    seed = "no model" if record["seed"] is None else f"seed {record['seed']}"
    score = "" if record["score"] is None else f"{record['score']:.4g} {unit}".strip()
    caption = ", ".join(filter(None, (seed, score, verdict["kind"])))
    return {"file": PurePath(record["file"]).name, "caption": caption, **verdict}
