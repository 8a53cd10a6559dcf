"""The speed benchmark: what it counts and times, what the port does, and that cost grows linearly."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from realfill import FitConfig, RankConfig, SampleConfig
from realfill.benchmark.config import SpeedConfig
from realfill.benchmark.speed import workloads
from realfill.benchmark.speed.measuring import Timing, Variant, count_flops, matmul_flops, measure
from realfill.benchmark.speed.port import load_plainly, match_pair_by_pair, sample_one_by_one
from realfill.benchmark.speed.scaling import growth
from realfill.benchmark.speed.workloads import Workplace, make_completions, make_scene, run_fit, run_ported_fit
from realfill.cli import main
from realfill.io.images import to_tensor
from realfill.models.inpainter import Inpainter
from realfill.models.untrained import random_loftr
from realfill.ranking import rank

CPU = torch.device("cpu")
RANK = RankConfig(max_size_px=96, min_confidence=0.0)

pytestmark = pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")


@pytest.fixture
def place(tiny_sd):
    fit = FitConfig(base=tiny_sd, batch_size=3, lora_rank=2, mixed_precision="no", prompt_dropout=0.5)
    return Workplace.load(fit, SampleConfig(num_samples=3, num_inference_steps=2), CPU)


def test_operations_of_a_matrix_product_are_counted_and_timed():
    a, b = torch.randn(8, 16), torch.randn(16, 4)
    assert count_flops(lambda: a @ b) == 2 * 8 * 16 * 4
    assert matmul_flops(CPU, torch.float32) > 1e7


def test_variants_take_turns_and_medians_are_told():
    calls, seconds = [], {"a": [9.0, 9.0, 1.0, 5.0, 2.0], "b": [9.0, 9.0, 4.0, 4.0, 4.0]}

    def variant(name):
        def run():
            calls.append(name)
            torch.ones(100, 100) @ torch.ones(100, 100)
            return Timing(seconds=seconds[name].pop(0), set_up_s=7.0)

        return Variant(part="fit", name=name, steps=2, samples=8, dtype=torch.float32, run=run)

    ours, other = measure([variant("a"), variant("b")], CPU, rounds=3)
    assert calls[-6:] == ["a", "b"] * 3  # after one for memory and one for operations
    assert (ours.seconds_a_step, ours.samples_a_second, ours.set_up_s) == (1.0, 4.0, 7.0)
    assert other.rounds_s == (4.0, 4.0, 4.0)
    assert ours.gflop_a_sample == pytest.approx(2e6 / 8 / 1e9)
    assert ours.roofline_share == pytest.approx(2e6 / 2 / ours.peak_gflops / 1e9)
    assert ours.peak_mb == pytest.approx(0.12)


def test_a_time_budget_ends_no_measurement(place):
    place = dataclasses.replace(place, fit=dataclasses.replace(place.fit, time_budget_s=1e-6))
    assert run_fit(place, place.scene(), 2).seconds > 0


def rows_seen(work, monkeypatch, *methods):
    """Note the batch sizes with which methods of classes are called during some work."""
    seen = {name: [] for _, name in methods}
    with monkeypatch.context() as patch:
        for kind, name in methods:
            real = getattr(kind, name)

            def noting(self, rows, *args, real=real, name=name, **options):
                seen[name].append(len(rows))
                return real(self, rows, *args, **options)

            patch.setattr(kind, name, noting)
        work()
    return seen


def test_the_port_encodes_and_embeds_every_row(place, monkeypatch):
    seen = rows_seen(
        lambda: run_ported_fit(place, place.scene(), 2), monkeypatch, (AutoencoderKL, "encode"), (Inpainter, "embed")
    )
    assert seen == {"encode": [3, 3] * 3, "embed": [3] * 3}  # a step that isn't counted, and two that are


def test_the_port_learns(place, monkeypatch):
    kept = []
    real = workloads.trainable_lora
    monkeypatch.setattr(workloads, "trainable_lora", lambda *a, **o: kept.append(real(*a, **o)) or kept[-1])
    timing = run_ported_fit(place, place.scene(), 1)
    assert timing.seconds > 0
    changed = [p for name, p in kept[0].parameters() if "lora_B" in name and p.abs().max() > 0]
    assert changed


def test_only_the_steps_after_the_first_are_timed(place, monkeypatch):
    steps = []
    real = workloads.fit
    monkeypatch.setattr(workloads, "fit", lambda *a, **o: steps.append(a[1].num_steps) or real(*a, **o))
    timing = run_fit(place, place.scene(), 2)
    assert steps == [3]
    assert timing.seconds > 0
    assert timing.set_up_s > 0
    assert run_fit(place, place.scene(), 0).seconds == 0


def test_filling_a_bank_is_counted_with_each_use(place, monkeypatch):
    variants = workloads.fit_variants(place, 3, bank_uses=(2, 5), port=True)
    assert [(v.name, v.steps, v.samples) for v in variants] == [
        ("realfill", 3, 9), ("bank, 2 uses", 4, 12), ("bank, 5 uses", 5, 15), ("port", 3, 9)
    ]  # fmt: skip
    encoded = []
    for variant in variants[:3]:
        last = rows_seen(variant.run, monkeypatch, (AutoencoderKL, "encode"))["encode"]
        encoded.append(sum(last) - 2 * 3)  # without those of the first step, which isn't counted
    assert encoded == [2 * 9, 2 * 12 / 2, 2 * 15 / 5]
    flops = [v.flops() for v in variants[1:3]]
    assert flops[1] / 15 < flops[0] / 12
    own = dataclasses.replace(place, fit=dataclasses.replace(place.fit, bank_size=300, bank_uses=4))
    assert [(v.name, v.steps) for v in workloads.fit_variants(own, 3, port=False)] == [("realfill", 4)]


def test_the_ports_weights_are_laid_out_as_in_the_files(place):
    ours, port = Inpainter.load(place.base).to(CPU, torch.float32), load_plainly(place.base, CPU)

    def apart(inpainter):
        weights = [p for p in inpainter.pipeline.vae.parameters() if p.ndim == 4 and p.shape[1] > 1 < p.shape[2]]
        return [not p.is_contiguous() for p in weights]

    assert all(apart(ours)) and not any(apart(port))


def test_both_ways_to_sample_give_the_same_images(place):
    inpainter, scene = Inpainter.load(place.base), make_scene(32)
    image, hole = to_tensor(scene.known), torch.from_numpy(scene.mask)[None, None]
    ours = workloads.sample_in_batches(inpainter, image, hole, range(3), place.sample)
    port = sample_one_by_one(inpainter, image, hole, range(3), place.sample)
    assert (ours - port).abs().max() <= 2 / 255


def test_both_ways_to_rank_find_the_same_matches():
    completions = make_completions(64, 2, 3)
    matcher = random_loftr(RANK.resolve({}), CPU)
    pairs = match_pair_by_pair(matcher, completions.scene.references, [c.image for c in completions])
    assert len(pairs) == 6
    assert any(len(m.confidence) for m in pairs)
    ranked = rank(completions, matcher=matcher, config=RANK, progress=False)
    for completion in ranked:
        x, y = (
            np.rint(np.concatenate([m.keypoints1 for m in pairs[2 * completion.seed : 2 * completion.seed + 2]]))
            .astype(int)
            .T.clip(0, 63)
        )
        assert abs(completion.scene.mask[y, x].sum() - completion.num_matches) <= 1


def test_cost_grows_linearly_and_a_fits_memory_not_with_its_photos(place):
    rows = growth(place, RANK, ("fit", "sample", "rank"), photo_px=64)
    kinds = {what: [r for r in rows if r.what == what] for what in dict.fromkeys(r.what for r in rows)}
    assert len(kinds) == 7
    for what, some in kinds.items():
        if some[0].gflop:
            slopes = np.diff([r.gflop for r in some]) / np.diff([r.size for r in some])
            tolerance = 0.1 if what.startswith("rank") else 0.01  # how many matches are refined differs
            assert slopes[1] == pytest.approx(slopes[0], rel=tolerance), what
            assert slopes[0] > 0, what
        else:
            assert max(r.peak_mb for r in some) <= 1.02 * min(r.peak_mb for r in some), what
            assert some[0].peak_mb > 0.1
            photo_mb = max(r.size for r in some) ** 2 * 3 / 1e6 if "px" in what else 0
            assert max(r.arrays_mb for r in some) < some[0].arrays_mb * 1.05 + 12 * photo_mb, what


def test_the_command_prints_tables_and_writes_json(tiny_sd, tmp_path, capsys):
    words = [
        "bench-speed", "--base", tiny_sd, "--batch-size", "4", "--lora-rank", "2", "--fit-steps", "1", "--rounds", "1",
        "--against", "port", "--sample.num-samples", "2", "--sample.num-inference-steps", "2", "--num-references", "1",
        "--photo-px", "64", "--profile", "--device", "cpu", "--banks", "2", "-o", str(tmp_path / "speed.json"),
    ]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / "speed.json").read_text())
    assert [(f["part"], f["variant"]) for f in values["figures"]] == [
        ("fit", "realfill"), ("fit", "bank, 2 uses"), ("fit", "port"), ("sample", "realfill"), ("sample", "port"),
        ("rank", "realfill"), ("rank", "port"), ("rank", "floor"),
    ]  # fmt: skip
    for figures in values["figures"]:
        assert all(figures[name] > 0 for name in ("seconds_a_step", "samples_a_second", "gflop_a_sample", "peak_mb"))
        assert 0 < figures["roofline_share"] < 2
    own, bank, port = (f["gflop_a_sample"] for f in values["figures"][:3])
    assert bank < own < port  # which runs the text encoder on every row
    assert set(values["profiles"]["fit"]["parts"]) >= {"U-Net forward", "VAE encode", "backward", "optimizer"}
    assert "| fit | port |" in printed
    assert "Where the time goes: rank" in printed


def test_a_folder_that_is_not_there_is_told_before_anything_is_measured(tmp_path, capsys):
    assert main(["bench-speed", "-o", str(tmp_path / "none" / "speed.json")]) == 1
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"parts": ()}, {"parts": ("fit", "fit")}, {"rounds": 0}, {"num_references": 6}])
def test_illegal_values_are_refused(changes):
    with pytest.raises(ValueError, match=r"SpeedConfig\."):
        dataclasses.replace(SpeedConfig(), **changes)
