"""Planted hints: their confidence stands for their error, and a fit whose base model reads hints shows them."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_photo

from realfill import FitConfig
from realfill.errors import BaseModelError
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.crops import TrainingImage, draw_crops
from realfill.training.objective import encode_crops
from realfill.training.planted_hints import CERTAIN, Draws, hinted, plant_hints
from realfill.training.pretrain_config import PretrainConfig
from realfill.training.pretraining import build_start

PAPER = FitConfig().resolve({})


@pytest.fixture
def draws():
    return Draws(torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def images():
    rows = [make_photo(200, 200, seed)[:64, :64] for seed in range(48)]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def crops():
    known = np.zeros((64, 96), bool)
    known[:, :80] = True
    photo = TrainingImage(image=np.where(known[..., None], make_photo(64, 96), np.uint8(0)), known=known,
                          crop_sides_px=(60, 64))  # fmt: skip
    return draw_crops([photo], PAPER, 64, 24, np.random.default_rng(0))


@pytest.fixture(scope="module")
def reads_hints():
    inpainter = StableDiffusionInpainter.load(str(MINI_DIRECTORY))
    inpainter.card = dataclasses.replace(inpainter.card, reads_hints=True)
    return inpainter


def test_the_confidence_of_hints_stands_for_their_error(images, draws):
    hints, confidence = plant_hints(images, 1.0, draws)
    error = (hints - images).abs().mean(dim=1, keepdim=True) * 255
    for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.35)):
        band = (confidence >= low) & (confidence < high)
        expected = -15 * confidence[band].log().mean()
        assert 0.6 * expected < error[band].mean() < 1.5 * expected
    assert error[confidence == 1].mean() < error[(confidence < 1) & (confidence > 0)].mean()
    assert not ((confidence > 0) & (confidence < 0.0099)).any() and not ((confidence > 0.3501) & (confidence < 1)).any()


def test_a_share_of_the_images_has_hints(images, draws):
    assert not plant_hints(images, 0.0, draws)[1].any()
    planted = plant_hints(images, 0.5, draws)[1].flatten(1).any(dim=1)
    assert 10 < planted.sum() < 38


def test_crops_get_hints_among_their_hidden_known_pixels_only(crops):
    found = hinted(crops, 0.5, np.random.default_rng(3))
    confidence = found.hints[..., 3]
    assert not confidence[~crops.hidden | ~crops.known].any()
    with_hints = confidence.any(axis=(1, 2))
    assert 4 < with_hints.sum() < 20
    assert (confidence == CERTAIN).any() and ((confidence > 0) & (confidence < CERTAIN)).any()
    error = np.abs(found.hints[..., :3].astype(int) - crops.images).mean(axis=3)
    assert error[confidence == CERTAIN].mean() < 15, "a hint shows what is there, nearly"
    assert np.array_equal(found.images, crops.images) and np.array_equal(found.hidden, crops.hidden)
    again = hinted(crops, 0.5, np.random.default_rng(3))
    assert np.array_equal(again.hints, found.hints)
    assert not np.array_equal(hinted(crops, 0.5, np.random.default_rng(4)).hints, found.hints)


def test_unknown_pixels_are_not_dragged_into_hints():
    known = np.zeros((96, 96), bool)
    known[:, :60] = True
    photo = TrainingImage(image=np.where(known[..., None], np.uint8(200), np.uint8(0)).repeat(3, axis=2), known=known,
                          crop_sides_px=(90, 96))  # fmt: skip
    found = hinted(draw_crops([photo], PAPER, 64, 32, np.random.default_rng(0)), 1.0, np.random.default_rng(0))
    shown = found.hints[found.hints[..., 3] > 0][:, :3]
    assert len(shown) > 1000 and shown.min() > 120, "only the colours of a hint differ from those of the crop"


def test_a_share_of_0_draws_nothing(crops):
    rng = np.random.default_rng(3)
    assert hinted(crops, 0.0, rng) is crops
    assert rng.integers(100) == np.random.default_rng(3).integers(100)


def test_the_model_sees_hints_in_place_of_the_hole_and_how_doubtful_they_are(reads_hints):
    photo = TrainingImage(image=make_photo(128, 128), crop_sides_px=(128, 128))
    crops = draw_crops([photo], PAPER, 128, 2, np.random.default_rng(0))
    crops.hidden[:] = False
    crops.hidden[:, 32:96, 32:96] = True
    hints = np.zeros((2, 128, 128, 4), np.uint8)
    hints[0, 32:64, 32:96] = (10, 200, 30, CERTAIN)
    hints[0, 64:80, 32:96] = (10, 200, 30, 51)
    plain = encode_crops(reads_hints, crops, 0.1, 2)
    shown = encode_crops(reads_hints, dataclasses.replace(crops, hints=hints), 0.1, 2)
    channel = shown.mask_latents[0, 0]
    assert channel[5, 5] == 0 and channel[9, 5] == pytest.approx(0.8) and channel[11, 5] == 1 and channel[0, 0] == 0
    image = torch.from_numpy(np.where(hints[..., 3:] > 0, hints[..., :3], crops.images)).permute(0, 3, 1, 2) / 255
    seen = reads_hints.encode(image)[0]
    assert torch.allclose(shown.mask_latents[0, 1:, 4:10, 4:12], seen[0, :, 4:10, 4:12], atol=1e-5)
    assert torch.equal(shown.mask_latents[1], plain.mask_latents[1])
    for name in ("mean", "std", "weights"):
        assert torch.equal(getattr(shown, name), getattr(plain, name)), "hints change what is seen, not what is learnt"


def test_a_base_that_does_not_read_hints_sees_none(tiny_sd, crops):
    inpainter = StableDiffusionInpainter.load(tiny_sd)
    planted = hinted(crops, 1.0, np.random.default_rng(0))
    torch.testing.assert_close(encode_crops(inpainter, planted, 0.1, 24).mask_latents,
                               encode_crops(inpainter, crops, 0.1, 24).mask_latents)  # fmt: skip


@pytest.mark.parametrize("latent_cache_size", [0, 4])
def test_a_fit_draws_hints_only_for_a_base_that_reads_them(make_trainer, latent_cache_size):
    def mask_latents(share, *, reads):
        trainer = make_trainer(hint_share=share, latent_cache_size=latent_cache_size)
        card = trainer.inpainter.card
        trainer.inpainter.card = dataclasses.replace(card, reads_hints=reads, masked_image="smooth")
        return trainer.next_batch([TrainingImage(image=make_photo(64, 64), crop_sides_px=(60, 64))])[0].mask_latents

    unhinted = mask_latents(0.0, reads=True)
    assert torch.equal(mask_latents(1.0, reads=False), unhinted)
    assert not torch.equal(mask_latents(1.0, reads=True), unhinted)


def test_the_paper_shows_no_hints_and_shares_are_checked():
    assert PAPER.hint_share == 0
    with pytest.raises(ValueError, match="hint_share"):
        FitConfig(hint_share=1.5)


def test_a_base_that_was_trained_with_hints_says_so_and_its_fits_go_on_with_them(tmp_path):
    config = PretrainConfig(photos=Path(), output=tmp_path / "base", hint_share=0.5, init=MINI_DIRECTORY)
    base = build_start(config, [make_photo(150, 160)])
    assert base.reads_hints and FitConfig().resolve(base.card.fit).hint_share == 0.5
    assert config.fit_settings().hint_share == 0.5
    grey = tmp_path / "grey"
    shutil.copytree(MINI_DIRECTORY, grey)
    card = json.loads((grey / "card.json").read_text())
    (grey / "card.json").write_text(json.dumps({**card, "masked_image": "grey", "reads_hints": False}))
    with pytest.raises(BaseModelError, match=r"hint_share is 0.5, but .*grey"):
        build_start(dataclasses.replace(config, init=grey), [make_photo(150, 160)])


def test_hinted_crops_are_encoded_alike_in_pieces(reads_hints, crops):
    planted = hinted(crops, 0.5, np.random.default_rng(0))
    whole, pieces = (encode_crops(reads_hints, planted, 0.1, number).mask_latents for number in (24, 5))
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-4)
