"""Hints: doubtful pixels of a composite, with a confidence, which a base model reads in its own window."""

import numpy as np
import pytest
from composites import make_composite
from helpers import make_photo

from realfill import SampleConfig, Scene, complete
from realfill.config import GeometryConfig, WindowConfig
from realfill.filling.fill import choose_parts, fill_hole
from realfill.filling.hints import Hints
from realfill.filling.keeping import Kept
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.results.evidence import CORRECTED, PHOTOGRAPHED, Evidence

SETTINGS = GeometryConfig().resolve({})
WINDOW = WindowConfig().resolve({})
QUICK = SampleConfig(num_samples=1, num_inference_steps=2)


@pytest.fixture(scope="module")
def mini():
    return StableDiffusionInpainter.load("mini")


def keep(scene, **options):
    found = make_composite(scene, **options)
    evidence = Evidence.judge(scene.mask, found.confidence, found.source, SETTINGS)
    return found, Kept.of_composite(scene, found.image, evidence, SETTINGS, hinted=True)


def fill(inpainter, scene, hints):
    return fill_hole(inpainter, scene, QUICK.resolve(inpainter.card.sample), WINDOW, progress=False, hints=hints)[0]


def make_scene(height=300, width=360):
    mask = np.zeros((height, width), bool)
    mask[60:240, 80:280] = True
    return Scene([make_photo(90, 90, 1)], make_photo(height, width), mask)


def test_hints_are_the_corrected_pixels_with_their_confidence(scene):
    found, kept = keep(scene, doubtful=0.2)
    corrected = scene.mask.copy()
    corrected[scene.mask] = kept.evidence.kind == CORRECTED
    hints = kept.hints
    assert (hints.image[corrected] == found.image[corrected]).all()
    assert (hints.image[~corrected] == kept.scene.known[~corrected]).all()
    assert (hints.confidence[corrected] == 51).all(), "in steps of 1/255"
    assert (hints.confidence[~kept.scene.mask] == 255).all()
    assert (hints.confidence[kept.scene.mask & ~corrected] == 0).all()


def test_a_base_that_reads_no_hints_gets_none(scene):
    found = make_composite(scene)
    evidence = Evidence.judge(scene.mask, found.confidence, found.source, SETTINGS)
    assert Kept.of_composite(scene, found.image, evidence, SETTINGS).hints is None


def test_the_fill_of_a_base_that_reads_hints_counts_for_more(scene):
    found, kept = keep(scene, doubtful=0.2)
    without = Kept.of_composite(scene, found.image, kept.evidence, SETTINGS)
    corrected = kept.evidence.kind == CORRECTED
    assert (kept.weight[corrected] < without.weight[corrected] - 0.1).all()
    assert (kept.weight[~corrected] == without.weight[~corrected]).all()


def test_the_identity_depends_on_the_confidence_of_hints(scene):
    assert len({keep(scene, doubtful=c)[1].identity for c in (0.1, 0.105, 0.11)}) == 3


def test_a_window_shows_a_hint_only_where_all_of_its_pixels_have_one(mini):
    scene = make_scene()
    (part,) = choose_parts(mini, scene, WINDOW)
    window = part.windows[0]
    hinted = scene.mask & (np.arange(scene.mask.shape[1]) < 160)
    image = make_photo(*scene.mask.shape, seed=3)
    hints = Hints.of_composite(scene.known, scene.mask, image, hinted, np.full(int(hinted.sum()), 128))
    trust, hole = hints.crop(window), window.crop_mask(scene.mask)
    empty = window.crop_mask(scene.mask & ~hinted)
    assert trust.shape == window.size and trust.min() >= 0 and trust.max() <= 1
    assert (trust[empty] == 0).all()
    inner = hole & ~empty & ~window.crop_mask(~scene.mask)
    assert inner.any() and trust[inner] == pytest.approx(128 / 255, abs=0.01)
    assert trust[~hole] == pytest.approx(1)


def test_a_model_follows_hints_by_their_confidence(mini):
    scene = make_scene()
    truth = scene.target[scene.mask].astype(int)
    errors = []
    for confidence in (None, 20, 250):
        hints = None
        if confidence is not None:
            levels = np.full(int(scene.mask.sum()), confidence)
            hints = Hints.of_composite(scene.known, scene.mask, scene.target, scene.mask, levels)
        errors.append(np.abs(fill(mini, scene, hints) - truth).mean())
    assert errors[2] < 0.9 * errors[1] and errors[1] < 0.9 * errors[0]


def test_pixels_without_a_hint_have_no_influence(mini):
    scene = make_scene()
    hinted = scene.mask & (np.arange(scene.mask.shape[1]) < 160)
    levels = np.full(int(hinted.sum()), 100)
    fills = [
        fill(mini, scene, Hints.of_composite(np.where(scene.mask[:, :, None], np.uint8(level), scene.known), scene.mask,
                                             scene.target, hinted, levels))
        for level in (0, 255)
    ]  # fmt: skip
    assert (fills[0] == fills[1]).all()


def test_a_completion_reads_hints_and_keeps_known_and_photographed_pixels(scene, monkeypatch):
    found, seen = make_composite(scene, doubtful=0.2), []
    monkeypatch.setattr("realfill.pipeline.evidence._has_composite", lambda *_: True)
    monkeypatch.setattr("realfill.pipeline.evidence._align", lambda *_, **__: found)
    monkeypatch.setattr(
        "realfill.pipeline.completing.fill_hole", lambda *a, **k: seen.append(k["hints"]) or fill_hole(*a, **k)
    )
    completion = complete(scene, "mini", QUICK, ranked=False, progress=False)[0]
    assert seen[0] is not None
    assert (completion.image == scene.target)[~scene.mask].all()
    photographed = completion.evidence.kinds == PHOTOGRAPHED
    assert photographed.any() and (completion.image == found.image)[photographed].all()
