"""Base models of diffusion as methods: with and without a fit, a prompt, and the composite."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from realfill.benchmark.methods.method import Sampler, require_references
from realfill.config import FitConfig, GeometryConfig, SampleConfig, WindowConfig
from realfill.errors import SceneError
from realfill.filling.unfitted import consecutive_runs
from realfill.io.images import ImageArray
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.hub import locate
from realfill.pipeline import complete, fit
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A base model that is fitted to the references, then completes the scene.

    Attributes:
        name: see ``Method``.
        fit: settings of the fit; its seed is the fit seed.
        sample: settings of the sampler.
        window: settings of the windows.
        geometry: whether the composite is kept, or the model fills the whole hole, as in the paper (Tang et al. 2024).
        device: where to compute.
        progress: show the progress of each fit.
    """

    uses_references = True
    uses_fit_seed = True
    uses_seed = True

    name: str
    fit: FitConfig
    sample: SampleConfig
    window: WindowConfig
    geometry: GeometryConfig
    device: str | None = None
    progress: bool = False

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fit; the case's prompt is ignored, since the method has its own."""
        del prompt
        config = dataclasses.replace(self.fit, seed=fit_seed)
        adapter = fit(
            scene, config, window=self.window, geometry=self.geometry, device=self.device, progress=self.progress
        )
        return partial(_sample, scene, adapter, self.sample, self.window, self.geometry, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfitted:
    """A base model without a fit.

    Attributes:
        name: see ``Method``.
        base: name or folder of the base model.
        sample: settings of the sampler.
        window: settings of the windows.
        geometry: whether the composite is kept.
        uses_references: whether the method sees the scene's references, for the composite or as conditioning.
        needs_references: refuse a scene that has none.
        with_prompt: prompt the model with the case's description of the scene.
        device: where to compute.
    """

    uses_fit_seed = False
    uses_seed = True

    name: str
    base: str
    sample: SampleConfig
    window: WindowConfig
    geometry: GeometryConfig
    uses_references: bool = True
    needs_references: bool = False
    with_prompt: bool = False
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Return the sampler; there is nothing to prepare.

        Raises:
            SceneError: the scene has no references, or the case no prompt, and the method needs them.
            BaseModelError: the weights are not available.
        """
        del fit_seed
        if self.needs_references:
            require_references(scene, self.name)
        if self.with_prompt and prompt is None:
            raise SceneError("the case has no prompt; describe the scene in prompt.txt in its folder")
        locate(self.base)
        sample = dataclasses.replace(self.sample, prompt=prompt) if self.with_prompt else self.sample
        seen = scene if self.uses_references else scene.with_references(0)
        return partial(_sample, seen, self.base, sample, self.window, self.geometry, self.device)


def _sample(
    scene: Scene,
    adapter: Adapter | str,
    config: SampleConfig,
    window: WindowConfig,
    geometry: GeometryConfig,
    device: str | None,
    seeds: Sequence[int],
) -> list[ImageArray]:
    """Complete the scene once for each seed, without ranking; consecutive seeds are sampled in one call."""
    images: dict[int, ImageArray] = {}
    for first, count in consecutive_runs(seeds):
        run = dataclasses.replace(config, seed=first, num_samples=count)
        completions = complete(
            scene, adapter, run, window=window, geometry=geometry, ranked=False, device=device, progress=False
        )
        if completions.best.seed is None:  # no pixel depends on the seed
            return [completions.best.image.copy() for _ in seeds]
        images |= {c.seed: c.image for c in completions if c.seed is not None}
    return [images[seed] for seed in seeds]
