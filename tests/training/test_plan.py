"""Plans: the memory of a training step, and how a batch is made to fit."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from helpers import make_photo
from untrained import write_sd

from realfill.compute.devices import DTYPES
from realfill.compute.memory import peak_bytes
from realfill.config import FitConfig
from realfill.training import plan as plans
from realfill.training.crops import TrainingImage
from realfill.training.plan import MemoryPlan, StepFootprint, legal_pieces, plan_memory

GB = 1e9
SD2 = StepFootprint(
    num_trained=3_400_000, width=320, kept_values=(440, 85), num_latents=64 * 64, num_pixels=512 * 512, value_bytes=2
)
WEIGHTS_AND_CONTEXT = 3.2 * GB  # SD 2's weights in half precision, and CUDA's own memory


def plan(total_gb, **options):
    return plan_memory(total_gb * GB - WEIGHTS_AND_CONTEXT, SD2, 16, **options)


def test_stable_diffusion_2_fits_on_small_and_large_gpus():
    plans = {total: plan(total) for total in (5, 8, 12, 24, 80)}
    for total, chosen in plans.items():
        assert chosen.total_bytes <= 0.85 * (total * GB - WEIGHTS_AND_CONTEXT), total
    pieces = [p.pieces for p in plans.values()]
    assert pieces[-1] == 1
    assert pieces[1:] == sorted(pieces[1:], reverse=True)
    assert pieces[1] > pieces[3] > 1
    assert not any(p.checkpointing for total, p in plans.items() if total >= 8)


@pytest.mark.parametrize(("device", "share"), [("cuda", 1), ("cpu", 2)])
def test_processes_share_the_memory_of_a_cpu_but_not_of_gpus(device, share, monkeypatch):
    asked, device = [], torch.device(device)
    monkeypatch.setattr(plans, "free_bytes", lambda at: asked.append(at) or 100 * 10**9)
    monkeypatch.setattr(plans, "plan_memory", lambda free, footprint, *_, **__: (free, footprint.value_bytes))
    inpainter = SimpleNamespace(
        device=device, resolution=64, dtype=torch.float32, width=8, kept_values=(1, 1), num_latents=lambda _: 4,
        latent_shape=lambda _: (4, 8, 8),
    )  # fmt: skip
    trainable, accelerator = SimpleNamespace(parameters=list), SimpleNamespace(num_processes=2)
    settings = FitConfig(mixed_precision="bf16", batch_size=2).resolve({})
    assert plans.plan_fit(inpainter, trainable, settings, accelerator) == (100 * 10**9 // share, 2)
    assert asked == [device]


@pytest.mark.parametrize(
    ("device", "options", "pays"),
    [
        ("cuda", {"num_steps": 10**6}, True), ("cuda", {"num_steps": 1}, False), ("cpu", {"num_steps": 10**6}, False),
        ("cuda", {"num_steps": 10**6, "time_budget_s": 1.0}, False),
    ],
)  # fmt: skip
def test_only_long_fits_on_a_gpu_are_compiled(device, options, pays, monkeypatch):
    monkeypatch.setattr(plans.importlib.util, "find_spec", lambda name: name == "triton")
    assert plans.compiling_pays(FitConfig(**options).resolve({}), torch.device(device)) is pays


def test_checkpointing_is_used_where_single_crops_do_not_fit():
    free = 0.9 * SD2.total_bytes(1, checkpointing=False) / 0.85
    chosen = plan_memory(free, SD2, 16)
    assert chosen.checkpointing
    assert chosen.total_bytes <= 0.85 * free


def test_the_smallest_plan_is_tried_where_none_fits():
    chosen = plan_memory(0, SD2, 16)
    assert (chosen.pieces, chosen.checkpointing) == (16, True)


def test_given_choices_are_kept():
    assert plan(8, pieces=2, checkpointing=True) == MemoryPlan(
        pieces=2, checkpointing=True, total_bytes=SD2.total_bytes(8, checkpointing=True)
    )
    assert plan(8, checkpointing=False).pieces > 1
    assert plan(8, pieces=1).checkpointing


def test_the_whole_batch_is_computed_at_once_where_memory_suffices():
    chosen = plan_memory(10**15, SD2, 16)
    assert (chosen.pieces, chosen.checkpointing) == (1, False)


def test_memory_grows_with_crops_pixels_and_values():
    one = SD2.total_bytes(1, checkpointing=False)
    assert one < SD2.total_bytes(2, checkpointing=False)
    assert one > SD2.total_bytes(1, checkpointing=True)
    for change in (
        {"width": 640},
        {"num_latents": 96 * 96},
        {"value_bytes": 4},
        {"num_trained": 10**9},
        {"cache_bytes": 9},
    ):
        assert dataclasses.replace(SD2, **change).total_bytes(1, checkpointing=False) > one


def test_processes_share_each_piece():
    assert legal_pieces(12, 2) == [1, 2, 3, 6]
    assert plan_memory(10**15, SD2, 16, num_processes=4).total_bytes == SD2.total_bytes(4, checkpointing=False)
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps is 4; legal .* 2 processes: 1, 2, 3, 6"):
        plan_memory(10**15, SD2, 12, num_processes=2, pieces=4)
    with pytest.raises(ValueError, match="batch_size is 16, which 3 processes cannot share; legal: multiples of 3"):
        plan_memory(10**15, SD2, 16, num_processes=3)
    with pytest.raises(ValueError, match="batch_size is 16, which 3 processes cannot share"):
        plan_memory(10**15, SD2, 16, num_processes=3, pieces=2)


@pytest.mark.parametrize(("precision", "targets"), [("no", ("to_q", "to_k", "to_v", "to_out.0")), ("bf16", ("*",))])
def test_a_step_takes_no_more_memory_than_planned(precision, targets, tmp_path, make_trainer, train_steps):
    base = str(write_sd("scaled-sd", tmp_path / "base"))
    trainer = make_trainer(
        base, DTYPES[precision], mixed_precision=precision, lora_targets=targets, gradient_checkpointing=False,
        lora_rank=8, lora_alpha=16,
    )  # fmt: skip
    photos = [TrainingImage(image=make_photo(300, 320), crop_sides_px=(200, 250))]
    train_steps(trainer, photos)  # creates the optimizer's averages
    _, peak = peak_bytes(lambda: train_steps(trainer, photos), torch.device("cpu"))
    assert 0.4 * trainer.plan.total_bytes < peak <= trainer.plan.total_bytes
