"""References bound to an engine: the composite and a base model behind ``fill(image, hole, seeds)``."""

import numpy as np
import pytest
from composites import make_composite

from realfill import SampleConfig, complete
from realfill.pipeline import BoundEngine

FAST = SampleConfig(num_inference_steps=2)


@pytest.mark.usefixtures("with_composites")
def test_the_composite_fills_a_photo_from_the_references(scene, monkeypatch):
    shown = make_composite(scene)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: shown)
    engine = BoundEngine(references=scene.references)
    filled, other = engine.fill(scene.target, scene.mask, [3, 1])
    assert np.array_equal(filled, complete(scene, "telea", progress=False).best.image)
    assert (filled[shown.confidence == np.float32(0.9)] == shown.image[shown.confidence == np.float32(0.9)]).all()
    assert np.array_equal(filled[~scene.mask], scene.target[~scene.mask])
    assert np.array_equal(filled, other) and filled is not other


def test_a_base_model_gives_the_completions_in_the_order_of_the_seeds(tiny_sd, scene):
    engine = BoundEngine(references=scene.references, completer=tiny_sd, sample=FAST, device="cpu")
    filled = engine.fill(scene.target, scene.mask, [5, 2])
    for image, seed in zip(filled, (5, 2), strict=True):
        (wanted,) = complete(
            scene, tiny_sd, SampleConfig(seed=seed, num_samples=1, num_inference_steps=2), ranked=False, device="cpu"
        )
        assert np.array_equal(image, wanted.image)
    assert not np.array_equal(*filled)


def test_a_job_that_is_stopped_keeps_finished_images(tiny_sd, scene):
    steps = []

    def stop(report):
        steps.append(report)
        return len(steps) < 3

    engine = BoundEngine(references=scene.references, completer=tiny_sd, sample=FAST, device="cpu")
    assert len(engine.fill(scene.target, scene.mask, [0, 4], on_step=stop)) == 1
