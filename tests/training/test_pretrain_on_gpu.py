"""The script that pre-trains on a GPU, on a CPU: what it draws, and that it trains and adds up runs."""

import sys
from pathlib import Path

import add_training
import numpy as np
import pretrain_on_gpu
import pytest
import torch
from helpers import make_photo
from pretrain_on_gpu import Draws, PhotoStack, draw_masks, plant_hints
from safetensors.torch import load_file

from realfill.io.writing import write_png
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.pretrain_config import PretrainConfig

CPU = torch.device("cpu")
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def draws():
    return Draws(torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def crops():
    photos = [make_photo(150, 200, seed) for seed in range(6)]
    return PhotoStack(photos, CPU).draw(48, 64, Draws(torch.Generator().manual_seed(0)))


def test_crops_have_the_photos_own_pixels_where_they_are_neither_moved_nor_scaled(draws):
    photo = make_photo(64, 64)
    (crop,) = PhotoStack([photo], CPU).draw(1, 64, draws)
    whole = torch.from_numpy(photo).permute(2, 0, 1) / 255
    difference = min((crop - each).abs().mean() for each in (whole, whole.flip(2)))
    assert difference < 0.02  # four samples a pixel blur it a little


def test_crops_lie_within_the_photo_and_differ(draws):
    photo = np.zeros((90, 160, 3), np.uint8)
    photo[..., 0], photo[..., 1] = 50 + np.arange(90)[:, None], 50 + np.arange(160)
    crops = PhotoStack([photo], CPU).draw(40, 32, draws)
    assert crops.amin() >= 0 and (crops[:, :2].amin() * 255) >= 49, "no crop shows the canvas beside the photo"
    assert len(np.unique(crops[:, 0, 0, 0].numpy().round(3))) > 20
    mirrored = crops[:, 1, 0, 0] > crops[:, 1, 0, -1]
    assert 8 < mirrored.sum() < 32


def test_masks_have_the_shares_of_the_recipe(draws):
    settings = PretrainConfig(photos=Path(), output=Path()).fit_settings()
    hidden = draw_masks(400, 32, settings, draws)
    assert hidden.shape == (400, 1, 32, 32) and hidden.dtype == torch.bool
    assert 0.35 < hidden.float().mean() < 0.7
    everything = hidden.flatten(1).all(dim=1).float().mean()
    assert abs(everything - settings.mask_dropout) < 0.04
    corner = hidden[:, 0, 0, 0].float().mean()
    assert 0.4 < corner < 0.75, "about half of the masks are complements, which hide most corners"


def test_the_confidence_of_hints_stands_for_their_error(crops, draws):
    hints, confidence = plant_hints(crops, 1.0, draws)
    error = (hints - crops).abs().mean(dim=1, keepdim=True) * 255
    for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.35)):
        band = (confidence >= low) & (confidence < high)
        expected = -15 * confidence[band].log().mean()
        assert 0.6 * expected < error[band].mean() < 1.5 * expected
    assert error[confidence == 1].mean() < error[(confidence < 1) & (confidence > 0)].mean()
    assert not ((confidence > 0) & (confidence < 0.0099)).any() and not ((confidence > 0.3501) & (confidence < 1)).any()


def test_a_share_of_the_crops_has_hints(crops, draws):
    assert not plant_hints(crops, 0.0, draws)[1].any()
    planted = plant_hints(crops, 0.5, draws)[1].flatten(1).any(dim=1)
    assert 10 < planted.sum() < 38


def test_runs_are_trained_and_added(tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(2):
        write_png(photos / f"{seed}.png", make_photo(140, 150, seed))
    held = tmp_path / "holdout.txt"
    held.write_text("# names\n1.jpg\n")
    monkeypatch.setattr(pretrain_on_gpu, "HOLDOUT", held)

    def train(name, *more):
        words = [str(photos), "-o", str(tmp_path / name), "--init", str(MINI_DIRECTORY), "--batch-size", "2"]
        monkeypatch.setattr(sys, "argv", ["x", *words, "--device", "cpu", *more])
        pretrain_on_gpu.main()

    train("one", "--seconds", "0.1")
    train("two", "--seconds", "0.1", "--hint-share", "1", "--fill", "completion")
    printed = capsys.readouterr().out
    assert "1 photos, 1 kept out" in printed and "with hints" in printed
    train("three", "--seconds", "0")
    assert not (tmp_path / "three").exists()

    add_training.main(MINI_DIRECTORY, (tmp_path / "one", tmp_path / "two"), output=tmp_path / "sum")
    folders = (MINI_DIRECTORY, *(tmp_path / name for name in ("one", "two", "sum")))
    start, one, two, added = (load_file(folder / UNET) for folder in folders)
    name = max(start, key=lambda n: (one[n].float() - start[n].float()).abs().mean())
    assert not torch.equal(one[name], start[name]) and not torch.equal(two[name], start[name])
    expected = one[name].float() + two[name].float() - start[name].float()
    assert (added[name].float() - expected).abs().max() < 2e-3 * expected.abs().max()
    assert StableDiffusionInpainter.load(str(tmp_path / "sum")).reads_hints
