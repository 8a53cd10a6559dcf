"""The script that pre-trains on a GPU, on a CPU: what it draws, and that it trains and adds up runs."""

import dataclasses
import sys
from pathlib import Path

import add_training
import numpy as np
import pretrain_on_gpu
import pytest
import torch
from helpers import make_photo
from pretrain_on_gpu import Options, PhotoStack, Pretraining, build, draw_masks, shrunk
from safetensors.torch import load_file, save_file

from realfill.compute.devices import make_accelerator
from realfill.errors import TrainingError
from realfill.io.writing import write_png
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.models.diffusion.lora import Trainable
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training.crops import Crops, Noising
from realfill.training.loop import predict
from realfill.training.objective import encode_crops
from realfill.training.planted_hints import Draws
from realfill.training.pretrain_config import PretrainConfig
from realfill.training.trainer import Trainer

CPU = torch.device("cpu")
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(pretrain_on_gpu, "_NUM_DRAWN", 4)


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


def test_crops_have_all_sizes_from_the_resolution_to_the_whole_photo(draws):
    ramp = np.zeros((160, 160, 3), np.uint8)
    ramp[..., 0] = np.arange(160)[:, None]
    crops = PhotoStack([ramp], CPU).draw(200, 40, draws)
    sides = (crops[:, 0, -1, 0] - crops[:, 0, 0, 0]) * 255 * 40 / 39
    assert sides.min() > 38 and sides.max() < 162
    low, middle, high = np.quantile(sides.numpy(), [0.25, 0.5, 0.75])
    assert 50 < low < 65 and 70 < middle < 92 and 98 < high < 128, "the logarithm of the side is uniform"


def test_nothing_beside_a_photo_shows_at_its_edge(draws):
    photos = [np.full((64, 100, 3), 255, np.uint8), np.full((100, 64, 3), 255, np.uint8)]
    assert PhotoStack(photos, CPU).draw(30, 64, draws).min() == 1


def test_masks_have_the_shares_of_the_recipe(draws):
    settings = PretrainConfig(photos=Path(), output=Path()).fit_settings()
    hidden = draw_masks(400, 32, settings, draws)
    assert hidden.shape == (400, 1, 32, 32) and hidden.dtype == torch.bool
    assert 0.35 < hidden.float().mean() < 0.7
    everything = hidden.flatten(1).all(dim=1).float().mean()
    assert abs(everything - settings.mask_dropout) < 0.04
    corner = hidden[:, 0, 0, 0].float().mean()
    assert 0.4 < corner < 0.75, "about half of the masks are complements, which hide most corners"


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    photos = [make_photo(150, 160, seed) for seed in range(2)]
    options = Options(photos=Path(), init=MINI_DIRECTORY, seconds=0, batch_size=4, device="cpu")
    return Pretraining(build(options, photos), PhotoStack(photos, CPU), options)


def test_the_loss_of_a_batch_is_that_of_a_fit(training, monkeypatch):
    seen = {}

    def keep(name, function):
        def call(*args):
            seen.setdefault(name, []).append(function(*args))
            return seen[name][-1]

        return call

    monkeypatch.setattr(training.photos, "draw", keep("crops", lambda *_: levels))
    levels = (torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(5)) * 255).round() / 255
    monkeypatch.setattr(pretrain_on_gpu, "draw_masks", keep("hidden", pretrain_on_gpu.draw_masks))
    monkeypatch.setattr(Draws, "normal", keep("noise", Draws.normal))
    monkeypatch.setattr(Draws, "uniform", keep("uniform", Draws.uniform))
    with torch.no_grad():
        (batch,) = training.draw_batches(training.photos, Draws(torch.Generator().manual_seed(2)), 0.0)
        loss = training.loss(batch)

    images = (levels * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    hidden, known = seen["hidden"][0][:, 0].numpy(), np.ones((4, 128, 128), bool)
    crops = Crops(images=images, known=known, learnt=known, hidden=hidden, references=np.full(4, -1))
    settings = dataclasses.replace(
        PretrainConfig(photos=Path(), output=Path(), batch_size=4).fit_settings(), mixed_precision="no", compile=False
    )
    inpainter = training.inpainter
    trainable = Trainable(groups={"unet": dict(inpainter.unet.named_parameters())}, lora_layers=(), export=dict)
    trainer = Trainer(inpainter, trainable, settings, make_accelerator(CPU, "no"))
    latents = encode_crops(inpainter, crops, settings.visible_weight, 4)
    quantiles, prompted = 1 - seen["uniform"][-2] ** settings.noise_bias, seen["uniform"][-1] >= settings.prompt_dropout
    noise = torch.stack([torch.zeros_like(latents.mean), seen["noise"][0]])
    with torch.no_grad():
        prediction = predict(trainer, latents, Noising(prompted=prompted, quantiles=quantiles, noise=noise))
        errors = prediction.errors(latents.weights).sum() / (latents.weights.sum() * latents.mean.shape[1])
    assert loss.item() == pytest.approx(errors.item(), rel=1e-4)


def test_batches_that_are_drawn_together_count_as_if_drawn_alone(training, monkeypatch):
    monkeypatch.setattr(pretrain_on_gpu, "_NUM_DRAWN", 12)
    batches = training.draw_batches(training.photos, Draws(torch.Generator().manual_seed(2)), 0.5)
    assert [len(batch.inputs) for batch in batches] == [4, 4, 4]
    assert len({batch.inputs.numpy().tobytes() for batch in batches}) == 3
    diffuse = StableDiffusionInpainter.diffuse
    monkeypatch.setattr(StableDiffusionInpainter, "diffuse", lambda *args: (*diffuse(*args)[:3], 1.0))
    for batch in training.draw_batches(training.photos, Draws(torch.Generator().manual_seed(2)), 0.0):
        assert batch.weights.sum().item() * batch.target.shape[1] == pytest.approx(1, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_steps_train_as_others_do():
    photos, device = [make_photo(150, 160, seed) for seed in range(2)], torch.device("cuda")
    options = Options(photos=Path(), output=Path(), init=MINI_DIRECTORY, seconds=9, batch_size=4)

    def train(*, captured):
        training = Pretraining(build(options, photos).to(device, torch.float32), PhotoStack(photos, device), options)
        draws = Draws(torch.Generator(device).manual_seed(0))
        if captured:
            training.capture(Draws(torch.Generator(device).manual_seed(1)))
            training.batches.clear()
        for _ in range(5):
            training.step(draws)
        return torch.stack(training.losses), training.parameters[0].detach()

    (losses, weights), (expected, others) = train(captured=True), train(captured=False)
    torch.testing.assert_close(losses, expected, rtol=2e-2, atol=0)
    assert (weights - others).abs().mean() < 0.1 * (others.abs().mean())


def test_the_masked_image_shows_hints_and_nothing_else_of_the_hole(training, crops, monkeypatch):
    inpainter = training.inpainter
    images = torch.nn.functional.interpolate(crops[:2], size=(128, 128))
    hidden = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    hidden[..., 32:96, 32:96] = True
    hints, confidence = images.flip(0), torch.zeros(2, 1, 128, 128)
    confidence[..., 32:64, 32:96], confidence[..., 64:80, 32:96] = 1, 0.25
    confidence[..., :16, :] = 0.5  # beside the hole, where it has no meaning
    found = training.mask_latents(images, hidden, hints, confidence)
    other = torch.where(hidden, 0.123, images)
    assert torch.equal(found, training.mask_latents(other, hidden, hints, confidence)), "the truth leaks"
    channel = found[:, 0, ::2, ::2]  # 8 x 8 of the 16 x 16 latents
    assert channel[0, 2, 2] == 0 and channel[0, 4, 4] == 0.75 and channel[0, 5, 4] == 1 and channel[0, 0, 0] == 0
    shown = inpainter.encode(torch.where(confidence * hidden > 0, hints, images))[0]
    assert torch.allclose(found[:, 1:, 4:8, 4:12], shown[:, :, 4:8, 4:12], atol=1e-5)
    assert torch.equal(training.mask_latents(images, hidden), inpainter.prepare_mask_latents(images, hidden))


def test_runs_are_trained_and_added(tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        write_png(photos / f"{seed}.png", make_photo(140, 150, seed))
    held = tmp_path / "holdout.txt"
    held.write_text("# names\n1.png\n")
    monkeypatch.setattr(pretrain_on_gpu, "HOLDOUT", held)
    stacks = []
    monkeypatch.setattr(
        pretrain_on_gpu, "PhotoStack", lambda photos, _: stacks.append(photos) or PhotoStack(photos, CPU)
    )

    def train(*words):
        monkeypatch.setattr(sys, "argv", ["x", str(photos), "--batch-size", "2", "--device", "cpu", *map(str, words)])
        pretrain_on_gpu.main()

    def trained(name):
        return load_file(tmp_path / name / UNET)

    step, runs = Pretraining.step, []
    monkeypatch.setattr(Pretraining, "step", lambda self, draws: (step(self, draws), runs.append(self)))
    train("--init", MINI_DIRECTORY, "-o", tmp_path / "one", "--seconds", 0.1)
    names = (name for name, _ in runs[-1].unet.named_parameters())
    for name, mean in zip(names, runs[-1].average, strict=True):
        assert torch.equal(trained("one")[name], mean.half()), "the moving average is saved"
    train("--init", MINI_DIRECTORY, "-o", tmp_path / "two", "--seconds", 0.1, "--hint-share", 1)
    printed = capsys.readouterr().out
    assert "2 photos, 1 kept out" in printed and "kept out, with hints" in printed
    assert [len(photos) for photos in stacks[:2]] == [2, 1]
    assert np.array_equal(stacks[1][0], make_photo(140, 150, 1)), "the photo that is named is kept out"
    train("--init", MINI_DIRECTORY, "--seconds", 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["holdout.txt", "one", "photos", "two"]

    add_training.main(MINI_DIRECTORY, (tmp_path / "one", tmp_path / "two"), output=tmp_path / "sum", shares=(1, 0.5))
    start, one, two, added = load_file(MINI_DIRECTORY / UNET), trained("one"), trained("two"), trained("sum")
    name = max(start, key=lambda n: (one[n].float() - start[n].float()).abs().mean())
    assert not torch.equal(one[name], start[name]) and not torch.equal(two[name], start[name])
    expected = one[name].float() + (two[name].float() - start[name].float()) / 2
    assert (added[name].float() - expected).abs().max() < 2e-3 * expected.abs().max()
    assert StableDiffusionInpainter.load(str(tmp_path / "sum")).reads_hints

    for runs, shares in (((), ()), ((tmp_path / "one",), (1, 1))):
        with pytest.raises(ValueError, match="one share for each run"):
            add_training.main(MINI_DIRECTORY, runs, output=tmp_path / "other", shares=shares)
    encoder = tmp_path / "two" / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({key: value * 1.1 for key, value in load_file(encoder).items()}, encoder)
    with pytest.raises(ValueError, match="another autoencoder"):
        add_training.main(MINI_DIRECTORY, (tmp_path / "two",), output=tmp_path / "other")


def test_the_average_is_what_is_measured_and_saved(training):
    before = [p.detach().clone() for p in training.parameters]
    average = [mean + 1 for mean in training.average]
    training.average[:], kept = average, list(training.average)
    with training.averaged():
        assert all(torch.equal(p, mean) for p, mean in zip(training.parameters, average, strict=True))
    assert all(torch.equal(p, weight) for p, weight in zip(training.parameters, before, strict=True))
    training.average[:] = kept


def test_a_run_that_diverged_is_an_error(training, monkeypatch):
    def diverge(self, _):
        self.steps += 1
        self.losses.append(torch.tensor(torch.nan))

    monkeypatch.setattr(Pretraining, "step", diverge)
    monkeypatch.setattr(training, "options", dataclasses.replace(training.options, seconds=9, output=Path()))
    with pytest.raises(TrainingError, match="step 10 is nan"):
        training.run(lambda _: None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "output is missing"),
        ({"seconds": 0}, "no init"),
        ({"init": Path("gone"), "output": Path()}, "init is 'gone'"),
    ],
)
def test_options_that_lead_nowhere_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        Options(photos=Path(), **values)


def test_photos_are_shrunk_to_the_scale_of_their_smallest_crops():
    assert shrunk(make_photo(832, 1000)).shape == (416, 500, 3)
    assert shrunk(make_photo(300, 400)).shape == (300, 400, 3)
