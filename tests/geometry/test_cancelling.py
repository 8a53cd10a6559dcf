"""The slow steps of the composite ask whether to go on, so that a job is cancelled within a second or two."""

import numpy as np
import pytest

from realfill.geometry.cameras import Camera
from realfill.geometry.choice import choose
from realfill.geometry.comparison import Comparison, Levels
from realfill.geometry.depth import semi_global
from realfill.geometry.seamless import correct
from realfill.geometry.surfaces import Surface, choose_surface


class CancelledError(Exception):
    """Raised at the second question."""


@pytest.fixture
def check():
    asked = []

    def ask():
        asked.append(1)
        if len(asked) > 1:
            raise CancelledError

    return ask


def test_the_choice_of_layers_is_ended_between_sweeps(check):
    costs, images = [np.ones((12, 12)) * n for n in (1, 2)], [np.full((12, 12, 3), float(n)) for n in (1, 2)]
    with pytest.raises(CancelledError):
        choose(costs, images, np.ones((12, 12), bool), check=check)


def test_the_aggregation_of_depths_is_ended_between_directions(check):
    with pytest.raises(CancelledError):
        semi_global(np.ones((6, 7, 4), np.float32), check)


def test_the_choice_of_planes_is_ended_between_directions(check):
    flat = Surface.flat(np.zeros((6, 7)))
    with pytest.raises(CancelledError):
        choose_surface(np.zeros((6, 7, 2), np.float32), [flat, flat], check)


def test_a_comparison_of_photos_is_ended_between_depths(check):
    size, photo = (32, 40), np.zeros((32, 40, 3), np.uint8)
    cameras = {n: Camera.unplaced(size, 40.0) for n in range(3)}
    levels = Levels(plane=np.array([0, 0, 0.2]), low=0.0, step=0.01, least=1e-3)
    comparison = Comparison(cameras, [photo, photo], photo, np.zeros(size, bool), levels, size)
    with pytest.raises(CancelledError):
        comparison.costs([0, 1], check)


def test_the_correction_of_colours_is_ended_between_them(check):
    hole = np.zeros((24, 24), bool)
    hole[6:18, 6:18] = True
    images = np.stack([np.full((24, 24, 3), value, np.float32) for value in (50, 90)])
    labels = np.zeros((24, 24), int)
    labels[:, 12:] = 1
    with pytest.raises(CancelledError):
        correct(images, labels, np.full((24, 24, 3), 120.0), hole, check=check)
