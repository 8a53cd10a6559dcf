"""The laws of fit and complete, on tiny models of Stable Diffusion's classes and on the packaged base."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import TINY_FIT, make_photo

from realfill import (
    Adapter,
    FitConfig,
    RankConfig,
    SampleConfig,
    Scene,
    WindowConfig,
    complete,
    fit,
    pipeline,
    rank,
    variants,
)  # fmt: skip
from realfill.benchmark.metrics import psnr
from realfill.errors import AdapterError, BaseModelError, RealFillWarning, StoppedError
from realfill.filling import fill as hole
from realfill.training import plan as plans

SIFT = RankConfig(matcher="sift")
FAST = SampleConfig(num_samples=2, num_inference_steps=3)

pytestmark = pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")


def scattered(shape):
    return np.random.default_rng(5).random(shape) < 0.3


def compact(shape):
    mask = np.zeros(shape, bool)
    mask[20:45, 25:60] = True
    return mask


def under(kind, shape):
    rng = np.random.default_rng(6)
    return {
        "black": np.zeros((*shape, 3), np.uint8),
        "white": np.full((*shape, 3), 255, np.uint8),
        "noise": rng.integers(0, 256, (*shape, 3), np.uint8),
        "stranger": make_photo(*shape, seed=9),
    }[kind]


def run(scene, config, sampling=FAST):
    adapter = fit(scene, config, progress=False)
    return adapter, complete(scene, adapter, sampling, ranking=SIFT, progress=False)


@pytest.mark.parametrize("shape_of_hole", [compact, scattered])
@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v", "mini"])
def test_what_lies_under_the_hole_has_no_influence(base, shape_of_hole, request):
    name = base if base == "mini" else request.getfixturevalue(base)
    mask = shape_of_hole((64, 80))
    target, references = make_photo(64, 80), [make_photo(70, 90, 1)]
    results = []
    for kind in ("black", "white", "noise", "stranger"):
        content = np.where(mask[:, :, None], under(kind, (64, 80)), target)
        results.append(run(Scene(references, content, mask), FitConfig(base=name, **{**TINY_FIT, "num_steps": 2})))
    adapter, completions = results[0]
    for other_adapter, other_completions in results[1:]:
        assert all(torch.equal(t, other_adapter.tensors[n]) for n, t in adapter.tensors.items())
        assert adapter.manifest["inputs"] == other_adapter.manifest["inputs"]
        for one, two in zip(completions, other_completions, strict=True):
            assert (one.image == two.image).all()
            assert one.score == two.score


@pytest.mark.parametrize("size", [(33, 200), (101, 57), (200, 33)])
@pytest.mark.parametrize("blend", ["poisson", "cut"])
def test_known_pixels_come_back_exact(tiny_sd, size, blend):
    rng = np.random.default_rng(1)
    for mask in (rng.random(size) < 0.5, rng.random(size) < 0.001, np.arange(size[1]) >= size[1] - 7):
        hole = np.broadcast_to(mask, size).copy()
        hole[0, 0] = True
        scene = Scene([], make_photo(*size), hole)
        config = dataclasses.replace(FAST, num_samples=1, blend=blend)
        image = complete(scene, tiny_sd, config, progress=False).best.image
        assert image.shape == scene.target.shape
        assert (image == scene.target)[~hole].all()
        assert (image != scene.target)[hole].any()


def test_a_sample_does_not_depend_on_its_batch(scene):
    one, all_ = (
        complete(scene, "mini", SampleConfig(num_samples=3, batch_size=b), ranking=SIFT, progress=False) for b in (1, 3)
    )
    images = {c.seed: c.image.astype(int) for c in all_}
    assert max(np.abs(images[c.seed] - c.image).max() for c in one) <= 2
    assert np.abs(images[0] - images[1]).max() > 2


def test_seeds_count_up_from_the_first(scene, tiny_sd):
    later = complete(Scene([], scene.target, scene.mask), tiny_sd, dataclasses.replace(FAST, seed=1), progress=False)
    first = complete(Scene([], scene.target, scene.mask), tiny_sd, FAST, progress=False)
    assert [c.seed for c in later] == [1, 2]
    assert np.abs(first[1].image.astype(int) - later[0].image).max() <= 2


def test_a_saved_adapter_completes_identically(scene, tiny_fit, tmp_path):
    adapter, completions = run(scene, dataclasses.replace(tiny_fit, learning_rate=1e-1))
    adapter.save(tmp_path / "adapter")
    again = complete(scene, Adapter.load(tmp_path / "adapter"), FAST, ranking=SIFT, progress=False)
    assert all((a.image == b.image).all() and a.score == b.score for a, b in zip(completions, again, strict=True))


def test_the_adapter_changes_the_completion(scene, tiny_fit):
    _, fitted = run(scene, dataclasses.replace(tiny_fit, learning_rate=1e-1))
    bare = complete(scene, tiny_fit.base, FAST, ranking=SIFT, progress=False)
    assert np.abs(fitted.best.image.astype(int) - bare.best.image).max() > 2


def test_samples_are_led_away_from_the_base_without_the_adapter(scene, tiny_fit):
    adapter = fit(
        scene, dataclasses.replace(tiny_fit, learning_rate=1e-1, text_encoder_learning_rate=1e-1), progress=False
    )

    def images(model, scale):
        config = dataclasses.replace(FAST, guidance_from="base", guidance_scale=scale, prompt=adapter.config.prompt)
        completions = complete(scene, model, config, ranking=SIFT, progress=False)
        return {c.seed: c.image.astype(int) for c in completions}

    away, fitted, bare = images(adapter, 2.0), images(adapter, 1.0), images(tiny_fit.base, 2.0)
    back = images(adapter, 0.0)
    for seed in fitted:
        assert np.abs(back[seed] - bare[seed]).max() <= 1 < np.abs(fitted[seed] - bare[seed]).max()
        assert np.abs(away[seed] - fitted[seed]).max() > 1


def test_a_negative_prompt_that_is_not_looked_at_is_told(scene, tiny_fit):
    adapter = fit(scene, tiny_fit, progress=False)
    config = dataclasses.replace(FAST, guidance_from="base", guidance_scale=2.0, negative_prompt="fog")
    with pytest.warns(RealFillWarning, match="negative prompt has no effect"):
        complete(scene, adapter, config, ranking=SIFT, progress=False)


def test_an_adapter_serves_another_target_of_the_burst(scene, tiny_fit):
    adapter, _ = run(scene, tiny_fit)
    target = make_photo(90, 50, 7)
    mask = np.zeros((90, 50), bool)
    mask[:30] = True
    other = Scene(scene.references, target, mask)
    best = complete(other, adapter, FAST, ranking=SIFT, progress=False).best
    assert (best.image == target)[~mask].all()


def test_an_adapter_of_another_base_is_refused(scene, tiny_fit, tiny_v):
    adapter = fit(scene, tiny_fit, progress=False)
    moved = dataclasses.replace(adapter, config=dataclasses.replace(adapter.config, base=tiny_v))
    with pytest.raises(AdapterError, match="fitted on"):
        complete(scene, moved, FAST, ranking=SIFT, progress=False)


def test_what_can_fail_fails_before_sampling(scene, tiny_sd, monkeypatch):
    monkeypatch.setattr(
        "realfill.filling.fill.sample", lambda *_, **__: pytest.fail("sampled before the matcher was loaded")
    )
    monkeypatch.setattr("kornia.feature.loftr.loftr.load_state_dict_from_url", lambda *_, **__: 1 / 0)
    with pytest.raises(BaseModelError, match="sift"):
        complete(scene, tiny_sd, FAST, ranking=RankConfig(matcher="loftr"), progress=False)


def test_without_references_a_scene_is_completed_in_seed_order(scene, tiny_sd):
    completions = complete(Scene([], scene.target, scene.mask), tiny_sd, FAST, progress=False)
    assert [c.seed for c in completions] == [0, 1]
    assert not completions.ranked


def test_no_match_anywhere_is_said(scene, tiny_sd):
    blank = Scene([np.full((64, 64, 3), 90, np.uint8)], scene.target, scene.mask)
    with pytest.warns(RealFillWarning, match="no keypoint"):
        complete(blank, tiny_sd, FAST, ranking=SIFT, progress=False)


def test_completions_that_cannot_be_ranked_are_not_lost(scene, tiny_sd, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("realfill.pipeline.rank", fail)
    with pytest.warns(RealFillWarning, match=r"ranking failed \(OutOfMemoryError: CUDA"):
        completions = complete(scene, tiny_sd, FAST, ranking=SIFT, progress=False)
    assert [c.seed for c in completions] == list(range(len(completions))) and not completions.ranked


def test_a_batch_that_memory_does_not_hold_is_computed_in_pieces_on_a_processor_too(
    scene, tiny_sd, monkeypatch, capsys
):
    monkeypatch.setattr(plans, "free_bytes", lambda _: 0)
    fit(scene, FitConfig(base=tiny_sd, **TINY_FIT), device="cpu")
    assert "in 2 pieces of 1, with gradient checkpointing" in capsys.readouterr().err


def test_ranking_can_be_done_again_with_other_references(scene, tiny_sd):
    completions = complete(Scene([], scene.target, scene.mask), tiny_sd, FAST, progress=False)
    ranked = rank(completions, [scene.target], SIFT, progress=False)
    assert ranked.ranked
    assert len(ranked.best.num_matches_per_reference) == 1


def test_the_papers_preset_samples_with_the_adapters_prompt(scene, tiny_fit):
    adapter = fit(scene, dataclasses.replace(tiny_fit, prompt="a photo of sks"), progress=False)
    sampled = complete(scene, adapter, dataclasses.replace(FAST, preset="paper"), ranking=SIFT, progress=False)
    assert sampled.best.provenance["sample"]["prompt"] == "a photo of sks"


def test_dilation_grows_what_is_filled_and_no_more(scene, tiny_sd):
    grown = complete(scene.dilated(3), tiny_sd, FAST, ranking=SIFT, progress=False)
    assert grown.best.provenance["scene"] == {"dilations_px": [3]}
    assert grown.scene.mask.sum() > scene.mask.sum()
    assert (grown.best.image == scene.target)[~grown.scene.mask].all()


def test_variants_fill_a_whole_canvas(scene, tiny_fit):
    adapter = fit(scene, tiny_fit, progress=False)
    square = variants(adapter, FAST, progress=False)
    assert square[0].image.shape == (32, 32, 3)
    assert not square.ranked
    wide = variants(adapter, FAST, size=(48, 80), references=[make_photo(64, 64, 3)], ranking=SIFT, progress=False)
    assert wide[0].image.shape == (48, 80, 3)
    assert wide.ranked


@pytest.mark.parametrize("batch_size", [3, 64])
def test_memory_running_out_halves_the_batch(batch_size, scene, tiny_sd, monkeypatch):
    sizes, real = [], hole.sample

    def scarce(*args, seeds, **options):
        sizes.append(len(seeds))
        if len(seeds) > 1:
            raise torch.OutOfMemoryError
        return real(*args, seeds=seeds, **options)

    monkeypatch.setattr(hole, "sample", scarce)
    bare = Scene([], scene.target, scene.mask)
    with pytest.warns(RealFillWarning, match="out of memory"):
        completions = complete(
            bare, tiny_sd, dataclasses.replace(FAST, num_samples=3, batch_size=batch_size), progress=False
        )
    assert sizes == [3, 1, 1, 1]
    assert [c.seed for c in completions] == [0, 1, 2]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("x"), RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: 9")]
)
def test_too_little_memory_for_one_seed_is_an_error(scene, tiny_sd, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(hole, "sample", fail)
    bare = Scene([], scene.target, scene.mask)
    with pytest.raises(RuntimeError), pytest.warns(RealFillWarning, match="continuing with 1 at a time"):
        complete(bare, tiny_sd, dataclasses.replace(FAST, num_samples=2, batch_size=2), progress=False)


@pytest.mark.parametrize(("largest", "sizes"), [(99, [5]), (4, [3, 2]), (1, [1] * 5)])
def test_seeds_are_spread_over_batches_as_large_as_memory_allows(scene, tiny_sd, monkeypatch, largest, sizes):
    batch_sizes, real = [], hole.sample
    monkeypatch.setattr(hole, "largest_batch", lambda *_, **__: largest)
    monkeypatch.setattr(
        hole, "sample", lambda *a, seeds, **o: batch_sizes.append(len(seeds)) or real(*a, seeds=seeds, **o)
    )
    complete(Scene([], scene.target, scene.mask), tiny_sd, dataclasses.replace(FAST, num_samples=5), progress=False)
    assert batch_sizes == sizes


def test_an_adapter_leaves_nothing_in_its_base(scene, tiny_fit):
    adapter = fit(scene, tiny_fit, progress=False)
    before, fitted, after = (complete(scene, x, FAST, ranking=SIFT, progress=False) for x in
                             (tiny_fit.base, adapter, tiny_fit.base))  # fmt: skip
    seed = before[0].seed
    images = [next(c for c in completions if c.seed == seed).image for completions in (before, fitted, after)]
    assert np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[1])


def test_scripts_written_now_keep_working(scene, tmp_path):
    scene.save(tmp_path / "scene")
    scene = Scene.load(tmp_path / "scene")
    adapter = fit(scene, FitConfig(base="mini", num_steps=2, batch_size=4, seed=0), progress=False)
    adapter.save(tmp_path / "adapter")
    adapter = Adapter.load(tmp_path / "adapter")
    completions = complete(
        scene, adapter, SampleConfig(num_samples=2, num_inference_steps=2), ranking=RankConfig(matcher="sift"),
        progress=False,
    )  # fmt: skip
    best = completions.best
    assert best.image.shape == scene.target.shape
    assert best.seed in (0, 1)
    assert best.score == best.num_matches
    completions.save(tmp_path / "out")
    assert (tmp_path / "out" / "scores.json").exists()


@pytest.mark.filterwarnings("ignore:no reference could be aligned")
def test_the_packaged_base_alone_declares_its_recipe(scene):
    adapter = fit(scene, FitConfig(base="mini", num_steps=1), progress=False)
    assert adapter.config.trainable == "all"
    assert complete(scene, adapter, FAST, progress=False).ranked


def test_a_short_fit_on_the_packaged_base_paints_what_the_reference_shows():
    from realfill.app.demo import demo_scene

    scene, truth = demo_scene()
    sampling = SampleConfig(num_samples=2)
    bare = complete(scene, "mini", sampling, progress=False)
    adapter = fit(scene, FitConfig(base="mini", num_steps=60), progress=False)
    fitted = complete(scene, adapter, sampling, progress=False)
    before, after = (np.mean([psnr(c.image, truth, scene.mask) for c in cs]) for cs in (bare, fitted))
    print(f"PSNR in the hole: bare {before:.2f}, fitted {after:.2f}")
    assert after > before + 0.3


def test_half_precision_is_not_trained_on_without_a_loss_scale(scene, tiny_fit):
    with pytest.raises(ValueError, match="float16"):
        fit(scene, tiny_fit, dtype=torch.float16, progress=False)


def test_ranking_again_takes_the_matcher_that_the_base_asks_for(scene):
    completions = complete(Scene([], scene.target, scene.mask), "mini", FAST, progress=False)
    ranked = rank(completions, [scene.target], progress=False)
    assert ranked.ranking.score_by == "warped_references"


def test_completion_uses_the_windows_of_the_fit_and_warns_about_others(scene, tiny_fit):
    adapter = fit(scene, tiny_fit, window=WindowConfig(num_stages=2, context=3.0), progress=False)
    same = complete(scene, adapter, FAST, ranking=SIFT, progress=False)
    assert same.best.provenance["window"].items() >= {"context": 3.0, "join_windows": 1.25, "num_stages": 2}.items()
    with pytest.warns(RealFillWarning, match="fitted for .*num_stages=2.* used for .*num_stages=3"):
        other = complete(scene, adapter, FAST, window=WindowConfig(num_stages=3), ranking=SIFT, progress=False)
    assert other.best.provenance["window"].items() >= {"context": 3.0, "join_windows": 1.25, "num_stages": 3}.items()


def test_a_fit_draws_its_crops_at_the_scale_of_its_windows(scene, tiny_fit):
    near, far = (fit(scene, tiny_fit, window=WindowConfig(context=c), progress=False) for c in (1.0, 2.0))
    assert any(not torch.equal(t, far.tensors[name]) for name, t in near.tensors.items())


@pytest.mark.filterwarnings("ignore:no reference could be aligned")
def test_references_are_matched_once_per_scene(scene, monkeypatch):
    calls, real = [], pipeline.match_references
    monkeypatch.setattr(pipeline, "match_references", lambda *args: calls.append(1) or real(*args))
    adapter = fit(scene, FitConfig(base="mini", num_steps=1), progress=False)
    complete(scene, adapter, FAST, progress=False)
    complete(scene, adapter, FAST, progress=False)
    assert len(calls) == 1


def test_a_folder_of_an_adapter_is_as_good_as_the_adapter(scene, tiny_fit, tmp_path):
    adapter = fit(scene, tiny_fit, progress=False)
    adapter.save(tmp_path / "adapter")
    expected = complete(scene, adapter, FAST, ranking=SIFT, progress=False)
    for folder in (tmp_path / "adapter", str(tmp_path / "adapter")):
        completions = complete(scene, folder, FAST, ranking=SIFT, progress=False)
        assert (completions.best.image == expected.best.image).all()


def test_on_step_ends_a_completion_and_keeps_what_is_finished(scene, tiny_sd):
    config = dataclasses.replace(FAST, num_samples=3, batch_size=1)
    steps = []

    def stop_in_the_second_seed(report):
        steps.append((report.phase, report.step))
        return report.step < 4

    completions = complete(scene, tiny_sd, config, ranking=SIFT, on_step=stop_in_the_second_seed, progress=False)
    whole = complete(scene, tiny_sd, config, ranking=SIFT, progress=False)
    assert [c.seed for c in completions] == [0]
    assert (completions.best.image == next(c for c in whole if c.seed == 0).image).all()
    assert steps[:4] == [("sample", n) for n in (1, 2, 3, 4)]
    with pytest.raises(StoppedError):
        complete(scene, tiny_sd, config, ranking=SIFT, on_step=lambda _: False, progress=False)


def test_a_fit_that_is_too_much_for_a_processor_is_warned_about(scene, tiny_fit, monkeypatch):
    monkeypatch.setattr("realfill.pipeline._LARGE_PX", 32)
    with pytest.warns(RealFillWarning, match="takes days on a CPU"):
        fit(scene, tiny_fit, device="cpu", on_step=lambda _: False, progress=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("changes", [{}, {"latent_cache_size": 4}, {"compile": True}, {"trainable": "all"}], ids=str)
@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
def test_a_gpu_fits_and_completes(scene, tiny_sd, precision, changes):
    options = {**TINY_FIT, "mixed_precision": precision, "num_steps": 4, **changes}
    adapter = fit(scene, FitConfig(base=tiny_sd, **options), device="cuda", progress=False)
    assert np.isfinite(adapter.losses).all() and len(adapter.losses) == 4
    completions = complete(scene, adapter, FAST, ranking=SIFT, device="cuda", progress=False)
    assert len(completions) == 2
    for completion in completions:
        assert (completion.image == scene.target)[~scene.mask].all()


def test_a_fit_learns_from_the_five_references_that_show_the_hole_and_says_which(tiny_sd, capsys):
    mask, target = compact((64, 80)), make_photo(64, 80)
    references = [make_photo(64, 80, seed) for seed in range(2, 8)]
    references[3] = np.roll(target, 2, axis=1)
    scene = Scene(references, target, mask)
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 1})
    adapter = fit(scene, config, progress=True)
    line = next(line for line in capsys.readouterr().err.splitlines() if "the fit learns from" in line)
    assert "5 of 6 references, 3 (+" in line
    inputs = set(adapter.manifest["inputs"].values())
    assert sum(pipeline.hash_scene(scene)[f"reference {i}"] in inputs for i in range(6)) == 5
    assert pipeline.hash_scene(scene)["reference 3"] in inputs
