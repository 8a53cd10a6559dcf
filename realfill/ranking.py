"""Ranking: completions ordered by the keypoints that their filled region shares with references (section 3.4)."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from realfill.agreement import compare
from realfill.config import RankConfig
from realfill.devices import resolve_device
from realfill.errors import RealFillWarning, SceneError
from realfill.io.images import ImageArray, MaskArray
from realfill.models.matcher import Matcher, Matches, load_matcher
from realfill.results import Completion, Completions

_AT_A_TIME = 8  # completions whose features are held


def rank(
    completions: Completions,
    references: Sequence[ImageArray] | None = None,
    config: RankConfig | None = None,
    *,
    matcher: Matcher | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Completions:
    """Order completions by authenticity: matched keypoints between each reference and the filled region.

    Whole images are matched, so that the context helps; only matches that end in the hole count. The score is their
    number over all references; equal numbers are told apart by the matches' confidence, then by the seed. With
    ``matcher="registered"`` the score is in dB instead, how close the hole's pixels are to the references' and to the
    other completions' (``agreement.compare``): it says something beside scores of the same run only.

    Args:
        completions: what ``complete`` returned.
        references: photos to compare with, each (H, W, 3) uint8; ``None``: the scene's own.
        config: which matcher, and how strict; ``None``: as they were ranked before, else by LoFTR.
        matcher: the config's, loaded; ``None``: it is loaded here, if it has to be.
        device: for LoFTR; ``None``: the best there is.
        progress: show a progress bar.

    Returns:
        The same completions, best first, each with ``score``, ``num_matches`` and both for each reference; with
        ``registered`` without ``num_matches``, and without a score where there is nothing to compare with.

    Raises:
        SceneError: there are no references.
        ValueError: a matcher is given, and the config asks for none.
        BaseModelError: LoFTR's weights can't be had.
    """
    photos = completions.scene.references if references is None else tuple(references)
    if not photos:
        raise SceneError("there are no references to rank by; legal: one to five photos of the scene")
    resolved = (config or RankConfig()).resolve(completions.best.provenance.get("rank", {}))
    if matcher is not None and resolved.matcher == "registered":
        raise ValueError(
            "a matcher is given, but the config's is 'registered', which has none; give its config as well"
        )
    if resolved.matcher == "registered":
        return _rank_by_agreement(completions, photos, resolved, progress=progress)
    matcher = matcher or load_matcher(resolved, resolve_device(device))
    assert matcher is not None
    features = [matcher.extract(photo) for photo in photos]
    scored = []
    with tqdm(total=len(completions), desc="rank", unit="sample", disable=not progress) as bar:
        for start in range(0, len(completions), _AT_A_TIME):
            some = [completions[i] for i in range(start, min(start + _AT_A_TIME, len(completions)))]
            own = [matcher.extract(c.image) for c in some]
            matches = iter(matcher.match_pairs([(f, o) for o in own for f in features]))
            for completion in some:
                found = [matches_in_hole(next(matches), completions.scene.mask) for _ in features]
                counts = tuple(len(m.confidence) for m in found)
                certainty = float(sum(m.confidence.sum() for m in found))
                scored.append((_scored(completion, counts, resolved), certainty))
            bar.update(len(some))
    if not any(c.num_matches for c, _ in scored):
        warnings.warn(
            "no keypoint of any filled region matches any reference: the order says nothing. Either the references "
            "don't show what the hole hides, or the matcher finds too little to hold on to there",
            RealFillWarning,
            stacklevel=2,
        )
    scored.sort(key=lambda pair: (-(pair[0].score or 0), -pair[1], pair[0].seed))
    return dataclasses.replace(completions, items=tuple(c for c, _ in scored))


def _rank_by_agreement(
    completions: Completions, photos: Sequence[ImageArray], config: RankConfig, *, progress: bool
) -> Completions:
    scene = completions.scene
    with tqdm(completions, desc="rank", unit="sample", disable=not progress) as bar:
        found = compare(scene.known, scene.mask, photos, (c.image for c in bar))
    if all(figure is None for agreement in found for figure in agreement.per_reference):
        warnings.warn(
            "no reference can be laid over the target's hole: completions are ordered by how much they agree with each "
            "other, which says nothing of their authenticity",
            RealFillWarning,
            stacklevel=3,
        )
    scored = [
        dataclasses.replace(
            completion, score=agreement.total, scores_per_reference=agreement.per_reference, num_matches=None,
            num_matches_per_reference=(), provenance={**completion.provenance, "rank": config.to_dict()},
        )
        for completion, agreement in zip(completions, found, strict=True)
    ]  # fmt: skip
    scored.sort(key=lambda c: (math.inf if c.score is None else -c.score, c.seed))
    return dataclasses.replace(completions, items=tuple(scored))


def matches_in_hole(matches: Matches, mask: MaskArray) -> Matches:
    """Keep the matches whose second keypoint lies in the hole.

    Args:
        matches: between a reference and a completion.
        mask: (H, W) bool of the completion, True = filled.
    """
    x, y = np.rint(matches.keypoints1).astype(int).reshape(-1, 2).T
    inside = mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)]
    return Matches(
        keypoints0=matches.keypoints0[inside],
        keypoints1=matches.keypoints1[inside],
        confidence=matches.confidence[inside],
    )


def _scored(completion: Completion, counts: tuple[int, ...], config: RankConfig) -> Completion:
    return dataclasses.replace(
        completion,
        score=float(sum(counts)),
        num_matches=sum(counts),
        scores_per_reference=tuple(float(c) for c in counts),
        num_matches_per_reference=counts,
        provenance={**completion.provenance, "rank": config.to_dict()},
    )
