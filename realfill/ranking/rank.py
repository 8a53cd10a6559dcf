"""Ranking: completions ordered by how well their filled region agrees with the references (paper, section 3.4)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Self

import torch

from realfill.compute.devices import resolve_device
from realfill.compute.progress import Interrupted, OnStep, Progress, ProgressBar
from realfill.config import RankConfig, RankSettings, ScoreBy
from realfill.errors import SceneError, warn
from realfill.geometry.composite import Composite
from realfill.geometry.composite import composite as compose
from realfill.geometry.matching import Matcher, Matches, load_matcher
from realfill.io.images import ImageArray, MaskArray
from realfill.ranking.composite_agreement import score_by_composite
from realfill.ranking.keypoints import score_by_keypoints
from realfill.ranking.verified_keypoints import score_by_verified_keypoints
from realfill.ranking.warped_references import score_by_warped_references
from realfill.results.completions import Completion, Completions
from realfill.results.provenance import hash_array

_POLL_EVERY_S = 0.5  # while a completion takes longer than this, ``on_step`` is asked again


def rank(
    completions: Completions,
    references: Sequence[ImageArray] | None = None,
    config: RankConfig | None = None,
    *,
    reference_masks: Sequence[MaskArray | None] | None = None,
    matcher: Matcher | None = None,
    matches: Sequence[Matches] | None = None,
    composite: Composite | None = None,
    device: str | torch.device | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Completions:
    """Order completions by authenticity (paper, section 3.4).

    ``score_by="keypoints"``: the score is the number of keypoints matched between the references and the filled region,
    over all references. Whole images are matched, so that the context helps, but only matches in the hole count. Ties
    are broken by the matches' confidence, then by the seed.

    ``score_by="verified_keypoints"``: only matches count that agree with the warps of the composite, and the score is
    the expected number of cells of the hole, of about 25, that hold a right one.

    ``score_by="composite"``: the score is the similarity, in dB, of the hole's pixels to the composite, each weighted
    by its confidence.

    ``score_by="warped_references"``: the score is the similarity, in dB, of the hole's pixels to the references warped
    to the target view and to the other completions. Such scores can only be compared within one call.

    Args:
        completions: the result of ``complete``.
        references: photos to compare with, each (H, W, 3) uint8. ``None``: the scene's own.
        config: settings of the ranking. ``None``: those of the completions' earlier ranking, else the paper's.
        reference_masks: for each of the given references the part that is left out, (H, W) bool, or ``None``. The
            scene's own references come with their own masks.
        matcher: a loaded matcher for keypoints. ``None``: it is loaded here.
        matches: the keypoints that each reference shares with the target, for ``warped_references``. ``None``: they are
            matched here.
        composite: the composite of the same target and references, for ``verified_keypoints`` and ``composite``.
            ``None``: it is computed here.
        device: where LoFTR runs. ``None``: the best available.
        on_step: called after each completion, and about twice a second while one takes longer. If it returns ``False``,
            ranking ends and the completions are returned as they were, with a warning.
        progress: show a progress bar.

    Returns:
        The same completions, best first. Each has a ``score`` and ``scores_per_reference``, and with keypoints
        ``num_matches`` and ``num_matches_per_reference``. The score is ``None`` where nothing could be compared.

    Raises:
        SceneError: there are no references, or a score needs a composite and the mask covers the whole target.
        ValueError: a matcher is given, but the score does not use keypoints.
        BaseModelError: LoFTR's weights are not available.
    """
    if references is None:
        photos, excluded = completions.scene.references, completions.scene.reference_masks
    else:
        photos = tuple(references)
        excluded = tuple(reference_masks or [None] * len(photos))
    if not photos:
        raise SceneError("there are no references to rank by; legal: one to thirty photos of the scene")
    if len(excluded) != len(photos):
        raise SceneError(f"there are {len(excluded)} reference_masks; legal: one for each of {len(photos)} references")
    before = completions.ranking.to_dict() if completions.ranking is not None else {}
    settings = (config or RankConfig()).resolve(before)
    if matcher is not None and not settings.uses_matcher:
        raise ValueError(
            f"a matcher is given, but score_by is {settings.score_by!r}, which uses none; legal: score_by='keypoints' "
            "or 'verified_keypoints'"
        )
    if settings.uses_matcher and matcher is None:
        matcher = load_matcher(settings, resolve_device(device))
    try:
        with _Steps(len(completions), on_step, progress=progress) as steps:
            ranked = _score(
                completions, photos, excluded, settings, matcher=matcher, matches=matches, composite=composite,
                focals=completions.scene.focal_lengths if references is None else None, report=steps.report,
            )  # fmt: skip
    except Interrupted:
        warn("ranking was stopped by on_step, so the completions keep their order; call rank() to order them later")
        return completions
    _warn_without_evidence(ranked, settings.score_by)
    described = {"rank": settings.to_dict()}
    items = tuple(dataclasses.replace(c, provenance={**c.provenance, **described}) for c in ranked)
    return dataclasses.replace(
        completions, items=items, ranking=settings, references=tuple(hash_array(photo) for photo in photos)
    )


def _score(
    completions: Completions,
    photos: Sequence[ImageArray],
    excluded: Sequence[MaskArray | None],
    settings: RankSettings,
    *,
    matcher: Matcher | None,
    matches: Sequence[Matches] | None,
    composite: Composite | None,
    focals: Sequence[float | None] | None,
    report: Callable[[int], None],
) -> list[Completion]:
    scene = completions.scene
    if settings.score_by == "keypoints" and matcher is not None:
        return score_by_keypoints(completions, photos, excluded, matcher, report)
    if settings.score_by == "warped_references":
        return score_by_warped_references(completions, photos, excluded, matches, report)
    if scene.mask.all():
        raise SceneError(
            f"the mask covers the whole target, so there is no composite for score_by={settings.score_by!r}; legal: "
            "score_by='keypoints' or 'warped_references'"
        )
    found = composite or compose(
        scene.known, scene.mask, photos, reference_masks=excluded, focals=focals, frame=scene.frame
    )  # fmt: skip
    if matcher is None:
        return score_by_composite(completions, found.image, found.confidence, report)
    warps = [layer.warp for layer in found.layers]
    return score_by_verified_keypoints(
        completions, photos, excluded, matcher, warps, report, reference_sizes=found.reference_sizes
    )


def _warn_without_evidence(ranked: Sequence[Completion], score_by: ScoreBy) -> None:
    """Warn if no reference says anything about any completion."""
    if score_by in ("keypoints", "verified_keypoints") and not any(c.num_matches for c in ranked):
        message = (
            "no keypoint in any filled region matches a reference, so the order says nothing about authenticity. "
            "Either the references do not show what the hole hides, or the matcher finds too few keypoints there"
        )
    elif score_by == "composite" and all(c.score is None for c in ranked):
        message = "the composite is not trusted anywhere in the hole, so the completions keep the order of their seeds"
    elif score_by == "warped_references" and all(score is None for c in ranked for score in c.scores_per_reference):
        message = (
            "no reference could be aligned with the target's hole, so the completions are ordered by their similarity "
            "to each other, which says nothing about their authenticity"
        )
    else:
        return
    warn(message)


class _Steps:
    """Shows progress and asks ``on_step`` whether to continue."""

    def __init__(self, num_steps: int, on_step: OnStep | None, *, progress: bool) -> None:
        self._num_steps, self._on_step, self._step = num_steps, on_step, 0
        self._bar = ProgressBar(total=num_steps, desc="rank", unit="sample", disable=not progress)
        self._start = self._last_call = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def report(self, num_finished: int = 0) -> None:
        """Count finished completions; without any, only ask again whether to continue."""
        self._step += num_finished
        self._bar.update(num_finished)
        now = time.monotonic()
        if self._on_step is None or (num_finished == 0 and now - self._last_call < _POLL_EVERY_S):
            return
        self._last_call, elapsed = now, now - self._start
        left = elapsed / self._step * (self._num_steps - self._step) if self._step else None
        progress = Progress(phase="rank", step=self._step, num_steps=self._num_steps, time_s=elapsed, left_s=left)
        if self._on_step(progress) is False:
            raise Interrupted
