"""RealFill and its base as methods: with the composite, and plain."""

import numpy as np
import pytest
from composites import make_composite
from helpers import TINY_FIT

from realfill import FitConfig, SampleConfig, WindowConfig
from realfill.benchmark.config import BenchConfig
from realfill.benchmark.methods.diffusion import Unfitted
from realfill.benchmark.setup import set_up
from realfill.config import GeometryConfig, RankConfig
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.hub import MINI_DIRECTORY

SAMPLE = SampleConfig(num_samples=2, num_inference_steps=2)
MINI_CARD = Card.load(MINI_DIRECTORY)


def set_up_methods(base, *names):
    config = BenchConfig(metrics=("psnr",), methods=names)
    fit = FitConfig(base=base, **TINY_FIT)
    ranking = RankConfig(matcher="sift")
    benchmark = set_up(config, fit=fit, sample=SAMPLE, window=WindowConfig(), ranking=ranking, device="cpu")
    return [arm.method for arm in benchmark.arms]


@pytest.mark.parametrize("name", ["realfill", "realfill_plain", "base", "base_plain"])
def test_only_methods_that_are_not_plain_keep_the_composite(name, scene, tiny_sd, with_composites, monkeypatch):
    found = make_composite(scene)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: found)
    (method,) = set_up_methods(tiny_sd, name)
    images = method.prepare(scene.blanked(), None, 0)([0, 1])
    photographed = (found.confidence > 0.5) & scene.mask
    kept = [(image == found.image)[photographed].all() for image in images]
    assert kept == [not name.endswith("_plain")] * 2
    assert (images[0] != images[1]).any()
    assert method.name == name
    assert method.uses_references == (name != "base_plain")
    assert method.uses_fit_seed == name.startswith("realfill")
    del with_composites


def test_a_scene_that_is_all_photographed_has_one_image_for_every_seed(scene, tiny_sd, with_composites, monkeypatch):
    found = make_composite(scene)
    whole = type(found)(
        image=found.image, confidence=np.ones(scene.mask.shape, np.float32),
        source=np.where(scene.mask, 0, -1).astype(np.int16), layers=(), reconstruction=None,
    )  # fmt: skip
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: whole)
    method = Unfitted(
        name="base", base=tiny_sd, sample=SAMPLE, window=WindowConfig(), geometry=GeometryConfig(), device="cpu"
    )
    one, two, three = method.prepare(scene, None, 0)([3, 4, 5])
    assert (one == whole.image).all() and (one == two).all() and (two == three).all()
    del with_composites


def test_thresholds_reach_the_methods_and_the_composite_stays_on(tiny_sd):
    config = BenchConfig(metrics=("psnr",), methods=("realfill", "base", "realfill_plain", "base_plain"))
    geometry = GeometryConfig(enabled=False, photographed_confidence=0.7)
    benchmark = set_up(
        config, fit=FitConfig(base=tiny_sd), sample=SAMPLE, window=WindowConfig(), ranking=RankConfig(matcher="sift"),
        geometry=geometry, device="cpu",
    )  # fmt: skip
    settings = [arm.method.geometry for arm in benchmark.arms]
    assert [s.enabled for s in settings] == [True, True, False, False]
    assert settings[0].photographed_confidence == settings[1].photographed_confidence == 0.7
    assert benchmark.about["geometry"]["photographed_confidence"] == 0.7


@pytest.mark.parametrize(("changes", "num_steps"), [({}, MINI_CARD.covered_fit["num_steps"]), ({"num_steps": 7}, 7)])
def test_a_benchmark_says_which_recipe_holds_where_references_show_the_hole(changes, num_steps):
    benchmark = set_up(
        BenchConfig(metrics=("psnr",), methods=("realfill",)), fit=FitConfig(base="mini", **changes), sample=SAMPLE,
        window=WindowConfig(), ranking=RankConfig(matcher="sift"), device="cpu",
    )  # fmt: skip
    assert benchmark.about["covered_fit"] == {"num_steps": num_steps}
