"""Engines by name, and a diffusion model without a fit as one of them."""

import dataclasses
from typing import get_args

import numpy as np
import pytest
from helpers import make_photo

from realfill import SampleConfig, Scene, complete
from realfill.config import EngineName
from realfill.errors import BaseModelError
from realfill.filling.engines import load_engine
from realfill.filling.unfitted import UnfittedBase
from realfill.models.feedforward.completion import CompletionNetwork

PHOTO = make_photo(64, 80)
HOLE = np.zeros((64, 80), bool)
HOLE[20:40, 30:50] = True


SAMPLE = SampleConfig(num_inference_steps=2)


@pytest.fixture(scope="module")
def base(tiny_sd):
    """The tiny base model, in two steps for each seed."""
    return dataclasses.replace(load_engine("base", weights=tiny_sd, device="cpu"), sample=SAMPLE.resolve({}))


@pytest.mark.parametrize("name", ["smooth", "telea", "shiftmap"])
def test_classical_engines_need_no_weights_and_refuse_them(name):
    (image,) = load_engine(name).fill(PHOTO, HOLE, [0])
    assert np.array_equal(image[~HOLE], PHOTO[~HOLE])
    with pytest.raises(ValueError, match=f"the engine '{name}' takes none"):
        load_engine(name, weights="somewhere")


def test_the_completion_network_has_packaged_weights_and_takes_others(tmp_path):
    CompletionNetwork(width=2, resolution=48).save(tmp_path)
    packaged, own = (load_engine("completion", weights=weights, device="cpu") for weights in (None, tmp_path))
    assert (own.network.width, own.network.resolution) == (2, 48) and packaged.network.width > 2
    first, second = packaged.fill(PHOTO, HOLE, [1, 2])
    assert np.array_equal(first, second) and np.array_equal(first[~HOLE], PHOTO[~HOLE])
    assert not np.array_equal(first, own.fill(PHOTO, HOLE, [1])[0])


def test_networks_blend_their_fill_as_suits_them_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("realfill.filling.engines.load_scripted", lambda *_, **__: CompletionNetwork(width=2))
    names = ("completion", "lama", "migan")
    assert [load_engine(name, device="cpu").blend for name in names] == ["poisson", "cut", "cut"]
    for blend in ("poisson", "cut"):
        assert [load_engine(name, device="cpu", blend=blend).blend for name in names] == [blend] * 3


def test_an_unknown_engine_is_refused_with_the_legal_names():
    with pytest.raises(ValueError, match=f"no engine 'magic'; legal: {', '.join(get_args(EngineName))}"):
        load_engine("magic")


def test_the_base_gives_the_same_images_as_complete_in_the_order_of_the_seeds(base, tiny_sd):
    images = base.fill(PHOTO, HOLE, [4, 2, 3, 4])
    sample = dataclasses.replace(SAMPLE, seed=2, num_samples=3)
    completions = complete(Scene([], PHOTO, HOLE), tiny_sd, sample, device="cpu", progress=False)
    expected = {c.seed: c.image for c in completions}
    assert [np.array_equal(i, expected[s]) for i, s in zip(images, [4, 2, 3, 4], strict=True)] == [True] * 4
    assert not np.array_equal(images[0], images[1]) and images[0] is not images[3]


def test_the_base_does_not_see_the_hole_and_keeps_finished_images_when_it_is_stopped(base):
    reports = []

    def stop_in_the_second_run(report):
        reports.append(report)
        return len(reports) < 3

    white = np.where(HOLE[:, :, None], np.uint8(255), PHOTO)
    images = base.fill(white, HOLE, [0, 5], on_step=stop_in_the_second_run)
    assert len(images) == 1 and np.array_equal(images[0], base.fill(PHOTO, HOLE, [0])[0])
    assert np.array_equal(images[0][~HOLE], PHOTO[~HOLE])


def test_a_base_that_is_missing_is_reported(tmp_path):
    with pytest.raises(BaseModelError, match="is an empty folder; legal: a folder in diffusers' layout, or the"):
        load_engine("base", weights=tmp_path)
    with pytest.raises(BaseModelError, match="there is no base model"):
        UnfittedBase.load(str(tmp_path / "missing"))
