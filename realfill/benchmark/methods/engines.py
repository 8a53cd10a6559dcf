"""Engines as methods of the benchmark. An engine sees the target and its hole only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

from realfill.benchmark.methods.method import Sampler
from realfill.config import EngineName
from realfill.filling.engines import load_engine
from realfill.models.engine import Engine
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMethod:
    """A method that fills the hole by an engine, which is loaded when it is first used."""

    uses_references = False
    uses_fit_seed = False
    uses_seed = False

    name: EngineName
    weights: str | None = None
    """The engine's weights, as for ``load_engine``."""
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Load the engine; the references, the prompt and the fit seed are ignored.

        Raises:
            BaseModelError: its weights are not available.
        """
        del prompt, fit_seed
        return partial(_load(self.name, self.weights, self.device).fill, scene.known, scene.mask)


@cache
def _load(name: EngineName, weights: str | None, device: str | None) -> Engine:
    return load_engine(name, weights=weights, device=device)
