"""The composite: geometry alone, without a model."""

from __future__ import annotations

from dataclasses import dataclass

from realfill.benchmark.methods.method import Sampler
from realfill.config import GeometryConfig
from realfill.errors import SceneError
from realfill.geometry.composite import composite
from realfill.pipeline.evidence import load_named_matcher
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
            BaseModelError: the weights of the matcher are not available.
        """
        del prompt, fit_seed
        if scene.mask.all() or not scene.references:
            raise SceneError("a composite needs known pixels of the target, and references to align with them")
        settings = self.geometry.resolve({})
        image = composite(
            scene.known, scene.mask, scene.references, reference_masks=scene.reference_masks,
            focals=scene.focal_lengths, frame=scene.frame, matcher=load_named_matcher(settings, self.device),
            cameras_by=settings.cameras_by,
        ).image  # fmt: skip
        return lambda seeds: [image.copy() for _ in seeds]
