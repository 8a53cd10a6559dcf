"""The script that chooses the expected error of a fill: its figures are those of completions."""

import numpy as np
import pytest
from composites import make_composite
from fill_error import ERRORS, METRICS, measure

from realfill import Scene, complete
from realfill.filling import keeping
from realfill.io.writing import write_png


@pytest.fixture
def folder(tmp_path, scene):
    scene.save(tmp_path)
    write_png(tmp_path / "target" / "gt.png", scene.target)
    return tmp_path


@pytest.mark.usefixtures("with_composites")
@pytest.mark.parametrize("error", [10.0, 65.0, 100.0])
def test_the_figure_for_an_error_is_that_of_a_completion_with_it(folder, monkeypatch, error):
    found = make_composite(Scene.load(folder))
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: found)
    figures = measure(folder, "telea", 1)

    monkeypatch.setattr(keeping, "_FILL_ERROR", error)
    scene = Scene.load(folder).blanked()
    completion = complete(scene, "telea", progress=False).best
    truth = Scene.load(folder).target
    expected = [metric(completion.image, truth, scene.mask) for metric in METRICS.values()]
    assert figures[:, ERRORS.index(error)] == pytest.approx(expected, rel=1e-3)
    assert (np.ptp(figures, axis=1) > 0.001).all() and np.ptp(figures[0]) > 0.05


@pytest.mark.usefixtures("with_composites")
def test_a_scene_without_corrected_pixels_says_nothing(folder, monkeypatch):
    found = make_composite(Scene.load(folder), doubtful=0.0)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: found)
    assert measure(folder, "telea", 1) is None
