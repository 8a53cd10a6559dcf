"""The recipe of completions: equal if and only if everything except the seeds is equal."""

import dataclasses
import json

import numpy as np
import torch
from helpers import make_photo

from realfill import SampleConfig, Scene, WindowConfig
from realfill.results.provenance import describe_recipe

ADAPTER = {"a": torch.arange(6, dtype=torch.float16).reshape(2, 3), "b": torch.ones(2)}


def recipe(scene, adapter=ADAPTER, fingerprint="12", sample=SampleConfig(), window=WindowConfig()):  # noqa: B008
    return describe_recipe(
        scene, fingerprint=fingerprint, adapter=adapter, sample=sample.resolve({}), window=window.resolve({})
    )


def test_seeds_and_references_do_not_change_the_recipe(scene):
    base = recipe(scene)
    other = Scene([], np.where(scene.mask[:, :, None], np.uint8(0), scene.target), scene.mask)
    assert recipe(other) == base
    assert recipe(scene, sample=SampleConfig(seed=8, num_samples=3, batch_size=2)) == base
    assert recipe(scene, adapter={"b": ADAPTER["b"].clone(), "a": ADAPTER["a"].clone()}) == base
    assert json.loads(json.dumps(base)) == base, "plain JSON values"


def test_everything_else_changes_the_recipe(scene):
    mask = scene.mask.copy()
    mask[0, 0] = True
    others = [
        recipe(Scene([], make_photo(64, 80, 9), scene.mask)),
        recipe(Scene([], scene.target, mask)),
        recipe(scene, fingerprint="13"),
        recipe(scene, adapter=None),
        recipe(scene, adapter={**ADAPTER, "b": torch.tensor([1.0, 1.001])}),
        recipe(scene, adapter={"a": ADAPTER["a"].reshape(3, 2), "b": ADAPTER["b"]}),
        recipe(scene, sample=SampleConfig(num_inference_steps=50)),
        recipe(scene, sample=dataclasses.replace(SampleConfig(), prompt="a cat")),
        recipe(scene, window=WindowConfig(context=2)),
    ]
    assert recipe(scene) not in others
    assert len({json.dumps(other) for other in others}) == len(others)
