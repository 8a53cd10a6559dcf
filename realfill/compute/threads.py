"""Threads: a function that is applied to several things at a time, with results that do not depend on how many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_MOST = 8  # threads, since each holds memory of its own


def num_threads() -> int:
    """Return in how many threads work may be done."""
    allowed = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cv2.getNumThreads(), _MOST, int(allowed) if allowed.isdigit() else _MOST)


def in_threads(
    function: Callable[[Thing], Result], things: Iterable[Thing], check: Callable[[], None] = lambda: None
) -> list[Result]:
    """Apply a pure function to things, in several threads.

    There are as many as OpenCV uses (``cv2.setNumThreads``) and ``OMP_NUM_THREADS`` allows, and at most eight. It pays
    where the function spends its time in NumPy, SciPy or OpenCV, which let other threads run meanwhile.

    Args:
        function: must neither change what it shares with other calls nor call this function itself.
        things: what it is applied to.
        check: called in the calling thread before each result is awaited; it may raise an exception, with which the
            work ends once the calls that have begun are done.

    Returns:
        The results, in the order of the things.

    Raises:
        Exception: the first that ``function`` or ``check`` raised.
    """
    things, results = list(things), []
    count = min(num_threads(), len(things))
    if count < 2:
        for thing in things:
            check()
            results.append(function(thing))
        return results
    with ThreadPoolExecutor(count, "realfill") as threads:
        waiting = [threads.submit(function, thing) for thing in things]
        try:
            for future in waiting:
                check()
                results.append(future.result())
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return results
