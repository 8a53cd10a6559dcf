"""Training: batches, the loss, the schedule, checkpoints."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY_FIT, make_photo
from diffusers import AutoencoderKL, UNet2DConditionModel

from realfill import FitConfig, fit
from realfill.devices import make_accelerator
from realfill.errors import AdapterError, RealFillWarning, SceneError, TrainingError
from realfill.fitting import trainer as trainer_module
from realfill.fitting.batches import TrainingImage, draw_crops, draw_noising, step_rng
from realfill.fitting.denoising import denoising_loss, encode_crops
from realfill.fitting.trainer import Trainer, learning_rate_factor
from realfill.fitting.training import CHECKPOINT_NAME
from realfill.models.adapter import trainable_lora
from realfill.models.bases import Card
from realfill.models.inpainter import Inpainter

PAPER = FitConfig().resolve({})


def half_known(share=1.0):
    known = np.zeros((64, 64), bool)
    known[:, :32] = True
    image = np.where(known[:, :, None], make_photo(64, 64), 0).astype(np.uint8)
    return TrainingImage(image=image, known=known, crop_sides_px=(64, 64), share=share)


def whole(seed=0, share=1.0):
    return TrainingImage(image=make_photo(64, 96, seed), crop_sides_px=(20, 60), share=share)


def terms(config, shape=(4, 2, 2)):
    return draw_noising(config, shape, np.random.default_rng(0), torch.Generator().manual_seed(0))


def make_trainer(base, **changes):
    config = FitConfig(base=base, **{**TINY_FIT, **changes}).resolve({})
    inpainter = Inpainter.load(base)
    return Trainer(inpainter, trainable_lora(inpainter, config), config, make_accelerator(torch.device("cpu"), "no"))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_batch_holds_16_independent_crops(tiny_sd, monkeypatch):
    seen = []
    real = trainer_module.encode_crops
    monkeypatch.setattr(
        trainer_module, "encode_crops", lambda i, crops, *rest: seen.append(crops) or real(i, crops, *rest)
    )
    make_trainer(tiny_sd, batch_size=None).train_step([whole()])
    (crops,) = seen
    assert crops.images.shape == (16, 32, 32, 3)
    flat = torch.from_numpy(crops.images).float().flatten(1) / 255
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 0.1


def test_the_target_is_conditioned_on_the_random_mask_and_the_hole_and_learns_from_known_pixels_only():
    config = dataclasses.replace(PAPER, hole_margin_px=4, mask_dropout=0.0)
    crops = draw_crops([half_known()], config, 64, 16, np.random.default_rng(0))
    assert crops.hidden[..., 32:].all()
    assert crops.hidden[..., :32].mean() > 0.1
    assert not crops.hidden[..., :32].all(axis=(1, 2)).all()
    assert not crops.learnt[..., 28:].any()
    assert crops.learnt[..., :28].all()


def test_references_are_learnt_everywhere():
    assert draw_crops([whole()], PAPER, 32, 16, np.random.default_rng(0)).learnt.all()


def test_crops_are_drawn_by_share():
    crops = draw_crops([half_known(0.25), whole(share=0.75)], PAPER, 16, 400, np.random.default_rng(0))
    assert (~crops.learnt.all(axis=(1, 2))).mean() == pytest.approx(0.25, abs=0.07)


def test_prompt_and_mask_are_dropped_at_their_rates():
    config = dataclasses.replace(PAPER, batch_size=1000, prompt_dropout=0.3, mask_dropout=0.2)
    assert terms(config).prompted.float().mean() == pytest.approx(0.7, abs=0.05)
    rare = dataclasses.replace(config, mask_dropout=0.0)
    without = draw_crops([whole()], rare, 8, 1000, np.random.default_rng(0))
    crops = draw_crops([whole()], config, 8, 1000, np.random.default_rng(0))
    shares = [float(c.hidden.all(axis=(1, 2)).mean()) for c in (crops, without)]
    assert shares[0] - shares[1] == pytest.approx(0.2 * (1 - shares[1]), abs=0.04)


def test_noise_bias_favours_much_noise():
    flat, biased = (terms(dataclasses.replace(PAPER, batch_size=500, noise_bias=b)) for b in (1.0, 2.0))
    assert flat.quantiles.mean() == pytest.approx(0.5, abs=0.05)
    assert biased.quantiles.mean() == pytest.approx(2 / 3, abs=0.05)


def test_mirrored_photos_are_mirrored_half_the_time():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :4] = 255
    photo = TrainingImage(image=image, crop_sides_px=(16, 16), mirror=True)
    crops = draw_crops([photo], PAPER, 16, 200, np.random.default_rng(0))
    assert (crops.images[:, 0, 0, 0] > 0).mean() == pytest.approx(0.5, abs=0.12)


def test_a_step_draws_the_same_whatever_came_before():
    first, second = (step_rng(3, 7) for _ in range(2))
    assert first[0].random() == second[0].random()
    assert torch.equal(torch.rand(4, generator=first[1]), torch.rand(4, generator=second[1]))
    assert step_rng(3, 8)[0].random() != step_rng(3, 7)[0].random()


def test_loss_is_the_mean_squared_error_over_latents_that_count(tiny_sd):
    inpainter = Inpainter.load(tiny_sd)
    config = dataclasses.replace(PAPER, batch_size=4, hole_margin_px=3)
    crops = draw_crops([half_known(), whole()], config, 32, 4, np.random.default_rng(1))
    latents = encode_crops(inpainter, crops, 1.0, 4)
    noising = terms(config, (4, 16, 16))
    loss = denoising_loss(inpainter, latents, latents.weights, noising, lambda noisy, *_: torch.zeros_like(noisy))
    expected = sum(
        float(noising.noise[1, i, :, y, x] @ noising.noise[1, i, :, y, x])
        for i in range(4) for y in range(16) for x in range(16)
        if crops.learnt[i, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].all()
    )  # fmt: skip
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_latents_that_the_model_is_shown_weigh_less_where_asked(tiny_sd):
    inpainter = Inpainter.load(tiny_sd)
    crops = draw_crops([whole()], dataclasses.replace(PAPER, mask_dropout=0.0), 32, 16, np.random.default_rng(1))
    weights = encode_crops(inpainter, crops, 0.25, 6).weights
    shown = inpainter.known_latents(torch.from_numpy(~crops.hidden[:, None]))
    assert (weights[shown] == 0.25).all()
    assert (weights[~shown] == 1).all()
    assert 0 < shown.float().mean() < 1


@pytest.mark.parametrize(("schedule", "end"), [("constant", 1), ("linear", 0.1), ("cosine", 0.024)])
def test_learning_rate_warms_up_whatever_the_schedule(schedule, end):
    config = dataclasses.replace(PAPER, lr_scheduler=schedule, num_warmup_steps=10, num_steps=20)
    rates = [learning_rate_factor(config, step) for step in range(20)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10] == 1
    assert rates[-1] == pytest.approx(end, abs=0.001)


def test_a_time_budget_brings_the_schedule_to_its_end():
    config = dataclasses.replace(PAPER, lr_scheduler="linear", num_warmup_steps=2, num_steps=102, time_budget_s=10.0)
    assert learning_rate_factor(config, 1, 9.0) == 1  # the warm-up goes by steps
    assert learning_rate_factor(config, 12, 0.0) == pytest.approx(0.9)
    assert learning_rate_factor(config, 12, 7.0) == pytest.approx(0.3)
    assert learning_rate_factor(config, 12, 10.0) == 0
    assert learning_rate_factor(dataclasses.replace(config, time_budget_s=None), 12, 7.0) == pytest.approx(0.9)


class Clock:
    """Time that passes only in a trainer's steps: one second each, and ten more in the first."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("realfill.fitting.training.time.monotonic", lambda: self.now)
        step = Trainer.train_step

        def slow(trainer, photos):
            step(trainer, photos)
            self.now += 11 if trainer.step == 1 else 1

        monkeypatch.setattr(Trainer, "train_step", slow)


def test_a_fit_ends_within_its_time_budget_and_says_how_far_it_came(scene, tiny_fit, monkeypatch):
    clock = Clock(monkeypatch)
    config = dataclasses.replace(tiny_fit, num_steps=1000, time_budget_s=20.0, lr_scheduler="linear")
    seen = []
    adapter = fit(scene, config, on_step=seen.append, progress=False)
    assert 18 <= clock.now - 1000 <= 20
    assert adapter.manifest["num_steps_done"] == len(adapter.losses) == len(seen) == 9
    assert adapter.manifest["time_s"] == clock.now - 1000
    assert seen[-1].learning_rate == pytest.approx(config.resolve({}).learning_rate * (1 - 18 / 20))
    assert [r.left_s for r in seen[:3]] == [None, None, 20 - 13]


def test_without_a_budget_what_is_left_goes_by_the_steps_after_the_first(scene, tiny_fit, monkeypatch):
    Clock(monkeypatch)
    seen = []
    fit(scene, dataclasses.replace(tiny_fit, num_steps=6), on_step=seen.append, progress=False)
    assert [r.left_s for r in seen] == [None, None, 3, 2, 1, 0]


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


def test_learning_rates_reach_the_optimizer(tiny_sd):
    trainer = make_trainer(tiny_sd, learning_rate=0.1, text_encoder_learning_rate=0.02, num_warmup_steps=4)
    trainer.train_step([whole()])
    assert [g["lr"] for g in trainer.optimizer.param_groups] == pytest.approx([0.025, 0.005])


def test_lora_layers_are_dropped_whole_and_the_others_scaled_up(tiny_sd):
    trainer = make_trainer(tiny_sd, lora_dropout=0.5, num_steps=100)
    trainer.train_step([whole()])
    scales = [layer.scaling["default"] for layer in trainer.trainable.lora_layers]
    assert set(scales) == {0.0, 4 / 2 / 0.5}
    trainer.train_step([whole()])
    assert scales != [layer.scaling["default"] for layer in trainer.trainable.lora_layers]


def test_text_encoder_learns_too_and_can_be_left_alone(scene, tiny_fit):
    assert any(k.startswith("text_encoder.") for k in fit(scene, tiny_fit, progress=False).tensors)
    alone = dataclasses.replace(tiny_fit, text_encoder_learning_rate=0.0)
    assert not any(k.startswith("text_encoder.") for k in fit(scene, alone, progress=False).tensors)


def test_pieces_of_a_batch_give_the_same_result(scene, tiny_fit):
    whole_batch = dataclasses.replace(tiny_fit, batch_size=4, learning_rate=1e-3)
    pieces = dataclasses.replace(whole_batch, gradient_accumulation_steps=4, gradient_checkpointing=True)
    one, four = (fit(scene, c, progress=False) for c in (whole_batch, pieces))
    assert one.losses == pytest.approx(four.losses, rel=1e-4)
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(four.tensors[name].float(), tensor.float(), atol=2e-4, rtol=1e-2)


def test_memory_running_out_makes_the_pieces_smaller_and_changes_nothing_else(scene, tiny_fit, monkeypatch):
    config = dataclasses.replace(tiny_fit, batch_size=4)
    calm = fit(scene, config, progress=False)
    sizes, real = [], trainer_module.denoising_loss

    def scarce(inpainter, latents, *rest):
        sizes.append(len(latents.mean))
        if len(sizes) in (1, 3):  # at once, and in the middle of a batch
            raise torch.OutOfMemoryError("scarce")
        return real(inpainter, latents, *rest)

    monkeypatch.setattr(trainer_module, "denoising_loss", scarce)
    with pytest.warns(RealFillWarning, match=r"out of memory; going on with the batch in [24] pieces"):
        pressed = fit(scene, config, progress=False)
    assert sizes == [4, 2, 2] + 3 * [1, 1, 1, 1]
    assert pressed.config.gradient_accumulation_steps == 4
    assert pressed.losses == pytest.approx(calm.losses, rel=1e-4)
    for name, tensor in calm.tensors.items():
        torch.testing.assert_close(pressed.tensors[name].float(), tensor.float(), atol=2e-4, rtol=1e-2)


def test_where_single_crops_do_not_fit_they_are_checkpointed_and_then_it_is_an_error(scene, tiny_fit, monkeypatch):
    tried = []

    def never(inpainter, *_):
        tried.append(inpainter.unet.is_gradient_checkpointing)
        raise torch.OutOfMemoryError("none at all")

    monkeypatch.setattr(trainer_module, "denoising_loss", never)
    with pytest.warns(RealFillWarning, match="out of memory") as said, pytest.raises(torch.OutOfMemoryError):
        fit(scene, tiny_fit, progress=False)
    assert "with gradient checkpointing" in str(said[-1].message)
    assert tried == [False, False, True]


def test_a_fit_resumes_on_a_machine_with_other_memory(scene, tiny_fit, tmp_path):
    fit(scene, tiny_fit, checkpoint_dir=tmp_path, on_step=lambda r: r.step < 2, progress=False)
    pieces = dataclasses.replace(tiny_fit, gradient_accumulation_steps=2, gradient_checkpointing=True)
    assert fit(scene, pieces, checkpoint_dir=tmp_path, progress=False).manifest["num_steps_done"] == 3


def test_before_it_starts_a_fit_says_what_it_will_take(scene, tiny_fit, capfd):
    fit(scene, dataclasses.replace(tiny_fit, gradient_accumulation_steps=2, time_budget_s=60.0))
    said = capfd.readouterr().err
    assert "fit: 3 steps of 2 crops at 32 px, at most 60 s, on cpu; about 0." in said
    assert "GB of memory, in 2 pieces of 1" in said
    fit(scene, tiny_fit, progress=False)
    assert "fit:" not in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # dynamo's own
def test_a_compiled_fit_is_the_same_fit_and_is_compiled_once(scene, tiny_fit, monkeypatch):
    import torch._dynamo.utils

    real = UNet2DConditionModel.compile_repeated_blocks
    monkeypatch.setattr(UNet2DConditionModel, "compile_repeated_blocks", lambda self: real(self, backend="eager"))
    config = dataclasses.replace(tiny_fit, num_steps=4, lora_dropout=0.3, learning_rate=1e-3)
    plain = fit(scene, config, progress=False)
    frames = []

    def count(report):
        frames.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    compiled = fit(scene, dataclasses.replace(config, compile=True), on_step=count, progress=False)
    assert frames[0] > 0
    assert frames[1:] == frames[:1] * 3  # not again when other layers are dropped
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-3)


RESUMED = [{}, {"trainable": "all", "ema_decay": 0.9, "lora_targets": ("*",)}, {"bank_size": 4, "bank_uses": 2}]


@pytest.mark.parametrize("changes", RESUMED)
def test_a_killed_fit_resumes_to_the_same_result(scene, tiny_sd, tmp_path, changes):
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 6}, checkpoint_every=2, **changes)
    straight = fit(scene, config, progress=False)

    def die(report):
        if report.step == 5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit(scene, config, checkpoint_dir=tmp_path, on_step=die, progress=False)
    seen = []
    resumed = fit(scene, config, checkpoint_dir=tmp_path, on_step=lambda r: seen.append(r.step), progress=False)
    assert seen == [6]
    assert resumed.losses == straight.losses
    assert equal(dict(resumed.tensors), dict(straight.tensors))


def test_an_interruption_within_a_step_leaves_the_last_whole_checkpoint(scene, tiny_sd, tmp_path, monkeypatch):
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 6}, checkpoint_every=2)
    straight = fit(scene, config, progress=False)
    update = Trainer._update_average

    def interrupt(self):
        if self.step == 3:
            raise KeyboardInterrupt
        update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update_average", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(scene, config, checkpoint_dir=tmp_path, progress=False)
    seen = []
    resumed = fit(scene, config, checkpoint_dir=tmp_path, on_step=lambda r: seen.append(r.step), progress=False)
    assert seen[0] == 3
    assert equal(dict(resumed.tensors), dict(straight.tensors))


def test_on_step_is_told_and_can_stop(scene, tiny_fit):
    seen = []

    def stop_at_two(report):
        seen.append(report)
        return report.step < 2

    adapter = fit(scene, tiny_fit, on_step=stop_at_two, progress=False)
    assert [r.step for r in seen] == [1, 2]
    assert seen[0].num_steps == 3
    assert seen[1].loss == adapter.losses[1]
    assert len(adapter.losses) == adapter.manifest["num_steps_done"] == 2


def test_a_checkpoint_of_another_fit_is_refused(scene, tiny_fit, tmp_path):
    fit(scene, tiny_fit, checkpoint_dir=tmp_path, progress=False)
    with pytest.raises(AdapterError, match="another config, scene or base"):
        fit(scene, dataclasses.replace(tiny_fit, seed=1), checkpoint_dir=tmp_path, progress=False)


def test_a_damaged_checkpoint_is_named(scene, tiny_fit, tmp_path):
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"not a checkpoint")
    with pytest.raises(AdapterError, match="damaged"):
        fit(scene, tiny_fit, checkpoint_dir=tmp_path, progress=False)


def test_a_fit_that_diverges_is_an_error_and_leaves_no_file(scene, tiny_fit, tmp_path):
    wild = dataclasses.replace(tiny_fit, learning_rate=1e30, num_steps=8, checkpoint_every=1000)
    with pytest.raises(TrainingError, match="learning_rate"):
        fit(scene, wild, checkpoint_dir=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_fit_that_diverges_in_its_last_step_leaves_no_file(scene, tiny_fit, tmp_path):
    wild = dataclasses.replace(tiny_fit, learning_rate=1e30, num_steps=1)
    with pytest.raises(TrainingError, match="learning_rate"):
        fit(scene, wild, checkpoint_dir=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_divergence_that_is_found_only_at_the_end_leaves_no_file(scene, tiny_fit, tmp_path, monkeypatch):
    step, read = Trainer.train_step, Trainer.read_losses

    def unread(self, photos):  # as on a GPU, where losses are looked at every tenth step
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "read_losses", lambda _: None)
            step(self, photos)
        if self.step == 3:
            self._pending[-1] = torch.tensor(float("nan"))

    monkeypatch.setattr(Trainer, "train_step", unread)
    with pytest.raises(TrainingError, match="the loss at step 3 is nan"):
        fit(scene, dataclasses.replace(tiny_fit, checkpoint_every=2), checkpoint_dir=tmp_path, progress=False)
    assert Trainer.read_losses is read
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("told", [{"sample": {"context": 2.5}}, {"masked_latent": "any"}, {"masked_image": "smooth"}])
def test_a_checkpoint_is_not_gone_on_with_where_the_card_shows_the_model_something_else(
    scene, tiny_sd, tiny_fit, tmp_path, told
):
    shutil.copytree(tiny_sd, tmp_path / "base")
    config = dataclasses.replace(tiny_fit, base=str(tmp_path / "base"))
    fit(scene, config, checkpoint_dir=tmp_path, progress=False)
    card = Card.load(tmp_path / "base")
    dataclasses.replace(card, **told).save(tmp_path / "base")
    with pytest.raises(AdapterError, match="another config, scene or base"):
        fit(scene, config, checkpoint_dir=tmp_path, progress=False)


@pytest.mark.parametrize(("asked", "wanted"), [(None, "bf16"), ("no", "no")])
def test_a_card_may_say_in_what_precision_to_fit(scene, tiny_sd, tiny_fit, tmp_path, asked, wanted):
    shutil.copytree(tiny_sd, tmp_path / "base")
    card = Card.load(tmp_path / "base")
    dataclasses.replace(card, fit={"mixed_precision": "bf16"}).save(tmp_path / "base")
    config = dataclasses.replace(tiny_fit, base=str(tmp_path / "base"), mixed_precision=asked, num_steps=1)
    assert fit(scene, config, progress=False).config.mixed_precision == wanted


def precise(base, precision, dtype=None, steps=1, **changes):
    """Fit for a step on the tiny base in a precision; returns the trainer."""
    config = FitConfig(base=base, **{**TINY_FIT, "mixed_precision": precision, **changes}).resolve({})
    inpainter = Inpainter.load(base).to(torch.device("cpu"), dtype or torch.float32)
    trainer = Trainer(
        inpainter, trainable_lora(inpainter, config), config, make_accelerator(torch.device("cpu"), precision)
    )
    for _ in range(steps):
        trainer.train_step([whole()])
    return trainer


def test_crops_are_encoded_in_the_precision_of_the_fit(tiny_sd, monkeypatch):
    seen, real = [], AutoencoderKL.encode

    def watch(self, *inputs, **options):
        result = real(self, *inputs, **options)
        seen.append(result.latent_dist.mean.dtype)
        return result

    monkeypatch.setattr(AutoencoderKL, "encode", watch)
    latents = []
    for precision, changes in (("no", {}), ("bf16", {}), ("bf16", {"bank_size": 2})):
        trainer = precise(tiny_sd, precision, **changes)
        latents.append(trainer._latents([whole()])[0])
    assert seen == [torch.float32] * 4 + [torch.bfloat16] * 6  # the bank encodes once only
    assert all(getattr(x, name).dtype == torch.float32 for x in latents for name in x.__slots__)
    assert 0 < (latents[1].mean - latents[0].mean).norm() < 0.03 * latents[0].mean.norm()


def test_half_precision_on_a_cpu_takes_plain_attention_where_it_is_small(tiny_sd, monkeypatch):
    def kinds(precision):
        trainer = precise(tiny_sd, precision, steps=0)
        return {type(p).__name__ for p in trainer.inpainter.unet.attn_processors.values()}

    assert kinds("bf16") == {"AttnProcessor"}
    assert kinds("no") == {"AttnProcessor2_0"}
    monkeypatch.setattr("realfill.models.inpainter._MAX_PLAIN_ATTENTION", 255)
    assert kinds("bf16") == {"AttnProcessor2_0"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_in_half_precision_goes_where_one_in_single_precision_goes(tiny_sd, dtype):
    steps = {"steps": 3, "learning_rate": 1e-3}
    single, half = precise(tiny_sd, "no", **steps), precise(tiny_sd, "bf16", dtype, **steps)
    assert half.losses == pytest.approx(single.losses, rel=0.02)
    changes = []
    for trainer in (single, half):
        values = [p.detach().flatten() for n, p in trainer.trainable.parameters() if "lora_B" in n]
        assert all(v.dtype == torch.float32 for v in values)
        changes.append(torch.cat(values))
    assert torch.cosine_similarity(*changes, dim=0) > 0.9


def test_a_text_encoder_that_does_not_learn_runs_once(tiny_sd, monkeypatch):
    calls, real = [], Inpainter.embed
    monkeypatch.setattr(Inpainter, "embed", lambda self, prompts: calls.append(len(prompts)) or real(self, prompts))
    precise(tiny_sd, "no", steps=3, text_encoder_learning_rate=0.0)
    assert calls == [2]
    precise(tiny_sd, "no", steps=3)
    assert calls == [2] * 4


def test_the_seed_decides(scene, tiny_fit):
    again, other = (fit(scene, dataclasses.replace(tiny_fit, seed=s), progress=False) for s in (0, 1))
    assert equal(dict(fit(scene, tiny_fit, progress=False).tensors), dict(again.tensors))
    assert not equal(dict(again.tensors), dict(other.tensors))


def test_the_loss_falls(scene, tiny_sd):
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 60, "batch_size": 8, "learning_rate": 3e-3},
                       trainable="all", lora_targets=("*",))  # fmt: skip
    losses = fit(scene, config, progress=False).losses
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])


def test_fit_leaves_global_random_state_alone(scene, tiny_fit):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(scene, tiny_fit, progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


def test_a_scene_without_references_is_not_fitted(scene, tiny_fit):
    with pytest.raises(SceneError, match="no references"):
        fit(type(scene)([], scene.target, scene.mask), tiny_fit)
