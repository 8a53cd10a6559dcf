"""Prefetching: crops are drawn ahead in threads, so that a GPU does not wait for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

from realfill.training.crops import TrainingImage

T = TypeVar("T")

_MAX_THREADS = 8  # each holds a batch of crops in memory


class Prefetcher(Generic[T]):
    """Draws numbered batches, the next ones ahead of time in threads."""

    def __init__(self, draw: Callable[[Sequence[TrainingImage], int], T], count: int, *, num_threads: int) -> None:
        """Set up without drawing anything.

        Args:
            draw: draws a batch from photos and the batch's number, and depends on nothing else.
            count: number of batches.
            num_threads: threads that draw the next batches; 0: draw each batch when it is taken.
        """
        self._draw, self._count, self._num_threads = draw, count, num_threads
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="crops") if num_threads else None
        self._pending: dict[int, Future[T]] = {}

    def take(self, photos: Sequence[TrainingImage], number: int) -> T:
        """Return a batch, and start to draw the next ones.

        Args:
            photos: the photos to crop from; the same at each call.
            number: number of the batch, counted from 0.
        """
        if self._threads is None:
            return self._draw(photos, number)
        self._pending = {later: batch for later, batch in self._pending.items() if later >= number}
        for later in range(number, min(number + 1 + self._num_threads, self._count)):
            if later not in self._pending:
                self._pending[later] = self._threads.submit(self._draw, photos, later)
        return self._pending.pop(number).result()


def threads_for(device: torch.device) -> int:
    """Choose the number of threads: none on a CPU, which is busy with the training steps."""
    return 0 if device.type == "cpu" else max(1, min(_MAX_THREADS, (os.cpu_count() or 1) - 1))
