"""Jobs run one after the other in the background, are ended at once, and whatever goes wrong, the queue goes on."""

import threading
import time
import warnings

import pytest

from realfill.app.flow import job as module
from realfill.app.flow.failures import ErrorLog
from realfill.app.flow.job import BusyError, Job, JobQueue
from realfill.app.flow.pictures import describe_job, draw_losses, share_done
from realfill.compute.progress import Progress
from realfill.errors import SceneError, StoppedError, warn


@pytest.fixture(autouse=True)
def _quick_release(monkeypatch):
    monkeypatch.setattr("realfill.compute.memory.release", lambda: None)  # it takes a second where much is loaded


@pytest.fixture
def queue():
    queue = JobQueue()
    yield queue
    queue.close()


@pytest.fixture
def make(tmp_path):
    """Make a job."""
    log = ErrorLog(tmp_path / "logs")
    return lambda work, title="Test", **options: Job(title, work, log=log, **options)


@pytest.fixture
def do(make, queue):
    """Do work as a job, and return the job when it has ended."""

    def run(work, **options):
        job = queue.submit(make(work, **options))
        assert job.wait(10)
        return job

    return run


def report(step, num_steps, **values):
    return Progress(phase="fit", step=step, num_steps=num_steps, time_s=step, **values)


def steps(count, gate=None):
    def work(job):
        for step in range(1, count + 1):
            if gate is not None:
                gate.wait(5)
            if not job.on_step(report(step, count, left_s=2 * (count - step), loss=1 / step)):
                return f"{step} steps"
        return "all steps"

    return work


def blocked(order, name, gate):
    def work(_):
        order.append(name)
        assert gate.wait(10)
        return ""

    return work


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_job_reports_its_steps_losses_and_outcome(do):
    job = do(steps(4))
    assert (job.state, job.message) == ("done", "all steps")
    assert job.losses == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert share_done(job) == 1
    assert describe_job(job) == "all steps"


def test_jobs_run_one_after_the_other_and_know_how_many_are_before_them(queue, make):
    order, gate = [], threading.Event()
    jobs = [queue.submit(make(blocked(order, name, gate), title=name)) for name in "abc"]
    wait_for(lambda: order == ["a"])
    assert [queue.count_before(job) for job in jobs] == [0, 1, 2]
    assert describe_job(jobs[2], 2) == "c: waiting, 2 jobs before this one."
    gate.set()
    assert all(job.wait(10) and job.state == "done" for job in jobs)
    assert order == ["a", "b", "c"]


def test_the_queue_is_bounded(queue, make, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    order, gate = [], threading.Event()
    queue.submit(make(blocked(order, "a", gate)))
    wait_for(lambda: order == ["a"])
    queue.submit(make(blocked(order, "b", gate)))
    with pytest.raises(BusyError, match="1 jobs are waiting already; try again later"):
        queue.submit(make(blocked(order, "c", gate)))
    gate.set()


def test_stop_ends_a_job_after_its_current_step_and_keeps_the_outcome(queue, make):
    gate = threading.Event()
    job = queue.submit(make(steps(1000, gate)))
    wait_for(lambda: job.state == "running")
    job.stop()
    assert describe_job(job) == "Test: stopping."
    gate.set()
    assert job.wait(10)
    assert (job.state, job.message) == ("stopped", "1 steps")


@pytest.mark.parametrize("way", ["cancel", "stop"])
def test_cancel_and_a_stop_that_keeps_nothing_leave_no_outcome(queue, make, way):
    gate = threading.Event()
    job = queue.submit(make(steps(1000, gate), can_stop=False))
    wait_for(lambda: job.state == "running")
    getattr(job, way)()
    gate.set()
    assert job.wait(10)
    assert (job.state, job.message) == ("stopped", "Cancelled.")


def test_a_waiting_job_that_is_cancelled_never_runs(queue, make):
    order, gate = [], threading.Event()
    first, second = (queue.submit(make(blocked(order, name, gate))) for name in "ab")
    queue.cancel(second)
    assert second.wait(1) and second.state == "stopped" and queue.count_before(second) == 0
    assert second.message == "Cancelled."
    gate.set()
    first.wait(10)
    assert order == ["a"]


def test_a_stopped_job_can_go_on_with_its_next_part(do):
    def work(job):
        job.stop()
        assert job.is_ending
        job.go_on()
        return "both parts"

    assert do(work).state == "done"


def test_an_error_of_the_library_is_a_sentence_and_an_unexpected_one_names_the_log(do, tmp_path):
    def refuse(_):
        raise SceneError("the mask is\nempty")

    refused = do(refuse)
    assert (refused.state, refused.message) == ("failed", "The mask is empty.")
    assert not (tmp_path / "logs").exists()
    broken = do(lambda _: {}["missing"], title="Broken")
    (log,) = (tmp_path / "logs").iterdir()
    assert broken.state == "failed" and str(log) in broken.message
    assert "KeyError: 'missing'" in log.read_text() and "Broken" in log.read_text()
    assert do(steps(1)).state == "done"


def test_stopping_before_anything_is_finished_is_no_failure(do):
    def nothing(_):
        raise StoppedError("ended")

    job = do(nothing)
    assert (job.state, job.message) == ("stopped", "Stopped before anything was finished.")


def test_warnings_of_the_library_are_heard_once_and_those_of_others_are_not(do):
    def work(_):
        warn("the photo is small")
        warn("the photo is small")
        return "done"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job = do(work)
    assert job.state == "done"
    assert job.notes == ["the photo is small"]


def test_the_text_of_a_running_job_says_step_loss_and_time_left(make):
    job = make(print)
    job.state, job.phase = "running", "fitting"
    job.on_step(report(3, 10, left_s=300, loss=0.5))
    assert describe_job(job) == "Test: fitting, step 3 of 10, loss 0.5, about 5 min left."
    assert share_done(job) == pytest.approx(0.3)
    job.on_step(Progress(phase="composite", step=40, num_steps=100, time_s=3, left_s=7.2))
    assert describe_job(job) == "Test: fitting, 40 %, about 8 s left."


def test_long_fits_are_thinned_out_and_the_curve_has_a_text(make):
    job = make(print)
    assert draw_losses([(1, 0.5)]) == ""
    for step in range(1, 6001):
        job.on_step(report(step, 6000, loss=0.25))
    assert len(job.losses) <= 2000
    assert job.losses[-1][0] > 5990
    curve = draw_losses(job.losses)
    assert "the mean is now 0.250" in curve and len(curve) < 10_000


def test_closing_cancels_what_runs_and_what_waits(queue, make):
    running, waiting = (queue.submit(make(steps(10**9))) for _ in range(2))
    wait_for(lambda: running.progress is not None)
    queue.close()
    assert (running.state, waiting.state) == ("stopped", "stopped")
