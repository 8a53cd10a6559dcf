"""``run_batch``: many photos and scenes, one after the other, in several processes or on a Ray cluster, resumable.

``batch.json`` in the output folder records what is done. What fails does not stop the rest, and the same call tries it
again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, get_args

from realfill.compute.progress import OnStep, ProgressBar
from realfill.errors import OutputError, StoppedError, one_line
from realfill.io.containment import require_inside
from realfill.io.files import write_text
from realfill.io.formats import FileFormat
from realfill.io.json_files import read_json
from realfill.io.lock import locked
from realfill.jobs.cluster import RayCluster
from realfill.jobs.outcomes import Outcome, State, attempt
from realfill.jobs.sources import Item, find_items
from realfill.jobs.tasks import run_on_ray
from realfill.jobs.work import PhotoJob, SceneJob
from realfill.jobs.workers import on_step as on_step_of_worker
from realfill.jobs.workers import workers

BATCH_NAME = "batch.json"
_KILLED = "its process was killed, perhaps because memory ran out; use fewer processes or a smaller photo"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """The outcomes of all items, in their order."""

    outcomes: tuple[Outcome, ...]

    def of(self, state: State) -> tuple[Outcome, ...]:
        """Select the outcomes of a state."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == state)

    def table(self) -> str:
        """Format the outcomes as a table of the sources, with a line of totals."""
        width = max(6, *(len(o.source) for o in self.outcomes))
        rows = [f"{'source':{width}}  state      {'s':>6}  result"]
        for o in self.outcomes:
            seconds = f"{o.time_s:6.1f}" if o.time_s else " " * 6
            rows.append(
                f"{o.source:{width}}  {o.state:9}  {seconds}  {o.line}{' (earlier)' if o.earlier else ''}".rstrip()
            )
        totals = ", ".join(f"{len(self.of(state))} {state}" for state in get_args(State))
        return "\n".join([*rows, totals])


def run_batch(
    sources: Iterable[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    photos: PhotoJob | None = None,
    scenes: SceneJob | None = None,
    processes: int = 1,
    cluster: RayCluster | None = None,
    file_format: FileFormat = "png",
    overwrite: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> BatchReport:
    """Erase in many photos, and complete many scenes.

    A photo in which the detector finds nothing to remove is copied to the output folder as it is, under its own suffix.
    Where ``EraseConfig.strip_location`` is set it is written anew, without GPS data.

    Args:
        sources: photos, scene folders (with ``target/``), and folders of them.
        output: folder for the results. A call with the same arguments resumes there: what is done is skipped.
        photos: what is done with a photo. ``None``: everybody is erased.
        scenes: what is done with a scene folder. ``None``: a fit of the packaged base model, and its completions.
        processes: number of processes. Each loads its own models.
        cluster: work on Ray instead, with one task for each item. All machines need the sources and the output folder
            at the same paths, on a shared file system.
        file_format: format of erased photos: ``png``, ``tiff`` or ``jpeg``.
        overwrite: do everything again.
        on_step: with one process, called after each step of each item; on Ray, several times a second with the number
            of items that have ended. If it returns ``False``, the batch ends.
        progress: show a progress bar.

    Returns:
        What became of each item. Errors of an item are in its outcome and are not raised.

    Raises:
        SceneError: a source does not exist, or there is no photo and no scene.
        OutputError: the folder belongs to a batch with other settings, or cannot be written to.
        ClusterError: the Ray cluster cannot be reached, lacks what a task asks for, or does not share the folders.
        MissingDependencyError: Ray is not installed.
        ValueError: ``processes`` is less than 1, or is given together with ``cluster``.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}; legal: 1 or more")
    if cluster is not None and processes > 1:
        raise ValueError(f"processes is {processes}, and a cluster is given; legal: one of the two")
    folder = Path(output)
    items = find_items(sources, folder, file_format=file_format)
    scenes = scenes or SceneJob()
    if overwrite:
        scenes = dataclasses.replace(scenes, overwrite=True)
    work = {"photo": photos or PhotoJob(), "scene": scenes}
    request = {kind: dict(work[kind].request) for kind in sorted({item.kind for item in items})}
    for item in items:
        if item.target.is_dir():
            require_inside(item.target, folder)
    with locked(folder):
        record = {} if overwrite else _read_record(folder, request)
        outcomes = {item.name: _earlier(item, record) for item in items}
        waiting = [item for item in items if outcomes[item.name].state == "left"]
        if cluster is not None:
            results = run_on_ray(waiting, work, folder, cluster, on_step)
        else:
            results = (_in_processes if processes > 1 else _one_by_one)(waiting, work, processes, on_step)
        with closing(results), ProgressBar(total=len(items), initial=len(items) - len(waiting), desc="batch",
                                           unit="item", disable=not progress) as bar:  # fmt: skip
            for item, outcome in results:
                outcomes[item.name] = outcome
                record[item.name] = {
                    "state": outcome.state, "time_s": outcome.time_s, "line": outcome.line,
                    "signature": _signature(item),
                }  # fmt: skip
                write_text(folder / BATCH_NAME, json.dumps({"request": request, "items": record}, indent=1) + "\n")
                bar.update()
    return BatchReport(outcomes=tuple(outcomes[item.name] for item in items))


_Work: TypeAlias = Mapping[str, Callable[..., str]]
_Results: TypeAlias = Generator[tuple[Item, Outcome], None, None]


def _one_by_one(items: Sequence[Item], work: _Work, _processes: int, on_step: OnStep | None) -> _Results:
    """Work in this process; end quietly when ``on_step`` ends an item."""
    for item in items:
        try:
            yield item, attempt(item, work[item.kind], on_step)
        except StoppedError:
            return


def _in_processes(items: Sequence[Item], work: _Work, processes: int, _on_step: OnStep | None) -> _Results:
    """Work in several processes. If one is killed, the unfinished items follow one at a time, to find its item."""
    finished: set[str] = set()
    for item, future in _submitted(items, work, processes):
        try:
            outcome = future.result()
        except BrokenProcessPool:
            break
        finished.add(item.name)
        yield item, outcome
    yield from _one_by_one_apart([item for item in items if item.name not in finished], work)


def _one_by_one_apart(items: Sequence[Item], work: _Work) -> Iterator[tuple[Item, Outcome]]:
    """Work in another process, one item at a time, so that only the item fails that kills it."""
    waiting = list(items)
    while waiting:
        with workers(1) as pool:
            is_alive = True
            while waiting and is_alive:
                item = waiting.pop(0)
                try:
                    outcome = pool.submit(attempt, item, work[item.kind], on_step_of_worker).result()
                except BrokenProcessPool:
                    is_alive = False
                    outcome = Outcome(name=item.name, source=item.label, state="failed", line=_KILLED)
                yield item, outcome


def _submitted(items: Sequence[Item], work: _Work, processes: int) -> Iterator[tuple[Item, Future[Outcome]]]:
    """Yield items with their futures as they finish."""
    with workers(min(processes, max(1, len(items)))) as pool:
        futures = {pool.submit(attempt, item, work[item.kind], on_step_of_worker): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future


def _read_record(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Read what an earlier run recorded.

    Raises:
        OutputError: it had other settings.
    """
    try:
        values = read_json(folder / BATCH_NAME, any_name=True)
        previous, record = dict(values["request"]), dict(values["items"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    different = sorted(kind for kind in request if kind in previous and previous[kind] != request[kind])
    if different:
        raise OutputError(
            f"{str(folder)!r} holds a batch with other settings for each {' and '.join(different)}; choose another "
            "folder, or do everything again with overwrite"
        )
    return record


def _earlier(item: Item, record: Mapping[str, Any]) -> Outcome:
    """Return what an earlier run made of an item, if its source has not changed and its result still exists."""
    values = record.get(item.name)
    is_done = (
        isinstance(values, dict) and values.get("state") in ("done", "unchanged") and item.result.exists()
        and values.get("signature") == _signature(item)
    )  # fmt: skip
    if values is None or not is_done:
        return Outcome(name=item.name, source=item.label, state="left")
    time_s = values.get("time_s")
    return Outcome(
        name=item.result.name, source=item.label, state=values["state"],
        time_s=float(time_s) if isinstance(time_s, int | float) else 0.0,
        line=one_line(str(values.get("line", ""))), earlier=True,
    )  # fmt: skip


def _signature(item: Item) -> Any:
    try:
        return item.signature()
    except OSError:  # the source has vanished meanwhile
        return None
