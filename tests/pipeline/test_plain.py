"""``fill``: a photo completed by an engine, without references."""

import numpy as np
import pytest
from helpers import make_photo

from realfill import Completion, Scene, complete, fill
from realfill.errors import StoppedError
from realfill.models.classical import Telea
from realfill.models.feedforward.completion import CompletionNetwork


def test_fill_completes_a_photo_by_an_engine_and_keeps_its_depth_and_its_known_pixels(tmp_path, scene):
    deep = scene.target.astype(np.uint16) * 257
    completion = fill(deep, scene.mask, "telea")
    assert np.array_equal(completion.image[~scene.mask], scene.target[~scene.mask])
    assert np.array_equal(completion.image, Telea().fill(scene.known, scene.mask, [0])[0])
    completion.save(tmp_path / "filled.png")
    again = Completion.load(tmp_path / "filled.png", Scene([], deep, scene.mask))
    assert again.provenance["engine"] == "telea" and again.photo.pixels.dtype == np.uint16
    assert np.array_equal(again.photo.pixels[~scene.mask], deep[~scene.mask])


def test_fill_takes_a_loaded_engine_and_the_transparent_pixels_of_a_photo(scene):
    class Red:
        def fill(self, image, hole, seeds, *, on_step=None):
            assert not image[hole].any() and list(seeds) == [7]
            return [np.where(hole[..., None], np.uint8([255, 0, 0]), image)]

    transparent = np.dstack([scene.target, np.where(scene.mask, 0, 255).astype(np.uint8)])
    completion = fill(transparent, engine=Red(), seed=7)
    assert (completion.image[scene.mask] == [255, 0, 0]).all()
    assert completion.seed == 7 and completion.provenance["engine"] == "red"


def test_the_completion_network_takes_the_place_of_a_base_model(scene):
    completed = complete(scene, "completion", progress=False).best
    filled = fill(scene.target, scene.mask, "completion")
    assert np.array_equal(completed.image, filled.image)
    assert (completed.seed, filled.seed) == (None, None)
    assert completed.provenance["engine"] == filled.provenance["engine"] == "completion"


def test_fill_that_is_stopped_or_has_no_such_engine_is_an_error(scene, tmp_path):
    CompletionNetwork(width=2, resolution=64).save(tmp_path)
    photo, hole = make_photo(300, 300), np.zeros((300, 300), bool)
    hole[50:150, 60:160] = True  # two windows: a smaller copy, and the photo's own resolution
    with pytest.raises(StoppedError, match="before the hole was filled"):
        fill(photo, hole, "completion", weights=tmp_path, device="cpu", on_step=lambda _: False)
    with pytest.raises(ValueError, match="no engine 'magic'"):
        fill(scene.target, scene.mask, "magic")
