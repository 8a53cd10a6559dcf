"""One job runs at a time, in the order of arrival; whatever happens in a job, the queue goes on."""

import threading
import time

import pytest
from waiting import wait_for

from realfill.app.page.jobs import Job, JobQueue
from realfill.app.page.logs import ErrorLog
from realfill.app.page.records import RefusedError
from realfill.compute.progress import Progress
from realfill.errors import SceneError, StoppedError


@pytest.fixture(autouse=True)
def _quick_release(monkeypatch):
    monkeypatch.setattr("realfill.compute.memory.release", lambda: None)  # it takes a second where much is loaded


@pytest.fixture
def queue(tmp_path):
    queue = JobQueue(ErrorLog(tmp_path / "logs"))
    yield queue
    queue.close()


def ended(queue, job):
    wait_for(lambda: job.state in ("done", "failed", "stopped") and not queue.is_busy(job.owner))
    return job


def progress(step, *, loss=None):
    return Progress(phase="fit", step=step, num_steps=1_000_000, time_s=0.0, loss=loss)


def step_until_told(job):
    step = 0
    while job.on_step(progress(step := step + 1)):
        time.sleep(0.002)
    if job.cancelled:
        raise StoppedError


def blocked(owner, order, gate):
    def work(_):
        order.append(owner)
        assert gate.wait(10)

    return Job(owner=owner, title=owner, work=work)


def test_jobs_run_one_after_the_other_and_know_their_place(queue):
    order, gate = [], threading.Event()
    jobs = [queue.submit(blocked(name, order, gate)) for name in ("a", "b", "c")]
    wait_for(lambda: order == ["a"])
    assert [queue.find(name)[1] for name in ("a", "b", "c")] == [0, 1, 2]
    assert queue.owners == {"a", "b", "c"}
    gate.set()
    assert [ended(queue, job).state for job in jobs] == ["done"] * 3
    assert order == ["a", "b", "c"]


def test_a_visit_has_one_job_at_a_time(queue):
    gate = threading.Event()
    queue.submit(blocked("a", [], gate))
    with pytest.raises(RefusedError, match="a job of yours"):
        queue.submit(blocked("a", [], gate))
    gate.set()


def test_the_queue_is_bounded(queue, monkeypatch):
    monkeypatch.setattr("realfill.app.page.jobs.MAX_WAITING", 1)
    gate, order = threading.Event(), []
    queue.submit(blocked("a", order, gate))
    wait_for(lambda: order == ["a"])
    queue.submit(blocked("b", order, gate))
    with pytest.raises(RefusedError, match="try again later"):
        queue.submit(blocked("c", order, gate))
    gate.set()


def test_a_waiting_job_that_is_cancelled_never_runs(queue):
    gate, order = threading.Event(), []
    first = queue.submit(blocked("a", order, gate))
    second = queue.submit(blocked("b", order, gate))
    queue.cancel("b")
    gate.set()
    ended(queue, first)
    assert (second.state, order) == ("stopped", ["a"])


def test_cancel_ends_a_running_job_at_its_next_step(queue):
    job = queue.submit(Job(owner="a", title="fit", work=step_until_told, can_stop=True))
    wait_for(lambda: job.progress is not None)
    queue.cancel("a")
    assert ended(queue, job).state == "stopped"


def test_stop_ends_a_job_that_keeps_what_there_is(queue):
    job = queue.submit(Job(owner="a", title="fit", work=step_until_told, can_stop=True))
    wait_for(lambda: job.progress is not None)
    queue.stop("a")
    assert (ended(queue, job).state, job.stopping, job.cancelled) == ("done", True, False)


def test_bad_input_becomes_a_sentence(queue, tmp_path):
    def work(_):
        raise SceneError("the mask is\nempty")

    job = ended(queue, queue.submit(Job(owner="a", title="fit", work=work)))
    assert (job.state, job.message) == ("failed", "the mask is empty")
    assert not (tmp_path / "logs").exists()


def test_a_fault_of_the_server_is_logged_in_a_file_that_the_message_names(queue, tmp_path):
    def work(_):
        raise KeyError("a bug")

    job = ended(queue, queue.submit(Job(owner="a", title="fit", work=work)))
    (log,) = (tmp_path / "logs").iterdir()
    assert f"logs/{log.name}" in job.message and "a bug" not in job.message
    assert "KeyError: 'a bug'" in log.read_text() and "Traceback" in log.read_text()
    assert ended(queue, queue.submit(Job(owner="a", title="next", work=lambda _: None))).state == "done"


def test_others_do_not_see_the_job_of_a_visit(queue):
    ended(queue, queue.submit(Job(owner="a", title="fit", work=lambda _: None)))
    assert queue.find("b") is None
    queue.forget("a")
    assert queue.find("a") is None


def test_the_page_gets_averages_of_the_losses():
    job = Job(owner="a", title="fit", work=print)
    for step in range(1, 1001):
        job.on_step(progress(step, loss=float(step)))
        job.on_step(progress(step, loss=float("nan")))  # a report that repeats a step or has no loss yet
    shown = job.describe(0)
    assert len(job.losses) == 1000 and len(shown["losses"]) <= 120
    assert shown["losses"][0] == sum(range(1, 10)) / 9 and shown["progress"]["loss"] == sum(range(976, 1001)) / 25


def test_closing_cancels_what_runs_and_what_waits(tmp_path):
    queue = JobQueue(ErrorLog(tmp_path))
    running = queue.submit(Job(owner="a", title="fit", work=step_until_told))
    waiting = queue.submit(Job(owner="b", title="fit", work=step_until_told))
    wait_for(lambda: running.progress is not None)
    queue.close()
    assert (running.state, waiting.state) == ("stopped", "stopped")
