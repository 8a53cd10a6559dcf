"""Processes that work for a batch. They never outlive it, and they end soon when it is interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from realfill.compute.progress import Progress

_PATIENCE_S = 1.0  # for the current steps to end; then their processes are killed

_stop: Any = None  # in a worker: the event that the batch was interrupted


@contextmanager
def workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes for a batch.

    An exception in the body of the ``with`` statement, such as Ctrl-C, ends the items under way after their current
    step, or kills their processes a second later. If this process is killed, the workers end at once.

    Args:
        processes: number of processes.

    Yields:
        The pool. Its work should pass ``on_step`` of this module on.
    """
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    stop = context.Event()
    pool = ProcessPoolExecutor(max_workers=processes, mp_context=context, initializer=_begin, initargs=(stop,))
    try:
        yield pool
    except BaseException:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        _end(set(multiprocessing.active_children()) - others)
        raise
    pool.shutdown()


def on_step(_: Progress) -> bool | None:
    """Return ``False``, which ends an item, once the batch was interrupted."""
    return False if _stop is not None and _stop.is_set() else None


def _begin(stop: Any) -> None:
    """Prepare a worker: signals are for the batch, and its death ends the worker."""
    global _stop  # noqa: PLW0603 - work arrives as a function, so it can only find the event here
    _stop = stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end(processes: set[Any]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
