"""Pre-training: a base model from photos, resumed to the same result."""

import dataclasses
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers import make_photo
from PIL import Image
from safetensors.torch import load_file

import realfill.training.pretraining
from realfill import SampleConfig, Scene, complete
from realfill.errors import BaseModelError, OutputError, RealFillWarning, SceneError
from realfill.io.images import read_image
from realfill.models.diffusion.linear_attention import LinearAttentionUNet
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.pretraining import PretrainConfig, _shrink, load_photos, pretrain

UNET, VAE = ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors")


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


def test_a_base_model_from_scratch_loads_and_completes(config, scene):
    pretrain(config, progress=False)
    sampling = SampleConfig(num_samples=1, num_inference_steps=2)
    completions = complete(Scene([], scene.target, scene.mask), str(config.output), sampling, progress=False)
    assert completions.best.image.shape == scene.target.shape
    assert StableDiffusionInpainter.load(str(config.output)).card.about["pretraining"]["samples"] == 8
    for name in ("previews.png", "losses.png"):
        assert read_image(config.output / name)[0].shape[1] > 32


def test_an_interrupted_run_gives_the_same_base_model(config, tmp_path):
    pretrain(config, progress=False)
    interrupted = dataclasses.replace(config, output=tmp_path / "interrupted", minutes=1e-9)
    for _ in range(4 + 1):  # a step each, and one that finds nothing left to do
        pretrain(interrupted, progress=False)
    one, other = (load_file(c.output / UNET) for c in (config, interrupted))
    assert all(torch.equal(one[k], other[k]) for k in one)
    texts = [{p.relative_to(c.output): p.read_text() for p in c.output.rglob("*.json")} for c in (config, interrupted)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("vanishing", ["start", "trained base"])
def test_a_folder_that_vanishes_while_a_base_model_is_written_is_named_and_not_in_the_way(
    vanishing, config, monkeypatch
):
    config = dataclasses.replace(config, num_steps=1, num_holdout=0, num_decoder_crops=20)
    calls, save = [], UNet2DConditionModel.save_pretrained

    def save_and_vanish(*arguments, **options):
        save(*arguments, **options)
        calls.append(1)
        if len(calls) == ("start", "trained base").index(vanishing) + 1:
            shutil.rmtree(config.output)

    monkeypatch.setattr(UNet2DConditionModel, "save_pretrained", save_and_vanish)
    with pytest.raises(OutputError, match=r" vanished while .*give the command again"):
        pretrain(config, progress=False)
    assert list(config.output.iterdir()) == []
    assert StableDiffusionInpainter.load(str(pretrain(config, progress=False))).resolution == 32


def test_a_folder_that_vanishes_during_training_is_made_again_and_the_run_resumes_to_the_same_base_model(
    config, tmp_path
):
    config = dataclasses.replace(config, num_holdout=0, num_decoder_crops=20)
    whole = pretrain(config, progress=False)
    other = dataclasses.replace(config, output=tmp_path / "other")
    pretrain(other, on_step=lambda report: shutil.rmtree(other.output) or report.step < 2, progress=False)
    assert not (other.output / "start").exists()
    with pytest.raises(OutputError, match="another recipe"):
        pretrain(dataclasses.replace(other, learning_rate=1e-3), progress=False)
    assert not (other.output / "start").exists()
    pretrain(other, progress=False)
    for name in (UNET, VAE):
        assert (whole / name).read_bytes() == (other.output / name).read_bytes()


def test_on_step_gets_reports_and_can_stop_the_run(config):
    reports = []
    pretrain(config, on_step=lambda report: reports.append(report) or report.step < 3, progress=False)
    assert [(report.phase, report.step, report.num_steps) for report in reports] == [("fit", n, 4) for n in (1, 2, 3)]
    assert StableDiffusionInpainter.load(str(config.output)).card.about["pretraining"]["steps"] == 3


def test_a_run_resumes_elsewhere_without_computing_its_autoencoder_again(config, tmp_path, monkeypatch):
    first = pretrain(dataclasses.replace(config, num_steps=1), progress=False)
    whole = pretrain(dataclasses.replace(config, init=first, output=tmp_path / "whole"), progress=False)
    started = dataclasses.replace(config, init=first, output=tmp_path / "started", minutes=1e-9)
    pretrain(started, progress=False)
    shutil.copytree(started.output, tmp_path / "moved")
    shutil.copytree(config.photos, tmp_path / "same photos")
    monkeypatch.setattr(realfill.training.pretraining, "regress_decoder", None)
    elsewhere = dataclasses.replace(
        config, init=None, photos=tmp_path / "same photos", output=tmp_path / "moved", device="cpu", preview_every=3
    )
    pretrain(elsewhere, progress=False)
    for name in (UNET, VAE):
        one, other = (load_file(folder / name) for folder in (whole, elsewhere.output))
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_failure_before_the_first_step_does_not_block_the_folder(config, monkeypatch):
    def fail(*_):
        raise ValueError("three processes cannot share this batch")

    config.output.mkdir()
    monkeypatch.chdir(config.output)
    config = dataclasses.replace(config, output=Path())
    with monkeypatch.context() as patch:
        patch.setattr(realfill.training.pretraining, "Trainer", fail)
        with pytest.raises(ValueError, match="three processes"):
            pretrain(config, progress=False)
    assert StableDiffusionInpainter.load(str(pretrain(config, progress=False))).resolution == 32


def test_a_run_with_other_photos_or_another_recipe_is_not_resumed(config):
    pretrain(dataclasses.replace(config, minutes=1e-9), progress=False)
    with pytest.raises(OutputError, match="another recipe"):
        pretrain(dataclasses.replace(config, learning_rate=1e-3), progress=False)
    Image.fromarray(make_photo(40, 48, 50)).save(config.photos / "one-more.png")
    with pytest.raises(OutputError, match="other photos"):
        pretrain(config, progress=False)


def test_a_run_can_start_from_another_base_model(config, tmp_path):
    first = pretrain(config, progress=False)
    assert "_name_or_path" not in (first / "unet" / "config.json").read_text()
    before = (first / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    second = pretrain(dataclasses.replace(config, init=first, output=tmp_path / "second"), progress=False)
    assert str(first) not in (second / "vae" / "config.json").read_text()
    assert (second / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == before


def test_a_run_can_change_the_resolution_of_its_first_base_model_but_not_the_patch_size(config, tmp_path):
    first = pretrain(dataclasses.replace(config, num_steps=1), progress=False)
    second = dataclasses.replace(config, init=first, output=tmp_path / "second", num_steps=1, resolution=64)
    assert StableDiffusionInpainter.load(str(pretrain(second, progress=False))).resolution == 64
    with pytest.raises(BaseModelError, match=r"patch_size is 4, but .* cannot change; legal: 8"):
        pretrain(dataclasses.replace(second, output=tmp_path / "third", patch_size=4), progress=False)


def test_a_base_with_linear_attention_starts_only_others_with_it(config, tmp_path):
    linear = dataclasses.replace(config, attention="linear", num_steps=1)
    first = pretrain(linear, progress=False)
    assert isinstance(StableDiffusionInpainter.load(str(first)).unet, LinearAttentionUNet)
    second = dataclasses.replace(linear, init=first, output=tmp_path / "second", attention="softmax")
    with pytest.raises(BaseModelError, match=r"attention is 'softmax'.*legal: 'linear'"):
        pretrain(second, progress=False)


def test_large_photos_are_shrunk_when_they_are_read(photos):
    Image.fromarray(make_photo(900, 1200, 50)).save(photos / "large.png")
    config = PretrainConfig(photos=photos, output=photos, resolution=32)
    shrunk, whole = (load_photos(photos, 0, shrink=s)[0] for s in (partial(_shrink, config=config), None))
    assert max(max(photo.shape) for photo in shrunk) < 300 < max(max(photo.shape) for photo in whole)
    assert sum(np.array_equal(a, b) for a, b in zip(shrunk, whole, strict=True)) == 9


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
def test_illegal_values_are_refused_before_photos_are_read(option, words):
    with pytest.raises(ValueError, match=words):
        PretrainConfig(photos=Path("nowhere"), output=Path("out"), **option)


def test_all_crops_of_a_photo_are_kept_out_together(photos):
    everything = {p.tobytes() for p in load_photos(photos, 0)[0]}
    assert len(everything) == 9
    for num_holdout in range(1, 6):
        kept, held = load_photos(photos, num_holdout)
        assert len(held) == num_holdout
        crops = {read_image(photos / f"crops-of-one-{i}.png")[0].tobytes() for i in range(3)}
        assert len(crops & {k.tobytes() for k in kept}) in (0, 3)
        assert not {k.tobytes() for k in kept} & {h.tobytes() for h in held}


def test_photos_named_in_a_file_are_kept_out(photos, tmp_path):
    holdout = tmp_path / "holdout.txt"
    holdout.write_text("photo3.png\n\ncrops-of-one-1.png\n photo0.png \ncrops-of-one-2.png\n")
    kept, held = load_photos(photos, 2, holdout)
    names = ("photo3.png", "crops-of-one-0.png", "photo0.png")
    assert [photo.tobytes() for photo in held] == [read_image(photos / name)[0].tobytes() for name in names]
    names = [f"photo{i}.png" for i in (1, 2, 4, 5)]
    assert [photo.tobytes() for photo in kept] == [read_image(photos / name)[0].tobytes() for name in names]


def test_a_run_resumes_with_the_same_photos_wherever_the_holdout_file_lies(config, photos, tmp_path):
    lists = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"]
    for path, names in zip(lists, ("photo1.png\nphoto2.png", "photo2.png\nphoto1.png\n", "photo1.png"), strict=True):
        path.write_text(names)
    runs = [dataclasses.replace(config, holdout=path, num_holdout=n) for n, path in enumerate(lists)]
    pretrain(dataclasses.replace(runs[0], minutes=1e-9), progress=False)
    pretrain(dataclasses.replace(runs[1], minutes=1e-9), progress=False)
    assert StableDiffusionInpainter.load(str(config.output)).card.about["pretraining"]["steps"] == 2
    with pytest.raises(OutputError, match="other photos"):
        pretrain(runs[2], progress=False)


def test_a_run_with_photos_chosen_by_number_resumes_with_their_names(config, photos, tmp_path):
    pretrain(dataclasses.replace(config, minutes=1e-9), progress=False)
    held = {photo.tobytes() for photo in load_photos(photos, config.num_holdout)[1]}
    names = [path.name for path in photos.iterdir() if read_image(path)[0].tobytes() in held]
    (tmp_path / "names.txt").write_text("\n".join(names))
    pretrain(dataclasses.replace(config, holdout=tmp_path / "names.txt", num_holdout=7), progress=False)
    assert StableDiffusionInpainter.load(str(config.output)).card.about["pretraining"]["steps"] == 4


def test_a_holdout_file_that_is_missing_or_names_other_photos_is_an_error(photos, tmp_path):
    with pytest.raises(SceneError, match=r"nowhere.txt', which cannot be read"):
        load_photos(photos, 0, tmp_path / "nowhere.txt")
    (tmp_path / "names.txt").write_text("photo1.png\nphoto9.png\n" + "".join(f"x{i}.png\n" for i in range(4)))
    with pytest.raises(SceneError, match=r"'photo9.png', 'x0.png', 'x1.png' and 2 more; legal: their file names"):
        load_photos(photos, 0, tmp_path / "names.txt")


def test_keeping_out_all_photos_is_an_error(config, photos, tmp_path):
    with pytest.raises(SceneError, match="holds 7 photos, of which 50 are kept out"):
        pretrain(dataclasses.replace(config, num_holdout=50), progress=False)
    (tmp_path / "names.txt").write_text("\n".join(path.name for path in photos.iterdir()))
    with pytest.raises(SceneError, match="holds 7 photos, of which 7 are kept out"):
        load_photos(photos, 0, tmp_path / "names.txt")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_all_files_have_the_permissions_that_the_user_has_chosen(config):
    before = os.umask(0o027)
    try:
        pretrain(dataclasses.replace(config, num_steps=1), progress=False)
    finally:
        os.umask(before)
    files = [path for path in config.output.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_a_folder_with_other_files_is_left_alone(config):
    config.output.mkdir()
    (config.output / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not empty"):
        pretrain(config, progress=False)


def test_only_the_first_level_of_a_base_model_can_be_widened(config, tmp_path):
    first = pretrain(dataclasses.replace(config, num_steps=1), progress=False)
    with pytest.raises(BaseModelError, match=r"only the first level of .* can change; legal: \(48, 32, 64\)"):
        pretrain(
            dataclasses.replace(config, init=first, output=tmp_path / "second", widths=(48, 48, 64)), progress=False
        )
    with pytest.raises(ValueError, match="multiple of 16"):
        pretrain(
            dataclasses.replace(config, init=first, output=tmp_path / "third", widths=(40, 32, 64)), progress=False
        )


def test_photos_are_found_by_content_and_other_files_are_named(tmp_path):
    for i, (name, kind) in enumerate([("a.jfif", "JPEG"), ("b.ppm", "PPM"), ("c", "PNG")]):
        Image.fromarray(make_photo(40, 48, i)).save(tmp_path / name, kind)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / ".DS_Store").touch()
    with pytest.warns(RealFillWarning, match=r"left out: notes.txt \(no image in a known format\)\. Save"):
        photos, _ = load_photos(tmp_path, 0)
    assert len(photos) == 3
