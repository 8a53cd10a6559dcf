"""Work in threads: results in order, errors as they are, and an end where ``check`` asks for it."""

import threading
import time

import cv2
import pytest

from realfill.compute import threads
from realfill.compute.threads import in_threads


@pytest.fixture(params=[1, 2, 5])
def num_threads(request, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = cv2.getNumThreads()
    cv2.setNumThreads(request.param)
    yield request.param
    cv2.setNumThreads(before)


def test_results_come_in_the_order_of_the_things(num_threads):
    def slow_first(n):
        time.sleep(0.02 * (n == 0))
        return n * n

    assert in_threads(slow_first, range(7)) == [n * n for n in range(7)]
    assert in_threads(slow_first, []) == []


def test_as_many_run_at_once_as_opencv_has_threads(num_threads):
    running, most, lock = 0, 0, threading.Lock()

    def count(_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1

    in_threads(count, range(10))
    assert most == num_threads


@pytest.mark.parametrize(("allowed", "expected"), [("1", 1), ("2,1", 2), ("", 3), ("many", 3), ("64", 3)])
def test_openmp_variables_limit_them(allowed, expected, monkeypatch):
    monkeypatch.setattr(cv2, "getNumThreads", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert threads.num_threads() == expected


def test_an_error_is_raised_as_it_is_and_nothing_else_begins(num_threads):
    begun = []

    def fail(n):
        begun.append(n)
        time.sleep(0.02)
        raise KeyError(n)

    with pytest.raises(KeyError):
        in_threads(fail, range(100))
    time.sleep(0.1)
    assert len(begun) <= 2 * num_threads


def test_check_is_called_in_the_calling_thread_before_each_result_and_ends_the_work(num_threads):
    asked, begun = [], []

    def check():
        asked.append(threading.current_thread())
        if len(asked) == 3:
            raise InterruptedError

    def work(n):
        begun.append(n)
        time.sleep(0.02)

    with pytest.raises(InterruptedError):
        in_threads(work, range(100), check)
    time.sleep(0.1)
    assert set(asked) == {threading.current_thread()}
    assert len(begun) <= 2 + 2 * num_threads
