"""Pre-training: a base from photos, resumed to the same result."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_photo
from PIL import Image
from safetensors.torch import load_file

import realfill.pretraining
from realfill import SampleConfig, Scene, complete
from realfill.errors import BaseModelError, OutputError, SceneError
from realfill.io.images import read_image
from realfill.models.inpainter import Inpainter
from realfill.pretraining import PretrainConfig, _shrunk, load_photos, main, pretrain


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(make_photo(40, 48, i)).save(folder / f"photo{i}.png")
    for i in range(3):
        Image.fromarray(make_photo(40, 48, 20 + i)).save(folder / f"crops-of-one-{i}.png")
    return folder


@pytest.fixture
def config(photos, tmp_path):
    return PretrainConfig(
        photos=photos, output=tmp_path / "base", num_steps=4, batch_size=2, resolution=32, widths=(32, 32, 64),
        num_holdout=2, preview_every=2, num_patches=2000, mixed_precision="no", num_warmup_steps=1,
    )  # fmt: skip


def test_a_base_from_nothing_loads_and_completes(config, scene):
    pretrain(config, progress=False)
    sampling = SampleConfig(num_samples=1, num_inference_steps=2)
    completions = complete(Scene([], scene.target, scene.mask), str(config.output), sampling, progress=False)
    assert completions.best.image.shape == scene.target.shape
    assert Inpainter.load(str(config.output)).card.about["pretraining"]["samples"] == 8
    for name in ("previews.png", "losses.png"):
        assert read_image(config.output / name)[0].shape[1] > 32


def test_pieces_give_the_same_base_as_one_run(config, tmp_path):
    pretrain(config, progress=False)
    in_pieces = dataclasses.replace(config, output=tmp_path / "pieces", minutes=1e-9)
    pieces = 0
    while pieces < 4:
        pretrain(in_pieces, progress=False)
        pieces += 1
    name = "unet/diffusion_pytorch_model.safetensors"
    one, other = (load_file(c.output / name) for c in (config, in_pieces))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_goes_on_elsewhere_without_computing_its_autoencoder_anew(config, tmp_path, monkeypatch):
    first = pretrain(dataclasses.replace(config, num_steps=1), progress=False)
    whole = pretrain(dataclasses.replace(config, init=first, output=tmp_path / "whole"), progress=False)
    begun = dataclasses.replace(config, init=first, output=tmp_path / "begun", minutes=1e-9)
    pretrain(begun, progress=False)
    shutil.copytree(begun.output, tmp_path / "moved")
    shutil.copytree(config.photos, tmp_path / "same photos")
    monkeypatch.setattr(realfill.pretraining, "regress_decoder", None)
    elsewhere = dataclasses.replace(
        config, init=None, photos=tmp_path / "same photos", output=tmp_path / "moved", device="cpu", preview_every=3
    )
    pretrain(elsewhere, progress=False)
    for name in ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"):
        one, other = (load_file(folder / name) for folder in (whole, elsewhere.output))
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_what_fails_before_the_first_step_does_not_block_the_folder(config, monkeypatch):
    def fail(*_):
        raise ValueError("three processes can't share this batch")

    config.output.mkdir()
    monkeypatch.chdir(config.output)
    config = dataclasses.replace(config, output=Path())
    Path("start.partial").mkdir()
    Path("start.partial", "half.safetensors").touch()  # a run that was killed while it wrote what it begins with
    with monkeypatch.context() as patch:
        patch.setattr(realfill.pretraining, "Trainer", fail)
        with pytest.raises(ValueError, match="three processes"):
            pretrain(config, progress=False)
    assert Inpainter.load(str(pretrain(config, progress=False))).resolution == 32


def test_a_run_of_other_photos_or_another_recipe_is_not_gone_on_with(config):
    pretrain(dataclasses.replace(config, minutes=1e-9), progress=False)
    with pytest.raises(OutputError, match="another recipe"):
        pretrain(dataclasses.replace(config, learning_rate=1e-3), progress=False)
    Image.fromarray(make_photo(40, 48, 50)).save(config.photos / "one-more.png")
    with pytest.raises(OutputError, match="other photos"):
        pretrain(config, progress=False)


def test_another_base_can_be_started_from(config, tmp_path):
    first = pretrain(config, progress=False)
    assert "_name_or_path" not in (first / "unet" / "config.json").read_text()
    before = (first / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    second = pretrain(dataclasses.replace(config, init=first, output=tmp_path / "second"), progress=False)
    assert str(first) not in (second / "vae" / "config.json").read_text()
    assert (second / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == before


def test_a_base_to_start_from_can_be_trained_at_another_resolution(config, tmp_path):
    first = pretrain(dataclasses.replace(config, num_steps=1), progress=False)
    second = dataclasses.replace(config, init=first, output=tmp_path / "second", num_steps=1, resolution=64)
    assert Inpainter.load(str(pretrain(second, progress=False))).resolution == 64
    with pytest.raises(BaseModelError, match="has 8 pixels a side"):
        pretrain(dataclasses.replace(second, output=tmp_path / "third", patch_size=4), progress=False)


def test_large_photos_are_held_shrunk(photos):
    Image.fromarray(make_photo(900, 1200, 50)).save(photos / "large.png")
    config = PretrainConfig(photos=photos, output=photos, resolution=32)
    found, whole = load_photos(photos, 0, partial(_shrunk, config=config))[0], load_photos(photos, 0)[0]
    assert max(max(photo.shape) for photo in found) < 300 < max(max(photo.shape) for photo in whole)
    assert sum(np.array_equal(a, b) for a, b in zip(found, whole, strict=True)) == 9


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"preview_every": 0}, "preview_every is 0; legal: 1 or more"),
        ({"resolution": 100}, "resolution is 100; legal: a multiple of 32"),
        ({"min_crop_share": 0.0}, "min_crop_share is 0.0"),
        ({"num_holdout": -1}, "num_holdout is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_nonsense_is_refused_before_photos_are_read(option, words, capsys):
    with pytest.raises(ValueError, match=words):
        PretrainConfig(photos=Path("nowhere"), output=Path("out"), **option)
    name, value = next(iter(option.items()))
    with pytest.raises(SystemExit):
        main(["nowhere", "-o", "out", f"--{name.replace('_', '-')}", str(value)])
    assert words in " ".join(capsys.readouterr().err.split())


def test_photos_are_kept_out_whole(photos):
    everything = {p.tobytes() for p in load_photos(photos, 0)[0]}
    assert len(everything) == 9
    for num_holdout in range(1, 6):
        kept, held = load_photos(photos, num_holdout)
        assert len(held) == num_holdout
        crops = {read_image(photos / f"crops-of-one-{i}.png")[0].tobytes() for i in range(3)}
        assert len(crops & {k.tobytes() for k in kept}) in (0, 3)
        assert not {k.tobytes() for k in kept} & {h.tobytes() for h in held}


def test_too_few_photos_are_an_error(config):
    with pytest.raises(SceneError, match="more than 50"):
        pretrain(dataclasses.replace(config, num_holdout=50), progress=False)


def test_a_folder_with_something_else_in_it_is_left_alone(config):
    config.output.mkdir()
    (config.output / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="isn't empty"):
        pretrain(config, progress=False)


def test_the_command_line_says_where_the_base_is(photos, tmp_path, capsys):
    words = [str(photos), "-o", str(tmp_path / "cli"), "--num-steps", "1", "--batch-size", "1", "--resolution", "32",
             "--num-holdout", "1", "--num-patches", "2000",
             "--mixed-precision", "no", "--widths", "32", "32", "32"]  # fmt: skip
    assert main(words) == 0
    assert "base written to" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "x")]) == 1


def test_deeper_levels_of_a_base_to_start_from_stay_as_wide(config, tmp_path, capsys):
    first = pretrain(dataclasses.replace(config, num_steps=1), progress=False)
    with pytest.raises(BaseModelError, match=r"legal: \(48, 32, 64\)"):
        pretrain(
            dataclasses.replace(config, init=first, output=tmp_path / "second", widths=(48, 48, 64)), progress=False
        )
    arguments = [str(config.photos), "-o", str(tmp_path / "third"), "--init", str(first), "--num-holdout", "1"]
    assert main([*arguments, "--resolution", "32", "--widths", "40", "32", "64"]) == 1
    assert "multiple of 16" in capsys.readouterr().err
