"""Memory that runs out in a stage, and a clock that runs backwards: one line, and nothing is lost."""

import time

import numpy as np
import pytest
import torch
from planted_faults import find_stage, wrap

from realfill.app.cli import main
from realfill.compute.progress import ProgressBar
from realfill.io.images import read_image

pytestmark = pytest.mark.filterwarnings("default:no keypoint:realfill.errors.RealFillWarning")
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def fail_in(monkeypatch):
    """Let each call of a stage fail, until the fixture is undone."""

    def plant(patch, stage, error):
        owner, last = find_stage(stage)
        patch.setattr(owner, last, owner.__dict__[last])  # so that it is put back

        def fail():
            raise error

        wrap(stage, fail)

    return plant


@pytest.mark.parametrize(("stage", "error"), [("decode", OUT_OF_MEMORY), ("contact sheet", MemoryError())])
def test_memory_that_runs_out_gives_one_line_and_the_same_command_goes_on(
    stage, error, folder, tiny_sd, sample_words, tmp_path, capsys, monkeypatch, fail_in
):
    words = ["complete", str(folder), "--base", tiny_sd, "-o", str(tmp_path / "out"), *sample_words, "--quiet"]
    with monkeypatch.context() as patch:
        fail_in(patch, stage, error)
        assert main([*words, "--sample-batch-size", "1"]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: "))
    assert line.startswith("error: ") and "memory" in line
    with monkeypatch.context() as patch:
        if stage == "contact sheet":  # the samples are on disk
            fail_in(patch, "sample", AssertionError("sampled again"))
        assert main([*words, "--sample-batch-size", "1"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*_seed*.png"))
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_a_clock_that_runs_backwards_changes_nothing(folder, tiny_sd, sample_words, tmp_path, monkeypatch):
    words = ["complete", str(folder), "--base", tiny_sd, *sample_words, "--num-samples", "1", "--quiet"]
    assert main([*words, "-o", str(tmp_path / "one")]) == 0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: -real())
    assert main([*words, "-o", str(tmp_path / "other")]) == 0
    names = [p.name for p in (tmp_path / "one").glob("*.png")]
    pictures = [[read_image(tmp_path / out / name)[0] for name in names] for out in ("one", "other")]
    assert len(names) > 2
    assert all(np.array_equal(one, other) for one, other in zip(*pictures, strict=True))


def test_progress_does_not_stand_still_after_the_clock_was_set_back(capsys, monkeypatch):
    real = time.time
    with ProgressBar(total=3, desc="fit", unit="step") as bar:
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        bar.mininterval = 0
        bar.update(3)
        assert bar.format_dict["elapsed"] >= 0
    assert "3/3" in capsys.readouterr().err
