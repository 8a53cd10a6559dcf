"""The references of a scene as an engine: what they show, and an engine or a fitted base model for the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import torch

from realfill.compute.progress import OnStep
from realfill.config import SampleConfig
from realfill.errors import StoppedError
from realfill.filling.unfitted import consecutive_runs
from realfill.io.images import ImageArray, ImageLike, MaskArray
from realfill.models.diffusion.adapter import Adapter
from realfill.pipeline.completing import complete
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundEngine:
    """An engine that knows references, so that whatever takes an engine can fill from them; see ``Engine``.

    Attributes:
        references: other photos of the place.
        completer: what fills the pixels that the references do not show: the name of an engine that always gives the
            same result, such as ``telea``, which makes this the composite; or the adapter of a fit to the references,
            or its folder; or a base model.
        sample: settings of the sampler of a base model; its seed and number have no effect.
        device: where to compute. ``None``: the best available.
    """

    references: Sequence[ImageLike]
    completer: Adapter | str | PathLike[str] = "telea"
    sample: SampleConfig = SampleConfig()
    device: str | torch.device | None = None

    def fill(
        self, image: ImageArray, hole: MaskArray, seeds: Sequence[int], *, on_step: OnStep | None = None
    ) -> list[ImageArray]:
        """Fill the hole once for each seed; see ``Engine.fill``. Consecutive seeds are sampled together.

        Raises:
            SceneError: a reference cannot be read, or an engine cannot fill the scene.
            BaseModelError: weights cannot be loaded.
            AdapterError: the adapter does not fit its base model.
        """
        scene, filled = Scene(self.references, image, hole), dict[int | None, ImageArray]()
        for first, count in consecutive_runs(seeds):
            run = dataclasses.replace(self.sample, seed=first, num_samples=count)
            try:
                completions = complete(
                    scene, self.completer, run, ranked=False, device=self.device, on_step=on_step, progress=False
                )
            except StoppedError:
                break
            filled |= {completion.seed: completion.image for completion in completions}
            if None in filled:  # no pixel depends on a seed
                return [filled[None].copy() for _ in seeds]
            if len(completions) < count:
                break
        return [filled[seed].copy() for seed in seeds if seed in filled]
