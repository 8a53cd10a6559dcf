"""Ctrl-C and SIGTERM: a command ends within about two seconds and keeps finished work."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Self

from realfill.compute.progress import Progress, is_indivisible

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S = 1.0  # for the current step to end; then it is interrupted
_LONGEST_S, _POLL_S = 30.0, 0.05  # for the end of work that must not be interrupted, and between two looks at it
_INTERRUPTED = 128  # plus the number of the signal: the exit status


class _Signals:
    """The handler of both signals, and what it has to know.

    Attributes:
        number: the last signal that this process received; ``None``: none yet.
        stopping: the innermost ``StopOnInterrupt`` in use.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.stopping: StopOnInterrupt | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        if self.stopping is None or not self.stopping.request(number):
            raise KeyboardInterrupt


_signals = _Signals()


class SignalsEndCommand:
    """A context in which Ctrl-C and SIGTERM raise ``KeyboardInterrupt``, also if a library drops the first one."""

    def __enter__(self) -> Self:
        """Install the handlers. Python allows that only in the main thread; elsewhere, nothing changes."""
        self._previous = {}
        _signals.number = None
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, _signals.handle) for number in _SIGNALS}
            self._hook, sys.unraisablehook = sys.unraisablehook, self._report
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._previous:
            sys.unraisablehook = self._hook

    @property
    def status(self) -> int:
        """The exit status of a command that was interrupted: 130 after Ctrl-C, 143 after SIGTERM."""
        return _INTERRUPTED + (_signals.number or signal.SIGINT)

    def _report(self, report: sys.UnraisableHookArgs) -> None:
        """Repeat a signal whose ``KeyboardInterrupt`` was raised where Python drops exceptions, such as a finalizer."""
        if issubclass(report.exc_type, KeyboardInterrupt) and _signals.number is not None:
            threading.Timer(0.01, _send_to_main_thread, [_signals.number]).start()
        else:
            self._hook(report)


class StopOnInterrupt:
    """A context in which Ctrl-C and SIGTERM make ``on_step`` return ``False``.

    Before the first step there is nothing to keep, so a signal interrupts at once. So does a second signal. A step that
    takes too long is interrupted; one that is indivisible (``realfill.compute.progress``) has half a minute.

    Attributes:
        requested: whether a signal was received.
    """

    def __init__(self, patience_s: float = _PATIENCE_S) -> None:
        """Prepare; nothing changes before the context is entered.

        Args:
            patience_s: seconds for the current step to end.
        """
        self.requested = False
        self._patience_s = patience_s
        self._started = False
        self._ended = threading.Event()  # the job has been told to end, or has ended

    def __enter__(self) -> Self:
        """Take over the signals of ``SignalsEndCommand``."""
        self._outer, _signals.stopping = _signals.stopping, self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        _signals.stopping = self._outer
        self._ended.set()

    def on_step(self, _: Progress) -> bool | None:
        """Return ``False``, which ends the job, once a signal was received."""
        self._started = True
        if not self.requested:
            return None
        self._ended.set()
        return False

    def request(self, number: int) -> bool:
        """Ask the job to end after its current step; ``False`` if it has to be interrupted instead."""
        if self.requested or not self._started:
            self._ended.set()
            return False
        self.requested = True
        threading.Thread(target=self._interrupt_later, args=[number], daemon=True).start()
        return True

    def _interrupt_later(self, number: int) -> None:
        """Interrupt the job if it does not end by itself."""
        longest = time.monotonic() + _LONGEST_S
        ended = self._ended.wait(self._patience_s)
        while not ended and is_indivisible() and time.monotonic() < longest:
            ended = self._ended.wait(_POLL_S)
        if not ended:
            _send_to_main_thread(number)


def _send_to_main_thread(number: int) -> None:
    """Send a signal that also ends a system call in which the main thread waits, where the system can do that."""
    thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and thread is not None:
        signal.pthread_kill(thread, number)
    else:
        _thread.interrupt_main(signal.Signals(number))
