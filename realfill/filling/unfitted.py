"""A diffusion model that was not fitted to the scene, as an engine."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from realfill.compute.devices import resolve_device, resolve_dtype
from realfill.compute.progress import OnStep, Progress
from realfill.config import SampleConfig, SampleSettings, WindowConfig, WindowSettings
from realfill.errors import BaseModelError, RealFillWarning
from realfill.filling.fill import fill_hole
from realfill.io.images import ImageArray, MaskArray
from realfill.models.diffusion.adapter import MANIFEST_NAME, Adapter, resolve_sampling
from realfill.models.diffusion.families import load_family, load_family_of
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.lora import attach
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnfittedBase:
    """An engine that samples a base model, possibly adapted to a kind of photo; see ``Engine``.

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
        local_files_only: bool = False, sample: SampleConfig | None = None,
    ) -> Self:  # fmt: skip
        """Load a base model.

        Args:
            base: ``sd2``, ``sd15``, ``klein``, ``mini``, a hub id, a directory, or the directory of an adapter, such as
                ``adapt`` makes, which names its base model.
            device: where to compute. ``None``: the best available.
            dtype: precision of the weights. ``None``: half precision on CUDA, single precision elsewhere.
            local_files_only: do not use the network.
            sample: settings of the sampler. ``None``: those of the adapter and of the base model.

        Raises:
            BaseModelError: the base model cannot be loaded.
            AdapterError: the adapter is damaged, or its base model has changed.
        """
        if Path(base).is_dir() and not any(Path(base).iterdir()):
            raise BaseModelError(
                f"{base!r} is an empty folder; legal: a folder in diffusers' layout, or the folder of an adapter"
            )
        adapter = Adapter.load(base) if (Path(base) / MANIFEST_NAME).is_file() else None
        options: dict[str, Any] = {"local_files_only": local_files_only}
        inpainter = load_family(base, **options) if adapter is None else load_family_of(adapter, None, **options)
        window = WindowConfig().resolve(inpainter.card.window) if adapter is None else adapter.window
        settings = resolve_sampling(sample or SampleConfig(), inpainter.card, adapter)
        if adapter is not None:
            if settings.is_guided_from_base(window.num_stages):
                inpainter.keep_unfitted()
            attach(inpainter, adapter)
        chosen = resolve_device(device)
        return cls(inpainter=inpainter.to(chosen, resolve_dtype(chosen, dtype)), sample=settings, window=window)

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

        for first, count in consecutive_runs(seeds):
            run = dataclasses.replace(self.sample, seed=first, num_samples=count)
            for seed, pixels in fill_hole(
                self.inpainter, scene, run, self.window, on_step=watch, progress=False
            ).items():  # fmt: skip
                filled[seed] = image.copy()
                filled[seed][hole] = pixels
            if stopped:
                break
        return [filled[seed].copy() for seed in seeds if seed in filled]


def consecutive_runs(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Group different seeds into runs of consecutive ones: the first seed and the length of each."""
    ordered = sorted(set(seeds))
    groups = groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])
    runs = [[seed for _, seed in group] for _, group in groups]
    return [(run[0], len(run)) for run in runs]
