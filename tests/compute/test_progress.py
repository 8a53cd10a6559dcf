"""Progress: a bar in a terminal, lines elsewhere, and not too many of them."""

import io
import sys

import pytest

from realfill.compute import progress
from realfill.compute.progress import ProgressBar


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
