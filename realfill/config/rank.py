"""Settings of the ranking of completions."""

# Settings have no defaults: resolve() gives every value.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from realfill.config.base import Config, auto

MatcherName = Literal["loftr", "sift", "lightglue", "efficientloftr", "matchanything"]
ScoreBy = Literal["keypoints", "verified_keypoints", "warped_references", "composite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankConfig(Config):
    """Settings of ``rank``, which scores and orders completions (paper, section 3.4)."""

    score_by: ScoreBy | None = auto("keypoints")
    """``keypoints``: the number of keypoints matched between the references and the filled region (paper).
    ``verified_keypoints``: only matches that agree with the warps of the references, weighted by confidence and spread
    over the hole. ``warped_references``: the similarity in dB to references warped to the target view. ``composite``:
    the similarity in dB to the composite, where it is trusted. The last two suit small base models, whose samples are
    too soft for keypoints, and need no matcher. If only ``matcher`` is set, the score is ``keypoints``."""
    matcher: MatcherName | None = auto("loftr")
    """Matcher for keypoints: ``loftr`` (paper), ``lightglue``, ``efficientloftr`` and ``matchanything`` download their
    weights once; ``sift`` needs none."""
    max_size_px: int | None = auto(840)
    """Longer side to which images are shrunk before keypoints are matched, 64 or more. LoFTR's memory grows with its
    fourth power."""
    min_confidence: float | None = auto(0.2)
    """Least confidence of a match that counts, for all matchers but SIFT. The default is that of LoFTR's authors."""
    max_ratio: float | None = auto(0.8)
    """Lowe's ratio test for SIFT: the largest allowed distance to the best match over that to the second best. The
    default is Lowe's."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_at_least(64, "max_size_px")
        self._check_share("min_confidence", "max_ratio")

    def resolve(self, defaults: Mapping[str, Any]) -> RankSettings:
        """Fill the open fields; see ``Config.filled``."""
        values = self.filled(defaults)
        if self.matcher is not None and self.score_by is None:
            values["score_by"] = "keypoints"
        return RankSettings(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSettings(RankConfig):
    """A ``RankConfig`` without open fields."""

    score_by: ScoreBy
    matcher: MatcherName
    max_size_px: int
    min_confidence: float
    max_ratio: float

    @property
    def uses_matcher(self) -> bool:
        """Whether the score needs keypoints matched between references and completions."""
        return self.score_by in ("keypoints", "verified_keypoints")
