"""Every engine of ``erase`` is offered for quick results, with the reason if it cannot run here."""

import dataclasses
from typing import get_args

import numpy as np
import pytest

from realfill import FitConfig
from realfill.app.flow.engines import best_engine, list_engines, require_runnable
from realfill.app.flow.settings import Settings
from realfill.config import EngineName
from realfill.filling.engines import load_engine
from realfill.models.feedforward.completion import CompletionNetwork


@pytest.fixture
def settings():
    return Settings(fit=FitConfig(base="mini"), device="cpu", local_files_only=True)


@pytest.fixture
def present(monkeypatch):
    """The published files that are on this machine."""
    names = set()
    monkeypatch.setattr("realfill.models.feedforward.torchscript.is_present", lambda name: name in names)
    return names


def obstacles(settings):
    return {choice.name: choice.obstacle for choice in list_engines(settings) if choice.obstacle}


def test_every_engine_is_listed(settings, present):
    assert {choice.name for choice in list_engines(settings)} == {"auto", *get_args(EngineName)}


def test_engines_without_their_file_say_how_to_get_it(settings, present, tmp_path):
    found = obstacles(settings)
    assert set(found) == {"lama", "migan"}
    assert "realfill erase --engine migan downloads it, 28 MB" in found["migan"]
    missing = Settings(fit=settings.fit, completion=tmp_path / "none.safetensors")
    assert obstacles(missing)["completion"] == "there is no file 'none.safetensors'"
    (tmp_path / "none.safetensors").touch()
    assert "completion" not in obstacles(missing)


def test_no_folder_of_the_machine_is_named(present, tmp_path):
    settings = Settings(fit=FitConfig(base=str(tmp_path / "my-base")), completion=tmp_path / "none")
    choices = list_engines(settings)
    assert not any(str(tmp_path) in choice.label + choice.obstacle for choice in choices)
    assert "my-base, without a fit" in [choice.label for choice in choices]


def test_the_best_engine_is_the_best_whose_file_is_here(settings, present):
    assert best_engine() == "telea"
    present.add("migan")
    assert best_engine() == "migan" and "migan" not in obstacles(settings)
    present.add("lama")
    assert best_engine() == "lama"


def test_a_base_model_that_is_elsewhere_is_only_offered_if_it_can_be_fetched(settings, present):
    offline = Settings(fit=FitConfig(base="sd15"), local_files_only=True)
    assert obstacles(offline)["base"] == "it is not on this machine"
    assert "base" not in obstacles(Settings(fit=FitConfig(base="sd15")))


def test_an_engine_that_cannot_run_is_refused_with_the_reason(settings, present, flow):
    assert require_runnable("telea", settings) == "telea"
    with pytest.raises(ValueError, match="'lama' cannot run here: its file is not on this machine"):
        flow.quick("lama")
    with pytest.raises(ValueError, match="the engine is 'magic'; legal: auto, lama"):
        flow.quick("magic")


@pytest.mark.parametrize("weights", ["packaged", "own"])
def test_the_completion_network_fills_the_hole_with_packaged_or_own_weights(make_flow, scene, tmp_path, weights):
    (tmp_path / "network").mkdir()
    CompletionNetwork(width=2, resolution=64).save(tmp_path / "network")
    own = tmp_path / "network" if weights == "own" else None
    flow = make_flow()
    flow.settings = dataclasses.replace(flow.settings, completion=own)
    flow.choice.use_scene(scene)
    job = flow.quick("completion")
    assert job.wait(60) and job.state == "done", job.message
    (result,) = flow.results
    assert result.title == "Quick result (completion)"
    expected = load_engine("completion", weights=own, device="cpu").fill(scene.known, scene.mask, [0])
    assert np.array_equal(result.completions.best.image, *expected)
