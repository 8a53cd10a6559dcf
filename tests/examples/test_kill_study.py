"""Kills at planted moments: the same command resumes to the same bits, and nothing is half-written or left behind."""

import signal
import sys
from functools import partial

import numpy as np
import pytest
from forked import FileOperations, run_forked
from helpers import TINY_FIT, make_photo
from kill_study import Reference, kill
from small_jobs import Job, find_differences, find_faults, find_leftovers

from realfill import Scene

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


@pytest.fixture(scope="module")
def references(tiny_sd, tmp_path_factory):
    """A completion and a fit of the tiny base model, and the folder of their uninterrupted results."""
    folder = tmp_path_factory.mktemp("kills")
    mask = np.zeros((64, 80), bool)
    mask[20:40, 24:56] = True
    Scene([make_photo(64, 64, 2)], make_photo(64, 80, 0), mask).save(folder / "scene")
    base = ("--base", tiny_sd, "--device", "cpu", "--geometry", "False", "--quiet")
    sampling = ("--num-samples", "2", "--num-inference-steps", "2", "--sample-batch-size", "1", "--matcher", "sift")
    recipe = [word for name, value in TINY_FIT.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    jobs = (
        Job(name="complete", words=("complete", str(folder / "scene"), "-o", "OUT", *base, *sampling)),
        Job(name="fit", words=("fit", str(folder / "scene"), "-o", "OUT", *base, *recipe, "--checkpoint-every", "1")),
    )
    found = {}
    for job in jobs:
        place, operations = folder / job.name / "reference", FileOperations(folder=folder)
        place.mkdir(parents=True)
        note = partial(_write_count, operations, folder / "count")
        ending = run_forked(job.command(place), folder / "log", prepare=operations.install, finish=note)
        assert ending.status == 0, ending.log
        count = int((folder / "count").read_text())
        found[job.name] = Reference(job=job, folder=place, time_s=ending.time_s, operations=count)
    return found


def _write_count(operations, path):
    path.write_text(str(operations.count))


@pytest.mark.parametrize(
    ("name", "share", "number"),
    [("complete", 0.5, signal.SIGKILL), ("complete", 0.8, signal.SIGTERM), ("fit", 0.5, signal.SIGKILL)],
)
def test_a_killed_command_resumes_to_the_same_bits(name, share, number, references, tmp_path):
    reference = references[name]
    struck = kill(
        reference, tmp_path, tmp_path.parent / "log", number, "file operation", int(share * reference.operations)
    )
    assert struck.struck and struck.problems == []
    ending = run_forked(reference.job.command(tmp_path), tmp_path.parent / "log")
    assert ending.status == 0, ending.log
    assert find_differences(reference.folder / "out", tmp_path / "out") == []
    assert find_leftovers(reference.job, tmp_path) == []


def test_the_study_finds_what_is_wrong(references, tmp_path):
    """A study that could not fail would show nothing."""
    reference = references["complete"]
    copy = tmp_path / "out"
    copy.mkdir()
    for path in (reference.folder / "out").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert find_differences(reference.folder / "out", copy) == []
    pictures = sorted(copy.glob("*_seed*.png"))
    pictures[0].write_bytes(pictures[1].read_bytes())
    assert find_differences(reference.folder / "out", copy) == [f"out/{pictures[0].name} differs"]
    pictures[0].write_bytes(pictures[0].read_bytes()[:200])
    assert "is not whole" in find_faults(copy)[0]
    (copy / "a.partial").touch()
    pictures[1].unlink()
    assert find_leftovers(reference.job, tmp_path) == ["out/a.partial is left"]
    assert f"out/{pictures[1].name} is missing" in find_differences(reference.folder / "out", copy)
    (copy / "scores.json").write_text("{")
    assert any(fault.startswith("scores.json is not whole") for fault in find_faults(copy))
