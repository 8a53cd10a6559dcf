"""Laws of ``fit``, on tiny models of Stable Diffusion's classes and on the packaged base."""

import dataclasses

import numpy as np
import pytest
import torch
from composites import make_composite
from helpers import TINY_FIT, make_photo

from realfill import FitConfig, GeometryConfig, RankConfig, SampleConfig, Scene, WindowConfig, complete, fit
from realfill.benchmark.metrics import psnr
from realfill.errors import RealFillWarning
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.pipeline import references
from realfill.results.provenance import hash_scene
from realfill.training import plan as plans

SIFT = RankConfig(matcher="sift")
FAST = SampleConfig(num_samples=2, num_inference_steps=3)

pytestmark = pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")


def stop_at_the_first_step(progress):
    return progress.phase != "fit"


def test_a_batch_that_memory_does_not_hold_is_computed_in_pieces_on_a_processor_too(
    scene, tiny_sd, monkeypatch, capsys
):
    monkeypatch.setattr(plans, "free_bytes", lambda _: 0)
    fit(scene, FitConfig(base=tiny_sd, **TINY_FIT), device="cpu")
    assert "in 2 pieces of 1, with gradient checkpointing" in capsys.readouterr().err


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


def test_a_fit_draws_its_crops_at_the_scale_of_its_windows(scene, tiny_fit):
    near, far = (fit(scene, tiny_fit, window=WindowConfig(context=c), progress=False) for c in (1.0, 2.0))
    assert any(not torch.equal(t, far.tensors[name]) for name, t in near.tensors.items())


@pytest.mark.filterwarnings("ignore:no reference could be aligned")
def test_references_are_matched_once_per_scene(scene, monkeypatch):
    calls, real = [], references.match_references
    monkeypatch.setattr(references, "match_references", lambda *args: calls.append(1) or real(*args))
    adapter = fit(scene, FitConfig(base="mini", num_steps=1), progress=False)
    complete(scene, adapter, FAST, progress=False)
    complete(scene, adapter, FAST, progress=False)
    assert len(calls) == 1


def test_a_fit_without_a_composite_shows_no_hints(scene):
    adapter = fit(scene, FitConfig(base="mini", num_steps=1, hint_share=0.5), progress=False)
    assert adapter.config.hint_share == 0


@pytest.mark.filterwarnings("ignore:the references show 0 %")
@pytest.mark.usefixtures("with_composites")
@pytest.mark.parametrize(("share", "covered"), [(1.0, True), (0.92, True), (0.85, False), (0.0, False)])
def test_a_fit_of_mini_has_other_defaults_where_references_show_the_hole(scene, monkeypatch, share, covered):
    shown = np.cumsum(scene.mask).reshape(scene.mask.shape) <= share * scene.mask.sum()
    composite = dataclasses.replace(
        make_composite(scene), confidence=np.where(shown, np.float32(0.1), 0), source=np.where(shown, 0, -1)
    )
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: composite)
    card = Card.load(MINI_DIRECTORY)
    recipe = FitConfig().resolve(card.fit_defaults(covered=covered))
    for changes, num_steps in (({}, recipe.num_steps), ({"num_steps": 7}, 7)):
        adapter = fit(scene, FitConfig(base="mini", **changes), on_step=stop_at_the_first_step, progress=False)
        assert adapter.config.num_steps == num_steps
        assert adapter.config.hint_share == (recipe.hint_share if share else 0)
    assert card.fit_defaults(covered=True) != card.fit_defaults(covered=False) == card.fit
    off = GeometryConfig(enabled=False)
    adapter = fit(scene, FitConfig(base="mini"), geometry=off, on_step=stop_at_the_first_step, progress=False)
    assert adapter.config.num_steps == card.fit["num_steps"]


def test_a_fit_that_is_too_much_for_a_processor_is_warned_about(scene, tiny_fit, monkeypatch):
    monkeypatch.setattr("realfill.pipeline.fitting._LARGE_PX", 32)
    with pytest.warns(RealFillWarning, match="takes days on a CPU"):
        fit(scene, tiny_fit, device="cpu", on_step=lambda _: False, progress=False)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which torch.compile itself reads
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
    mask, target = np.zeros((64, 80), bool), make_photo(64, 80)
    mask[20:45, 25:60] = True
    references = [make_photo(64, 80, seed) for seed in range(2, 8)]
    references[3] = np.roll(target, 2, axis=1)
    scene = Scene(references, target, mask)
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "num_steps": 1})
    adapter = fit(scene, config, progress=True)
    line = next(line for line in capsys.readouterr().err.splitlines() if "the fit learns from" in line)
    assert "5 of 6 references, 3 (+" in line
    inputs = set(adapter.manifest["inputs"].values())
    assert sum(hash_scene(scene)[f"reference {i}"] in inputs for i in range(6)) == 5
    assert hash_scene(scene)["reference 3"] in inputs
