"""The bank: encoded crops that are kept and used several times.

In the paper each step encodes its own crops, which at 512 pixels takes longer than the U-Net's step. Here the VAE's
posterior is kept, and latents are drawn from it anew at each use, as are noise, timestep and dropped prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from realfill.config import FitConfig
from realfill.devices import send
from realfill.fitting.batches import Crops, TrainingImage, draw_crops
from realfill.fitting.denoising import Latents, encode_crops
from realfill.fitting.loading import Loader, threads_for
from realfill.models.inpainter import Inpainter

if TYPE_CHECKING:
    from accelerate import Accelerator

_CROPS, _ORDER = 1, 2  # what a generator is for


class Bank:
    """``bank_size`` encoded crops, drawn anew when each was used ``bank_uses`` times.

    What it holds, and in which order it gives it, follows from the config's seed and the step alone. A crop is encoded
    when it is used for the first time, together with the others of a batch. One of 512 pixels takes 0.23 MB.
    """

    def __init__(self, inpainter: Inpainter, config: FitConfig, accelerator: Accelerator) -> None:
        """Set up an empty bank.

        Args:
            inpainter: on its device.
            config: resolved, its ``bank_size`` above 0.
            accelerator: from accelerate; its processes share the encoding.
        """
        self._inpainter, self._config, self._accelerator = inpainter, config, accelerator
        self._num_groups = math.ceil(config.bank_size / config.batch_size)
        cycles, rest = divmod(config.num_steps, self._num_groups * config.bank_uses)
        count = cycles * self._num_groups + min(rest, self._num_groups)
        self._loader = Loader(self._draw, count, num_threads=threads_for(inpainter.device))
        self._content: Latents | None = None
        self._cycle = -1
        self._encoded: set[int] = set()

    def take(self, photos: Sequence[TrainingImage], step: int, num_at_a_time: int) -> Latents:
        """Give a step's batch.

        Args:
            photos: what to crop from; the same at each call.
            step: counted from 0.
            num_at_a_time: crops to encode at a time.
        """
        config, batch_size = self._config, self._config.batch_size
        cycle, within = divmod(step, self._num_groups * config.bank_uses)
        if cycle != self._cycle:
            self._cycle, self._encoded = cycle, set()
        turn, place = divmod(within, self._num_groups)
        rows = np.arange(self._num_groups * batch_size)
        if turn:
            np.random.default_rng([config.seed, cycle, turn, _ORDER]).shuffle(rows)
        rows = rows[place * batch_size : (place + 1) * batch_size]
        for group in sorted(set((rows // batch_size).tolist()) - self._encoded):
            self._store(self._encode(photos, group, num_at_a_time), group)
        assert self._content is not None
        return self._content[send(torch.from_numpy(rows), self._inpainter.device)]

    def _encode(self, photos: Sequence[TrainingImage], group: int, num_at_a_time: int) -> Latents:
        """Encode a group, drawn ahead; each process does its share."""
        inpainter, accelerator, processes = self._inpainter, self._accelerator, self._accelerator.num_processes
        crops = self._loader.take(photos, self._cycle * self._num_groups + group)
        own = encode_crops(
            inpainter, crops[accelerator.process_index :: processes], self._config.visible_weight, num_at_a_time
        )
        if processes == 1:
            return own

        def everyones(tensor: torch.Tensor) -> torch.Tensor:
            gathered: torch.Tensor = accelerator.gather(tensor.contiguous())  # type: ignore[assignment]
            return gathered.unflatten(0, (processes, len(tensor))).transpose(0, 1).flatten(0, 1)

        return Latents(**{name: everyones(getattr(own, name)) for name in Latents.__slots__})

    def _draw(self, photos: Sequence[TrainingImage], number: int) -> Crops:
        """Draw a group of crops; ``number`` counts the groups of all cycles."""
        cycle, group = divmod(number, self._num_groups)
        rng = np.random.default_rng([self._config.seed, cycle, group, _CROPS])
        return draw_crops(photos, self._config, self._inpainter.resolution, self._config.batch_size, rng)

    def _store(self, latents: Latents, group: int) -> None:
        if self._content is None:
            num_crops = self._num_groups * self._config.batch_size
            self._content = Latents(
                **{
                    n: getattr(latents, n).new_empty((num_crops, *getattr(latents, n).shape[1:]))
                    for n in Latents.__slots__
                }
            )
        first = group * self._config.batch_size
        for name in Latents.__slots__:
            getattr(self._content, name)[first : first + self._config.batch_size] = getattr(latents, name)
        self._encoded.add(group)
