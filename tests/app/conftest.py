"""Fixtures for the command line: a scene's folder, the words of tiny jobs, and Ctrl-C at a given step."""

import signal

import pytest
from helpers import TINY_FIT

from realfill.app.commands.stopping import StopOnInterrupt


@pytest.fixture
def folder(scene, tmp_path):
    """The folder of the small scene."""
    scene.save(tmp_path / "scene")
    return tmp_path / "scene"


@pytest.fixture
def fit_words(tiny_sd):
    """The words of a fit of three steps."""
    return ["--base", tiny_sd, *(w for k, v in TINY_FIT.items() for w in (f"--{k.replace('_', '-')}", str(v)))]


@pytest.fixture
def sample_words():
    """The words of two samples of two steps."""
    return ["--num-samples", "2", "--num-inference-steps", "2", "--matcher", "sift", "--device", "cpu"]


@pytest.fixture
def press_ctrl_c(monkeypatch):
    """Press Ctrl-C when a denoising step is reported, once or several times."""
    on_step = StopOnInterrupt.on_step

    def press(at_step, times=1):
        def interrupted(self, progress):
            if progress.phase == "sample" and progress.step == at_step:
                self._started = True
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            return on_step(self, progress)

        monkeypatch.setattr(StopOnInterrupt, "on_step", interrupted)

    return press
