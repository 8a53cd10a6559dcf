"""The most memory that a piece of work holds."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil
import torch

_INTERVAL_S = 0.02


class PeakMemory:
    """Watch memory within a ``with`` block: the GPU's where the block takes any of it, else the process's.

    Attributes:
        peak_mb: the most, in 10^6 bytes.
    """

    def __init__(self) -> None:
        """Set up; nothing is watched yet."""
        self.peak_mb = 0.0
        self._on_gpu_mb = self._before_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._before_mb = torch.cuda.memory_allocated() / 1e6
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look_at_gpu()
        self.peak_mb = self._on_gpu_mb if self._on_gpu_mb > self._before_mb else self.peak_mb

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / 1e6)
            self._look_at_gpu()
            if self._stop.wait(_INTERVAL_S):
                return

    def _look_at_gpu(self) -> None:
        """Note torch's own peak time and again: what is watched may measure a part of itself, and so set it back."""
        if torch.cuda.is_available():
            self._on_gpu_mb = max(self._on_gpu_mb, torch.cuda.max_memory_allocated() / 1e6)
