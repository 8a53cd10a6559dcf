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

    with pytest.raises(KeyError, match="0"):
        in_threads(fail, range(100))
    time.sleep(0.1)
    assert len(begun) < 50


def test_a_call_may_need_fewer_threads(num_threads):
    seen = set()

    def note(_):
        time.sleep(0.01)
        seen.add(threading.current_thread())

    in_threads(note, range(12), most=2)
    assert len(seen) <= 2


def test_an_end_is_asked_for_while_a_long_call_is_awaited(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    goes_on, begun = threading.Event(), []

    def work(n):
        begun.append(n)
        goes_on.wait(30)

    def check(_):
        if len(begun) == 2:  # the calls are under way
            goes_on.set()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        in_threads(work, range(50), check)
    assert len(begun) < 25


def test_check_is_called_in_the_calling_thread_with_the_share_that_is_done_and_ends_the_work(num_threads):
    asked, shares, begun = [], [], []

    def check(share):
        asked.append(threading.current_thread())
        shares.append(share)
        if share >= 0.03:
            raise InterruptedError

    def work(n):
        begun.append(n)
        time.sleep(0.02)

    with pytest.raises(InterruptedError):
        in_threads(work, range(100), check)
    time.sleep(0.1)
    assert set(asked) == {threading.current_thread()}
    assert shares == sorted(shares) and sorted(set(shares)) == pytest.approx([0, 0.01, 0.02, 0.03])
    assert 3 <= len(begun) < 50
