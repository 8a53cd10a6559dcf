"""The queue: one job at a time, in the order of arrival, each of which can be stopped or cancelled."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from realfill.app.page.logs import ErrorLog
from realfill.app.page.records import RefusedError
from realfill.compute.progress import Progress
from realfill.errors import RealFillError, StoppedError

MAX_WAITING = 20
_SHOWN_LOSSES = 120

JobState = Literal["waiting", "running", "done", "failed", "stopped"]


class CancelledError(RealFillError):
    """The visitor cancelled the job."""


@dataclass(slots=True, kw_only=True)
class Job:
    """A job of a visit, and what the page shows of it.

    Attributes:
        owner: name of the visit.
        title: what it does, in a few words.
        work: does it; it reports to the job, and asks it whether to go on.
        can_stop: whether ``stop`` keeps something, so that the page offers it beside ``cancel``.
        state: what became of it.
        message: why it failed or what it left, in a sentence; empty otherwise.
        progress: the last report.
        losses: of a fit.
        preview: number of the last preview; 0: none.
        stopping: whether it is to end early and keep what there is.
        cancelled: whether it is to end and keep nothing.
    """

    owner: str
    title: str
    work: Callable[[Job], None]
    can_stop: bool = False
    state: JobState = "waiting"
    message: str = ""
    progress: Progress | None = None
    losses: list[float] = field(default_factory=list)
    preview: int = 0
    stopping: bool = False
    cancelled: bool = False

    def on_step(self, progress: Progress) -> bool:
        """Take a report; the answer tells the library whether to go on."""
        self.progress = progress
        if progress.loss is not None and progress.loss == progress.loss and progress.step > len(self.losses):
            self.losses.append(progress.loss)
        return not (self.stopping or self.cancelled)

    def require_wanted(self) -> None:
        """Go on only if nobody cancelled.

        Raises:
            CancelledError: somebody did.
        """
        if self.cancelled:
            raise CancelledError("cancelled")

    def describe(self, position: int) -> dict[str, Any]:
        """Describe the job for the page, as plain JSON values.

        Args:
            position: number of jobs before it.
        """
        progress, shown = self.progress, None
        if progress is not None:
            shown = {
                "phase": progress.phase, "step": progress.step, "num_steps": progress.num_steps,
                "left_s": progress.left_s, "loss": _mean(self.losses[-25:]),
            }  # fmt: skip
        return {
            "title": self.title, "state": self.state, "message": self.message, "position": position,
            "progress": shown, "losses": _thinned(self.losses), "preview": self.preview,
            "can_stop": self.can_stop and not self.stopping, "ending": self.stopping or self.cancelled,
        }  # fmt: skip


class JobQueue:
    """Runs jobs one after the other in a thread of its own, because one device has memory for one."""

    def __init__(self, log: ErrorLog, *, on_change: Callable[[str], object] = str) -> None:
        """Start without a job.

        Args:
            log: for errors that are no visitor's fault.
            on_change: called with the name of a visit whose job has ended.
        """
        self._log, self._on_change = log, on_change
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._last: dict[str, Job] = {}
        self._condition = threading.Condition()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="realfill-jobs", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Job:
        """Append a job.

        Raises:
            RefusedError: the visit already has one, or too many wait.
        """
        with self._condition:
            if self._of(job.owner) is not None:
                raise RefusedError("a job of yours is running or waiting; wait until it ends, or cancel it")
            if len(self._waiting) >= MAX_WAITING:
                raise RefusedError(f"{MAX_WAITING} jobs are waiting already; try again later")
            self._waiting.append(job)
            self._last[job.owner] = job
            self._condition.notify_all()
        return job

    def find(self, owner: str) -> tuple[Job, int] | None:
        """Return the last job of a visit and the number of jobs before it; ``None`` if it had none."""
        with self._condition:
            job = self._last.get(owner)
            if job is None:
                return None
            position = 1 + self._waiting.index(job) if job in self._waiting else 0
            return job, position

    def is_busy(self, owner: str) -> bool:
        """Whether a visit has a job that waits or runs."""
        with self._condition:
            return self._of(owner) is not None

    @property
    def owners(self) -> frozenset[str]:
        """The visits that have a job."""
        with self._condition:
            running = {self._running.owner} if self._running is not None else set()
            return frozenset(running | {job.owner for job in self._waiting})

    def stop(self, owner: str) -> None:
        """End the running job of a visit early; it keeps what there is. One that waits is cancelled."""
        with self._condition:
            job = self._of(owner)
            if job is not None and job is self._running and job.can_stop:
                job.stopping = True
                return
        self.cancel(owner)

    def cancel(self, owner: str) -> None:
        """Cancel the job of a visit."""
        with self._condition:
            job = self._of(owner)
            if job is None:
                return
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "stopped"
        self._on_change(owner)

    def forget(self, owner: str) -> None:
        """Forget the last job of a visit, once it has ended."""
        with self._condition:
            if self._of(owner) is None:
                self._last.pop(owner, None)

    def close(self, timeout_s: float = 10.0) -> None:
        """Cancel everything, and wait for the running job to end."""
        with self._condition:
            self._is_open = False
            for job in self._waiting:
                job.state, job.cancelled = "stopped", True
            self._waiting.clear()
            if self._running is not None:
                self._running.cancelled = True
            self._condition.notify_all()
        self._thread.join(timeout_s)

    def _of(self, owner: str) -> Job | None:
        jobs = [*self._waiting, *([self._running] if self._running is not None else [])]
        return next((job for job in jobs if job.owner == owner), None)

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._is_open and not self._waiting:
                    self._condition.wait()
                if not self._is_open:
                    return
                job = self._running = self._waiting.popleft()
                job.state = "running"
            self._do(job)
            with self._condition:
                self._running = None
            self._on_change(job.owner)

    def _do(self, job: Job) -> None:
        """Run a job; whatever goes wrong becomes its message."""
        from realfill.compute.memory import release  # noqa: PLC0415 - imports torch, without which the page opens at once

        state: JobState = "done"
        try:
            job.work(job)
        except (StoppedError, CancelledError):
            state = "stopped"
        except (RealFillError, ValueError) as error:
            state, job.message = "failed", _sentence(error)
        except BaseException as error:  # noqa: BLE001 - the queue outlives every job
            state, job.message = "failed", self._log.write(job.title, error)
        if job.cancelled and state == "done":
            state = "stopped"
        release()
        job.state = state


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _thinned(losses: list[float]) -> list[float]:
    """Average losses in groups, so that at most about a hundred are sent."""
    size = -(-len(losses) // _SHOWN_LOSSES) or 1
    groups = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [round(sum(group) / len(group), 5) for group in groups]
