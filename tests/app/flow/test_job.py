"""Jobs in the background: one at a time, stopped at once, and no error escapes."""

import threading
import warnings

import pytest

from realfill.app.flow.job import BusyError, Job
from realfill.app.flow.pictures import describe_job, draw_losses, share_done
from realfill.compute.progress import Progress
from realfill.errors import SceneError, StoppedError, warn


@pytest.fixture
def job(tmp_path):
    return Job("Test", log=tmp_path / "errors.log", on_change=lambda: None)


def steps(count, *, job, gate=None):
    for step in range(1, count + 1):
        if gate is not None:
            gate.wait(5)
        report = Progress(
            phase="fit", step=step, num_steps=count, time_s=step, left_s=2 * (count - step), loss=1 / step
        )
        if not job.on_step(report):
            return f"{step} steps"
    return "all steps"


def test_a_job_reports_its_steps_losses_and_outcome(job):
    job.start(lambda j: steps(4, job=j))
    assert job.wait(10)
    assert (job.state, job.message) == ("done", "all steps")
    assert job.losses == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert share_done(job) == 1
    assert describe_job(job) == "all steps"


def test_stop_ends_a_job_after_its_current_step_and_keeps_the_outcome(job):
    gate = threading.Event()
    job.start(lambda j: steps(1000, job=j, gate=gate))
    job.stop()
    assert describe_job(job) == "Test: stopping."
    gate.set()
    assert job.wait(10)
    assert (job.state, job.message) == ("stopped", "1 steps")


def test_only_one_job_runs_at_a_time(job, tmp_path):
    gate = threading.Event()
    job.start(lambda _: str(gate.wait(10)))
    other = Job("Other", log=tmp_path / "errors.log", on_change=lambda: None)
    with pytest.raises(BusyError, match="another job is running"):
        other.start(lambda _: "")
    gate.set()
    job.wait(10)
    assert other.start(lambda _: "done now").wait(10)
    assert other.message == "done now"


def test_an_error_of_the_library_is_a_sentence_and_an_unexpected_one_names_the_log(job, tmp_path):
    def refuse(_):
        raise SceneError("the mask is empty")

    def break_down(_):
        return str({}["missing"])

    job.start(refuse).wait(10)
    assert (job.state, job.message) == ("failed", "The mask is empty.")
    assert not (tmp_path / "errors.log").exists()
    broken = Job("Broken", log=tmp_path / "errors.log", on_change=lambda: None)
    broken.start(break_down).wait(10)
    assert broken.state == "failed"
    assert str(tmp_path / "errors.log") in broken.message
    assert "KeyError: 'missing'" in (tmp_path / "errors.log").read_text()


def test_stopping_before_anything_is_finished_is_no_failure(job):
    def nothing(_):
        raise StoppedError("ended")

    job.start(nothing).wait(10)
    assert (job.state, job.message) == ("stopped", "Stopped before anything was finished.")


def test_warnings_of_the_library_are_heard_once_and_those_of_others_are_not(job):
    def work(_):
        warn("the photo is small")
        warn("the photo is small")
        return "done"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job.start(work).wait(10)
    assert job.state == "done"
    assert job.warnings == ["the photo is small"]


def test_the_text_of_a_running_job_says_step_and_time_left(job):
    job.phase = "fitting"
    job.on_step(Progress(phase="fit", step=3, num_steps=10, time_s=3, left_s=300, loss=0.5))
    assert describe_job(job) == "Test: fitting, step 3 of 10, about 5 min left."
    assert share_done(job) == pytest.approx(0.3)
    job.on_step(Progress(phase="composite", step=40, num_steps=100, time_s=3, left_s=7.2))
    assert describe_job(job) == "Test: fitting, 40 %, about 8 s left."


def test_long_fits_are_thinned_out_and_the_curve_has_a_text(job):
    assert draw_losses([(1, 0.5)]) == ""
    for step in range(1, 6001):
        job.on_step(Progress(phase="fit", step=step, num_steps=6000, time_s=1, loss=0.25))
    assert len(job.losses) <= 2000
    assert job.losses[-1][0] > 5990
    assert "the mean is now 0.250" in draw_losses(job.losses)
