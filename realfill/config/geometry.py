"""Settings of the composite: which pixels of the hole are taken from the references."""

# Settings have no defaults: resolve() gives every value.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from realfill.config.base import Config, auto
from realfill.config.fit import Preset
from realfill.config.rank import MatcherName

CamerasBy = Literal["opencv", "pycolmap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometryConfig(Config):
    """Settings of the composite, which ``fit``, ``complete`` and the adapter share.

    The composite warps what the references show into the hole, and has a confidence for each pixel.
    """

    enabled: bool | None = auto(value=True)
    """Take the pixels that the references show from the references, and leave only the rest to the model. False: leave
    the whole hole to the model, as the paper does. None: True, except with the preset ``paper`` and for a part of a
    completion that is filled again."""
    photographed_confidence: float | None = auto(0.35)
    """Confidence, in [0, 1], from which a pixel of the composite is kept as it is. A confidence c stands for an
    expected error of -15 ln c levels of 255. The default, ours, stands for 16 levels; on the planted scenes of
    ``examples/planted_3d.py`` pixels above it err by 7 on average."""
    corrected_confidence: float | None = auto(0.01)
    """Confidence, in [0, 1], from which a pixel is corrected: a mean of the composite and what the model fills in. The
    composite's weight falls with its expected error, from 1 at ``photographed_confidence`` to about 0.5, or to about
    0.3 if the base model reads the doubtful pixels as hints, and then to 0 just above this confidence. Below, and where
    no reference reaches, the model invents. Detail that is too fine for the window of the fill stays the composite's,
    and less of it below a confidence of 0.2. The default, ours, was chosen on planted scenes; it stands for 69
    levels."""

    cameras_by: CamerasBy | None = auto("opencv")
    """How the cameras of target and references are estimated: ``opencv`` starts at the target, places the references
    by OpenCV and adjusts all cameras together; ``pycolmap`` is COLMAP's incremental mapper, which needs the extra
    ``sfm``."""
    matches_by: MatcherName | None = auto("sift")
    """How the photos are matched for the composite: ``sift`` is RootSIFT, on affine views where there are few matches,
    and needs no weights; the other matchers of ``RankConfig`` download theirs once."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_share("photographed_confidence", "corrected_confidence")
        low, high = self.corrected_confidence, self.photographed_confidence
        legal = low is None or high is None or low <= high
        self._check("corrected_confidence", legal, f"at most photographed_confidence, which is {high}")

    def resolve(self, defaults: Mapping[str, Any], *, preset: Preset | None = None) -> GeometrySettings:
        """Fill the open fields; see ``Config.filled``.

        Args:
            defaults: field name to value, for example those of an adapter.
            preset: the preset of the fit or the sampling; ``paper`` turns the composite off, unless ``enabled`` is set.
        """
        values = self.filled(defaults)
        if preset == "paper" and self.enabled is None:
            values["enabled"] = False
        return GeometrySettings(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometrySettings(GeometryConfig):
    """A ``GeometryConfig`` without open fields."""

    enabled: bool
    photographed_confidence: float
    corrected_confidence: float
    cameras_by: CamerasBy
    matches_by: MatcherName
