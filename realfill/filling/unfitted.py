"""A diffusion model without a fit, as an engine."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import numpy as np
import torch

from realfill.compute.devices import resolve_device, resolve_dtype
from realfill.compute.progress import OnStep, Progress
from realfill.config import SampleConfig, SampleSettings, WindowConfig, WindowSettings
from realfill.errors import RealFillWarning
from realfill.filling.fill import fill_hole
from realfill.io.images import ImageArray, MaskArray
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.family import DiffusionFamily
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnfittedBase:
    """An engine that samples a base model without a fit; see ``Engine``.

    Attributes:
        inpainter: the base model.
        sample: settings of the sampler; its seeds and their number have no effect.
        window: settings of the windows.
    """

    inpainter: DiffusionFamily
    sample: SampleSettings
    window: WindowSettings

    @classmethod
    def load(
        cls, base: str, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None,
        local_files_only: bool = False,
    ) -> Self:  # fmt: skip
        """Load a base model, with its own settings.

        Args:
            base: ``sd2``, ``sd15``, ``klein``, ``mini``, a hub id, or a directory.
            device: where to compute. ``None``: the best available.
            dtype: precision of the weights. ``None``: half precision on CUDA, single precision elsewhere.
            local_files_only: do not use the network.

        Raises:
            BaseModelError: the base model cannot be loaded.
        """
        inpainter = load_family(base, local_files_only=local_files_only)
        chosen = resolve_device(device)
        return cls(
            inpainter=inpainter.to(chosen, resolve_dtype(chosen, dtype)),
            sample=SampleConfig().resolve(inpainter.card.sample),
            window=WindowConfig().resolve(inpainter.card.window),
        )

    def fill(
        self, image: ImageArray, hole: MaskArray, seeds: Sequence[int], *, on_step: OnStep | None = None
    ) -> list[ImageArray]:
        """Fill the hole once for each seed; see ``Engine.fill``. Consecutive seeds are sampled together."""
        with warnings.catch_warnings():  # the caller's scene has warned already
            warnings.simplefilter("ignore", RealFillWarning)
            scene = Scene([], np.where(hole[:, :, None], np.uint8(0), image), hole)
        filled: dict[int, ImageArray] = {}
        stopped = False

        def watch(report: Progress) -> bool:
            nonlocal stopped
            stopped = on_step is not None and on_step(report) is False
            return not stopped

        for first, count in _runs(seeds):
            run = dataclasses.replace(self.sample, seed=first, num_samples=count)
            for seed, pixels in fill_hole(
                self.inpainter, scene, run, self.window, on_step=watch, progress=False
            ).items():  # fmt: skip
                filled[seed] = image.copy()
                filled[seed][hole] = pixels
            if stopped:
                break
        return [filled[seed].copy() for seed in seeds if seed in filled]


def _runs(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Group different seeds into runs of consecutive ones: the first seed and the length of each."""
    ordered = sorted(set(seeds))
    groups = groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])
    runs = [[seed for _, seed in group] for _, group in groups]
    return [(run[0], len(run)) for run in runs]
