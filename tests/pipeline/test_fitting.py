"""Laws of ``fit``, on tiny models of Stable Diffusion's classes and on the packaged base."""

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


def test_a_fit_of_mini_without_a_composite_shows_no_hints(scene):
    adapter = fit(scene, FitConfig(base="mini"), on_step=lambda _: False, progress=False)
    plain = FitConfig(base="mini").resolve(Card.load(MINI_DIRECTORY).fit)
    assert (adapter.config.num_steps, adapter.config.hint_share) == (plain.num_steps, 0)


@pytest.mark.usefixtures("with_composites")
@pytest.mark.parametrize("enabled", [True, False])
def test_a_fit_of_mini_takes_the_defaults_for_hints_if_there_is_a_composite(scene, monkeypatch, enabled):
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: make_composite(scene))
    card = Card.load(MINI_DIRECTORY)
    hinted = card.fit_defaults(hinted=True)
    assert hinted == {**card.fit, **card.hinted_fit} != card.fit
    adapter = fit(
        scene, FitConfig(base="mini", learning_rate=1e-4), geometry=GeometryConfig(enabled=enabled),
        on_step=lambda _: False, progress=False,
    )  # fmt: skip
    assert adapter.config.num_steps == (hinted if enabled else card.fit)["num_steps"]
    assert adapter.config.hint_share == (hinted["hint_share"] if enabled else 0)
    assert adapter.config.learning_rate == 1e-4


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
