"""RealFill and the base model that it fine-tunes: with and without a fit, a prompt, and the composite; FLUX.2 klein."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from realfill.benchmark.methods.method import Sampler
from realfill.config import FitConfig, GeometryConfig, SampleConfig, WindowConfig
from realfill.errors import SceneError
from realfill.io.images import ImageArray
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.hub import locate
from realfill.pipeline import complete, fit
from realfill.scene.scene import Scene

_ON, _OFF = GeometryConfig(enabled=True), GeometryConfig(enabled=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealFill:
    """Fit on the references, then sample what the composite does not show."""

    name: ClassVar[str] = "realfill"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = True
    uses_seed: ClassVar[bool] = True

    fit: FitConfig
    sample: SampleConfig
    window: WindowConfig
    geometry: GeometryConfig = _ON
    device: str | None = None
    progress: bool = False
    """Show the progress of each fit."""

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fit; the case's prompt is ignored, since the method has its own."""
        del prompt
        config = dataclasses.replace(self.fit, seed=fit_seed)
        adapter = fit(
            scene, config, window=self.window, geometry=self.geometry, device=self.device, progress=self.progress
        )
        return partial(_sample, scene, adapter, self.sample, self.window, self.geometry, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRealFill(RealFill):
    """Fit on the references, then sample the whole hole (RealFill, Tang et al. 2024)."""

    name: ClassVar[str] = "realfill_plain"

    geometry: GeometryConfig = _OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Klein:
    """FLUX.2 klein with the references as conditioning, without a fit and, by default, without the composite."""

    name: ClassVar[str] = "klein"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = True

    base: str
    sample: SampleConfig
    window: WindowConfig
    geometry: GeometryConfig = _OFF
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Return the sampler; the case's prompt is ignored, since the base model has an instruction of its own.

        Raises:
            SceneError: the scene has no references.
            BaseModelError: the weights are not available.
        """
        del prompt, fit_seed
        if not scene.references:
            raise SceneError("the scene has no references, but 'klein' needs them; add photos of it")
        locate(self.base)
        return partial(_sample, scene, self.base, self.sample, self.window, self.geometry, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class KleinFit(RealFill):
    """FLUX.2 klein: a fit on the undistilled weights, which sees the references as conditioning too.

    It starts from the composite, as ``RealFill`` does.
    """

    name: ClassVar[str] = "klein_fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The same base model without a fit and without a prompt; it fills what the composite does not show."""

    name: ClassVar[str] = "base"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = True

    base: str
    sample: SampleConfig
    window: WindowConfig
    geometry: GeometryConfig = _ON
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Return the sampler; there is nothing to prepare."""
        del prompt, fit_seed
        seen = scene if self.uses_references else scene.with_references(0)
        return partial(_sample, seen, self.base, self.sample, self.window, self.geometry, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBase(Base):
    """The base model alone: it fills the whole hole, and sees no references."""

    name: ClassVar[str] = "base_plain"
    uses_references: ClassVar[bool] = False

    geometry: GeometryConfig = _OFF


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
        alone = scene.with_references(0)
        return partial(_sample, alone, self.base, sample, self.window, _OFF, self.device)


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
    for seed in seeds:
        if seed not in images:
            count = next(n for n in range(1, len(seeds) + 2) if seed + n not in seeds)
            run = dataclasses.replace(config, seed=seed, num_samples=count)
            completions = complete(
                scene, adapter, run, window=window, geometry=geometry, ranked=False, device=device, progress=False
            )
            if completions.best.seed is None:  # no pixel depends on the seed
                return [completions.best.image.copy() for _ in seeds]
            images |= {c.seed: c.image for c in completions if c.seed is not None}
    return [images[seed] for seed in seeds]
