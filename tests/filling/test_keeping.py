"""Keeping: photographed pixels become known, corrected ones a mean, and the rest is filled as before."""

import dataclasses

import numpy as np
import pytest
from composites import make_composite

from realfill.config import GeometryConfig
from realfill.filling.keeping import Kept
from realfill.results.evidence import CORRECTED, INVENTED, PHOTOGRAPHED, Evidence
from realfill.scene.windows import Part, Window

SETTINGS = GeometryConfig().resolve({})


def keep(scene, found, settings=SETTINGS, parts=None):
    evidence = Evidence.judge(scene.mask, found.confidence, found.source, settings)
    return Kept.of_composite(scene, found.image, evidence, settings, parts=parts and (lambda: parts))


def parts_of(scene, size=(16, 20)):
    """Fill the whole hole in a window of the whole target at this size."""
    box = (0, 0, *scene.mask.shape)
    return [Part(hole=box, windows=(Window(box=box, size=size),))]


def test_photographed_pixels_are_known_in_the_scene_that_is_left(scene):
    found = make_composite(scene)
    kept = keep(scene, found)
    photographed = kept.evidence.photographed
    assert photographed.any()
    assert (kept.scene.mask == (scene.mask & ~photographed)).all()
    assert (kept.scene.target[photographed] == found.image[photographed]).all()
    assert (kept.scene.whole_hole == scene.whole_hole).all()  # so that windows stay those of the fit


def test_a_join_keeps_photographed_pixels_and_averages_corrected_ones(scene):
    found = make_composite(scene, doubtful=0.1)
    kept = keep(scene, found)
    kind = kept.evidence.kind
    weight = kept.weight[kind == CORRECTED][:, None]
    assert 0.6 < weight.mean() < 0.9
    filled = np.full((int((kind != PHOTOGRAPHED).sum()), 3), 100, np.uint8)
    values, shown = kept.joined(filled), found.image[scene.mask].astype(float)
    assert (values[kind == PHOTOGRAPHED] == shown[kind == PHOTOGRAPHED]).all()
    mean = weight * shown[kind == CORRECTED] + (1 - weight) * 100
    assert np.abs(values[kind == CORRECTED] - mean).max() < 1
    assert (values[kind == INVENTED] == 100).all()


def test_the_weight_of_corrected_pixels_has_no_jump_at_either_threshold(scene):
    low, high = SETTINGS.corrected_confidence, SETTINGS.photographed_confidence
    for confidence, weight in ((low + 0.001, 0), (high - 0.003, 1)):
        kept = keep(scene, make_composite(scene, doubtful=confidence))
        of_corrected = kept.weight[kept.evidence.kind == CORRECTED]
        assert np.abs(of_corrected - weight).max() < 0.1  # a confidence is stored in steps of 1/255


def test_the_weight_of_corrected_pixels_falls_with_the_expected_error(scene):
    means = []
    for confidence in (0.05, 0.1, 0.2, 0.3):
        kept = keep(scene, make_composite(scene, doubtful=confidence))
        means.append(float(kept.weight[kept.evidence.kind == CORRECTED].mean()))
    assert means == sorted(means)
    at_high, here = (1 + (15 * np.log(c) / 65) ** 2 for c in (SETTINGS.photographed_confidence, 0.05))
    assert means[0] == pytest.approx(at_high / here, abs=0.02)  # inverse squares of errors


def test_the_weight_reaches_1_at_any_upper_threshold(scene):
    settings = GeometryConfig(photographed_confidence=0.06).resolve({})
    kept = keep(scene, make_composite(scene, doubtful=0.057), settings)
    assert kept.weight[kept.evidence.kind == CORRECTED].min() > 0.95


def test_sixteen_bits_are_kept(scene):
    deep = dataclasses.replace(scene.original, pixels=scene.original.pixels.astype(np.uint16) * 257)
    deep_scene = scene.retargeted(deep, scene.mask, {}, whole_hole=scene.whole_hole)
    found = make_composite(deep_scene)
    kept = keep(deep_scene, found)
    filled = np.full((int((kept.evidence.kind != PHOTOGRAPHED).sum()), 3), 30001, np.uint16)
    values = kept.joined(filled)
    assert values.dtype == np.uint16
    assert (values[kept.evidence.kind == INVENTED] == 30001).all()
    photographed = kept.evidence.kind == PHOTOGRAPHED
    assert (deep.decode(values[photographed]) == found.image[scene.mask][photographed]).all()


def test_nothing_is_kept_where_no_reference_speaks(scene):
    found = make_composite(scene, confident=0.005, doubtful=0.005)
    kept = keep(scene, found)
    assert kept.scene is scene
    assert kept.identity is None
    filled = np.full_like(kept.values, 7)
    assert (kept.joined(filled) == filled).all()


def test_the_identity_depends_on_pixels_and_weights(scene):
    found = make_composite(scene)
    other_pixels = make_composite(scene, seed=6)
    other_weights = make_composite(scene, doubtful=0.07)
    identities = {keep(scene, f).identity for f in (found, other_pixels, other_weights)}
    assert len(identities) == 3
    assert keep(scene, found).identity == keep(scene, make_composite(scene)).identity


def flat(kept, value=100):
    count = int((kept.evidence.kind != PHOTOGRAPHED).sum())
    return np.full((count, kept.values.shape[1]), value, kept.values.dtype)


def test_corrected_pixels_keep_the_detail_that_the_windows_of_a_fill_cannot_have(scene):
    found = make_composite(scene, doubtful=0.25)  # of noise, which has no coarse structure
    kept, without = keep(scene, found, parts=parts_of(scene)), keep(scene, found)
    corrected = kept.evidence.kind == CORRECTED
    shown = found.image[scene.mask][corrected].astype(float)
    sharp, soft = (k.joined(flat(k))[corrected].astype(float) for k in (kept, without))
    assert sharp.std() == pytest.approx(shown.std(), rel=0.15)
    assert soft.std() == pytest.approx(kept.weight[corrected].mean() * shown.std(), rel=0.05)
    assert np.abs(sharp.mean(axis=0) - soft.mean(axis=0)).max() < 6, "only detail is added"
    assert (kept.joined(flat(kept))[~corrected] == without.joined(flat(without))[~corrected]).all()


def test_the_detail_that_is_kept_rises_with_the_confidence_up_to_the_full(scene):
    detail = {}
    for confidence in (0.05, 0.1, 0.2, 0.3):
        kept = keep(scene, make_composite(scene, doubtful=confidence), parts=parts_of(scene))
        detail[confidence] = kept.detail.astype(float)
    full = detail[0.3]
    assert np.abs(full).mean() > 30
    for confidence, share in ((0.05, 0.25), (0.1, 0.5), (0.2, 1)):
        assert detail[confidence] == pytest.approx(share * full, abs=2)  # a confidence is stored in steps of 1/255


def test_a_fill_at_the_photos_own_size_gets_no_detail(scene):
    kept = keep(scene, make_composite(scene), parts=parts_of(scene, scene.mask.shape))
    assert not kept.detail.any()
    assert keep(scene, make_composite(scene)).detail is None


def test_the_detail_has_no_jump_at_the_lower_threshold(scene):
    settings = GeometryConfig(corrected_confidence=0.2).resolve({})
    shares = []
    for confidence in (0.2, 0.204, 0.208, 0.3):
        kept = keep(scene, make_composite(scene, doubtful=confidence), settings, parts_of(scene))
        shares.append(np.abs(kept.detail.astype(float)).mean())
    assert shares[0] < 0.15 * shares[3] and shares == sorted(shares)
    assert np.diff(shares).max() < 0.6 * shares[3]


def test_detail_is_what_is_finer_than_the_last_window_of_each_part(scene):
    height, width = scene.mask.shape
    middle = int(np.flatnonzero(scene.mask.any(axis=1)).mean())
    whole, upper, lower = ((0, 0, height, width), (0, 0, middle, width), (middle, 0, height, width))
    coarse, fine, own = (Window(box=whole, size=size) for size in ((8, 10), (32, 40), (height, width)))
    below = Window(box=(middle - 8, 0, height, width), size=(10, 20))
    parts = [Part(hole=upper, windows=(coarse, fine)), Part(hole=lower, windows=(below,))]
    found = make_composite(scene, confident=0.3, doubtful=0.3)
    corrected = scene.mask.copy()
    corrected[scene.mask] = keep(scene, found).evidence.kind == CORRECTED
    expected = np.zeros((height, width, 3))
    for part, window in zip(parts, (fine, below), strict=True):
        restored = found.image.astype(int)
        restored[window.slices] = window.restore(window.crop(found.image))
        inside = part.of(scene.mask)
        expected[inside] = (found.image.astype(int) - restored)[inside]
    assert (keep(scene, found, parts=parts).detail == expected[corrected]).all()
    assert not keep(scene, found, parts=[Part(hole=whole, windows=(coarse, own))]).detail.any()


def test_a_window_that_enlarges_the_photo_lacks_no_detail(scene):
    assert not keep(scene, make_composite(scene), parts=parts_of(scene, (100, 125))).detail.any()


def test_many_pixels_are_averaged_as_few_are(scene, monkeypatch):
    found = make_composite(scene, doubtful=0.1)
    kept = keep(scene, found, parts=parts_of(scene))
    monkeypatch.setattr("realfill.filling.keeping._CHUNK", 7)
    again = keep(scene, found, parts=parts_of(scene))
    assert (again.detail == kept.detail).all()
    filled = np.random.default_rng(0).integers(0, 256, flat(kept).shape, np.uint8)
    chunked = again.joined(filled)
    monkeypatch.undo()
    assert (chunked == kept.joined(filled)).all()


def test_detail_does_not_leave_the_range_of_colours(scene):
    kept = keep(scene, make_composite(scene, doubtful=0.2), parts=parts_of(scene))
    corrected = kept.evidence.kind == CORRECTED
    for value in (0, 255):
        mean = kept.weight[corrected, None] * kept.values[corrected] + (1 - kept.weight[corrected, None]) * (
            value + kept.detail.astype(float)
        )
        assert (mean < -1).any() or (mean > 256).any()
        values = kept.joined(flat(kept, value))[corrected]
        assert np.abs(values - mean.clip(0, 255)).max() <= 0.5 + 1e-3


def test_detail_of_sixteen_bits_is_that_of_eight(scene):
    deep = dataclasses.replace(scene.original, pixels=scene.original.pixels.astype(np.uint16) * 257)
    deep_scene = scene.retargeted(deep, scene.mask, {}, whole_hole=scene.whole_hole)
    eight, sixteen = (keep(s, make_composite(s, doubtful=0.2), parts=parts_of(s)) for s in (scene, deep_scene))
    assert np.abs(sixteen.detail / 257 - eight.detail).max() < 1
    for value in (0, 100, 255):
        values = sixteen.joined(flat(sixteen, 257 * value))
        assert values.dtype == np.uint16
        assert np.abs(values / 257 - eight.joined(flat(eight, value))).max() < 2


def test_the_identity_depends_on_the_detail(scene):
    found = make_composite(scene)
    identities = {
        keep(scene, found, parts=parts).identity for parts in (None, parts_of(scene), parts_of(scene, (8, 10)))
    }
    assert len(identities) == 3
