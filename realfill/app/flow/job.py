"""Jobs: work in a background thread, one at a time, that reports its progress, can be ended, and never raises."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Literal, TypeAlias

from realfill.app.flow.failures import ErrorLog
from realfill.compute.progress import Progress
from realfill.errors import RealFillError, StoppedError, warnings_to
from realfill.io.images import ImageArray

State: TypeAlias = Literal["waiting", "running", "done", "stopped", "failed"]
MAX_WAITING = 20
_CHANGE_EVERY_S = 0.25  # least time between two reports to the user interface
_MAX_LOSSES = 2000  # of a curve; beyond it, every second one is dropped


class BusyError(RealFillError):
    """A job cannot be accepted now."""


class CancelledError(StoppedError):
    """Somebody cancelled the job."""


class Job:
    """Work for a background thread. Its attributes may be read at any time.

    Attributes:
        title: what it does, for example "Fit".
        can_stop: whether ``stop`` keeps something; otherwise it cancels.
        state: ``waiting``, ``running``, ``done``, ``stopped`` (by ``stop`` or ``cancel``) or ``failed``.
        phase: what it does now, in words.
        progress: the last report; ``None`` before the first one.
        losses: steps and losses of a fit, thinned out if there are many.
        notes: warnings of the library, and what else is worth knowing, each once.
        message: the outcome in a sentence; empty while it runs.
        preview: a picture of the state of the work, (H, W, 3) uint8, or ``None``.
        num_previews: the number of pictures shown so far.
        is_cancelled: whether it ends and keeps nothing.
    """

    def __init__(
        self, title: str, work: Callable[[Job], str], *, log: ErrorLog, can_stop: bool = True,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """Prepare a job.

        Args:
            title: what it does.
            work: takes this job, passes ``on_step`` to the library, and returns the outcome in a sentence.
            log: describes errors.
            can_stop: whether ``stop`` keeps something.
            on_change: called when something changes, at most four times a second, and at the end.
        """
        self.title, self.can_stop = title, can_stop
        self.state: State = "waiting"
        self.phase = "starting"
        self.progress: Progress | None = None
        self.losses: list[tuple[int, float]] = []
        self.notes: list[str] = []
        self.message = ""
        self.preview: ImageArray | None = None
        self.num_previews = 0
        self.is_cancelled = self._is_stopping = False
        self._work, self._log, self._on_change = work, log, on_change
        self._every, self._told_s = 1, -math.inf
        self._ended = threading.Event()

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "running")

    @property
    def is_ending(self) -> bool:
        """Whether ``stop`` or ``cancel`` was called."""
        return self._is_stopping or self.is_cancelled

    def stop(self) -> None:
        """Ask the work to end after its current step and to keep what is finished."""
        if not self.can_stop or self.state == "waiting":
            self.cancel()
        elif self.is_active and not self.is_ending:
            self._is_stopping = True
            self.enter("stopping")

    def cancel(self) -> None:
        """Ask the work to end after its current step and to keep nothing."""
        if self.is_active and not self.is_cancelled:
            self.is_cancelled = True
            self.enter("stopping")

    def go_on(self) -> None:
        """Continue with the next part of the work after a stop, which ``stop`` can end too."""
        self.require_wanted()
        self._is_stopping = False

    def require_wanted(self) -> None:
        """Go on only if nobody cancelled.

        Raises:
            CancelledError: somebody did.
        """
        if self.is_cancelled:
            raise CancelledError("cancelled")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the work has ended; return whether it has."""
        return self._ended.wait(timeout_s)

    def enter(self, phase: str) -> None:
        """Say what the job does now."""
        self.phase = phase
        self._tell(at_once=True)

    def note(self, text: str) -> None:
        """Note what is worth knowing, once."""
        if text not in self.notes:
            self.notes.append(text)

    def show(self, preview: ImageArray) -> None:
        """Show a picture of the state of the work."""
        self.preview = preview
        self.num_previews += 1
        self._tell(at_once=True)

    def on_step(self, progress: Progress) -> bool:
        """Note a report of the library; ``False`` ends its work."""
        self.progress = progress
        if progress.phase == "fit" and progress.loss is not None and math.isfinite(progress.loss):
            self._note_loss(progress.step, progress.loss)
        self._tell()
        return not self.is_ending

    def goes_on(self, _: Progress | None = None) -> bool:
        """Tell whether to go on, as an ``on_step`` whose reports are not shown."""
        return not self.is_ending

    def run(self) -> None:
        """Do the work; whatever goes wrong becomes the message."""
        state: State = "failed"
        self.state = "running"
        try:
            with warnings_to(self.note):
                self.require_wanted()
                self.message = self._work(self)
                self.require_wanted()
            state = "stopped" if self.is_ending else "done"
        except StoppedError:
            state = "stopped"
            self.message = "Cancelled." if self.is_cancelled else "Stopped before anything was finished."
        except BaseException as error:  # noqa: BLE001 - people get a sentence, and the next job runs
            self.message = self._log.describe(error, self.title)
        finally:
            self.end(state)
            _release_memory()  # the next job waits for that, and nobody else does

    def end(self, state: State) -> None:
        """Set the final state, and tell everybody."""
        self._work = _nothing  # the work holds photos
        self.state = state
        self._tell(at_once=True)
        self._ended.set()

    def _note_loss(self, step: int, loss: float) -> None:
        if step % self._every == 0 and (not self.losses or step > self.losses[-1][0]):
            self.losses.append((step, loss))
        if len(self.losses) > _MAX_LOSSES:
            self.losses, self._every = self.losses[::2], 2 * self._every

    def _tell(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._told_s >= _CHANGE_EVERY_S:
            self._told_s = now
            try:
                self._on_change()
            except Exception as error:  # noqa: BLE001 - an interface that fails does not end the work
                self.note(self._log.describe(error, f"showing {self.title}"))


class JobQueue:
    """Runs jobs one after the other in a thread of its own, because one device has memory for one."""

    def __init__(self) -> None:
        """Start without a job; the thread starts with the first one."""
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_open = True

    def submit(self, job: Job) -> Job:
        """Append a job.

        Raises:
            BusyError: too many wait, or the queue is closed.
        """
        with self._condition:
            if len(self._waiting) >= MAX_WAITING or not self._is_open:
                raise BusyError(f"{len(self._waiting)} jobs are waiting already; try again later")
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="realfill-jobs", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        return job

    def count_before(self, job: Job) -> int:
        """Count the jobs that run or wait before a job; 0 if it runs or has ended."""
        with self._condition:
            return 1 + self._waiting.index(job) if job in self._waiting else 0

    def cancel(self, job: Job) -> None:
        """Cancel a job; one that waits leaves the queue at once."""
        with self._condition:
            is_waiting = job in self._waiting
            if is_waiting:
                self._waiting.remove(job)
        job.cancel()
        if is_waiting:
            job.message = "Cancelled."
            job.end("stopped")

    def close(self, timeout_s: float = 10.0) -> None:
        """Cancel everything, and wait for the running job to end."""
        with self._condition:
            self._is_open = False
            jobs = [*self._waiting, *([self._running] if self._running is not None else [])]
            self._condition.notify_all()
        for job in jobs:
            self.cancel(job)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._running = None
                while self._is_open and not self._waiting:
                    self._condition.wait()
                if not self._waiting:
                    return
                self._running = self._waiting.popleft()
            self._running.run()


def _nothing(_: Job) -> str:
    return ""


@cache
def shared_queue() -> JobQueue:
    """Return the queue of this process, for interfaces that share its device."""
    return JobQueue()


def _release_memory() -> None:
    """Return what the work no longer needs, on the GPU too; torch is not loaded for that."""
    if "torch" in sys.modules:
        from realfill.compute.memory import release  # noqa: PLC0415

        release()
