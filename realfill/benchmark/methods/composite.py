"""The composite: geometry alone, without a model."""

from __future__ import annotations

from realfill.benchmark.methods.method import Sampler
from realfill.errors import SceneError
from realfill.geometry.composite import composite
from realfill.scene.scene import Scene


class CompositeMethod:
    """The hole filled with warped references by cameras, depth and planes; Telea's method fills the rest."""

    name = "composite"
    uses_references = True
    uses_fit_seed = False
    uses_seed = False

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Compute the composite; the prompt and the seeds are ignored.

        Raises:
            SceneError: the mask covers the whole target.
        """
        del prompt, fit_seed
        if scene.mask.all():
            raise SceneError(
                "the mask covers the whole target; a composite needs known pixels to align references with"
            )
        image = composite(
            scene.known, scene.mask, scene.references, reference_masks=scene.reference_masks,
            focals=scene.focal_lengths, frame=scene.frame,
        ).image  # fmt: skip
        return lambda seeds: [image.copy() for _ in seeds]
