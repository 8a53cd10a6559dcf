"""Ctrl-C: the first ends a job after the current step and keeps finished work, the second ends it at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Self

from realfill.compute.progress import Progress


class StopOnInterrupt:
    """A context in which Ctrl-C makes ``on_step`` return ``False``.

    Before the first step there is nothing to keep, so Ctrl-C interrupts as usual.

    Attributes:
        requested: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        """Prepare; nothing changes before the context is entered."""
        self.requested = False
        self._started = False

    def __enter__(self) -> Self:
        """Take over Ctrl-C. Python allows that only in the main thread; elsewhere, nothing changes."""
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give Ctrl-C back."""
        if self._in_main_thread:
            signal.signal(signal.SIGINT, self._previous)

    def on_step(self, _: Progress) -> bool | None:
        """Return ``False``, which ends the job, once Ctrl-C was pressed."""
        self._started = True
        return False if self.requested else None

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested or not self._started:
            raise KeyboardInterrupt
        self.requested = True
        print("stopping after this step; press Ctrl-C again to stop at once", file=sys.stderr, flush=True)
