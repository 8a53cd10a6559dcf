"""Hints: doubtful pixels of a composite, with a confidence, which a base model reads in its own window."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from composites import make_composite
from helpers import make_photo

from realfill import SampleConfig, Scene, complete
from realfill.config import GeometryConfig, WindowConfig
from realfill.filling import fill as filling
from realfill.filling.fill import choose_parts, fill_hole
from realfill.filling.hints import Hints
from realfill.filling.keeping import Kept
from realfill.geometry.confidence import error_of
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.results.evidence import CORRECTED, PHOTOGRAPHED, Evidence
from realfill.scene.windows import Window

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
    mask[61:238, 81:278] = True  # the edges lie within pixels of the window
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
    assert (kept.weight[corrected] < without.weight[corrected] - 0.05).all()
    at_high, here = (1 + (15 * np.log(c) / 40) ** 2 for c in (SETTINGS.photographed_confidence, 0.2))
    assert kept.weight[corrected] == pytest.approx(at_high / here, abs=1e-3)  # inverse squares of errors
    assert (kept.weight[~corrected] == without.weight[~corrected]).all()


def test_the_identity_depends_on_the_confidence_of_hints(scene):
    _, kept = keep(scene, doubtful=0.1)
    confidence = np.where(kept.hints.confidence == 26, np.uint8(27), kept.hints.confidence)
    other = dataclasses.replace(kept, hints=dataclasses.replace(kept.hints, confidence=confidence))
    assert len({kept.identity, other.identity, dataclasses.replace(kept, hints=None).identity}) == 3
    assert kept.identity == keep(scene, doubtful=0.1)[1].identity


def test_hints_that_do_not_count_in_the_mean_still_count_in_the_identity(scene):
    settings = GeometryConfig(corrected_confidence=0.2).resolve({})
    found = make_composite(scene, confident=0.005, doubtful=0.2)
    evidence = Evidence.judge(scene.mask, found.confidence, found.source, settings)
    with_hints, without = (
        Kept.of_composite(scene, found.image, evidence, settings, hinted=hinted) for hinted in (True, False)
    )
    assert not with_hints.weight.any() and with_hints.hints is not None
    assert with_hints.identity is not None and without.identity is None


def test_every_hint_is_told_from_pixels_without_one_and_from_known_pixels(scene):
    levels = np.resize([0, 1, 254, 255], int(scene.mask.sum()))
    hints = Hints.of_composite(scene.known, scene.mask, scene.target, scene.mask, levels)
    assert (hints.confidence[scene.mask] == np.resize([1, 1, 254, 254], levels.size)).all()
    assert (hints.confidence[~scene.mask] == 255).all()


def test_a_window_shows_a_hint_only_where_all_of_its_pixels_have_one(mini):
    scene = make_scene()
    (part,) = choose_parts(mini, scene, WINDOW)
    window = part.windows[0]
    hinted = scene.mask & (np.arange(scene.mask.shape[1]) < 161)
    image = make_photo(*scene.mask.shape, seed=3)
    hints = Hints.of_composite(scene.known, scene.mask, image, hinted, np.full(int(hinted.sum()), 128))
    trust, hole = hints.crop(window), window.crop_mask(scene.mask)
    empty = window.crop_mask(scene.mask & ~hinted)
    assert trust.shape == window.size and trust.min() >= 0 and trust.max() <= 1
    assert (trust[empty] == 0).all()
    inner = hole & ~empty & ~window.crop_mask(~scene.mask)
    assert inner.any() and trust[inner] == pytest.approx((128 / 255) ** (window.scale**-0.5), abs=0.01)
    assert trust[~hole] == pytest.approx(1)


@pytest.mark.parametrize(("size", "share"), [((40, 60), 1), ((20, 30), 0.707), ((10, 15), 0.5), ((80, 120), 1)])
def test_the_expected_error_shrinks_with_the_window(size, share):
    confidence = np.full((50, 70), 26, np.uint8)
    hints = Hints(image=np.zeros((50, 70, 3), np.uint8), confidence=confidence)
    trust = hints.crop(Window(box=(5, 5, 45, 65), size=size))
    assert error_of(trust) == pytest.approx(share * error_of(np.float32(26 / 255)), rel=1e-3)


def test_every_window_of_every_part_gets_its_hints(tiny_sd, monkeypatch):
    tiny, staged, mask = StableDiffusionInpainter.load(tiny_sd), WindowConfig(num_stages=3), np.zeros((150, 170), bool)
    mask[:60, :50] = mask[-30:, -31:] = True
    scene, seen = Scene([], make_photo(*mask.shape), mask), []
    levels = np.random.default_rng(0).integers(0, 256, int(mask.sum()))
    hints = Hints.of_composite(scene.known, mask, scene.target, mask, levels)

    def watch(_, image, hole, *, confidence, **__):
        seen.append(confidence[0, 0].numpy())
        return image / 255

    monkeypatch.setattr(filling, "sample", watch)
    settings = staged.resolve({})
    fill_hole(tiny, scene, QUICK.resolve(tiny.card.sample), settings, progress=False, hints=hints)
    windows = [window for part in choose_parts(tiny, scene, settings) for window in part.windows]
    assert len(windows) == 5
    assert all(np.array_equal(trust, hints.crop(window)) for trust, window in zip(seen, windows, strict=True))


def test_a_crop_takes_memory_for_its_window_only():
    large = np.zeros((3000, 4000), np.uint8)
    hints = Hints(image=np.broadcast_to(np.uint8(0), (*large.shape, 3)), confidence=large)
    tracemalloc.start()
    hints.crop(Window(box=(100, 200, 228, 328), size=(64, 64)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.nbytes / 10


def test_a_model_follows_hints_by_their_confidence(mini):
    scene = make_scene()
    truth = scene.target[scene.mask].astype(int)
    errors = []
    for confidence in (None, 3, 250):
        hints = None
        if confidence is not None:
            levels = np.full(int(scene.mask.sum()), confidence)
            hints = Hints.of_composite(scene.known, scene.mask, scene.target, scene.mask, levels)
        errors.append(np.abs(fill(mini, scene, hints) - truth).mean())
    assert errors[2] < 0.9 * errors[1] and errors[1] < 0.9 * errors[0]


def test_pixels_without_a_hint_have_no_influence(mini):
    scene = make_scene()
    hinted = scene.mask & (np.arange(scene.mask.shape[1]) < 161)
    levels = np.full(int(hinted.sum()), 100)
    fills = [
        fill(mini, scene, Hints.of_composite(np.where(scene.mask[:, :, None], np.uint8(level), scene.known), scene.mask,
                                             scene.target, hinted, levels))
        for level in (0, 255)
    ]  # fmt: skip
    assert (fills[0] == fills[1]).all()


@pytest.mark.parametrize("base", ["mini", "tiny_sd"])
def test_a_completion_reads_hints_if_its_base_does_and_keeps_known_and_photographed_pixels(
    scene, monkeypatch, request, base
):
    found, seen = make_composite(scene, doubtful=0.2), []
    monkeypatch.setattr("realfill.pipeline.evidence._has_composite", lambda *_: True)
    monkeypatch.setattr("realfill.pipeline.evidence._align", lambda *_, **__: found)
    monkeypatch.setattr(
        "realfill.pipeline.completing.fill_hole", lambda *a, **k: seen.append(k["hints"]) or fill_hole(*a, **k)
    )
    source = base if base == "mini" else request.getfixturevalue(base)
    completion = complete(scene, source, QUICK, ranked=False, progress=False)[0]
    assert (seen[0] is not None) == (base == "mini")
    assert (completion.image == scene.target)[~scene.mask].all()
    photographed = completion.evidence.kinds == PHOTOGRAPHED
    assert photographed.any() and (completion.image == found.image)[photographed].all()


def test_a_completion_keeps_the_detail_that_its_base_cannot_have(monkeypatch):
    big = make_scene()  # mini shrinks it
    scene = Scene([make_photo(90, 90, 1), make_photo(90, 90, 2)], big.target, big.mask)
    found, joins = make_composite(scene, doubtful=0.2), []
    monkeypatch.setattr("realfill.pipeline.evidence._has_composite", lambda *_: True)
    monkeypatch.setattr("realfill.pipeline.evidence._align", lambda *_, **__: found)
    joined = Kept.joined
    monkeypatch.setattr(Kept, "joined", lambda kept, filled: joins.append((kept, filled)) or joined(kept, filled))
    completion = complete(scene, "mini", QUICK, ranked=False, progress=False)[0]
    ((kept, filled),) = joins
    corrected = kept.evidence.kind == CORRECTED
    without = joined(dataclasses.replace(kept, detail=None), filled)
    sharp, soft, shown = (v[corrected].std() for v in (completion.image[scene.mask], without, found.image[scene.mask]))
    assert soft < 0.95 * shown
    assert sharp > soft + 0.5 * (shown - soft)
