"""Nothing is left on the CPU when a job runs on another device; see ``foreign_device.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results():
    paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, TESTS / "compute" / "foreign_device.py"],
        capture_output=True, text=True, check=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["fit step", "sample", "klein fit step", "klein sample", "LoFTR features"])
def test_every_tensor_of_a_job_is_on_its_device(results, case):
    assert results[case] == ["foreign:0"]


@pytest.mark.parametrize("case", ["fit step", "sample", "klein fit step"])
def test_a_tensor_left_on_the_cpu_is_found(results, case):
    assert results[f"{case} with a tensor left on the CPU"].startswith("FakeTensorDeviceMismatchError")
