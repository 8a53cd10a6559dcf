"""Loading: each step's crops, drawn ahead in threads where a GPU would wait for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from realfill.config import FitConfig
from realfill.fitting.batches import Crops, TrainingImage, draw_crops, step_rng

_MOST_THREADS = 4  # each holds a batch of crops in memory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """A step's crops, and the generators that they left behind, for what else the step draws."""

    crops: Crops
    rng: np.random.Generator
    generator: torch.Generator


class Loader:
    """Draws the crops of a fit's steps. What a step gets follows from the seed and the step alone."""

    def __init__(self, config: FitConfig, resolution: int, *, num_threads: int) -> None:
        """Set up.

        Args:
            config: resolved.
            resolution: side in pixels of the crops.
            num_threads: that draw the next steps' crops meanwhile; 0: each step's are drawn when they are asked for.
        """
        self._config, self._resolution, self._num_threads = config, resolution, num_threads
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="crops") if num_threads else None
        self._coming: dict[int, Future[Drawn]] = {}

    def take(self, photos: Sequence[TrainingImage], step: int) -> Drawn:
        """Give a step's crops, and start on the next ones.

        Args:
            photos: what to crop from; the same at each call.
            step: counted from 0.
        """
        if self._threads is None:
            return self._draw(photos, step)
        self._coming = {later: crops for later, crops in self._coming.items() if later >= step}
        for later in range(step, min(step + 1 + self._num_threads, self._config.num_steps)):
            if later not in self._coming:
                self._coming[later] = self._threads.submit(self._draw, photos, later)
        return self._coming.pop(step).result()

    def _draw(self, photos: Sequence[TrainingImage], step: int) -> Drawn:
        rng, generator = step_rng(self._config.seed, step)
        crops = draw_crops(photos, self._config, self._resolution, self._config.batch_size, rng)
        return Drawn(crops=crops, rng=rng, generator=generator)


def threads_for(device: torch.device) -> int:
    """Choose the number of threads: none where the processor computes the steps itself."""
    return 0 if device.type == "cpu" else max(1, min(_MOST_THREADS, (os.cpu_count() or 1) - 1))
