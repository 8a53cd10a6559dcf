"""Threads: a function that is applied to several things at a time, with the same results in any number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import cv2

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_MOST = 8  # threads, since each holds memory of its own
_ASK_EVERY_S = 0.1


def num_threads() -> int:
    """Return in how many threads work may be done."""
    allowed = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cv2.getNumThreads(), _MOST, int(allowed) if allowed.isdigit() else _MOST)


def in_threads(
    function: Callable[[Thing], Result],
    things: Iterable[Thing],
    check: Callable[[float], None] = lambda _: None,
    *,
    most: int = _MOST,
) -> list[Result]:
    """Apply a pure function to things, in several threads.

    There are as many as OpenCV uses (``cv2.setNumThreads``) and ``OMP_NUM_THREADS`` allows, and at most eight. It pays
    where the function spends its time in NumPy, SciPy or OpenCV, which let other threads run meanwhile.

    Args:
        function: must neither change what it shares with other calls nor call this function itself.
        things: what it is applied to.
        check: called in the calling thread before each result, and ten times a second while it is awaited, with the
            share of the results that are there. It may raise an exception, with which the work ends once the calls
            that have begun are done.
        most: the largest number of threads, where each call needs much memory.

    Returns:
        The results, in the order of the things.

    Raises:
        Exception: what ``check`` raised, or the function for the first thing, in their order, for which it failed.
    """
    things, results = list(things), []
    count = min(num_threads(), most, len(things))
    if count < 2:
        for thing in things:
            check(len(results) / len(things))
            results.append(function(thing))
        return results
    with ThreadPoolExecutor(count, "realfill") as threads:
        try:
            for future in [threads.submit(function, thing) for thing in things]:
                check(len(results) / len(things))
                while not wait([future], _ASK_EVERY_S).done:
                    check(len(results) / len(things))
                results.append(future.result())
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return results
