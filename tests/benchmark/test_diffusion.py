"""RealFill and its base as methods: with the composite, and plain."""

import numpy as np
import pytest
from composites import make_composite
from helpers import TINY_FIT

from realfill import FitConfig, SampleConfig, WindowConfig
from realfill.benchmark.config import BenchConfig
from realfill.benchmark.methods.diffusion import Base, PlainBase, PlainRealFill, RealFill
from realfill.benchmark.setup import set_up
from realfill.config import GeometryConfig, RankConfig

SAMPLE = SampleConfig(num_samples=2, num_inference_steps=2)


@pytest.mark.parametrize("kind", [RealFill, PlainRealFill, Base, PlainBase])
def test_only_methods_that_are_not_plain_keep_the_composite(kind, scene, tiny_sd, with_composites, monkeypatch):
    found = make_composite(scene)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: found)
    source = {"base": tiny_sd} if kind in (Base, PlainBase) else {"fit": FitConfig(base=tiny_sd, **TINY_FIT)}
    method = kind(sample=SAMPLE, window=WindowConfig(), device="cpu", **source)
    images = method.prepare(scene.blanked(), None, 0)([0, 1])
    photographed = (found.confidence > 0.5) & scene.mask
    kept = [(image == found.image)[photographed].all() for image in images]
    assert kept == [kind in (RealFill, Base)] * 2
    assert (images[0] != images[1]).any()
    assert method.name == {
        RealFill: "realfill", PlainRealFill: "realfill_plain", Base: "base", PlainBase: "base_plain",
    }[kind]  # fmt: skip
    assert method.uses_references == (kind is not PlainBase)
    del with_composites


def test_a_scene_that_is_all_photographed_has_one_image_for_every_seed(scene, tiny_sd, with_composites, monkeypatch):
    found = make_composite(scene)
    whole = type(found)(
        image=found.image, confidence=np.ones(scene.mask.shape, np.float32),
        source=np.where(scene.mask, 0, -1).astype(np.int16), layers=(), reconstruction=None,
    )  # fmt: skip
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: whole)
    one, two, three = Base(base=tiny_sd, sample=SAMPLE, window=WindowConfig(), device="cpu").prepare(scene, None, 0)(
        [3, 4, 5]
    )
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
