"""The slow steps of the composite ask whether to go on, so that a job is cancelled within a second or two."""

import numpy as np
import pytest

from realfill.geometry.choice import choose
from realfill.geometry.depth import semi_global
from realfill.geometry.seamless import correct


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


def test_the_correction_of_colours_is_ended_between_iterations(check):
    hole = np.zeros((24, 24), bool)
    hole[6:18, 6:18] = True
    images = np.stack([np.full((24, 24, 3), value, np.float32) for value in (50, 90)])
    labels = np.zeros((24, 24), int)
    labels[:, 12:] = 1
    with pytest.raises(CancelledError):
        correct(images, labels, np.full((24, 24, 3), 120.0), hole, check=check)
