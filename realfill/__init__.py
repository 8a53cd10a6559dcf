"""Reference-driven image completion: fill a hole in a photo with what other photos of the moment show there."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realfill.config import AdaptConfig, FitConfig, GeometryConfig, RankConfig, SampleConfig, WindowConfig
    from realfill.jobs.batch import run_batch
    from realfill.jobs.cluster import RayCluster
    from realfill.models.diffusion.adapter import Adapter
    from realfill.pipeline import adapt, complete, draw_composite, erase, erase_selected, examine, fill, fit, variants
    from realfill.ranking.rank import rank
    from realfill.results.completions import Completion, Completions
    from realfill.results.evidence import Evidence
    from realfill.scene.scene import Scene
    from realfill.segmentation.detection import find_instances
    from realfill.segmentation.selection import mask_from

__version__ = "0.1.0"
__all__ = [
    "AdaptConfig", "Adapter", "Completion", "Completions", "Evidence", "FitConfig", "GeometryConfig", "RankConfig",
    "RayCluster", "SampleConfig", "Scene", "WindowConfig", "adapt", "complete", "draw_composite", "erase",
    "erase_selected", "examine", "fill", "find_instances", "fit", "mask_from", "rank", "run_batch", "variants",
]  # fmt: skip

_MODULES = {
    "realfill.config": ("AdaptConfig", "FitConfig", "GeometryConfig", "RankConfig", "SampleConfig", "WindowConfig"),
    "realfill.jobs.batch": ("run_batch",),
    "realfill.jobs.cluster": ("RayCluster",),
    "realfill.models.diffusion.adapter": ("Adapter",),
    "realfill.pipeline": (
        "adapt",
        "complete",
        "draw_composite",
        "erase",
        "erase_selected",
        "examine",
        "fill",
        "fit",
        "variants",
    ),
    "realfill.ranking.rank": ("rank",),
    "realfill.results.completions": ("Completion", "Completions"),
    "realfill.results.evidence": ("Evidence",),
    "realfill.scene.scene": ("Scene",),
    "realfill.segmentation.detection": ("find_instances",),
    "realfill.segmentation.selection": ("mask_from",),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that ``import realfill`` is fast."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'realfill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
