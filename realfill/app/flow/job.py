"""A job: work in a background thread that reports its progress, can be stopped, and never raises into the caller."""

from __future__ import annotations

import gc
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from realfill.app.flow.failures import explain
from realfill.compute.progress import Progress
from realfill.errors import RealFillError, StoppedError, warnings_to
from realfill.io.images import ImageArray

State: TypeAlias = Literal["running", "done", "stopped", "failed"]
_CHANGE_EVERY_S = 0.25  # least time between two reports to the user interface
_MAX_LOSSES = 2000  # of a curve; beyond it, every second one is dropped

_place = threading.Lock()  # one job at a time in this process, because they share its device


class BusyError(RealFillError):
    """Another job is running."""


class Job:
    """Work in a background thread. Its attributes may be read at any time.

    Attributes:
        title: what it does, for example "Fit".
        state: ``running``, ``done``, ``stopped`` (by ``stop``) or ``failed``.
        phase: what it does now, in words.
        progress: the last report; ``None`` before the first one.
        losses: steps and losses of a fit, thinned out if there are many.
        warnings: the library's warnings, each once.
        message: the outcome in a sentence; empty while it runs.
        preview: a picture of how far it is, (H, W, 3) uint8, or ``None``.
    """

    def __init__(self, title: str, *, log: Path, on_change: Callable[[], object]) -> None:
        """Prepare a job.

        Args:
            title: what it does.
            log: the file for unexpected errors.
            on_change: called in the job's thread when something changes, at most four times a second, and at the end.
        """
        self.title, self._log, self._on_change = title, log, on_change
        self.state: State = "running"
        self.phase = "starting"
        self.progress: Progress | None = None
        self.losses: list[tuple[int, float]] = []
        self.warnings: list[str] = []
        self.message = ""
        self.preview: ImageArray | None = None
        self._stop = threading.Event()
        self._every, self._told_s = 1, -math.inf
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether the work goes on."""
        return self.state == "running"

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.is_set()

    def start(self, work: Callable[[Job], str]) -> Job:
        """Start the work in a thread.

        Args:
            work: takes this job, passes ``on_step`` to the library, and returns the outcome in a sentence.

        Raises:
            BusyError: another job is running in this process.
        """
        if not _place.acquire(blocking=False):
            raise BusyError("another job is running; wait for it, or stop it first")
        self._thread = threading.Thread(target=self._run, args=(work,), name=f"realfill {self.title}", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the work to end. It ends after its current step and keeps what is finished."""
        if self.is_running and not self.is_stopping:
            self._stop.set()
            self.enter("stopping")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the work has ended; return whether it has."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.is_running

    def enter(self, phase: str) -> None:
        """Say what the job does now."""
        self.phase = phase
        self._tell(at_once=True)

    def show(self, preview: ImageArray) -> None:
        """Show a picture of how far the job is."""
        self.preview = preview
        self._tell(at_once=True)

    def on_step(self, progress: Progress) -> bool:
        """Note a report of the library; ``False`` ends its work."""
        self.progress = progress
        if progress.phase == "fit" and progress.loss is not None and math.isfinite(progress.loss):
            self._note_loss(progress.step, progress.loss)
        self._tell()
        return not self.is_stopping

    def goes_on(self, _: Progress | None = None) -> bool:
        """Tell whether to go on, as an ``on_step`` whose reports are not shown."""
        return not self.is_stopping

    def _note_loss(self, step: int, loss: float) -> None:
        if step % self._every == 0 and (not self.losses or step > self.losses[-1][0]):
            self.losses.append((step, loss))
        if len(self.losses) > _MAX_LOSSES:
            self.losses, self._every = self.losses[::2], 2 * self._every

    def _run(self, work: Callable[[Job], str]) -> None:
        state: State = "failed"
        try:
            with warnings_to(self._hear):
                self.message = work(self)
            state = "stopped" if self.is_stopping else "done"
        except StoppedError:
            state, self.message = "stopped", "Stopped before anything was finished."
        except Exception as error:  # noqa: BLE001 - people get a sentence
            self.message = explain(error, self._log)
        finally:
            _free_memory()
            self.state = state
            _place.release()
            self._tell(at_once=True)

    def _hear(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _tell(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._told_s >= _CHANGE_EVERY_S:
            self._told_s = now
            self._on_change()


def _free_memory() -> None:
    """Give back what the work no longer needs, on the GPU too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
