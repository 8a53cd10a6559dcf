"""The trainer: learning rates, LoRA dropout, optimizer, moving average, precision."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import make_photo

from realfill import FitConfig
from realfill.errors import TrainingError
from realfill.training.crops import TrainingImage
from realfill.training.trainer import learning_rate_factor

PAPER = FitConfig().resolve({})
PHOTO = TrainingImage(image=make_photo(64, 96), crop_sides_px=(20, 60))


def values(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.parameters])


def gradient_norms(trainer):
    """Return a list to which each optimizer step adds the norm of its gradient."""
    norms = []
    trainer.optimizer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(torch.cat([p.grad.flatten() for p in trainer.parameters]).norm()))
    )
    return norms


@pytest.mark.parametrize(("schedule", "end"), [("constant", 1), ("linear", 0.1), ("cosine", 0.024)])
def test_the_learning_rate_warms_up_with_each_schedule(schedule, end):
    settings = dataclasses.replace(PAPER, lr_scheduler=schedule, num_warmup_steps=10, num_steps=20)
    factors = [learning_rate_factor(settings, step) for step in range(20)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10] == 1
    assert factors[-1] == pytest.approx(end, abs=0.001)


def test_a_time_budget_brings_the_schedule_to_its_end():
    settings = dataclasses.replace(PAPER, lr_scheduler="linear", num_warmup_steps=2, num_steps=102, time_budget_s=10.0)
    assert learning_rate_factor(settings, 1, 9.0) == 1  # the warm-up depends on steps alone
    assert learning_rate_factor(settings, 12, 0.0) == pytest.approx(0.9)
    assert learning_rate_factor(settings, 12, 7.0) == pytest.approx(0.3)
    assert learning_rate_factor(settings, 12, 10.0) == 0
    assert learning_rate_factor(dataclasses.replace(settings, time_budget_s=None), 12, 7.0) == pytest.approx(0.9)


def test_both_learning_rates_reach_the_optimizer(make_trainer, train_steps):
    trainer = make_trainer(learning_rate=0.1, text_encoder_learning_rate=0.02, num_warmup_steps=4)
    train_steps(trainer, [PHOTO])
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([0.025, 0.005])
    train_steps(trainer, [PHOTO])
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([0.05, 0.01])


def test_lora_layers_are_dropped_whole_and_the_others_scaled_up(make_trainer, train_steps):
    trainer = make_trainer(lora_dropout=0.2, num_steps=100)
    scales = []
    for _ in range(4):
        train_steps(trainer, [PHOTO])
        scales.append([layer.scaling["default"] for layer in trainer.trainable.lora_layers])
    assert len({tuple(s) for s in scales}) > 1
    dropped = np.ravel(scales) == 0
    assert np.ravel(scales)[~dropped] == pytest.approx(4 / 2 / (1 - 0.2))
    assert dropped.mean() == pytest.approx(0.2, abs=0.1)


def test_gradients_are_clipped_to_their_norm(make_trainer, train_steps):
    free, clipped = make_trainer(max_grad_norm=1e6), make_trainer(max_grad_norm=1e-3)
    norms = [gradient_norms(trainer) for trainer in (free, clipped)]
    for trainer in (free, clipped):
        train_steps(trainer, [PHOTO])
    assert norms[0][0] > 1e-2
    assert norms[1] == pytest.approx([1e-3], rel=1e-3)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_weights_decay_where_nothing_counts_in_the_loss(make_trainer, train_steps, weight_decay):
    trainer = make_trainer(weight_decay=weight_decay, learning_rate=0.1, text_encoder_learning_rate=0.1)
    unknown = dataclasses.replace(PHOTO, known=np.zeros((64, 96), bool))
    norms, before = gradient_norms(trainer), values(trainer)
    train_steps(trainer, [unknown])
    assert norms == [0]
    assert before.norm() > 0
    torch.testing.assert_close(values(trainer), before * (1 - 0.1 * weight_decay))


def test_adam_forgets_at_the_configured_rate(make_trainer, train_steps):
    trainer = make_trainer(adam_beta2=0.5)
    train_steps(trainer, [PHOTO])
    assert {group["betas"] for group in trainer.optimizer.param_groups} == {(0.9, 0.5)}
    state = trainer.optimizer.state[trainer.parameters[-1]]
    torch.testing.assert_close(state["exp_avg_sq"], 50 * state["exp_avg"] ** 2)  # (1 - 0.5) g^2 and (1 - 0.9) g


@pytest.mark.parametrize(("ema_decay", "decays"), [(0.9, (2 / 11, 3 / 12, 4 / 13)), (0.2, (2 / 11, 0.2, 0.2))])
def test_the_average_moves_slowly_towards_the_weights_and_becomes_the_adapter(
    make_trainer, train_steps, ema_decay, decays
):
    trainer = make_trainer(ema_decay=ema_decay, learning_rate=1e-2)
    average = values(trainer)
    for decay in decays:
        train_steps(trainer, [PHOTO])
        average = decay * average + (1 - decay) * values(trainer)
        torch.testing.assert_close(torch.cat([a.flatten() for a in trainer.average.values()]), average)
    assert not torch.allclose(average, values(trainer), atol=1e-4)
    trainer.export()
    torch.testing.assert_close(values(trainer), average)


def test_without_an_average_the_last_weights_become_the_adapter(make_trainer, train_steps):
    trainer = make_trainer()
    train_steps(trainer, [PHOTO])
    last = values(trainer)
    trainer.export()
    assert torch.equal(values(trainer), last)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -7e4])
def test_weights_that_half_precision_cannot_hold_are_an_error(make_trainer, value):
    trainer = make_trainer()
    trainer.parameters[-1].data.flatten()[-1] = value
    with pytest.raises(TrainingError, match="diverged in its last step; lower learning_rate"):
        trainer.export()


def test_half_precision_on_a_cpu_uses_plain_attention_where_it_is_small(make_trainer, monkeypatch):
    def kinds(precision):
        trainer = make_trainer(mixed_precision=precision)
        return {type(p).__name__ for p in trainer.inpainter.unet.attn_processors.values()}

    assert kinds("bf16") == {"AttnProcessor"}
    assert kinds("no") == {"AttnProcessor2_0"}
    monkeypatch.setattr("realfill.models.diffusion.stable_diffusion._MAX_PLAIN_ATTENTION", 255)
    assert kinds("bf16") == {"AttnProcessor2_0"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_trains_in_the_same_direction_as_single_precision(make_trainer, train_steps, dtype):
    single = make_trainer(learning_rate=1e-3)
    half = make_trainer(dtype=dtype, mixed_precision="bf16", learning_rate=1e-3)
    changes = []
    for trainer in (single, half):
        train_steps(trainer, [PHOTO], 3)
        parameters = [p.detach().flatten() for n, p in trainer.trainable.parameters() if "lora_B" in n]
        assert all(p.dtype == torch.float32 for p in parameters)
        changes.append(torch.cat(parameters))
    assert half.losses == pytest.approx(single.losses, rel=0.02)
    assert torch.cosine_similarity(*changes, dim=0) > 0.9


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_lora_convolutions_compute_in_the_precision_of_the_fit(make_trainer, train_steps, precision, dtype):
    trainer, dtypes = make_trainer(mixed_precision=precision, lora_targets=("conv1",)), set()
    for layer in trainer.inpainter.unet.modules():
        if hasattr(layer, "lora_A"):
            layer.lora_A["default"].register_forward_hook(lambda _, inputs, output: dtypes.add(inputs[0].dtype))
    train_steps(trainer, [PHOTO])
    assert dtypes == {dtype}


def test_a_batch_holds_16_independent_crops(make_trainer):
    trainer = make_trainer(batch_size=None)
    latents = trainer.next_batch([PHOTO])[0]
    assert latents.mean.shape == (16, 4, 16, 16)
    assert torch.cdist(latents.mean.flatten(1), latents.mean.flatten(1)).fill_diagonal_(9).min() > 0.1
