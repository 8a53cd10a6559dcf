"""The speed study: its counts and times, the port, and the linear growth of cost."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
import tyro
import workloads
from diffusers import AutoencoderKL
from measuring import Timing, Variant, count_flops, matmul_flops, measure
from port import load_plainly, match_pair_by_pair, sample_one_by_one
from study import SpeedStudy
from untrained import random_loftr
from workloads import SpeedSetup, make_completions, make_scene, run_fit, run_ported_fit

from realfill import FitConfig, RankConfig, SampleConfig
from realfill.compute.memory import peak_bytes
from realfill.errors import OutputError
from realfill.io.images import to_tensor
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.ranking.rank import rank

CPU = torch.device("cpu")
RANK = RankConfig(max_size_px=96, min_confidence=0.0)

pytestmark = pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")


@pytest.fixture
def setup(tiny_sd):
    fit = FitConfig(base=tiny_sd, batch_size=3, lora_rank=2, mixed_precision="no", prompt_dropout=0.5)
    return SpeedSetup.load(fit, SampleConfig(num_samples=3, num_inference_steps=2), CPU)


def test_operations_of_a_matrix_product_are_counted_and_timed():
    a, b = torch.randn(8, 16), torch.randn(16, 4)
    assert count_flops(lambda: a @ b) == 2 * 8 * 16 * 4
    assert matmul_flops(CPU, torch.float32) > 1e7


def test_variants_take_turns_and_medians_are_reported():
    calls, seconds = [], {"a": [9.0, 9.0, 1.0, 5.0, 2.0], "b": [9.0, 9.0, 4.0, 4.0, 4.0]}

    def variant(name):
        def run():
            calls.append(name)
            torch.ones(100, 100) @ torch.ones(100, 100)
            return Timing(seconds=seconds[name].pop(0), set_up_s=7.0)

        return Variant(part="fit", name=name, steps=2, samples=8, dtype=torch.float32, run=run)

    ours, other = measure([variant("a"), variant("b")], CPU, rounds=3)
    assert calls[-6:] == ["a", "b"] * 3  # after one for memory and one for operations
    assert (ours.step_s, ours.samples_per_s, ours.set_up_s) == (1.0, 4.0, 7.0)
    assert other.rounds_s == (4.0, 4.0, 4.0)
    assert ours.sample_gflop == pytest.approx(2e6 / 8 / 1e9)
    assert ours.roofline_share == pytest.approx(2e6 / 2 / ours.peak_gflops / 1e9)
    assert ours.peak_mb == pytest.approx(0.12)


def test_a_time_budget_does_not_end_a_measurement(setup):
    setup = dataclasses.replace(setup, fit=dataclasses.replace(setup.fit, time_budget_s=1e-6))
    assert run_fit(setup, setup.scene(), 2).seconds > 0


def batch_sizes(work, monkeypatch, *methods):
    """Record the batch sizes with which methods of classes are called during some work."""
    seen = {name: [] for _, name in methods}
    with monkeypatch.context() as patch:
        for kind, name in methods:
            real = getattr(kind, name)

            def record(self, rows, *args, real=real, name=name, **options):
                seen[name].append(len(rows))
                return real(self, rows, *args, **options)

            patch.setattr(kind, name, record)
        work()
    return seen


def test_the_port_encodes_and_embeds_every_row(setup, monkeypatch):
    seen = batch_sizes(
        lambda: run_ported_fit(setup, setup.scene(), 2),
        monkeypatch,
        (AutoencoderKL, "encode"),
        (StableDiffusionInpainter, "encode_prompt"),
    )
    assert seen == {"encode": [3, 3] * 3, "encode_prompt": [3] * 3}  # a step that does not count, and two that do


def test_the_port_learns(setup, monkeypatch):
    kept = []
    real = workloads.trainable_lora
    monkeypatch.setattr(workloads, "trainable_lora", lambda *a, **o: kept.append(real(*a, **o)) or kept[-1])
    timing = run_ported_fit(setup, setup.scene(), 1)
    assert timing.seconds > 0
    changed = [p for name, p in kept[0].parameters() if "lora_B" in name and p.abs().max() > 0]
    assert changed


def test_only_the_steps_after_the_first_are_timed(setup, monkeypatch):
    steps = []
    real = workloads.fit
    monkeypatch.setattr(workloads, "fit", lambda *a, **o: steps.append(a[1].num_steps) or real(*a, **o))
    timing = run_fit(setup, setup.scene(), 2)
    assert steps == [3]
    assert timing.seconds > 0
    assert timing.set_up_s > 0
    assert run_fit(setup, setup.scene(), 0).seconds == 0


def test_each_use_of_a_latent_cache_has_its_share_of_the_encoding(setup, monkeypatch):
    variants = workloads.fit_variants(setup, 3, latent_cache_uses=(2, 5), port=True)
    assert [(v.name, v.steps, v.samples) for v in variants] == [
        ("realfill", 3, 9), ("latent cache, 2 uses", 4, 12), ("latent cache, 5 uses", 5, 15), ("port", 3, 9)
    ]  # fmt: skip
    encoded = []
    for variant in variants[:3]:
        last = batch_sizes(variant.run, monkeypatch, (AutoencoderKL, "encode"))["encode"]
        encoded.append(sum(last) - 2 * 3)  # without those of the first step, which does not count
    assert encoded == [2 * 9, 2 * 12 / 2, 2 * 15 / 5]
    flops = [v.flops() for v in variants[1:3]]
    assert flops[1] / 15 < flops[0] / 12
    cached = dataclasses.replace(setup, fit=dataclasses.replace(setup.fit, latent_cache_size=300, latent_cache_uses=4))
    assert [(v.name, v.steps) for v in workloads.fit_variants(cached, 3, port=False)] == [("realfill", 4)]


def test_the_port_keeps_the_memory_layout_of_the_files(setup):
    ours, port = StableDiffusionInpainter.load(setup.base).to(CPU, torch.float32), load_plainly(setup.base, CPU)

    def are_channels_last(inpainter):
        weights = [p for p in inpainter.pipeline.vae.parameters() if p.ndim == 4 and p.shape[1] > 1 < p.shape[2]]
        return [not p.is_contiguous() for p in weights]

    assert all(are_channels_last(ours)) and not any(are_channels_last(port))


def test_the_port_samples_the_same_images(setup):
    inpainter, scene = StableDiffusionInpainter.load(setup.base), make_scene(32)
    image, hole = to_tensor(scene.known), torch.from_numpy(scene.mask)[None, None]
    ours = workloads.sample_in_batches(inpainter, image, hole, range(3), setup.sample)
    port = sample_one_by_one(inpainter, image, hole, range(3), setup.sample)
    assert (ours - port).abs().max() <= 2 / 255


def test_the_port_finds_the_same_matches():
    completions = make_completions(64, 2, 3)
    matcher = random_loftr(CPU, max_size_px=96, min_confidence=0.0)
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


def test_the_cost_of_a_fit_grows_linearly_with_its_steps(setup):
    flops = [count_flops(partial(run_fit, setup, setup.scene(), steps)) for steps in (0, 1, 2)]
    assert flops[2] - flops[1] == pytest.approx(flops[1] - flops[0], rel=0.01) and flops[1] > flops[0]


def test_the_cost_of_sampling_grows_linearly_with_its_samples(setup):
    def flops(num_samples):
        (variant,) = workloads.sample_variants(
            dataclasses.replace(setup, sample=dataclasses.replace(setup.sample, num_samples=num_samples)), port=False
        )
        return count_flops(variant.run)

    one, two, three = map(flops, (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=0.01) and two > one


def test_the_memory_of_a_fit_does_not_grow_with_the_number_of_references(setup):
    one, three = (peak_bytes(partial(run_fit, setup, make_scene(32, n), 1), CPU)[1] for n in (1, 3))
    assert three <= 1.02 * one


def run_study(*words):
    tyro.cli(SpeedStudy, args=words)()


def test_the_study_prints_tables_and_writes_json(tiny_sd, tmp_path, capsys):
    run_study(
        "--base", tiny_sd, "--batch-size", "4", "--lora-rank", "2", "--fit-steps", "1", "--rounds", "1",
        "--against", "port", "--sample.num-samples", "2", "--sample.num-inference-steps", "2", "--num-references", "1",
        "--photo-px", "64", "--profile", "--device", "cpu", "--cache-uses", "2",
        "-o", str(tmp_path / "speed.json"),
    )  # fmt: skip
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / "speed.json").read_text())
    assert [(f["part"], f["variant"]) for f in values["figures"]] == [
        ("fit", "realfill"), ("fit", "latent cache, 2 uses"), ("fit", "port"), ("sample", "realfill"),
        ("sample", "port"), ("rank", "realfill"), ("rank", "port"), ("rank", "floor"),
    ]  # fmt: skip
    for figures in values["figures"]:
        assert all(figures[name] > 0 for name in ("step_s", "samples_per_s", "sample_gflop", "peak_mb"))
        assert figures["roofline_share"] > 0
    plain, cached, port = (f["sample_gflop"] for f in values["figures"][:3])
    assert cached < plain < port  # the port runs the text encoder on every row
    assert set(values["profiles"]["fit"]["parts"]) >= {"U-Net forward", "VAE encode", "backward", "optimizer"}
    assert "| fit | port |" in printed
    assert "Profile: rank" in printed


def test_a_missing_folder_is_reported_before_anything_is_measured(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        SpeedStudy(output=tmp_path / "none" / "speed.json")


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"num_references": 31}, {"photo_px": 8}, {"cache_uses": (0,)}])
def test_illegal_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        SpeedStudy(**changes)
