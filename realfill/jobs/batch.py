"""``run_batch``: many photos and scenes, one after the other or in several processes, resumable.

``batch.json`` in the output folder records what is done. What fails does not stop the rest, and the same call tries it
again.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

from realfill.compute.progress import OnStep, ProgressBar
from realfill.errors import OutputError, RealFillError, StoppedError
from realfill.io.files import write_text
from realfill.io.formats import FileFormat
from realfill.io.lock import locked
from realfill.jobs.sources import Item, find_items
from realfill.jobs.work import PhotoJob, SceneJob

BATCH_NAME = "batch.json"
_KILLED = "its process was killed, perhaps because memory ran out; use fewer processes or a smaller photo"
State: TypeAlias = Literal["done", "failed", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an item.

    Attributes:
        name: name of the result.
        state: ``done``; ``failed``; or ``left``, because the batch ended before.
        time_s: seconds that it took.
        line: a line that describes the result, or the error.
        earlier: whether an earlier run of the batch finished it.
    """

    name: str
    state: State
    time_s: float = 0.0
    line: str = ""
    earlier: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """The outcomes of all items, in their order."""

    outcomes: tuple[Outcome, ...]

    def of(self, state: State) -> tuple[Outcome, ...]:
        """Select the outcomes of a state."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == state)

    def table(self) -> str:
        """Format the outcomes as a table, with a line of totals."""
        width = max((len(o.name) for o in self.outcomes), default=4)
        rows = [f"{'name':{width}}  state   {'s':>6}  result"]
        for o in self.outcomes:
            seconds = f"{o.time_s:6.1f}" if o.time_s else " " * 6
            rows.append(
                f"{o.name:{width}}  {o.state:6}  {seconds}  {o.line}{' (earlier)' if o.earlier else ''}".rstrip()
            )
        totals = ", ".join(f"{len(self.of(state))} {state}" for state in ("done", "failed", "left"))
        return "\n".join([*rows, totals])


def run_batch(
    sources: Iterable[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    photos: PhotoJob | None = None,
    scenes: SceneJob | None = None,
    processes: int = 1,
    file_format: FileFormat = "png",
    overwrite: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> BatchReport:
    """Erase in many photos, and complete many scenes.

    Args:
        sources: photos, scene folders (with ``target/``), and folders of them.
        output: folder for the results. A call with the same arguments resumes there: what is done is skipped.
        photos: what is done with a photo. ``None``: everybody is erased.
        scenes: what is done with a scene folder. ``None``: a fit of the packaged base model, and its completions.
        processes: number of processes. Each loads its own models.
        file_format: format of erased photos: ``png``, ``tiff`` or ``jpeg``.
        overwrite: do everything again.
        on_step: with one process, called after each step of each item. If it returns ``False``, the batch ends.
        progress: show a progress bar.

    Returns:
        What became of each item. Errors of an item are in its outcome and are not raised.

    Raises:
        SceneError: a source does not exist, or there is no photo and no scene.
        OutputError: the folder belongs to a batch with other settings, or cannot be written to.
        ValueError: ``processes`` is less than 1.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}; legal: 1 or more")
    folder = Path(output)
    items = find_items(sources, folder, file_format=file_format)
    scenes = scenes or SceneJob()
    if overwrite:
        scenes = dataclasses.replace(scenes, overwrite=True)
    work = {"photo": photos or PhotoJob(), "scene": scenes}
    request = {kind: dict(work[kind].request) for kind in sorted({item.kind for item in items})}
    with locked(folder):
        record = {} if overwrite else _read_record(folder, request)
        outcomes = {item.name: _earlier(item, record) for item in items}
        waiting = [item for item in items if outcomes[item.name].state != "done"]
        run = _in_processes if processes > 1 else _one_by_one
        with ProgressBar(total=len(items), initial=len(items) - len(waiting), desc="batch", unit="item",
                         disable=not progress) as bar:  # fmt: skip
            for item, outcome in run(waiting, work, processes, on_step):
                outcomes[item.name] = outcome
                record[item.name] = {
                    "state": outcome.state, "time_s": outcome.time_s, "line": outcome.line,
                    "signature": _signature(item),
                }  # fmt: skip
                write_text(folder / BATCH_NAME, json.dumps({"request": request, "items": record}, indent=1) + "\n")
                bar.update()
    return BatchReport(outcomes=tuple(outcomes[item.name] for item in items))


_Work: TypeAlias = Mapping[str, Callable[..., str]]


def _one_by_one(
    items: Sequence[Item], work: _Work, _processes: int, on_step: OnStep | None
) -> Iterator[tuple[Item, Outcome]]:
    """Work in this process; end quietly when ``on_step`` ends an item."""
    for item in items:
        try:
            yield item, _attempt(item, work[item.kind], on_step)
        except StoppedError:
            return


def _in_processes(
    items: Sequence[Item], work: _Work, processes: int, _on_step: OnStep | None
) -> Iterator[tuple[Item, Outcome]]:
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
        with _pool(1) as pool:
            is_alive = True
            while waiting and is_alive:
                item = waiting.pop(0)
                try:
                    outcome = pool.submit(_attempt, item, work[item.kind]).result()
                except BrokenProcessPool:
                    is_alive = False
                    outcome = Outcome(name=item.name, state="failed", line=_KILLED)
                yield item, outcome


def _submitted(items: Sequence[Item], work: _Work, processes: int) -> Iterator[tuple[Item, Future[Outcome]]]:
    """Yield items with their futures as they finish."""
    pool = _pool(min(processes, max(1, len(items))))
    try:
        futures = {pool.submit(_attempt, item, work[item.kind]): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=processes, mp_context=get_context("spawn"))


def _attempt(item: Item, job: Callable[..., str], on_step: OnStep | None = None) -> Outcome:
    """Do one item; an error becomes its outcome, except that ``on_step`` ended it."""
    start = time.monotonic()
    try:
        line = job(item.source, item.target, on_step)
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 - what fails does not stop the rest
        kind = "" if isinstance(error, RealFillError | ValueError | OSError) else f"{type(error).__name__}: "
        line = f"{kind}{' '.join(str(error).split())}"
        return Outcome(name=item.name, state="failed", time_s=round(time.monotonic() - start, 1), line=line)
    return Outcome(name=item.name, state="done", time_s=round(time.monotonic() - start, 1), line=line)


def _read_record(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Read what an earlier run recorded.

    Raises:
        OutputError: it had other settings.
    """
    try:
        values = json.loads((folder / BATCH_NAME).read_text(encoding="utf-8"))
        previous, record = values["request"], dict(values["items"])
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
    """Return what an earlier run made of an item: done, if its source is unchanged and its result still exists."""
    values = record.get(item.name)
    is_done = (
        isinstance(values, dict) and values.get("state") == "done" and item.target.exists()
        and values.get("signature") == _signature(item)
    )  # fmt: skip
    if values is None or not is_done:
        return Outcome(name=item.name, state="left")
    return Outcome(
        name=item.name, state="done", time_s=float(values["time_s"]), line=str(values["line"]), earlier=True
    )  # fmt: skip


def _signature(item: Item) -> Any:
    try:
        return item.signature()
    except OSError:  # the source has vanished meanwhile
        return None
