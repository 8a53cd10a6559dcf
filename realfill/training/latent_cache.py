"""The latent cache: encoded crops that are used several times.

In the paper each step encodes its own crops, which at 512 pixels takes longer than the U-Net's step. The cache holds
the VAE's posterior, so each use of a crop draws new latents, noise, timestep and prompt dropout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from realfill.compute.devices import send
from realfill.config import FitSettings
from realfill.models.diffusion.family import DiffusionFamily
from realfill.training.crops import Crops, TrainingImage, draw_crops
from realfill.training.objective import Latents, encode_crops
from realfill.training.planted_hints import hinted
from realfill.training.prefetch import Prefetcher, threads_for

if TYPE_CHECKING:
    from accelerate import Accelerator

_CROPS, _ORDER = 1, 2  # the purpose of a generator is part of its seed


class LatentCache:
    """``latent_cache_size`` encoded crops, which are replaced once each has been used ``latent_cache_uses`` times.

    The content and its order depend on the seed and the step alone. The cache consists of groups of one batch each; a
    group is encoded when one of its crops is first used. A crop of 512 pixels takes 0.23 MB.
    """

    def __init__(self, inpainter: DiffusionFamily, settings: FitSettings, accelerator: Accelerator) -> None:
        """Set up an empty cache.

        Args:
            inpainter: the base model, on its device.
            settings: the recipe, with a ``latent_cache_size`` above 0.
            accelerator: accelerate's driver; its processes share the encoding.
        """
        self._inpainter, self._settings, self._accelerator = inpainter, settings, accelerator
        self._num_groups = math.ceil(settings.latent_cache_size / settings.batch_size)
        cycles, remainder = divmod(settings.num_steps, self._num_groups * settings.latent_cache_uses)
        count = cycles * self._num_groups + min(remainder, self._num_groups)
        self._prefetcher = Prefetcher(self._draw, count, num_threads=threads_for(inpainter.device))
        self._content: Latents | None = None
        self._cycle = -1
        self._encoded_groups: set[int] = set()

    def take(self, photos: Sequence[TrainingImage], step: int, num_at_a_time: int) -> Latents:
        """Return the batch of a step.

        Args:
            photos: the photos to crop from; the same at each call.
            step: the step, counted from 0.
            num_at_a_time: number of crops to encode together.
        """
        settings, batch_size = self._settings, self._settings.batch_size
        cycle, step_in_cycle = divmod(step, self._num_groups * settings.latent_cache_uses)
        if cycle != self._cycle:
            self._cycle, self._encoded_groups = cycle, set()
        turn, place = divmod(step_in_cycle, self._num_groups)
        rows = np.arange(self._num_groups * batch_size)
        if turn:
            np.random.default_rng([settings.seed, cycle, turn, _ORDER]).shuffle(rows)
        rows = rows[place * batch_size : (place + 1) * batch_size]
        for group in sorted(set((rows // batch_size).tolist()) - self._encoded_groups):
            self._store(self._encode(photos, group, num_at_a_time), group)
        assert self._content is not None
        return self._content[send(torch.from_numpy(rows), self._inpainter.device)]

    def _encode(self, photos: Sequence[TrainingImage], group: int, num_at_a_time: int) -> Latents:
        """Encode a group; each process encodes its share of the rows."""
        accelerator, num_processes = self._accelerator, self._accelerator.num_processes
        crops = self._prefetcher.take(photos, self._cycle * self._num_groups + group)
        crops = crops[accelerator.process_index :: num_processes]
        latents = encode_crops(self._inpainter, crops, self._settings.visible_weight, num_at_a_time)
        if num_processes == 1:
            return latents

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            gathered: torch.Tensor = accelerator.gather(tensor.contiguous())  # type: ignore[assignment]
            return gathered.unflatten(0, (num_processes, len(tensor))).transpose(0, 1).flatten(0, 1)

        return latents.map(gather)

    def _draw(self, photos: Sequence[TrainingImage], number: int) -> Crops:
        """Draw a group of crops; ``number`` counts the groups of all cycles."""
        cycle, group = divmod(number, self._num_groups)
        rng = np.random.default_rng([self._settings.seed, cycle, group, _CROPS])
        crops = draw_crops(photos, self._settings, self._inpainter.resolution, self._settings.batch_size, rng)
        return hinted(crops, self._settings.hint_share, rng) if self._inpainter.reads_hints else crops

    def _store(self, latents: Latents, group: int) -> None:
        batch_size = self._settings.batch_size
        if self._content is None:
            num_crops = self._num_groups * batch_size
            self._content = latents.map(lambda tensor: tensor.new_empty((num_crops, *tensor.shape[1:])))
        for name, tensor in latents.tensors().items():
            getattr(self._content, name)[group * batch_size : (group + 1) * batch_size] = tensor
        self._encoded_groups.add(group)
