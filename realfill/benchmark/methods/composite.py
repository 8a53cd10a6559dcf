"""The composite: geometry alone, without a model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from realfill.benchmark.methods.method import Sampler
from realfill.config import GeometryConfig
from realfill.errors import RealFillError, SceneError
from realfill.pipeline.evidence import compose
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeMethod:
    """The hole filled with warped references by cameras, depth and planes; Telea's method fills the rest."""

    name = "composite"
    uses_references = True
    uses_fit_seed = False
    uses_seed = False

    geometry: GeometryConfig
    """How the photos are matched and the cameras estimated."""
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Compute the composite; the prompt and the seeds are ignored.

        Raises:
            SceneError: the mask covers the whole target, or there are no references.
            RealFillError: memory did not suffice.
        """
        del prompt, fit_seed
        if scene.mask.all() or not scene.references:
            raise SceneError("a composite needs known pixels of the target, and references to align with them")
        settings = dataclasses.replace(self.geometry.resolve({}), enabled=True)
        found = compose(scene, settings, self.device, on_step=None, progress=False)
        if found is None:
            raise RealFillError("memory did not suffice for the composite")
        return lambda seeds: [found.image.copy() for _ in seeds]
