"""Several processes train together."""

import subprocess
import sys

import pytest
import torch
from helpers import TINY_FIT, make_photo
from PIL import Image
from safetensors.torch import load_file

from realfill import Adapter, FitConfig, Scene, fit
from realfill.app.cli import main

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
UNET = "unet/diffusion_pytorch_model.safetensors"


def launch(*words: str) -> None:
    """Run a program in two processes, one of which reports the written files."""
    process = subprocess.run(
        [sys.executable, *LAUNCH, *words], capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("written to") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 2},
        {"latent_cache_size": 8, "latent_cache_uses": 1},
        {"trainable": "all", "ema_decay": 0.9, "lora_rank": 4},
        {"time_budget_s": 3600.0, "lr_scheduler": "linear"},
    ],
)
def test_two_processes_fit_like_one_and_one_of_them_writes(scene, tiny_sd, tmp_path, changes):
    config = {**TINY_FIT, "batch_size": 4, "num_steps": 4, "learning_rate": 1e-3, **changes}
    scene.save(tmp_path / "scene")
    alone = fit(Scene.load(tmp_path / "scene"), FitConfig(base=tiny_sd, **config), device="cpu", progress=False)
    words = [word for k, v in config.items() for word in (f"--{k.replace('_', '-')}", str(v))]
    paths = (str(tmp_path / "scene"), "-o", str(tmp_path / "adapter"))
    launch("-m", "realfill.app.cli", "fit", *paths, "--base", tiny_sd, "--device", "cpu", *words)
    together = Adapter.load(tmp_path / "adapter")
    assert together.losses == pytest.approx(alone.losses, rel=1e-4)
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(together.tensors[name].float(), tensor.float(), atol=2e-4, rtol=1e-2)


PRETRAIN = """
import os, sys
from pathlib import Path
from realfill.training.pretraining import PretrainConfig, pretrain
config = PretrainConfig(
    photos=Path(sys.argv[1]), output=Path(sys.argv[2]), num_steps=3, batch_size=2, resolution=32, widths=(32, 32, 64),
    num_holdout=1, num_patches=1000, mixed_precision="no", device="cpu",
)
folder = pretrain(config, progress=False)
if os.environ.get("RANK", "0") == "0":
    print("written to", folder)
"""


def test_two_processes_pretrain_like_one(tmp_path):
    photos, script = tmp_path / "photos", tmp_path / "script.py"
    photos.mkdir()
    for i in range(4):
        Image.fromarray(make_photo(40, 48, i)).save(photos / f"photo{i}.png")
    script.write_text(PRETRAIN)
    subprocess.run([sys.executable, str(script), str(photos), str(tmp_path / "alone")], check=True, timeout=300)
    launch(str(script), str(photos), str(tmp_path / "together"))
    one, other = (load_file(tmp_path / name / UNET) for name in ("alone", "together"))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name].float(), tensor.float(), atol=2e-3, rtol=1e-2)


def test_two_processes_adapt_and_one_of_them_writes(tiny_sd, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.fromarray(make_photo(64, 64, i)).save(tmp_path / "photos" / f"photo{i}.png")
    words = ("adapt", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--base", tiny_sd, "--device", "cpu")
    words += ("--num-epochs", "1", "--masks-per-photo", "1", "--batch-size", "2", "--mixed-precision", "no")
    launch("-m", "realfill.app.cli", *words, "--num-compared", "0")
    assert len(Adapter.load(tmp_path / "out").losses) == 1
    monkeypatch.setenv("RANK", "1")  # a helper of a run that is only to be compared yet, or is done
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert main(list(words)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


STOPPED_BY_ONE = """
import os, sys
from realfill import FitConfig, Scene, fit
second = os.environ["RANK"] == "1"
config = FitConfig(base=sys.argv[2], num_steps=4, batch_size=2, num_warmup_steps=0)
on_step = lambda report: not (second and report.phase == "fit" and report.step == 2)
adapter = fit(Scene.load(sys.argv[1]), config, device="cpu", on_step=on_step, progress=False)
if not second:
    print(len(adapter.losses), "losses written to", sys.argv[3])
    adapter.save(sys.argv[3])
"""


def test_a_fit_that_one_process_ends_ends_in_all(scene, tiny_sd, tmp_path):
    scene.save(tmp_path / "scene")
    (tmp_path / "script.py").write_text(STOPPED_BY_ONE)
    launch(str(tmp_path / "script.py"), str(tmp_path / "scene"), tiny_sd, str(tmp_path / "adapter"))
    assert len(Adapter.load(tmp_path / "adapter").losses) == 2


STOPPED_BEFORE_ITS_FIRST_STEP = """
import os, sys
from realfill import FitConfig, Scene, fit
from realfill.errors import StoppedError
config = FitConfig(base=sys.argv[2], num_steps=4, batch_size=2, num_warmup_steps=0)
first = os.environ["RANK"] == "0"
on_step = lambda report: first or report.phase != "composite"
try:
    fit(Scene.load(sys.argv[1]), config, device="cpu", on_step=on_step, progress=False)
except StoppedError:
    if first:
        print("nothing is written to", sys.argv[3])
"""


def test_a_fit_that_one_process_ends_before_its_first_step_ends_in_all(scene, tiny_sd, tmp_path):
    scene.save(tmp_path / "scene")
    (tmp_path / "script.py").write_text(STOPPED_BEFORE_ITS_FIRST_STEP)
    launch(str(tmp_path / "script.py"), str(tmp_path / "scene"), tiny_sd, str(tmp_path / "adapter"))
