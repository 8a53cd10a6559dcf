"""The peak memory of a piece of work."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil
import torch

_INTERVAL_S = 0.02


class PeakMemory:
    """Measure peak memory in a ``with`` block: GPU memory if the block allocates any, else that of the process.

    Attributes:
        peak_mb: peak memory in 10^6 bytes.
    """

    def __init__(self) -> None:
        """Prepare the measurement, which starts with the ``with`` block."""
        self.peak_mb = 0.0
        self._gpu_mb = self._before_mb = 0.0
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
        self._read_gpu()
        self.peak_mb = self._gpu_mb if self._gpu_mb > self._before_mb else self.peak_mb

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / 1e6)
            self._read_gpu()
            if self._stop.wait(_INTERVAL_S):
                return

    def _read_gpu(self) -> None:
        """Read torch's peak repeatedly, since the measured work may itself reset the counter."""
        if torch.cuda.is_available():
            self._gpu_mb = max(self._gpu_mb, torch.cuda.max_memory_allocated() / 1e6)
