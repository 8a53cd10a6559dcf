"""Training a completion network: its three phases, the mistakes of other implementations, resuming to the same bits."""

import dataclasses
import math
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_photo
from PIL import Image
from safetensors.torch import load_file

from realfill.app.cli import main
from realfill.errors import OutputError, SceneError, TrainingError
from realfill.io.images import read_image
from realfill.models.feedforward.completion import WEIGHTS_NAME, CompletionNetwork
from realfill.training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from realfill.training.completion_config import CompletionTrainingConfig
from realfill.training.completion_samples import cut_patches, draw_samples, shrink_for_crops
from realfill.training.completion_trainer import CompletionTrainer, masked_mse
from realfill.training.completion_training import _identity, train_completion
from realfill.training.pretraining import load_photos

PHOTOS = [make_photo(80, 100, seed) for seed in range(4)]
TINY = {
    "num_steps": 6, "phase_shares": (1 / 3, 1 / 6, 1 / 2), "batch_size": 2, "width": 2, "discriminator_width": 2,
    "resolution": 64, "num_holdout": 1, "preview_every": 3, "mixed_precision": "no", "device": "cpu",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, photo in enumerate(PHOTOS):
        Image.fromarray(photo).save(photos / f"photo {i}.png")
    return photos


@pytest.fixture
def config(folder, tmp_path):
    return CompletionTrainingConfig(photos=folder, output=tmp_path / "out", **TINY)


def start(**changes):
    config = CompletionTrainingConfig(photos=Path("photos"), output=Path("out"), **{**TINY, **changes})
    return CompletionTrainer.start(config, PHOTOS)


def advance(trainer, steps=1):
    for _ in range(steps):
        trainer.update(trainer.draw(PHOTOS))
    return trainer


def copy_state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def read_state(config):
    """Read the checkpoint of a run."""
    photos, _ = load_photos(config.photos, config.num_holdout)
    return load_checkpoint(config.output / CHECKPOINT_NAME, _identity(config, photos), torch.device("cpu"))


def is_same(before, module):
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


# samples


def test_every_sample_has_a_hole_of_its_own_size_and_a_patch_that_contains_it():
    config = CompletionTrainingConfig(photos=Path(), output=Path(), **{**TINY, "batch_size": 32})
    samples = draw_samples(PHOTOS, config, np.random.default_rng(0))
    assert samples.images.shape == (32, 3, 64, 64) and samples.holes.shape == (32, 1, 64, 64)
    areas = samples.holes.flatten(1).sum(dim=1)
    assert areas.unique().numel() > 10, "hole areas differ within a batch"
    assert areas.min() >= 24**2 and areas.max() <= 32**2
    for which in (samples.corners, samples.other_corners):
        assert which.min() >= 0 and which.max() <= 32
    inside = cut_patches(samples.holes.float(), samples.corners).flatten(1).sum(dim=1)
    assert torch.equal(inside, areas.float()), "the patch contains the whole hole"
    others = cut_patches(samples.holes.float(), samples.other_corners).flatten(1).sum(dim=1)
    assert (others < areas).any(), "a real image is looked at elsewhere"


def test_a_patch_is_cut_at_its_corner():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(cut_patches(image, np.array([[1, 3]]))[0, 0], image[0, 0, 1:5, 3:7])


def test_crops_are_as_large_as_the_scale_says_and_photos_are_shrunk_to_it():
    config = CompletionTrainingConfig(photos=Path(), output=Path(), **TINY)
    shrunk = shrink_for_crops(make_photo(400, 600), config)
    assert shrunk.shape == (96, 144, 3)
    assert shrink_for_crops(PHOTOS[0], config) is PHOTOS[0]
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8)[:, None, None], (96, 144, 3))
    spans = []
    for seed in range(20):
        rows = draw_samples([ramp], config, np.random.default_rng(seed)).images[:, 0, :, 0] * 255
        spans += (rows[:, -1] - rows[:, 0]).tolist()
    assert 60 < min(spans) < 70 and 88 < max(spans) <= 96


# losses and phases


def test_the_mean_squared_error_counts_the_pixels_in_the_holes_alone():
    images, holes = torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 8, 8) > 0
    holes[0, :, :2] = True
    holes[1, :, :, :6] = True
    output = images + torch.where(holes, 0.5, 9.0)
    assert masked_mse(output, images, holes).item() == pytest.approx(0.25)
    output[0, :, :2] = images[0, :, :2]
    expected = 0.25 * 48 / (16 + 48)
    assert masked_mse(output, images, holes).item() == pytest.approx(expected), "a hole counts by its area"


def test_the_phases_train_the_network_then_the_discriminators_then_both():
    trainer = start()
    phases, changes = [], []
    for _ in range(6):
        phases.append(trainer.phase)
        networks = trainer.network, trainer.discriminator
        before = [[p.clone() for p in network.parameters()] for network in networks]
        advance(trainer)
        pairs = [zip(old, network.parameters(), strict=True) for old, network in zip(before, networks, strict=True)]
        changes.append(tuple(not all(torch.equal(*pair) for pair in those) for those in pairs))
    assert phases == ["completion"] * 2 + ["discriminator"] + ["both"] * 3
    assert changes == [(True, False)] * 2 + [(False, True)] + [(True, True)] * 3
    known = {name: [not math.isnan(x) for x in values] for name, values in trainer.losses.items()}
    assert known["completion"] == [True] * 6
    assert known["discriminator"] == [False] * 2 + [True] * 4
    assert known["adversarial"] == [False] * 3 + [True] * 3


def test_the_written_network_has_batch_statistics_for_its_own_weights():
    trainer = advance(start(num_steps=30, phase_shares=(1.0, 0.0, 0.0)), 3)
    expected = copy_state(trainer.finished(PHOTOS))
    for name, statistics in trainer.network.named_buffers():
        if name.endswith("running_mean"):
            statistics.add_(5)  # they lag far behind
    before = copy_state(trainer.network)
    network = trainer.finished(PHOTOS)
    assert is_same(before, trainer.network), "the training goes on as if nothing had been written"
    assert is_same(expected, network) and not network.training
    samples = draw_samples(PHOTOS, dataclasses.replace(trainer.config, batch_size=64), np.random.default_rng(9))
    first = network.layers[0][0](
        torch.cat([torch.where(samples.holes, network.mean, samples.images), samples.holes], 1)
    )
    assert torch.allclose(network.layers[0][1].running_mean, first.mean((0, 2, 3)), atol=0.05)


def test_the_papers_schedule_is_scaled_to_the_number_of_steps():
    config = CompletionTrainingConfig(photos=Path(), output=Path(), num_steps=500_000)
    assert config.phase_ends == (90_000, 100_000)
    assert dataclasses.replace(config, num_steps=5000).phase_ends == (900, 1000)


def test_no_gradients_of_the_completions_step_are_left_in_the_discriminator():
    trainer = advance(start(), 3)
    samples = trainer.draw(PHOTOS)
    completed = samples.images.clone().requires_grad_()
    trainer.adversarial_loss(completed, samples).backward()
    assert completed.grad is not None and completed.grad.abs().sum() > 0
    assert all(p.grad is None for p in trainer.discriminator.parameters())
    assert all(p.requires_grad for p in trainer.discriminator.parameters())
    advance(trainer)
    assert all(p.grad is None for p in [*trainer.discriminator.parameters(), *trainer.network.parameters()])


def test_the_discriminator_sees_the_output_composited_into_the_image_and_real_images_as_they_are():
    trainer = advance(start(), 3)
    seen = []
    trainer.discriminator.register_forward_hook(lambda _, inputs, __: seen.append([x.detach() for x in inputs]))
    samples = trainer.draw(PHOTOS)
    trainer.update(samples)
    (real, real_patch), (fake, fake_patch), (judged, judged_patch) = seen
    holes = samples.holes.expand_as(real)
    assert torch.equal(real, samples.images)
    assert torch.equal(real_patch, cut_patches(samples.images, samples.other_corners))
    for image, patch in ((fake, fake_patch), (judged, judged_patch)):
        assert torch.equal(image[~holes], samples.images[~holes]), "known pixels are those of the photo"
        assert not torch.equal(image[holes], samples.images[holes])
        assert torch.equal(patch, cut_patches(image, samples.corners))


@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
def test_the_adversarial_loss_falls_as_completed_images_look_real(logit, monkeypatch):
    trainer = start()
    monkeypatch.setattr(CompletionTrainer, "_judge", lambda *_: torch.full((2,), logit))
    loss = trainer.adversarial_loss(torch.zeros(2, 3, 64, 64), trainer.draw(PHOTOS))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-logit)))


def test_the_discriminators_learn_to_tell_photos_from_completions():
    options = {"batch_size": 8, "discriminator_learning_rate": 5e-3, "discriminator_width": 4}
    trainer = start(num_steps=20, phase_shares=(0.0, 1.0, 0.0), **options)
    losses = advance(trainer, 20).losses["discriminator"]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:3])
    samples = trainer.draw(PHOTOS)
    with torch.no_grad():
        output = trainer.network(samples.images, samples.holes)
        fake = trainer._judge(torch.where(samples.holes, output, samples.images), samples.corners)
        assert trainer._judge(samples.images, samples.other_corners).mean() > fake.mean()


def test_without_adversarial_weight_the_third_phase_trains_like_the_first():
    first = advance(start(phase_shares=(1.0, 0.0, 0.0)), 3)
    both = advance(start(phase_shares=(0.0, 0.0, 1.0), adversarial_weight=0.0), 3)
    weighted = advance(start(phase_shares=(0.0, 0.0, 1.0), adversarial_weight=1.0), 3)
    assert is_same(copy_state(first.network), both.network)
    assert not is_same(copy_state(first.network), weighted.network)


def test_the_completion_network_learns():
    options = {"width": 4, "batch_size": 4, "learning_rate": 5e-3}
    trainer = start(num_steps=40, phase_shares=(1.0, 0.0, 0.0), **options)
    flat = [np.full((64, 64, 3), colour, np.uint8) for colour in ((250, 30, 60), (40, 220, 20))]
    for _ in range(40):
        trainer.update(trainer.draw(flat))
    losses = trainer.losses["completion"]
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:3])


def test_the_hole_shows_the_mean_of_the_training_photos():
    mean = np.mean([photo.mean(axis=(0, 1)) for photo in PHOTOS], axis=0) / 255
    assert np.allclose(start().network.mean.flatten(), mean, atol=1e-6)


def test_the_learning_rate_falls_to_a_tenth():
    trainer, rates = start(num_steps=20, phase_shares=(1.0, 0.0, 0.0), learning_rate=1.0), []
    for step in (0, 10, 20):
        trainer.step = step
        trainer._set_learning_rates()
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([1.0, 0.55, 0.1])


def test_a_diverged_run_is_an_error():
    trainer = start()
    with torch.no_grad():
        trainer.network.layers[16][0].bias.fill_(math.nan)
    with pytest.raises(TrainingError, match="diverged at step 1"):
        advance(trainer)


# runs


def test_an_interrupted_run_gives_the_same_weights_to_the_bit(config, tmp_path):
    train_completion(config, progress=False)
    interrupted = dataclasses.replace(config, output=tmp_path / "interrupted", checkpoint_every=100)
    for _ in range(3):  # ends within the first phase, and after each of the first two
        train_completion(interrupted, on_step=lambda report: report.step not in (1, 3), progress=False)
    one, other = (load_file(c.output / WEIGHTS_NAME) for c in (config, interrupted))
    assert one and all(torch.equal(one[k], other[k]) for k in one)
    states = [read_state(c) for c in (config, interrupted)]
    for name in ("network", "discriminator"):
        assert all(torch.equal(states[0][name][k], states[1][name][k]) for k in states[0][name])
    assert torch.equal(*(s["losses"]["completion"] for s in states)) and states[0]["step"] == 6


def test_a_killed_run_resumes_from_its_last_checkpoint(config, tmp_path, monkeypatch):
    train_completion(config, progress=False)
    killed = dataclasses.replace(config, output=tmp_path / "killed", checkpoint_every=2)
    update = CompletionTrainer._update_discriminator

    def kill(trainer, *arguments):
        if trainer.step == 5:
            raise KeyboardInterrupt
        return update(trainer, *arguments)

    monkeypatch.setattr(CompletionTrainer, "_update_discriminator", kill)
    with pytest.raises(KeyboardInterrupt):
        train_completion(killed, progress=False)
    monkeypatch.setattr(CompletionTrainer, "_update_discriminator", update)
    assert read_state(killed)["step"] == 4, "no half step is saved"
    train_completion(killed, progress=False)
    one, other = (load_file(c.output / WEIGHTS_NAME) for c in (config, killed))
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("stage", ["update", "finished"])
def test_ctrl_c_within_a_step_waits_for_it_and_while_weights_are_written_does_not(stage, config, monkeypatch, capsys):
    words = ["train-completion", str(config.photos), "-o", str(config.output), "--num-steps", "4", "--batch-size", "2"]
    words += ["--width", "2", "--discriminator-width", "2", "--resolution", "64", "--preview-every", "2", "--quiet"]
    words += ["--num-holdout", "0", "--mixed-precision", "no", "--device", "cpu"]
    original = getattr(CompletionTrainer, stage)

    def interrupted(trainer, *arguments):
        result = original(trainer, *arguments)
        if trainer.step == 2:
            signal.raise_signal(signal.SIGINT)
            time.sleep(1.3 if stage == "update" else 9)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(CompletionTrainer, stage, interrupted)
        start = time.monotonic()
        assert main(words) == 130
        assert time.monotonic() - start < 9
    assert "stopped" in capsys.readouterr().err
    assert not (config.output / WEIGHTS_NAME).exists()
    steps, draw = [], CompletionTrainer.draw
    monkeypatch.setattr(CompletionTrainer, "draw", lambda self, photos: steps.append(self.step) or draw(self, photos))
    assert main(words) == 0
    assert steps == [2, 3], "no step is lost"
    assert CompletionNetwork.load(config.output).width == 2


def test_a_run_writes_weights_pictures_and_curves_and_reports_each_step(config):
    reports = []
    assert train_completion(config, on_step=reports.append, progress=False) == config.output
    assert [(r.phase, r.step, r.num_steps) for r in reports] == [("fit", n, 6) for n in range(1, 7)]
    assert reports[-1].left_s == 0 and reports[0].loss > 0
    assert {p.name for p in config.output.iterdir()} == {WEIGHTS_NAME, CHECKPOINT_NAME, "previews.png", "losses.png"}
    network = CompletionNetwork.load(config.output)
    assert (network.width, network.resolution) == (2, 64)
    previews = read_image(config.output / "previews.png")[0]
    assert previews.shape == (64, 2 * 3 * 64, 3)
    assert read_image(config.output / "losses.png")[0].std() > 5


def test_kept_out_photos_are_not_trained_on(config, tmp_path, monkeypatch):
    seen, draw = [], CompletionTrainer.draw
    monkeypatch.setattr(CompletionTrainer, "draw", lambda self, photos: seen.append(photos) or draw(self, photos))
    (tmp_path / "holdout.txt").write_text("photo 1.png\nphoto 3.png\n")
    config = dataclasses.replace(config, holdout=tmp_path / "holdout.txt", minutes=1e-9)
    train_completion(config, progress=False)
    assert [np.array_equal(a, PHOTOS[i]) for a, i in zip(seen[0], (0, 2), strict=True)] == [True, True]


def test_a_run_with_other_photos_or_another_recipe_is_not_resumed(config):
    train_completion(config, on_step=lambda _: False, progress=False)
    with pytest.raises(OutputError, match="another recipe"):
        train_completion(dataclasses.replace(config, learning_rate=0.1), progress=False)
    train_completion(dataclasses.replace(config, preview_every=5, minutes=1e-9), progress=False)
    (config.photos / "photo 0.png").unlink()
    with pytest.raises(OutputError, match="other photos"):
        train_completion(config, progress=False)


def test_an_output_folder_with_other_files_and_too_few_photos_are_refused(config):
    with pytest.raises(SceneError, match="holds 4 photos, of which 4 are kept out"):
        train_completion(dataclasses.replace(config, num_holdout=4), progress=False)
    config.output.mkdir()
    (config.output / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds no unfinished run"):
        train_completion(config, progress=False)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"num_steps": 0}, "num_steps is 0; legal: 1 or more"),
        ({"batch_size": 1}, "batch_size is 1; legal: 2 or more"),
        ({"width": 7}, "width is 7; legal: even numbers"),
        ({"resolution": 100}, "resolution is 100; legal: multiples of 64"),
        ({"hole_size": (0.4, 0.6)}, "hole_size is"),
        ({"phase_shares": (0.5, 0.5, 0.5)}, "three numbers from 0 that add up to 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; legal: above 0"),
        ({"crop_scale": 0.5}, "crop_scale is 0.5; legal: 1 or more"),
    ],
)
def test_illegal_values_are_refused_before_photos_are_read(option, words):
    with pytest.raises(ValueError, match=words):
        CompletionTrainingConfig(photos=Path("nowhere"), output=Path("out"), **option)


def test_the_command_trains_and_shows_its_progress(config, capsys):
    words = ["train-completion", str(config.photos), "-o", str(config.output), "--num-steps", "3", "--batch-size", "2"]
    words += ["--width", "2", "--discriminator-width", "2", "--resolution", "64", "--num-holdout", "1"]
    assert main([*words, "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "completion network written to" in out and "step/s" in err
    assert main([*words, "--width", "3"]) == 2
    assert "width is 3; legal: even numbers" in capsys.readouterr().err
