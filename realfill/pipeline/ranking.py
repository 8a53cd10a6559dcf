"""Ranking with what is already computed for a scene: its matches and its composite."""

from __future__ import annotations

import torch

from realfill.compute.progress import OnStep
from realfill.geometry.matching import Matcher
from realfill.pipeline.evidence import composite_of
from realfill.pipeline.references import match
from realfill.ranking.rank import rank
from realfill.results.completions import Completions


def rank_again(
    completions: Completions,
    *,
    matcher: Matcher | None = None,
    device: str | torch.device | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Completions:
    """Rank completions by the settings they carry, with what is already computed for their scene.

    ``complete`` ranks so, and completions that are merged with later ones need it: the composite and the matches of
    the same ``Scene`` are used again.

    Args:
        completions: of one scene, in any order.
        matcher: as for ``rank``.
        device: as for ``rank``.
        on_step: as for ``rank``.
        progress: as for ``rank``.

    Returns:
        The same completions, best first, as ``rank`` returns them.
    """
    scene, settings = completions.scene, completions.ranking
    warped = settings is not None and settings.score_by == "warped_references"
    return rank(
        completions, matcher=matcher, matches=match(scene) if warped else None, composite=composite_of(scene),
        device=device, on_step=on_step, progress=progress,
    )  # fmt: skip
