"""Several processes fit together."""

import subprocess
import sys

import pytest
import torch
from conftest import TINY_FIT

from realfill import Adapter, FitConfig, Scene, fit

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "realfill.cli")


@pytest.mark.parametrize("changes", [{"gradient_accumulation_steps": 2}, {"bank_size": 8, "bank_uses": 1}])
def test_two_processes_fit_as_one_and_one_of_them_writes(scene, tiny_sd, tmp_path, changes):
    config = {**TINY_FIT, "batch_size": 4, "num_steps": 4, "learning_rate": 1e-3, **changes}
    scene.save(tmp_path / "scene")
    alone = fit(Scene.load(tmp_path / "scene"), FitConfig(base=tiny_sd, **config), device="cpu", progress=False)
    words = [word for k, v in config.items() for word in (f"--{k.replace('_', '-')}", str(v))]
    words = [
        "fit",
        str(tmp_path / "scene"),
        "-o",
        str(tmp_path / "adapter"),
        "--base",
        tiny_sd,
        "--device",
        "cpu",
        *words,
    ]
    done = subprocess.run([sys.executable, *LAUNCH, *words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    together = Adapter.load(tmp_path / "adapter")
    assert together.losses == pytest.approx(alone.losses, rel=1e-4)
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(together.tensors[name].float(), tensor.float(), atol=2e-4, rtol=1e-2)
