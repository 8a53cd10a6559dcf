"""Settings of the windows, the parts of the target around a hole that the model sees."""

# Settings have no defaults: resolve() gives every value.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from realfill.config.base import Config, auto

ReferenceViews = Literal["plain", "warped", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig(Config):
    """Settings of what the model sees of a scene, which ``fit``, ``complete`` and the adapter share."""

    context: float | None = auto(1.7)
    """Side of the window around a hole, as a multiple of the hole's longer side; 1 or more. Known pixels beside the
    hole, one latent wide, are always inside the window."""
    join_windows: float | None = auto(1.25)
    """Largest loss of resolution for which two holes share a window: their joint window may have this many times as
    many target pixels per model pixel as the coarser of their own windows. 1: only without any loss."""
    num_stages: int | None = auto(1)
    """Largest number of stages from coarse to fine, used where a window shrinks the target. Each stage doubles the
    resolution, up to the target's own, and starts from the result of the stage before. 1: a single stage at the base
    model's resolution, enlarged to the target's."""
    reference_px: int = 512
    """Side in pixels of a square with as many pixels as each reference has for a base model that reads references as
    conditioning (FLUX.2 klein), unless the reference is smaller. Time and memory grow with it."""
    reference_views: ReferenceViews = "plain"
    """What such a base model sees of each reference: ``plain``: the photo; ``warped``: the photo warped to the target
    view, or the photo itself if it cannot be aligned; ``both``."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_at_least(1, "context", "join_windows", "num_stages", "reference_px")

    def resolve(self, defaults: Mapping[str, Any]) -> WindowSettings:
        """Fill the open fields; see ``Config.filled``."""
        return WindowSettings(**self.filled(defaults))


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings(WindowConfig):
    """A ``WindowConfig`` without open fields."""

    context: float
    join_windows: float
    num_stages: int
