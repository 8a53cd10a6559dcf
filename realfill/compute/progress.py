"""Progress: the reports that callbacks receive, and the bar in a terminal or the lines in a log."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tqdm import tqdm

Phase: TypeAlias = Literal["fit", "sample", "rank", "composite", "batch"]

_LINE_EVERY_S = 10.0  # a line in a log after this time or share, whichever comes first
_LINE_EVERY_SHARE = 0.05
_LEAST_S = 1.0  # least time between two lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a job after a step.

    Attributes:
        phase: ``fit`` (optimizer steps), ``sample`` (denoising steps), ``rank`` (completions), ``composite``
            (hundredths of the work) or ``batch`` (photos and scenes, on Ray).
        step: steps done.
        num_steps: largest number of steps; a time budget may end a fit earlier.
        time_s: seconds spent on the steps done.
        left_s: expected seconds for the remaining steps; ``None`` during the first steps.
        loss: the last known loss; ``None`` outside a fit.
        learning_rate: learning rate of the U-Net in the last step; ``None`` outside a fit.
    """

    phase: Phase
    step: int
    num_steps: int
    time_s: float
    left_s: float | None = None
    loss: float | None = None
    learning_rate: float | None = None


OnStep: TypeAlias = Callable[[Progress], bool | None]
"""Called after each step; ``False`` ends the job, which keeps finished work."""


_indivisible: list[None] = []  # one item for each block that must not be interrupted


@contextmanager
def indivisible() -> Iterator[None]:
    """Mark work whose interruption would lose earlier work too; a command that is told to end waits for it."""
    _indivisible.append(None)
    try:
        yield
    finally:
        _indivisible.pop()


def is_indivisible() -> bool:
    """Tell whether such work is under way in this process."""
    return bool(_indivisible)


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Raised within a job when ``on_step`` returned ``False``; the job catches it and returns what is finished."""


class Stages:
    """Reports the stages of a job in hundredths of its work, and ends the job when ``on_step`` returns ``False``."""

    def __init__(self, phase: Phase, on_step: OnStep | None) -> None:
        """Start the clock; it is only reported and decides nothing."""
        self._phase: Phase = phase
        self._on_step, self._started = on_step, time.monotonic()
        self._start = self._end = self._step = 0

    def enter(self, end: int) -> None:
        """Begin a stage that ends at this hundredth of the work; the stage before it is done.

        Raises:
            Interrupted: ``on_step`` returned ``False``.
        """
        self._start, self._end = self._end, end
        self()

    def __call__(self, share: float = 0.0) -> None:
        """Report that a share of the stage is done; a share below the last one only asks whether to go on.

        Raises:
            Interrupted: ``on_step`` returned ``False``.
        """
        self._step = max(self._step, self._start + int(share * (self._end - self._start)))
        if self._on_step is None:
            return
        time_s = time.monotonic() - self._started
        left_s = time_s * (100 - self._step) / self._step if self._step else None
        progress = Progress(phase=self._phase, step=self._step, num_steps=100, time_s=time_s, left_s=left_s)
        if self._on_step(progress) is False:
            raise Interrupted


class ProgressBar(tqdm):
    """A bar in a terminal; elsewhere a line every ten seconds or five percent, at most one a second."""

    def __init__(self, *, total: int, desc: str, unit: str, initial: int = 0, disable: bool = False) -> None:
        """Show an empty bar on standard error; ``disable`` shows nothing."""
        self._as_lines = not sys.stderr.isatty()
        self._last_line = (time.monotonic(), initial)
        super().__init__(
            total=total, desc=desc, unit=unit, initial=initial, disable=disable, file=sys.stderr, smoothing=0,
            mininterval=_LEAST_S if self._as_lines else 0.1, leave=True,
        )  # fmt: skip
        self._time = time.monotonic  # tqdm takes the clock, and stands still after somebody sets that back
        self.start_t = self.last_print_t = self._time()

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar, or write it as a line of its own if one is due."""
        if not self._as_lines:
            return super().display(msg, pos)
        then, done = self._last_line
        now, share = time.monotonic(), (self.n - done) / max(1, self.total)
        finished = self.total is not None and self.n >= self.total > done
        if finished or (self.n > done and (now - then >= _LINE_EVERY_S or share >= _LINE_EVERY_SHARE)):
            self._last_line = (now, self.n)
            self.fp.write(f"{msg if msg is not None else self}\n")
            self.fp.flush()
        return True

    def close(self) -> None:
        """Finish the bar; in a log, no empty line follows it."""
        if self._as_lines and not self.disable:
            self.display()
            self.fp = io.StringIO()
        super().close()


def say(line: str | None) -> None:
    """Write a line on standard error, above the bars; ``None`` writes nothing."""
    if line is not None:
        tqdm.write(line, file=sys.stderr)
