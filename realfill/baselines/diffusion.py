"""The method itself and what it is built on: fitted, unfitted, and unfitted with a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from realfill.baselines.method import Sampler
from realfill.config import FitConfig, SampleConfig
from realfill.errors import SceneError
from realfill.io.images import ImageArray
from realfill.models.adapter import Adapter
from realfill.pipeline import complete, fit
from realfill.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class RealFill:
    """Fit on the references, then sample (RealFill, Tang et al. 2024)."""

    name: ClassVar[str] = "realfill"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = True
    uses_seed: ClassVar[bool] = True

    fit: FitConfig
    sample: SampleConfig
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fit; the case's prompt isn't used, the method has its own."""
        del prompt
        config = dataclasses.replace(self.fit, seed=fit_seed)
        adapter = fit(scene, config, device=self.device, progress=False)
        return partial(_sample, scene, adapter, self.sample, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The same base without a fit and without words."""

    name: ClassVar[str] = "base"
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = True

    base: str
    sample: SampleConfig
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Do nothing."""
        del prompt, fit_seed
        return partial(_sample, scene, self.base, self.sample, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The same base without a fit, told in words what the scene shows."""

    name: ClassVar[str] = "prompt"
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = True

    base: str
    sample: SampleConfig
    device: str | None = None

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Take the case's prompt.

        Raises:
            SceneError: there is none.
        """
        del fit_seed
        if prompt is None:
            raise SceneError("the case has no prompt; write what it shows into prompt.txt in its folder")
        return partial(_sample, scene, self.base, dataclasses.replace(self.sample, prompt=prompt), self.device)


def _sample(
    scene: Scene, adapter: Adapter | str, config: SampleConfig, device: str | None, seeds: Sequence[int]
) -> list[ImageArray]:
    """Complete once for each seed, in as few calls as runs of consecutive seeds allow; nothing is ranked here."""
    unranked = scene.with_references(0)
    images: dict[int, ImageArray] = {}
    for seed in seeds:
        if seed not in images:
            count = next(n for n in range(1, len(seeds) + 2) if seed + n not in seeds)
            run = dataclasses.replace(config, seed=seed, num_samples=count)
            images |= {c.seed: c.image for c in complete(unranked, adapter, run, device=device, progress=False)}
    return [images[seed] for seed in seeds]
