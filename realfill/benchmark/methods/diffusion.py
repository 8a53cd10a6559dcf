"""RealFill, and the base model that it fine-tunes: without a fit, and without a fit but with a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from realfill.benchmark.methods.method import Sampler
from realfill.config import FitConfig, SampleConfig, WindowConfig
from realfill.errors import SceneError
from realfill.io.images import ImageArray
from realfill.models.diffusion.adapter import Adapter
from realfill.pipeline import complete, fit
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class RealFill:
    """Fit on the references, then sample (RealFill, Tang et al. 2024)."""

    name: ClassVar[str] = "realfill"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = True
    uses_seed: ClassVar[bool] = True

    fit: FitConfig
    sample: SampleConfig
    window: WindowConfig
    device: str | None = None
    progress: bool = False
    """Show the progress of each fit."""

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fit; the case's prompt is ignored, since the method has its own."""
        del prompt
        config = dataclasses.replace(self.fit, seed=fit_seed)
        adapter = fit(scene, config, window=self.window, device=self.device, progress=self.progress)
        return partial(_sample, scene, adapter, self.sample, self.window, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The same base model without a fit and without a prompt."""

    name: ClassVar[str] = "base"
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = True

    base: str
    sample: SampleConfig
    window: WindowConfig
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Return the sampler; there is nothing to prepare."""
        del prompt, fit_seed
        return partial(_sample, scene, self.base, self.sample, self.window, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The same base model without a fit, prompted with a description of the scene."""

    name: ClassVar[str] = "prompt"
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = True

    base: str
    sample: SampleConfig
    window: WindowConfig
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Return the sampler with the case's prompt.

        Raises:
            SceneError: the case has no prompt.
        """
        del fit_seed
        if prompt is None:
            raise SceneError("the case has no prompt; describe the scene in prompt.txt in its folder")
        sample = dataclasses.replace(self.sample, prompt=prompt)
        return partial(_sample, scene, self.base, sample, self.window, self.device)


def _sample(
    scene: Scene,
    adapter: Adapter | str,
    config: SampleConfig,
    window: WindowConfig,
    device: str | None,
    seeds: Sequence[int],
) -> list[ImageArray]:
    """Complete the scene once for each seed, without ranking; consecutive seeds are sampled in one call."""
    unranked = scene.with_references(0)
    images: dict[int, ImageArray] = {}
    for seed in seeds:
        if seed not in images:
            count = next(n for n in range(1, len(seeds) + 2) if seed + n not in seeds)
            run = dataclasses.replace(config, seed=seed, num_samples=count)
            completions = complete(unranked, adapter, run, window=window, device=device, progress=False)
            images |= {completion.seed: completion.image for completion in completions}
    return [images[seed] for seed in seeds]
