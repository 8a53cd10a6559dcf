"""Engines as methods of the benchmark. An engine sees the target and its hole only."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from realfill.benchmark.methods.method import Sampler
from realfill.models import classical
from realfill.models.engine import Engine
from realfill.scene.scene import Scene


class EngineMethod:
    """A method that fills the hole by an engine.

    A further engine needs a subclass with its ``name``, its ``engine`` and, if its images differ from seed to seed,
    ``uses_seed``.
    """

    name: ClassVar[str]
    engine: ClassVar[Engine]
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = False

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Prepare nothing; the references, the prompt and the fit seed are ignored."""
        del prompt, fit_seed
        return partial(self.engine.fill, scene.known, scene.mask)


class Smooth(EngineMethod):
    """A smooth fill."""

    name: ClassVar[str] = "smooth"
    engine: ClassVar[Engine] = classical.Smooth()


class Telea(EngineMethod):
    """Telea's method."""

    name: ClassVar[str] = "telea"
    engine: ClassVar[Engine] = classical.Telea()


class ShiftMap(EngineMethod):
    """OpenCV's shift map."""

    name: ClassVar[str] = "shiftmap"
    engine: ClassVar[Engine] = classical.ShiftMap()
