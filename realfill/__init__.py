"""Reference-driven image completion: fill a hole in a photo with what other photos of the moment show there."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realfill.config import FitConfig, RankConfig, SampleConfig
    from realfill.models.adapter import Adapter
    from realfill.pipeline import complete, fit, variants
    from realfill.ranking import rank
    from realfill.results import Completion, Completions
    from realfill.scene import Scene

__version__ = "0.1.0"
__all__ = [
    "Adapter", "Completion", "Completions", "FitConfig", "RankConfig", "SampleConfig", "Scene",
    "complete", "fit", "rank", "variants",
]  # fmt: skip

_ROOMS = {
    "realfill.config": ("FitConfig", "RankConfig", "SampleConfig"),
    "realfill.models.adapter": ("Adapter",),
    "realfill.pipeline": ("complete", "fit", "variants"),
    "realfill.ranking": ("rank",),
    "realfill.results": ("Completion", "Completions"),
    "realfill.scene": ("Scene",),
}


def __getattr__(name: str) -> Any:
    """Import an export when it is first asked for: ``import realfill`` itself loads nothing."""
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(room), name)
    raise AttributeError(f"module 'realfill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
