"""The training loop: time budget, memory, checkpoints, interruption and divergence."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers import TINY_FIT, make_photo

from realfill import FitConfig, fit
from realfill.errors import AdapterError, OutputError, RealFillWarning, SceneError, TrainingError
from realfill.models.diffusion.card import Card
from realfill.training import loop
from realfill.training.checkpoint import CHECKPOINT_NAME
from realfill.training.crops import TrainingImage
from realfill.training.trainer import Trainer

PHOTO = TrainingImage(image=make_photo(64, 96), crop_sides_px=(20, 60))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Clock:
    """Time that passes only in training steps: one second each, and ten more in the first."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("realfill.training.loop.time.monotonic", lambda: self.now)
        real = loop.compute_gradients

        def slow(trainer, photos):
            self.now += 11 if trainer.step == 0 else 1
            return real(trainer, photos)

        monkeypatch.setattr(loop, "compute_gradients", slow)


def test_a_fit_ends_within_its_time_budget_and_reports_its_steps(scene, tiny_fit, monkeypatch):
    clock = Clock(monkeypatch)
    config = dataclasses.replace(tiny_fit, num_steps=1000, time_budget_s=20.0, lr_scheduler="linear")
    reports = []
    adapter = fit(scene, config, on_step=reports.append, progress=False)
    assert 18 <= clock.now - 1000 <= 20
    assert adapter.manifest["num_steps_done"] == len(adapter.losses) == len(reports) == 9
    assert adapter.manifest["time_s"] == clock.now - 1000
    assert reports[-1].learning_rate == pytest.approx(config.resolve({}).learning_rate * (1 - 18 / 20))
    assert [r.left_s for r in reports[:3]] == [None, None, 20 - 13]


def test_the_time_left_is_estimated_without_the_first_steps(scene, tiny_fit, monkeypatch):
    Clock(monkeypatch)
    reports = []
    fit(scene, dataclasses.replace(tiny_fit, num_steps=6), on_step=reports.append, progress=False)
    assert [r.left_s for r in reports] == [None, None, 3, 2, 1, 0]
    assert [r.time_s for r in reports] == [11, 12, 13, 14, 15, 16]


class Bar:
    """Stands in for ``ProgressBar`` and records what it shows."""

    disable = False

    def __init__(self, *, total, initial, disable, **_):
        self.total, self.initial, self.n, self.start_t, self.shown = total, initial, initial, None, []
        Bar.last = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def set_postfix(self, *, loss, refresh):
        self.loss = loss

    def update(self):
        self.n += 1
        self.shown.append((self.n, self.initial, self.total))


def test_the_bar_shows_all_steps_and_measures_the_pace_after_the_first(scene, tiny_fit, monkeypatch):
    Clock(monkeypatch)
    monkeypatch.setattr(loop, "ProgressBar", Bar)
    config = dataclasses.replace(tiny_fit, num_steps=100, time_budget_s=15.0)
    adapter = fit(scene, config, progress=True)
    assert Bar.last.shown == [(1, 1, 100), (2, 2, 100), (3, 2, 5), (4, 2, 5)]
    assert Bar.last.loss == f"{np.mean(adapter.losses):.3f}"


def test_the_bar_shows_no_loss_while_none_has_been_read_from_a_gpu(scene, tiny_fit, monkeypatch):
    read = Trainer.read_losses
    monkeypatch.setattr(Trainer, "read_losses", lambda self, *, if_due=False: None if if_due else read(self))
    monkeypatch.setattr(loop, "ProgressBar", Bar)
    fit(scene, dataclasses.replace(tiny_fit, num_steps=2), progress=True)
    assert Bar.last.n == 2 and not hasattr(Bar.last, "loss")


def test_time_spent_before_an_interruption_counts(scene, tiny_fit, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    config = dataclasses.replace(tiny_fit, num_steps=1000, time_budget_s=20.0)
    first = fit(scene, config, checkpoint_dir=tmp_path, on_step=lambda r: r.step < 4, progress=False)
    assert first.manifest["num_steps_done"] == 4
    clock.now += 500
    again = fit(scene, config, checkpoint_dir=tmp_path, progress=False)
    assert 15 <= again.manifest["time_s"] <= 20
    assert again.manifest["num_steps_done"] > 6
    ended = fit(scene, config, checkpoint_dir=tmp_path, progress=False)
    assert ended.manifest["num_steps_done"] <= again.manifest["num_steps_done"] + 1


def test_the_text_encoder_is_trained_unless_its_learning_rate_is_0(scene, tiny_fit):
    assert any(k.startswith("text_encoder.") for k in fit(scene, tiny_fit, progress=False).tensors)
    without = dataclasses.replace(tiny_fit, text_encoder_learning_rate=0.0)
    assert not any(k.startswith("text_encoder.") for k in fit(scene, without, progress=False).tensors)


def test_the_pieces_of_a_batch_do_not_change_the_result(scene, tiny_fit):
    whole = dataclasses.replace(tiny_fit, batch_size=4, learning_rate=1e-3)
    pieces = dataclasses.replace(whole, gradient_accumulation_steps=4, gradient_checkpointing=True)
    one, four = (fit(scene, config, progress=False) for config in (whole, pieces))
    assert one.losses == pytest.approx(four.losses, rel=1e-4)
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(four.tensors[name].float(), tensor.float(), atol=2e-4, rtol=1e-2)


def test_running_out_of_memory_makes_the_pieces_smaller_and_changes_nothing_else(make_trainer, train_steps):
    expected, trainer = make_trainer(batch_size=4), make_trainer(batch_size=4)
    train_steps(expected, [PHOTO], 3)
    sizes, real = [], trainer.denoiser.forward

    def scarce(noisy_latents, *inputs):
        sizes.append(len(noisy_latents))
        if len(sizes) in (1, 3):  # at once, and in the middle of a batch
            raise torch.OutOfMemoryError("scarce")
        return real(noisy_latents, *inputs)

    trainer.denoiser.forward = scarce
    with pytest.warns(RealFillWarning, match=r"out of memory; continuing with the batch in [24] pieces"):
        train_steps(trainer, [PHOTO], 3)
    assert sizes == [4, 2, 2] + 3 * [1, 1, 1, 1]
    assert trainer.settings.gradient_accumulation_steps == 4
    assert trainer.losses == pytest.approx(expected.losses, rel=1e-4)
    for parameter, expected_parameter in zip(trainer.parameters, expected.parameters, strict=True):
        torch.testing.assert_close(parameter, expected_parameter, atol=2e-5, rtol=1e-2)


def test_single_crops_that_do_not_fit_are_checkpointed_and_then_an_error(make_trainer, train_steps):
    trainer = make_trainer()
    before = [p.detach().clone() for p in trainer.parameters]
    checkpointing = []

    def never(*_):
        checkpointing.append(trainer.inpainter.unet.is_gradient_checkpointing)
        raise torch.OutOfMemoryError("no memory at all")

    trainer.denoiser.forward = never
    with pytest.warns(RealFillWarning, match="out of memory") as said, pytest.raises(torch.OutOfMemoryError):
        train_steps(trainer, [PHOTO])
    assert "the batch in 2 pieces, with gradient checkpointing" in str(said[-1].message)
    assert checkpointing == [False, False, True]
    assert all(torch.equal(p, b) for p, b in zip(trainer.parameters, before, strict=True))


def test_a_fit_resumes_on_a_machine_with_other_memory(scene, tiny_fit, tmp_path):
    fit(scene, tiny_fit, checkpoint_dir=tmp_path, on_step=lambda r: r.step < 2, progress=False)
    pieces = dataclasses.replace(tiny_fit, gradient_accumulation_steps=2, gradient_checkpointing=True)
    assert fit(scene, pieces, checkpoint_dir=tmp_path, progress=False).manifest["num_steps_done"] == 3


def test_a_fit_first_says_what_it_will_take(scene, tiny_fit, capfd):
    fit(scene, dataclasses.replace(tiny_fit, gradient_accumulation_steps=2, time_budget_s=60.0))
    said = capfd.readouterr().err
    assert "fit: 3 steps of 2 crops at 32 px, at most 60 s, on cpu; about 0." in said
    assert "GB of memory, in 2 pieces of 1" in said
    fit(scene, tiny_fit, progress=False)
    assert "fit:" not in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # dynamo's own
def test_a_compiled_fit_gives_the_same_result_and_compiles_once(scene, tiny_fit, monkeypatch):
    import torch._dynamo.utils

    real = UNet2DConditionModel.compile_repeated_blocks
    monkeypatch.setattr(UNet2DConditionModel, "compile_repeated_blocks", lambda self: real(self, backend="eager"))
    config = dataclasses.replace(tiny_fit, num_steps=4, lora_dropout=0.3, learning_rate=1e-3)
    plain = fit(scene, config, progress=False)
    graphs = []

    def count(report):
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    compiled = fit(scene, dataclasses.replace(config, compile=True), on_step=count, progress=False)
    assert graphs[0] > 0
    assert graphs[1:] == graphs[:1] * 3  # other dropped layers do not compile again
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-3)


RESUMED = [
    {},
    {"trainable": "all", "ema_decay": 0.9, "lora_targets": ("*",)},
    {"latent_cache_size": 4, "latent_cache_uses": 2},
]


@pytest.mark.parametrize("changes", RESUMED)
def test_a_killed_fit_resumes_to_the_same_result(scene, tiny_sd, tmp_path, changes):
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 6}, checkpoint_every=2, **changes)
    straight = fit(scene, config, progress=False)

    def die(report):
        if report.step == 5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit(scene, config, checkpoint_dir=tmp_path, on_step=die, progress=False)
    steps = []
    resumed = fit(scene, config, checkpoint_dir=tmp_path, on_step=lambda r: steps.append(r.step), progress=False)
    assert steps == [6]
    assert resumed.losses == straight.losses
    assert equal(dict(resumed.tensors), dict(straight.tensors))


def test_an_interruption_within_an_update_leaves_the_last_checkpoint(scene, tiny_sd, tmp_path, monkeypatch):
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 6}, checkpoint_every=2)
    straight = fit(scene, config, progress=False)
    update = Trainer.update_average

    def interrupt(trainer):
        if trainer.step == 3:
            raise KeyboardInterrupt
        update(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update_average", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(scene, config, checkpoint_dir=tmp_path, progress=False)
    steps = []
    resumed = fit(scene, config, checkpoint_dir=tmp_path, on_step=lambda r: steps.append(r.step), progress=False)
    assert steps[0] == 3
    assert equal(dict(resumed.tensors), dict(straight.tensors))


def test_checkpoints_are_written_at_regular_steps_and_at_the_end(scene, tiny_fit, tmp_path, monkeypatch):
    steps, real = [], loop.save_checkpoint

    def save(path, state, identity):
        steps.append(state["step"])
        real(path, state, identity)

    monkeypatch.setattr(loop, "save_checkpoint", save)
    config = dataclasses.replace(tiny_fit, num_steps=5, checkpoint_every=2)
    fit(scene, config, checkpoint_dir=tmp_path, progress=False)
    assert steps == [0, 2, 4, 5]
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT_NAME]


@pytest.mark.parametrize("ema_decay", [0.9, 0.0])
def test_a_fit_whose_checkpoints_do_not_fit_on_the_disk_does_not_start(
    scene, tiny_fit, tmp_path, monkeypatch, ema_decay
):
    config = dataclasses.replace(tiny_fit, ema_decay=ema_decay, lora_rank=64)
    fit(scene, config, checkpoint_dir=tmp_path / "finished", progress=False)
    size = (tmp_path / "finished" / CHECKPOINT_NAME).stat().st_size
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, round(1.5 * size)))
    with pytest.raises(OutputError, match=r"no space left for '.*checkpoint\.safetensors': it needs .* MB, and"):
        fit(scene, config, checkpoint_dir=tmp_path / "new", progress=False)
    assert not (tmp_path / "new" / CHECKPOINT_NAME).exists()
    fit(scene, config, checkpoint_dir=tmp_path / "finished", progress=False)  # only one more has to fit


def test_on_step_gets_reports_and_can_end_the_fit(scene, tiny_fit):
    reports = []

    def stop_at_two(report):
        reports.append(report)
        return report.step < 2

    adapter = fit(scene, tiny_fit, on_step=stop_at_two, progress=False)
    assert [(r.phase, r.step, r.num_steps) for r in reports] == [("fit", 1, 3), ("fit", 2, 3)]
    assert [r.loss for r in reports] == list(adapter.losses)
    assert reports[0].learning_rate == tiny_fit.resolve({}).learning_rate
    assert adapter.manifest["num_steps_done"] == 2


def test_a_checkpoint_of_another_fit_is_refused_unless_it_may_be_overwritten(scene, tiny_fit, tmp_path):
    fit(scene, tiny_fit, checkpoint_dir=tmp_path, progress=False)
    other = dataclasses.replace(tiny_fit, seed=1)
    with pytest.raises(AdapterError, match="another config, scene or base"):
        fit(scene, other, checkpoint_dir=tmp_path, progress=False)
    assert len(fit(scene, other, checkpoint_dir=tmp_path, overwrite=True, progress=False).losses) == 3


@pytest.mark.parametrize(("learning_rate", "num_steps"), [(1e30, 8), (1e30, 1)], ids=["midway", "in its last step"])
def test_a_fit_that_diverges_is_an_error_and_leaves_no_file(scene, tiny_fit, tmp_path, learning_rate, num_steps):
    config = dataclasses.replace(tiny_fit, learning_rate=learning_rate, num_steps=num_steps, checkpoint_every=1000)
    with pytest.raises(TrainingError, match="learning_rate"):
        fit(scene, config, checkpoint_dir=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_divergence_that_is_read_only_at_the_end_leaves_no_file(scene, tiny_fit, tmp_path, monkeypatch):
    read, real = Trainer.read_losses, loop.compute_gradients

    def read_late(trainer, *, if_due=False):  # as on a GPU, where losses are read every tenth step
        if not if_due:
            read(trainer)

    def diverge(trainer, photos):
        return real(trainer, photos) * (float("nan") if trainer.step == 2 else 1)

    monkeypatch.setattr(Trainer, "read_losses", read_late)
    monkeypatch.setattr(loop, "compute_gradients", diverge)
    with pytest.raises(TrainingError, match="the loss at step 3 is nan"):
        fit(scene, dataclasses.replace(tiny_fit, checkpoint_every=2), checkpoint_dir=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("told", [{"window": {"context": 2.5}}, {"masked_latent": "any"}, {"masked_image": "smooth"}])
def test_a_checkpoint_is_refused_where_the_card_changes_the_models_input(scene, tiny_sd, tiny_fit, tmp_path, told):
    shutil.copytree(tiny_sd, tmp_path / "base")
    config = dataclasses.replace(tiny_fit, base=str(tmp_path / "base"))
    fit(scene, config, checkpoint_dir=tmp_path, progress=False)
    card = Card.load(tmp_path / "base")
    dataclasses.replace(card, **told).save(tmp_path / "base")
    with pytest.raises(AdapterError, match="another config, scene or base"):
        fit(scene, config, checkpoint_dir=tmp_path, progress=False)


@pytest.mark.parametrize(("given", "used"), [(None, "bf16"), ("no", "no")])
def test_a_card_can_state_the_precision_of_the_fit(scene, tiny_sd, tiny_fit, tmp_path, given, used):
    shutil.copytree(tiny_sd, tmp_path / "base")
    card = Card.load(tmp_path / "base")
    dataclasses.replace(card, fit={"mixed_precision": "bf16"}).save(tmp_path / "base")
    config = dataclasses.replace(tiny_fit, base=str(tmp_path / "base"), mixed_precision=given, num_steps=1)
    assert fit(scene, config, progress=False).config.mixed_precision == used


def test_the_seed_decides_the_result(scene, tiny_fit):
    again, other = (fit(scene, dataclasses.replace(tiny_fit, seed=s), progress=False) for s in (0, 1))
    assert equal(dict(fit(scene, tiny_fit, progress=False).tensors), dict(again.tensors))
    assert not equal(dict(again.tensors), dict(other.tensors))


def test_the_loss_falls(scene, tiny_sd):
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 60, "batch_size": 8, "learning_rate": 3e-3},
                       trainable="all", lora_targets=("*",))  # fmt: skip
    losses = fit(scene, config, progress=False).losses
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])


def test_a_fit_leaves_the_global_random_state_alone(scene, tiny_fit):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(scene, tiny_fit, progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


def test_a_scene_without_references_is_refused(scene, tiny_fit):
    with pytest.raises(SceneError, match="no references"):
        fit(type(scene)([], scene.target, scene.mask), tiny_fit)
