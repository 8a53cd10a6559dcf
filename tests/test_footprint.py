"""What a training step takes of memory, and how a batch is made to fit."""

import dataclasses

import pytest
import torch
from conftest import make_photo

from realfill import FitConfig
from realfill.capacity import peak_bytes
from realfill.devices import DTYPES, make_accelerator
from realfill.fitting.batches import TrainingImage
from realfill.fitting.footprint import MemoryPlan, StepFootprint, legal_pieces, plan_memory
from realfill.fitting.trainer import Trainer
from realfill.models.adapter import trainable_lora
from realfill.models.inpainter import Inpainter
from realfill.models.untrained import write_sd

GB = 1e9
SD2 = StepFootprint(num_trained=3_400_000, width=320, num_latents=64 * 64, num_pixels=512 * 512, value_bytes=2)
WEIGHTS_AND_CONTEXT = 3.2 * GB  # of SD 2 in half precision, and what CUDA takes for itself


def plan(total_gb, **options):
    return plan_memory(total_gb * GB - WEIGHTS_AND_CONTEXT, SD2, 16, **options)


def test_stable_diffusion_2_fits_into_small_and_large_cards_without_checkpointing_where_it_can():
    plans = {total: plan(total) for total in (5, 8, 12, 24, 80)}
    for total, found in plans.items():
        assert found.total_bytes <= 0.85 * (total * GB - WEIGHTS_AND_CONTEXT), total
    pieces = [p.pieces for p in plans.values()]
    assert pieces[-1] == 1
    assert pieces[1:] == sorted(pieces[1:], reverse=True)
    assert pieces[1] > pieces[3] > 1
    assert not any(p.checkpointing for total, p in plans.items() if total >= 8)


def test_checkpointing_comes_where_single_crops_do_not_fit():
    free = 0.9 * SD2.total_bytes(1, checkpointing=False) / 0.85
    found = plan_memory(free, SD2, 16)
    assert found.checkpointing
    assert found.total_bytes <= 0.85 * free


def test_where_nothing_fits_the_smallest_way_is_tried():
    found = plan_memory(0, SD2, 16)
    assert (found.pieces, found.checkpointing) == (16, True)


def test_what_is_given_is_kept_and_enough_memory_means_all_at_once():
    assert plan(8, pieces=2, checkpointing=True) == MemoryPlan(
        pieces=2, checkpointing=True, total_bytes=SD2.total_bytes(8, checkpointing=True)
    )
    assert plan(8, checkpointing=False).pieces > 1
    assert plan(8, pieces=1).checkpointing
    found = plan_memory(10**15, SD2, 16)
    assert (found.pieces, found.checkpointing) == (1, False)


def test_more_crops_pixels_or_values_take_more():
    one = SD2.total_bytes(1, checkpointing=False)
    assert one < SD2.total_bytes(2, checkpointing=False)
    assert one > SD2.total_bytes(1, checkpointing=True)
    for change in (
        {"width": 640},
        {"num_latents": 96 * 96},
        {"value_bytes": 4},
        {"num_trained": 10**9},
        {"bank_bytes": 9},
    ):
        assert dataclasses.replace(SD2, **change).total_bytes(1, checkpointing=False) > one


def test_processes_share_each_piece():
    assert legal_pieces(12, 2) == [1, 2, 3, 6]
    assert plan_memory(10**15, SD2, 16, num_processes=4).total_bytes == SD2.total_bytes(4, checkpointing=False)
    with pytest.raises(ValueError, match=r"16 crops in 16 pieces can't be shared by 2 processes; legal .* 1, 2, 4, 8"):
        plan_memory(10**15, SD2, 16, num_processes=2, pieces=16)
    with pytest.raises(ValueError, match="16 crops can't be shared by 3"):
        plan_memory(10**15, SD2, 16, num_processes=3)


@pytest.mark.parametrize(("precision", "targets"), [("no", ("to_q", "to_k", "to_v", "to_out.0")), ("bf16", ("*",))])
def test_a_step_takes_what_is_planned_with_or_less(precision, targets, tmp_path):
    base, cpu = str(write_sd("scaled-sd", tmp_path / "base")), torch.device("cpu")
    config = FitConfig(
        base=base, batch_size=2, num_steps=2, mixed_precision=precision, lora_targets=targets,
        gradient_checkpointing=False,
    ).resolve({})  # fmt: skip
    inpainter = Inpainter.load(base).to(cpu, DTYPES[precision])
    trainer = Trainer(inpainter, trainable_lora(inpainter, config), config, make_accelerator(cpu, precision))
    photos = [TrainingImage(image=make_photo(300, 320), crop_sides_px=(200, 250))]
    trainer.train_step(photos)  # the optimizer's averages come to be
    _, taken = peak_bytes(lambda: trainer.train_step(photos), cpu)
    assert 0.4 * trainer.plan.total_bytes < taken <= trainer.plan.total_bytes
