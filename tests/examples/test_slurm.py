"""The example for Slurm: each task of an array completes one scene."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm" / "many_scenes.sbatch"


@pytest.fixture
def scenes(tmp_path):
    for name in ("beach day", "castle", "zoo"):
        (tmp_path / "scenes" / name / "target").mkdir(parents=True)
    (tmp_path / "scenes" / "notes.txt").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "realfill").write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    (tmp_path / "bin" / "realfill").chmod(0o755)
    return tmp_path


def start(folder, index, *words):
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"} | index
    return subprocess.run(
        ["bash", SCRIPT, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip


def test_the_script_is_valid():
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_each_index_stands_for_one_scene(scenes):
    done = [start(scenes, {"SLURM_ARRAY_TASK_ID": str(i)}, "scenes", "out", "--base", "sd2") for i in range(4)]
    assert [d.returncode for d in done] == [0] * 4
    commands = [d.stdout.splitlines() for d in done]
    assert commands[0] == ["run", "scenes/beach day", "-o", "out/beach day", "--base", "sd2"]
    assert [c[1] for c in commands[:3]] == ["scenes/beach day", "scenes/castle", "scenes/zoo"]
    assert commands[3] == ["scenes has 3 scenes, so task 3 has nothing to do"]


def test_a_missing_index_or_argument_is_an_error(scenes):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    missing = subprocess.run(
        ["bash", SCRIPT, "scenes", "out"], check=False, cwd=scenes, env=environment, capture_output=True, text=True
    )
    assert missing.returncode != 0 and "start this script with sbatch --array" in missing.stderr
    assert start(scenes, {"SLURM_ARRAY_TASK_ID": "0"}, "scenes").returncode == 2
