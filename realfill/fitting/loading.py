"""Loading: crops that are drawn ahead in threads, where a GPU would wait for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

from realfill.fitting.batches import TrainingImage

T = TypeVar("T")

_MOST_THREADS = 8  # each holds a batch of crops in memory


class Loader(Generic[T]):
    """Draws batch after batch, some ahead of when they are asked for."""

    def __init__(self, draw: Callable[[Sequence[TrainingImage], int], T], count: int, *, num_threads: int) -> None:
        """Set up.

        Args:
            draw: makes a batch of photos and the batch's number; what it gives follows from these alone.
            count: batches that there are; numbers are below it.
            num_threads: that draw the next batches meanwhile; 0: each is drawn when it is asked for.
        """
        self._draw, self._count, self._num_threads = draw, count, num_threads
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="crops") if num_threads else None
        self._coming: dict[int, Future[T]] = {}

    def take(self, photos: Sequence[TrainingImage], number: int) -> T:
        """Give a batch, and start on the next ones.

        Args:
            photos: what to crop from; the same at each call.
            number: of the batch, counted from 0.
        """
        if self._threads is None:
            return self._draw(photos, number)
        self._coming = {later: batch for later, batch in self._coming.items() if later >= number}
        for later in range(number, min(number + 1 + self._num_threads, self._count)):
            if later not in self._coming:
                self._coming[later] = self._threads.submit(self._draw, photos, later)
        return self._coming.pop(number).result()


def threads_for(device: torch.device) -> int:
    """Choose the number of threads: none where the processor computes the steps itself."""
    return 0 if device.type == "cpu" else max(1, min(_MOST_THREADS, (os.cpu_count() or 1) - 1))
