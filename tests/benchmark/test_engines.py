"""Engines as methods of the benchmark: each by its name, with its own weights, loaded once."""

import numpy as np
import pytest

from realfill.benchmark.config import BenchConfig
from realfill.benchmark.methods import engines
from realfill.benchmark.setup import _method
from realfill.config import FitConfig, GeometryConfig, SampleConfig, WindowConfig
from realfill.errors import BaseModelError
from realfill.filling.engines import load_engine
from realfill.models.feedforward.completion import CompletionNetwork


def build(name, **options):
    settings = SampleConfig().resolve({}), WindowConfig().resolve({}), GeometryConfig()
    return _method(name, BenchConfig(methods=(name,), **options), FitConfig(), *settings, "cpu", progress=False)


@pytest.mark.parametrize("name", ["smooth", "telea", "shiftmap", "completion", "lama", "migan"])
def test_a_method_has_the_name_of_its_engine_and_ignores_references_and_seeds(name):
    method = build(name)
    assert method.name == name and isinstance(method, engines.EngineMethod)
    assert not (method.uses_references or method.uses_seed or method.uses_fit_seed)


@pytest.mark.parametrize("weights", ["packaged", "own"])
def test_the_completion_network_fills_a_scene_with_packaged_weights_or_those_of_the_config(scene, tmp_path, weights):
    CompletionNetwork(width=2, resolution=64).save(tmp_path)
    own = str(tmp_path) if weights == "own" else None
    method = build("completion", completion=own)
    first, second = method.prepare(scene, "a photo", 3)([5, 9])
    (expected,) = load_engine("completion", weights=own, device="cpu").fill(scene.known, scene.mask, [0])
    assert np.array_equal(first, second) and np.array_equal(first, expected)
    assert method.prepare(scene, None, 0).func.__self__ is method.prepare(scene, None, 0).func.__self__, "loaded once"


@pytest.mark.parametrize("name", ["completion", "lama", "migan"])
def test_missing_weights_fail_when_a_scene_is_prepared(name, scene, tmp_path):
    options = {name: str(tmp_path / "missing")}
    with pytest.raises(BaseModelError, match=r"there (are|is) no"):
        build(name, **options).prepare(scene, None, 0)
