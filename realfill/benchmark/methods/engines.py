"""Engines as methods of the benchmark. An engine sees the target and its hole only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar, cast

from realfill.benchmark.methods.method import Sampler
from realfill.config import EngineName
from realfill.filling.engines import load_engine
from realfill.models.engine import Engine
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMethod:
    """A method that fills the hole by an engine, which is loaded when it is first used.

    A further engine needs a subclass with its ``name``, an ``EngineName``, and, if its images differ from seed to seed,
    ``uses_seed``.
    """

    name: ClassVar[str]
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = False

    weights: str | None = None
    """The engine's weights, as for ``load_engine``."""
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Load the engine; the references, the prompt and the fit seed are ignored.

        Raises:
            BaseModelError: its weights are not available.
        """
        del prompt, fit_seed
        return partial(_load(cast("EngineName", self.name), self.weights, self.device).fill, scene.known, scene.mask)


class Smooth(EngineMethod):
    """A smooth fill."""

    name: ClassVar[str] = "smooth"


class Telea(EngineMethod):
    """Telea's method."""

    name: ClassVar[str] = "telea"


class ShiftMap(EngineMethod):
    """OpenCV's shift map."""

    name: ClassVar[str] = "shiftmap"


class Completion(EngineMethod):
    """The completion network."""

    name: ClassVar[str] = "completion"


class Lama(EngineMethod):
    """LaMa."""

    name: ClassVar[str] = "lama"


class Migan(EngineMethod):
    """MI-GAN."""

    name: ClassVar[str] = "migan"


@cache
def _load(name: EngineName, weights: str | None, device: str | None) -> Engine:
    return load_engine(name, weights=weights, device=device)
