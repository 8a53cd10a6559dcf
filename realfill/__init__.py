"""Reference-driven image completion: fill a hole in a photo with what other photos of the moment show there."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realfill.config import FitConfig, RankConfig, SampleConfig, WindowConfig
    from realfill.models.diffusion.adapter import Adapter
    from realfill.pipeline import complete, fit, variants
    from realfill.ranking.rank import rank
    from realfill.results.completions import Completion, Completions
    from realfill.scene.scene import Scene

__version__ = "0.1.0"
__all__ = [
    "Adapter", "Completion", "Completions", "FitConfig", "RankConfig", "SampleConfig", "Scene", "WindowConfig",
    "complete", "fit", "rank", "variants",
]  # fmt: skip

_MODULES = {
    "realfill.config": ("FitConfig", "RankConfig", "SampleConfig", "WindowConfig"),
    "realfill.models.diffusion.adapter": ("Adapter",),
    "realfill.pipeline": ("complete", "fit", "variants"),
    "realfill.ranking.rank": ("rank",),
    "realfill.results.completions": ("Completion", "Completions"),
    "realfill.scene.scene": ("Scene",),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that ``import realfill`` is fast."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'realfill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
