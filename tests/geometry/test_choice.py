"""The choice of layers: its energy is close to the least one, and the hole's border is free."""

from itertools import product

import numpy as np
import pytest

from realfill.geometry.choice import choose, energy, enlarge


def problem(seed, size=(3, 3), num_layers=3):
    rng = np.random.default_rng(seed)
    costs = [rng.uniform(0, 60, size).astype(np.float32) for _ in range(num_layers)]
    images = [rng.uniform(0, 255, (*size, 3)).astype(np.float32) for _ in range(num_layers)]
    return costs, images


@pytest.mark.parametrize("seed", range(6))
def test_the_energy_is_close_to_the_least_of_all_labellings(seed):
    costs, images = problem(seed, size=(2, 4))
    hole = np.ones((2, 4), bool)
    labellings = (np.array(labels).reshape(2, 4) for labels in product(range(3), repeat=8))
    least = min(energy(labels, costs, images, hole) for labels in labellings)
    assert energy(choose(costs, images, hole), costs, images, hole) <= 1.05 * least


def test_seams_run_where_the_layers_are_equal():
    left, right = np.full((20, 40), 0, np.float32), np.full((20, 40), 0, np.float32)
    left[:, 20:], right[:, :20] = 30, 30  # each layer fits on one side
    images = [np.full((20, 40, 3), 50, np.float32), np.full((20, 40, 3), 200, np.float32)]
    for image in images:
        image[:, 24] = 100  # the layers agree in one column only
        image[:, 25] = 100
    labels = choose([left, right], images, np.ones((20, 40), bool))
    assert (labels[:, 2] == 0).all() and (labels[:, 37] == 1).all()
    assert (np.diff(labels, axis=1) != 0).sum(axis=1).max() == 1
    assert set(np.flatnonzero((np.diff(labels, axis=1) != 0).any(axis=0))) == {24}


def test_pixels_outside_the_hole_have_no_say():
    costs, images = problem(3, size=(12, 12))
    hole = np.zeros((12, 12), bool)
    hole[3:9, 4:10] = True
    expected = choose(costs, images, hole)
    for cost, image in zip(costs, images, strict=True):
        cost[~hole], image[~hole] = 7, 7
    assert np.array_equal(choose(costs, images, hole)[hole], expected[hole])


def test_a_single_layer_needs_no_choice():
    costs, images = problem(0, num_layers=1)
    assert (choose(costs, images, np.ones((3, 3), bool)) == 0).all()


def test_labels_are_enlarged_without_mixing():
    labels = np.array([[0, 2], [1, 2]])
    assert np.array_equal(enlarge(labels, (4, 4)), labels.repeat(2, axis=0).repeat(2, axis=1))
