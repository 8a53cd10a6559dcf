"""The choice of layers: its energy is close to the least one, and the hole's border is free."""

from itertools import product

import numpy as np
import pytest

from realfill.geometry.choice import choose, energy, enlarge


def problem(seed, size=(3, 3), num_layers=3, costly=60, contrast=255):
    rng = np.random.default_rng(seed)
    costs = [rng.uniform(0, costly, size).astype(np.float32) for _ in range(num_layers)]
    images = [rng.uniform(0, contrast, (*size, 3)).astype(np.float32) for _ in range(num_layers)]
    return costs, images


LABELLINGS = np.array(list(product(range(3), repeat=8))).reshape(-1, 2, 4)


def energies(costs, images):
    """Energy of all labellings of 2 x 4 pixels by three layers; ten levels are one unit, a seam costs 3 units and 2."""
    cost, shown = np.stack(costs, axis=-1) / 10, np.stack(images, axis=2) / 10
    apart = np.abs(shown[:, :, :, None] - shown[:, :, None]).mean(axis=-1)
    total = np.zeros(len(LABELLINGS))
    for y, x in product(range(2), range(4)):
        own = LABELLINGS[:, y, x]
        total += cost[y, x, own]
        for row, column in ((y + 1, x), (y, x + 1)):
            if row < 2 and column < 4:
                other = LABELLINGS[:, row, column]
                seam = 3 * (apart[y, x, own, other] + apart[row, column, own, other]) / 2 + 2
                total += np.where(own == other, 0, seam)
    return total


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("costly", "contrast"), [(150, 25), (60, 255)])
def test_the_energy_is_close_to_the_least_of_all_labellings(seed, costly, contrast):
    costs, images = problem(seed, size=(2, 4), costly=costly, contrast=contrast)
    hole, expected = np.ones((2, 4), bool), energies(costs, images)
    reached = energy(choose(costs, images, hole), costs, images, hole)
    assert reached <= 1.01 * expected.min()
    assert energy(LABELLINGS[1234], costs, images, hole) == pytest.approx(expected[1234])


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


def test_a_labelling_costs_its_errors_and_its_seams():
    costs = [np.full((1, 2), 10.0), np.full((1, 2), 20.0)]
    images = [np.full((1, 2, 3), 60.0), np.full((1, 2, 3), 90.0)]
    hole = np.ones((1, 2), bool)
    assert energy(np.array([[0, 0]]), costs, images, hole) == 2
    assert energy(np.array([[0, 1]]), costs, images, hole) == 1 + 2 + 3 * 3 + 2  # layers differ by three units of ten


def test_a_pixel_alone_does_not_leave_its_neighbours_for_a_little():
    costs = [np.full((7, 9), 30, np.float32), np.full((7, 9), 40, np.float32)]
    costs[1][3, 4] = 25
    images = [np.full((7, 9, 3), 100, np.float32)] * 2
    assert not choose(costs, images, np.ones((7, 9), bool)).any()
    costs[0][3, 4], costs[1][3, 4] = 200, 0
    assert np.argwhere(choose(costs, images, np.ones((7, 9), bool))).tolist() == [[3, 4]]


@pytest.mark.parametrize("differs", [0, 1])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("gain", "expected"), [(45, [0, 0]), (55, [0, 1])])
def test_a_seam_costs_as_much_whichever_of_its_pixels_differs(differs, turned, gain, expected):
    """Layers that differ by 20 levels at one of two pixels: the seam costs 3 * 2 / 2 + 2 units of ten levels."""
    costs = [np.array([[0.0, gain]]), np.array([[900.0, 0.0]])]
    images = [np.full((1, 2, 3), 100.0), np.full((1, 2, 3), 100.0)]
    images[1][0, differs] += 20
    if turned:
        costs, images = [c.T for c in costs], [i.swapaxes(0, 1) for i in images]
    assert choose(costs, images, np.ones(costs[0].shape, bool)).ravel().tolist() == expected


def test_parts_of_the_hole_on_both_sides_of_known_pixels_are_chosen_apart():
    costs = [np.full((7, 9), 0.0), np.full((7, 9), 90.0)]
    costs[0][:, 5:], costs[1][:, 5:] = 1, 0
    images = [np.full((7, 9, 3), 0.0), np.full((7, 9, 3), 255.0)]
    hole = np.ones((7, 9), bool)
    hole[:, 4] = False
    labels = choose(costs, images, hole)
    assert not labels[:, :4].any() and labels[:, 5:].all()
