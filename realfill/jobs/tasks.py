"""A batch on Ray: one task for each item.

A task is ``attempt`` in a worker process. A worker that dies loses its item's work since the last checkpoint at most,
because the checkpoint is in the output folder, which all machines share.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from realfill.compute.progress import OnStep, Progress
from realfill.errors import ClusterError, RealFillWarning, StoppedError, warn
from realfill.jobs.cluster import RayCluster, connected, one_line, require_shared, resources_of_task
from realfill.jobs.outcomes import Outcome, attempt
from realfill.jobs.sharing import SharedFolder
from realfill.jobs.sources import Item

_POLL_S = 0.25  # between two calls of on_step
_GRACE_S = 0.8  # a cancelled task is given this long to write its checkpoint


def run_on_ray(
    items: Sequence[Item],
    work: Mapping[str, Callable[..., str]],
    output: Path,
    cluster: RayCluster,
    on_step: OnStep | None = None,
) -> Generator[tuple[Item, Outcome], None, None]:
    """Work on Ray; yield the items that are done or failed, as they end.

    Args:
        items: what to do.
        work: the job for each kind of item.
        output: the folder for the results. The caller holds its lock.
        cluster: where to work.
        on_step: called several times a second with the number of items that have ended; ``False`` ends the batch, which
            cancels the running items.

    Raises:
        ClusterError: the cluster cannot be reached, lacks what a task asks for, or does not share the folders.
        MissingDependencyError: Ray is not installed.
    """
    if not items:
        return
    with connected(cluster.address) as ray:
        resources = resources_of_task(ray, cluster)
        shared = SharedFolder.of(output)
        if cluster.address != "local":
            require_shared(ray, shared, [item.source for item in items], resources)
        tasks = _Tasks(ray=ray, work=work, shared=shared, resources=resources, retries=cluster.retries)
        try:
            yield from tasks.run(items, on_step)
        finally:
            tasks.cancel()


@dataclass(slots=True, kw_only=True)
class _Tasks:
    """The tasks of a batch.

    Attributes:
        ray: the module, connected to a cluster.
        work: the job for each kind of item.
        shared: the output folder, as workers must see it.
        resources: what Ray reserves for each task.
        retries: how often an item is tried again if its worker dies.
        running: the item of each task that has not ended.
        deaths: for each item, the workers that died with it.
    """

    ray: Any
    work: Mapping[str, Callable[..., str]]
    shared: SharedFolder
    resources: Mapping[str, float]
    retries: int
    running: dict[Any, Item] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)

    def run(self, items: Sequence[Item], on_step: OnStep | None) -> Iterator[tuple[Item, Outcome]]:
        """Submit all items, and yield them as they end."""
        start, num_ended = time.monotonic(), 0
        for item in items:
            self.submit(item)
        while self.running:
            for ref in self.wait(_POLL_S):
                item = self.running.pop(ref)
                outcome = self.outcome(ref, item)
                if outcome is not None and outcome.state != "left":
                    num_ended += 1
                    yield item, outcome
            if on_step is not None and on_step(_progress(num_ended, len(items), start)) is False:
                yield from self.cancel()

    def submit(self, item: Item) -> None:
        """Hand an item to Ray, which starts it once its resources are free."""
        task = self.ray.remote(_work).options(max_retries=0, name=item.name, **self.resources)
        there = replace(item, source=item.source.absolute(), target=item.target.absolute())
        self.running[task.remote(there, self.work[item.kind], self.shared)] = item

    def wait(self, timeout_s: float, num: int = 1) -> list[Any]:
        """Return the tasks that have ended, once there are ``num``, or after a time.

        Raises:
            ClusterError: the connection to the cluster is lost.
        """
        try:
            return self.ray.wait(list(self.running), num_returns=num, timeout=timeout_s)[0]
        except (ConnectionError, self.ray.exceptions.RaySystemError) as error:
            self.running.clear()
            raise ClusterError(
                f"the connection to the Ray cluster is lost ({one_line(error)}); the same call resumes the batch"
            ) from error

    def outcome(self, ref: Any, item: Item) -> Outcome | None:
        """Return what became of an item whose task has ended; ``None`` if its worker died and it is tried again."""
        failures = self.ray.exceptions
        try:
            outcome, messages = self.ray.get(ref)
        except failures.TaskCancelledError:
            return Outcome(name=item.name, source=item.label, state="left")
        except failures.RayTaskError as error:  # not an error of the item: the worker cannot run realfill
            return Outcome(name=item.name, source=item.label, state="failed", line=one_line(error.cause or error))
        except failures.RayError as error:
            return self.after_death(item, _cause_of_death(failures, error))
        for message in messages:
            warn(f"{item.label}: {message}")
        return outcome

    def after_death(self, item: Item, cause: str) -> Outcome | None:
        """Try an item again whose worker died, or let it fail."""
        self.deaths[item.name] += 1
        count = self.deaths[item.name]
        if count > self.retries:
            times = f" for the {count}th time" if count > 3 else ("", " twice", " three times")[count - 1]
            line = f"its worker died{times}, because {cause}; give each task more memory, or fewer tasks to a machine"
            return Outcome(name=item.name, source=item.label, state="failed", line=line)
        warn(f"{item.label}: its worker died, because {cause}; the item is tried again ({count} of {self.retries})")
        self.submit(item)
        return None

    def cancel(self) -> Iterator[tuple[Item, Outcome]]:
        """End all tasks; those that are running write a checkpoint if they can at once. Return what ended before."""
        for ref in self.running:
            self.ray.cancel(ref, force=False)
        ended = []
        with suppress(ClusterError):
            for ref in self.wait(_GRACE_S, len(self.running)) if self.running else ():
                item = self.running.pop(ref)
                outcome = self.last_outcome(ref)
                ended += [(item, outcome)] if outcome is not None and outcome.state != "left" else []
        for ref in self.running:
            self.ray.cancel(ref, force=True)
        self.running.clear()
        return iter(ended)

    def last_outcome(self, ref: Any) -> Outcome | None:
        """Return the outcome of a task that has ended; ``None`` if it was cancelled or its worker died."""
        try:
            return self.ray.get(ref)[0]
        except self.ray.exceptions.RayError:
            return None


def _work(item: Item, job: Callable[..., str], shared: SharedFolder) -> tuple[Outcome, list[str]]:
    """Do one item in a worker; return its outcome and its warnings."""
    problem = shared.problem([item.source])
    if problem is not None:
        return Outcome(name=item.name, source=item.label, state="failed", line=problem), []
    with _collected_warnings() as messages, _ended_by_cancel() as on_step, shared.entered():
        try:
            return attempt(item, job, on_step), messages
        except StoppedError:
            return Outcome(name=item.name, source=item.label, state="left"), messages


@contextmanager
def _ended_by_cancel() -> Iterator[OnStep]:
    """Let ``ray.cancel``, which interrupts a worker like Ctrl-C, end the job after its step, with a checkpoint."""
    requested = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: requested.set())
    try:
        yield lambda _: False if requested.is_set() else None
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collect the library's warnings, which the batch issues again where its user sees them."""
    messages: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", RealFillWarning)
        show = warnings.showwarning

        def collect(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, RealFillWarning):
                messages.append(str(message))
            else:
                show(message, category, *place)

        warnings.showwarning = collect
        yield messages


def _cause_of_death(failures: Any, error: Exception) -> str:
    if isinstance(error, failures.OutOfMemoryError):
        return "memory ran out"
    if isinstance(error, failures.NodeDiedError | failures.ObjectLostError):
        return "its machine left the cluster"
    return "its process was killed"


def _progress(num_ended: int, num_items: int, start: float) -> Progress:
    time_s = time.monotonic() - start
    left_s = time_s * (num_items - num_ended) / num_ended if num_ended else None
    return Progress(phase="batch", step=num_ended, num_steps=num_items, time_s=time_s, left_s=left_s)
