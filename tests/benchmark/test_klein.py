"""FLUX.2 klein in the benchmark: without and with a fit, beside methods of another base model."""

import dataclasses

import pytest
from helpers import TINY_FIT, save_case

from realfill import FitConfig, RankConfig, SampleConfig, Scene, WindowConfig
from realfill.benchmark.config import BenchConfig
from realfill.benchmark.methods.diffusion import Fitted, Unfitted
from realfill.benchmark.setup import set_up
from realfill.errors import BaseModelError, SceneError


@pytest.fixture
def blank(scene) -> Scene:
    """The scene as methods see it."""
    return Scene(scene.references, scene.known, scene.mask)


@pytest.fixture
def benchmark(tiny_sd, tiny_klein, tiny_distilled):
    config = BenchConfig(
        methods=("klein", "klein_fit", "realfill"), metrics=("psnr",), klein=tiny_distilled, klein_base=tiny_klein
    )
    fit = FitConfig(base=tiny_sd, **TINY_FIT)
    sample = SampleConfig(num_samples=1, num_inference_steps=2)
    ranking = RankConfig(score_by="warped_references")
    return set_up(config, fit=fit, sample=sample, window=WindowConfig(), ranking=ranking, device="cpu")


def test_one_command_compares_klein_with_and_without_a_fit_and_another_base(benchmark, scene, tmp_path):
    assert [type(arm.method) for arm in benchmark.arms] == [Unfitted, Fitted, Fitted]
    fitted = benchmark.arms[1].method
    assert [arm.method.geometry.enabled for arm in benchmark.arms] == [False, True, True], "klein alone is zero-shot"
    assert fitted.sample.base == benchmark.arms[0].method.base, "the adapter samples with the distilled model"
    save_case(scene, tmp_path / "cases" / "1")
    results = benchmark.run(tmp_path / "cases", tmp_path / "out", progress=False)
    assert not [run.error for run in results.runs if run.error]
    values = {record.method: record.metrics["psnr"] for record in results.records}
    assert set(values) == {"klein", "klein_fit", "realfill"}
    assert len(set(values.values())) == 3


def test_what_geometry_adds_can_be_measured(tiny_sd, tiny_klein, tiny_distilled, blank, monkeypatch):
    """The methods differ in how the model sees the references, and in whether the composite comes first."""
    seen = []

    def note(_scene, _adapter, config, *, window, geometry, **_options):
        seen.append((window.reference_views, geometry.enabled, config.base))
        raise SceneError("enough")

    monkeypatch.setattr("realfill.benchmark.methods.diffusion.complete", note)
    monkeypatch.setattr("realfill.benchmark.methods.diffusion.fit", lambda *_, **__: None)
    methods = ("klein", "klein_warped", "klein_both", "klein_fit", "klein_fit_plain")
    config = BenchConfig(methods=methods, metrics=("psnr",), klein=tiny_distilled, klein_base=tiny_klein)
    parts = {"sample": SampleConfig(), "window": WindowConfig(), "ranking": RankConfig(score_by="warped_references")}
    made = set_up(config, fit=FitConfig(base=tiny_sd), **parts, device="cpu")
    assert tuple(arm.method.name for arm in made.arms) == methods
    for arm in made.arms:
        with pytest.raises(SceneError, match="enough"):
            arm.method.prepare(blank, None, 0)([0])
    assert seen == [
        ("plain", False, None), ("warped", False, None), ("both", False, None),
        ("plain", True, tiny_distilled), ("plain", False, tiny_distilled),
    ]  # fmt: skip


def test_klein_sees_the_references_and_needs_them(benchmark, blank):
    method = benchmark.arms[0].method
    first, again = (method.prepare(blank, None, seed)([3])[0] for seed in (0, 1))
    assert (first == again).all(), "there is no fit"
    assert (first[~blank.mask] == blank.target[~blank.mask]).all()
    other = method.prepare(blank.with_references(1), None, 0)([3])[0]
    assert (first != other).any()
    with pytest.raises(SceneError, match="klein"):
        method.prepare(Scene([], blank.target, blank.mask), None, 0)


def test_missing_weights_are_named(benchmark, blank, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseModelError, match="'klein' is not available"):
        dataclasses.replace(benchmark.arms[0].method, base="klein").prepare(blank, None, 0)
