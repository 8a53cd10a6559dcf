"""Laws of ``complete``, with and without a fit, on tiny models of Stable Diffusion's classes and the packaged base."""

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
    rank,
    variants,
)  # fmt: skip
from realfill.errors import AdapterError, BaseModelError, RealFillWarning, StoppedError
from realfill.filling import fill as hole

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

    monkeypatch.setattr("realfill.pipeline.ranking.rank", fail)
    with pytest.warns(RealFillWarning, match=r"ranking failed \(OutOfMemoryError: CUDA"):
        completions = complete(scene, tiny_sd, FAST, ranking=SIFT, progress=False)
    assert [c.seed for c in completions] == list(range(len(completions))) and not completions.ranked


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
