"""Ctrl-C and SIGTERM: a command ends soon, with one line and its own exit status."""

import signal
import time

import pytest

from realfill.app import cli
from realfill.app.cli import main
from realfill.app.commands.stopping import SignalsEndCommand, StopOnInterrupt
from realfill.compute.progress import Progress, indivisible
from realfill.errors import StoppedError

STEP = Progress(phase="fit", step=1, num_steps=9, time_s=1.0)


@pytest.fixture
def command(monkeypatch):
    """Replace the command line's command by a function."""

    def use(function):
        monkeypatch.setattr(cli, "_parse", lambda _: function)

    return use


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_status_names_the_signal(number, status, command, capsys):
    command(lambda: signal.raise_signal(number))
    assert main(["models"]) == status
    assert capsys.readouterr().err == "stopped; the same command resumes an unfinished job\n"


@pytest.mark.parametrize("name", ["erase", "instances", "mask", "rank"])
def test_a_command_that_keeps_nothing_does_not_promise_to_resume(name, command, capsys):
    command(lambda: signal.raise_signal(signal.SIGINT))
    assert main([name]) == 130
    assert capsys.readouterr().err == "stopped; the same command starts from the beginning\n"


def test_a_job_that_on_step_ended_says_why(command, capsys):
    def stopped():
        raise StoppedError("the job was ended early")

    command(stopped)
    assert main(["models"]) == 130
    assert capsys.readouterr().err.startswith("stopped; the job was ended early; the same command")


def test_a_signal_while_the_command_line_is_read_gives_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_parse", lambda _: signal.raise_signal(signal.SIGINT))
    assert main(["models"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_the_first_signal_ends_a_job_after_its_step_and_the_second_at_once():
    with SignalsEndCommand(), StopOnInterrupt() as stop:
        assert stop.on_step(STEP) is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested and stop.on_step(STEP) is False
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_before_the_first_step_a_signal_interrupts():
    with SignalsEndCommand(), StopOnInterrupt() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not stop.requested


def test_a_long_step_is_interrupted():
    with SignalsEndCommand(), StopOnInterrupt(patience_s=0.1) as stop:
        stop.on_step(STEP)
        signal.raise_signal(signal.SIGINT)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(5)
        assert time.monotonic() - start < 2


def test_a_step_that_must_not_be_interrupted_ends_first():
    done = []

    def work():
        with indivisible():
            time.sleep(0.3)
            done.append("the step")
        time.sleep(5)
        done.append("what follows")

    with SignalsEndCommand(), StopOnInterrupt(patience_s=0.05) as stop:
        stop.on_step(STEP)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            work()
    assert done == ["the step"]


def test_an_interruption_that_python_drops_is_repeated():
    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def drop_and_wait():
        Finalized()
        time.sleep(5)

    with SignalsEndCommand() as signals:
        with pytest.raises(KeyboardInterrupt):
            drop_and_wait()
        assert signals.status == 130


def test_afterwards_the_signals_are_as_before():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with SignalsEndCommand(), StopOnInterrupt():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
