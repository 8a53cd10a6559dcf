"""The runner: it measures every arm on every case, resumes, and reports failures."""

import dataclasses
import errno
import json
import os
import shutil
import time
import warnings

import cv2
import numpy as np
import pytest
from helpers import TINY_FIT, save_case
from huggingface_hub import constants

from realfill import RankConfig, SampleConfig
from realfill.app.cli import main
from realfill.benchmark import runner
from realfill.benchmark.config import BenchConfig
from realfill.benchmark.memory import PeakMemory
from realfill.benchmark.methods.diffusion import Fitted, Unfitted
from realfill.benchmark.metrics import psnr
from realfill.benchmark.records import Results
from realfill.benchmark.runner import Arm, Benchmark, discard
from realfill.benchmark.setup import set_up
from realfill.config import FitConfig, GeometryConfig, WindowConfig
from realfill.errors import OutputError, RealFillWarning, SceneError
from realfill.geometry.matching import SiftMatcher

RANKING = RankConfig(matcher="sift").resolve({})
MATCHER = SiftMatcher(max_size_px=RANKING.max_size_px, max_ratio=RANKING.max_ratio)


class Flat:
    """A method that fills the hole with a grey level that encodes both seeds."""

    name, uses_references, uses_fit_seed, uses_seed = "flat", True, True, True

    def __init__(self):
        self.prepared = []

    def prepare(self, scene, prompt, fit_seed):
        assert not scene.target[scene.mask].any()  # no method sees the truth
        self.prepared.append((len(scene.references), fit_seed))

        def sample(seeds):
            hole = scene.mask[:, :, None]
            return [np.where(hole, np.uint8(100 * fit_seed + 10 * s), scene.target) for s in seeds]

        return sample


class Still(Flat):
    """A method like ``Flat`` with a single completion."""

    name, uses_fit_seed, uses_seed = "still", False, False

    def prepare(self, scene, prompt, fit_seed):
        return super().prepare(scene, prompt, 1)


class Broken:
    name, uses_fit_seed, uses_seed = "broken", False, False

    def prepare(self, scene, prompt, fit_seed):
        raise RuntimeError("out of luck")


@pytest.fixture
def cases(scene, tmp_path):
    for name in ("1", "2"):
        save_case(scene, tmp_path / "cases" / name)
    scene.save(tmp_path / "cases" / "3")
    return tmp_path / "cases"


def make(arms, **changes):
    values = {
        "num_samples": 2, "fit_seeds": 2, "metrics": {"psnr": psnr}, "matcher": MATCHER,
        "ranking": RANKING, "arms": arms, **changes,
    }  # fmt: skip
    return Benchmark(**values)


def test_every_arm_is_measured_on_every_case(cases, scene, tmp_path):
    results = make([Arm(method=Flat()), Arm(method=Broken())]).run(cases, tmp_path / "out", progress=False)
    flat = [r for r in results.records if r.method == "flat"]
    assert {(r.case, r.fit_seed, r.seed) for r in flat} == {(c, f, s) for c in "12" for f in (0, 1) for s in (0, 1)}
    for record in flat:
        grey = np.where(scene.mask[:, :, None], np.uint8(100 * record.fit_seed + 10 * record.seed), scene.target)
        assert record.metrics == {"psnr": pytest.approx(psnr(grey, scene.target, scene.mask))}
        assert record.score is not None
        assert (tmp_path / "out" / record.image).is_file()
    errors = [r for r in results.runs if r.error]
    assert [(r.case, r.method) for r in errors] == [("1", "broken"), ("2", "broken")]
    assert "out of luck" in errors[0].error
    assert list(results.skipped) == ["3"] and "no ground truth" in results.skipped["3"]
    assert Results.load(tmp_path / "out" / "results.json") == dataclasses.replace(results)


def test_a_full_disk_ends_a_benchmark_at_once_and_leaves_no_partial_files(cases, tmp_path, monkeypatch):
    method = Flat()

    def fill_disk(path, _):
        if path.name == "seed1.png":
            raise OutputError("no space left") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_bytes(b"half")

    monkeypatch.setattr(runner, "write_png", fill_disk)
    with pytest.raises(OutputError, match=r"no space left for .*flat"):
        make([Arm(method=method)]).run(cases, tmp_path / "out", progress=False)
    assert len(method.prepared) == 1
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_killed_benchmark_resumes(cases, tmp_path, monkeypatch):
    whole = make([Arm(method=Flat())]).run(cases, tmp_path / "whole", progress=False)
    first = Flat()
    prepare = first.prepare

    def killed(scene, prompt, fit_seed):
        if len(first.prepared) == 3:
            raise KeyboardInterrupt
        return prepare(scene, prompt, fit_seed)

    first.prepare = killed
    with pytest.raises(KeyboardInterrupt):
        make([Arm(method=first)]).run(cases, tmp_path / "out", progress=False)
    second = Flat()
    results = make([Arm(method=second)]).run(cases, tmp_path / "out", progress=False)
    assert second.prepared == [(2, 1)]
    assert results.records == whole.records


def test_more_methods_seeds_and_metrics_can_be_added(cases, tmp_path):
    out = tmp_path / "out"
    make([Arm(method=Flat())], fit_seeds=1).run(cases, out, progress=False)
    again = Flat()
    metrics = {"psnr": psnr, "mean": lambda image, truth, mask: float(image[mask].mean())}
    results = make([Arm(method=again), Arm(method=Broken())], metrics=metrics).run(cases, out, progress=False)
    assert again.prepared == [(2, 1), (2, 1)]
    assert all(r.metrics["mean"] == 100 * r.fit_seed + 10 * r.seed for r in results.records)


def test_a_changed_scene_is_measured_again_and_another_config_is_refused(cases, scene, tmp_path):
    out = tmp_path / "out"
    make([Arm(method=Flat())], fit_seeds=1).run(cases, out, progress=False)
    (cases / "2" / "prompt.txt").write_text("something else")
    again = Flat()
    make([Arm(method=again)], fit_seeds=1).run(cases, out, progress=False)
    assert again.prepared == [(2, 0)]
    with pytest.raises(OutputError, match="another config"):
        make([Arm(method=Flat())], num_samples=3).run(cases, out, progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OutputError, match="is not empty"):
        make([Arm(method=Flat())]).run(cases, tmp_path / "full", progress=False)


def test_an_arm_with_fewer_references_sees_only_these(cases, tmp_path):
    method = Flat()
    arms = [Arm(method=method, num_references=n) for n in (1, 2, 3)]
    results = make(arms, fit_seeds=1).run(cases, tmp_path / "out", progress=False)
    assert method.prepared == [(1, 0), (2, 0), (1, 0), (2, 0)]
    assert {r.method for r in results.records} == {"flat-1ref", "flat-2ref"}
    assert all("num_references is 3" in r.error for r in results.runs if r.method == "flat-3ref")


def test_realfill_and_its_base_model(scene, tiny_sd):
    sample = SampleConfig(num_samples=1, num_inference_steps=2)
    options = {"sample": sample, "window": WindowConfig(), "geometry": GeometryConfig(), "device": "cpu"}
    fitted = Fitted(name="realfill", fit=FitConfig(base=tiny_sd, **TINY_FIT), **options)
    bare = Unfitted(name="base", base=tiny_sd, **options)
    blank = scene.blanked()
    images = fitted.prepare(blank, None, 0)([5, 0, 1])
    assert all((i[~scene.mask] == scene.target[~scene.mask]).all() for i in images)
    alone = fitted.prepare(blank, None, 0)([1])[0]
    assert np.abs(images[2].astype(int) - alone).max() <= 2
    assert (fitted.prepare(blank, None, 1)([1])[0] != alone).any()
    assert (bare.prepare(blank, None, 0)([1])[0] != alone).any()
    assert (bare.prepare(blank, None, 1)([1])[0] == bare.prepare(blank, None, 0)([1])[0]).all()


def test_the_method_prompt_needs_a_prompt(scene, tiny_sd):
    sample = SampleConfig(num_samples=1, num_inference_steps=2)
    options = {"sample": sample, "window": WindowConfig(), "geometry": GeometryConfig(enabled=False), "device": "cpu"}
    method = Unfitted(name="prompt", base=tiny_sd, with_prompt=True, uses_references=False, **options)
    with pytest.raises(SceneError, match=r"prompt\.txt"):
        method.prepare(scene, None, 0)
    bare = Unfitted(name="base", base=tiny_sd, **options).prepare(scene, None, 0)([0])[0]
    assert (method.prepare(scene, "a tree", 0)([0])[0] != bare).any()


def test_peak_memory_includes_freed_memory():
    with PeakMemory() as small:
        pass
    with PeakMemory() as large:
        np.ones(30_000_000)
    assert large.peak_mb > small.peak_mb + 150


def test_the_command_writes_results_a_report_and_a_page(cases, tiny_sd, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fit = [w for k, v in TINY_FIT.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    words = [
        "bench", str(cases), "-o", str(tmp_path / "out"), "--base", tiny_sd, "--methods", "realfill", "base", "telea",
        "--metrics", "psnr", "detail", "dino", "--num-samples", "2", "--num-inference-steps", "2",
        "--matcher", "sift", "--device", "cpu", "--preset", "fast", *fit,
    ]  # fmt: skip
    assert main(words) == 0
    values = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {r["method"] for r in values["records"]} == {"realfill", "base", "telea"}
    assert all(set(r["metrics"]) == {"psnr", "detail"} for r in values["records"])
    assert "dino" in values["missing_metrics"]
    made = values["about"]
    assert (made["fit"]["preset"], made["sample"]["preset"], made["sample"]["scheduler"]) == ("fast", "fast", "dpm++")
    assert made["covered_fit"] == {}
    for text in ((tmp_path / "out" / "results.md").read_text(), (tmp_path / "out" / "index.html").read_text()):
        assert "realfill" in text and "telea" in text and "dino" in text and "no ground truth" in text
    printed, shown = capsys.readouterr()
    assert "detail" in printed
    assert "loss=" in shown, "the progress of the fit"


@pytest.mark.parametrize("values", [{"methods": ()}, {"methods": ("base", "base")}, {"num_references": (31,)}])
def test_illegal_comparisons_are_refused(values):
    with pytest.raises(ValueError, match="legal"):
        BenchConfig(**values)


def test_missing_scores_are_added_later(cases, tmp_path):
    out = tmp_path / "out"
    without = make([Arm(method=Flat())], matcher=None, missing_metrics={"score": "no weights"})
    assert all(r.score is None for r in without.run(cases, out, progress=False).records)
    again = Flat()
    results = make([Arm(method=again)]).run(cases, out, progress=False)
    assert not again.prepared
    assert all(r.score is not None for r in results.records)
    assert all(r.rank_s > 0 for r in results.runs)


def test_a_failing_metric_is_noted_and_affects_nothing_else(cases, tmp_path):
    def failing(image, truth, mask):
        raise MemoryError("too large")

    first = make([Arm(method=Flat())], metrics={"psnr": psnr, "lpips": failing})
    results = first.run(cases, tmp_path / "out", progress=False)
    assert "too large" in results.missing_metrics["lpips"]
    assert all(set(r.metrics) == {"psnr"} for r in results.records) and len(results.records) == 8
    again = Flat()
    metrics = {"psnr": psnr, "lpips": lambda image, truth, mask: 0.5}
    results = make([Arm(method=again)], metrics=metrics).run(cases, tmp_path / "out", progress=False)
    assert not again.prepared and not results.missing_metrics
    assert all(r.metrics["lpips"] == 0.5 for r in results.records)


def test_a_run_with_missing_pictures_is_repeated(cases, tmp_path):
    arms, metrics = [Arm(method=Flat())], {"psnr": psnr, "l1": lambda image, truth, mask: 0.5}
    make(arms).run(cases, tmp_path / "out", progress=False)
    lost = next((tmp_path / "out").rglob("seed1.png"))
    lost.unlink()
    unit = json.loads((lost.parent / "run.json").read_text())
    (lost.parent / "run.json").write_text(json.dumps({**unit, "records": []}))  # as if stopped before it was measured
    again = Flat()
    results = make([Arm(method=again)], metrics=metrics).run(cases, tmp_path / "out", progress=False)
    assert len(again.prepared) == 1 and not any(run.error for run in results.runs)
    assert all(record.metrics["l1"] == 0.5 for record in results.records)


def test_detail_is_measured_in_the_windows_of_the_hole():
    made = set_up(
        BenchConfig(metrics=("detail",), methods=("telea",)), fit=FitConfig(base="mini"), sample=SampleConfig(),
        window=WindowConfig(), ranking=RankConfig(),
    )  # fmt: skip
    small, large = np.zeros((2, 900, 1400), bool)
    truth = np.random.default_rng(0).integers(0, 256, (900, 1400, 3), np.uint8)
    small[60:100, 60:100] = large[400:700, 1000:1300] = True
    image = cv2.GaussianBlur(truth, (0, 0), 2)
    apart = [made.metrics["detail"](image, truth, mask) for mask in (small, large)]
    sizes = [small.sum(), large.sum()]
    assert abs(apart[0] - apart[1]) > 0.1
    assert made.metrics["detail"](image, truth, small | large) == pytest.approx(np.average(apart, weights=sizes))


def test_an_unused_gpu_does_not_count(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda: 7e12)  # memory of other models
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: None)
    with PeakMemory() as memory:
        pass
    assert 10 < memory.peak_mb < 1e6


def test_warnings_of_a_method_are_recorded(cases, tmp_path):
    class Doubtful(Flat):
        def prepare(self, scene, prompt, fit_seed):
            warnings.warn("nothing fits", RealFillWarning, stacklevel=2)
            return super().prepare(scene, prompt, fit_seed)

    results = make([Arm(method=Doubtful())]).run(cases, tmp_path / "out", progress=False)
    assert all(r.warnings == ("nothing fits",) for r in results.runs)


def test_discard_deletes_a_benchmark_and_nothing_else(cases, tmp_path):
    out = tmp_path / "out"
    make([Arm(method=Flat())]).run(cases, out, progress=False)
    discard(out)
    assert not any(out.iterdir())
    (out / "cases").mkdir()
    discard(out)
    assert (out / "cases").is_dir()


def test_the_gpu_peak_survives_a_reset_of_the_counter(monkeypatch):
    peak = [7e8]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: peak[0])
    with PeakMemory() as memory:
        time.sleep(0.1)
        peak[0] = 3e8  # the measured work resets torch's counter
        time.sleep(0.1)
    assert memory.peak_mb == 700


@pytest.mark.filterwarnings("ignore:no reference could be aligned")
def test_ranking_by_warped_references_needs_no_matcher(cases, tmp_path):
    ranking = RankConfig(score_by="warped_references").resolve({})
    arms = [Arm(method=Flat()), Arm(method=Still())]
    results = make(arms, matcher=None, ranking=ranking).run(cases, tmp_path / "out", progress=False)
    assert all(r.score is not None for r in results.records if r.method == "flat")
    assert all(r.score is None for r in results.records if r.method == "still"), (
        "a single completion without aligned references has nothing to be compared with"
    )


@pytest.mark.parametrize("progress", [True, False])
def test_a_fit_shows_its_own_progress(scene, tiny_sd, capsys, progress):
    settings = SampleConfig(num_samples=1, num_inference_steps=2)
    fit = FitConfig(base=tiny_sd, **TINY_FIT)
    options = {"sample": settings, "window": WindowConfig(), "geometry": GeometryConfig(), "device": "cpu"}
    Fitted(name="realfill", fit=fit, progress=progress, **options).prepare(scene, None, 0)
    assert ("3/3" in capsys.readouterr().err) == progress


def test_the_progress_of_fits_reaches_the_methods_that_fit():
    config = BenchConfig(metrics=("psnr",), methods=("realfill", "dreambooth", "base"))
    made = set_up(
        config, fit=FitConfig(base="mini"), sample=SampleConfig(), window=WindowConfig(), ranking=RankConfig(),
        progress=True,
    )  # fmt: skip
    assert [getattr(arm.method, "progress", None) for arm in made.arms] == [True, True, None]


def test_a_kill_while_a_benchmark_is_deleted_leaves_one_that_can_be_deleted(tmp_path, monkeypatch):
    (tmp_path / "cases").mkdir()
    for name in ("benchmark.json", "results.json"):
        (tmp_path / name).write_text("{}")
    rmtree = shutil.rmtree
    monkeypatch.setattr("shutil.rmtree", raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        discard(tmp_path)
    monkeypatch.setattr("shutil.rmtree", rmtree)
    assert (tmp_path / "benchmark.json").exists()
    discard(tmp_path)
    assert not list(tmp_path.iterdir())


def raise_interrupt(*_args, **_options):
    raise KeyboardInterrupt
