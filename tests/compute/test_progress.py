"""Progress: a bar in a terminal, lines elsewhere, and not too many of them."""

import io
import sys

import pytest

from realfill.compute import progress
from realfill.compute.progress import Interrupted, ProgressBar, Stages


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def written(monkeypatch, *, steps, seconds_per_step, stream, **options):
    """Return what a bar writes to standard error while a job of some steps runs."""
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    monkeypatch.setattr("tqdm.std.time", clock)
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar(total=steps, desc="sample", unit="step", **options) as bar:
        for _ in range(steps):
            clock.now += seconds_per_step
            bar.update()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("steps", "seconds", "least", "most"), [(1000, 0.5, 20, 51), (60, 0.01, 1, 1), (10, 60, 10, 10)]
)
def test_a_log_gets_a_line_every_ten_seconds_or_five_percent(monkeypatch, steps, seconds, least, most):
    text = written(monkeypatch, steps=steps, seconds_per_step=seconds, stream=io.StringIO())
    lines = text.splitlines()
    assert least <= len(lines) <= most and "\r" not in text
    assert all(line.startswith("sample") for line in lines) and f"{steps}/{steps}" in lines[-1]


def test_a_terminal_gets_a_bar_on_one_line(monkeypatch):
    text = written(monkeypatch, steps=30, seconds_per_step=0.2, stream=Terminal())
    assert text.count("\r") > 10 and text.count("\n") == 1


def test_a_disabled_bar_writes_nothing(monkeypatch):
    assert written(monkeypatch, steps=30, seconds_per_step=1, stream=Terminal(), disable=True) == ""


def test_stages_report_hundredths_that_never_go_back():
    seen = []
    stages = Stages("composite", seen.append)
    stages.enter(40)
    stages(0.5)
    stages(0.1)
    stages.enter(100)
    stages(1)
    assert [p.step for p in seen] == [0, 20, 20, 40, 100]
    assert seen[0].left_s is None and seen[-1].left_s == 0 and {p.num_steps for p in seen} == {100}


def test_a_stage_ends_the_job_when_the_callback_says_so():
    stages = Stages("composite", lambda progress: progress.step < 30)
    stages.enter(60)
    with pytest.raises(Interrupted):
        stages(0.5)
    Stages("composite", None)(0.5)
