"""Seamless blending: the screened Poisson equation against a dense solver, its zones and its coarse start."""

import numpy as np
import pytest

from realfill.geometry import seamless
from realfill.geometry.seamless import correct, screen_weight, solve


def dense(labels, stack, known, hole, screen):
    """Minimise the screened Poisson energy of one channel by a dense solver."""
    number = -np.ones(hole.shape, int)
    number[hole] = np.arange(hole.sum())
    matrix, right = np.zeros((hole.sum(), hole.sum())), np.zeros(hole.sum())
    for y, x in zip(*np.nonzero(hole), strict=True):
        row, own = number[y, x], stack[labels[y, x]]
        matrix[row, row] += screen
        right[row] += screen * own[y, x]
        for v, u in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
            if not (0 <= v < hole.shape[0] and 0 <= u < hole.shape[1]):
                continue
            sides = (labels[y, x], labels[v, u]) if hole[v, u] else (labels[y, x],)
            matrix[row, row] += 1
            right[row] -= np.mean([stack[n][v, u] - stack[n][y, x] for n in sides])
            if hole[v, u]:
                matrix[row, number[v, u]] -= 1
            else:
                right[row] += known[v, u]
    result = known.astype(float).copy()
    result[hole] = np.linalg.solve(matrix, right)
    return result


@pytest.mark.parametrize("seed", range(3))
def test_the_result_is_that_of_a_dense_solver(seed, monkeypatch):
    monkeypatch.setattr(seamless, "_TOLERANCE", 1e-7)
    rng = np.random.default_rng(seed)
    known = rng.integers(60, 190, (9, 11, 3), np.uint8)
    layers = rng.uniform(60, 190, (2, 9, 11, 3)).astype(np.float32)
    labels = (rng.random((9, 11)) < 0.5).astype(int)
    hole = np.zeros((9, 11), bool)
    hole[2:7, 3:11] = True
    screen = screen_weight(11)
    correction = solve(layers, labels, known, hole, screen=screen)
    chosen = np.where(labels[..., None] == 0, *layers)
    for channel in range(3):
        expected = dense(labels, layers[..., channel], known[..., channel], hole, screen)
        found = chosen[..., channel] + correction[..., channel]
        np.testing.assert_allclose(found[hole], expected[hole], atol=0.01)
    assert not correction[~hole].any()


def example():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :160]
    truth = np.repeat((100 + 40 * np.sin(x / 5) * np.cos(y / 7))[..., None], 3, axis=2).astype(np.float32)
    hole = np.zeros((120, 160), bool)
    hole[30:90, 40:120] = True
    layers = np.stack([truth + 30, truth - 20 + rng.normal(0, 1, truth.shape).astype(np.float32)])
    return truth, layers, (x > 80).astype(int), hole


def test_an_offset_of_the_layer_fades_from_the_border():
    truth, layers, labels, hole = example()
    correction = solve(layers, labels * 0, truth, hole, screen=screen_weight(160))
    assert np.abs(correction[30, 40:120] + 30).mean() < 6 and abs(correction[60, 80, 0]) < 15


def test_a_coarse_start_changes_only_the_speed():
    truth, layers, labels, hole = example()
    quick = correct(layers, labels, truth, hole)
    direct = solve(layers, labels, truth, hole, screen=screen_weight(160))
    assert np.abs(quick - direct)[hole].max() < 0.5


def test_pixels_that_are_not_free_keep_their_start():
    truth, layers, labels, hole = example()
    exact = solve(layers, labels, truth, hole, screen=screen_weight(160))
    free = np.zeros_like(hole)
    free[30:90, 60:100] = True
    again = solve(
        layers, labels, truth, hole, screen=screen_weight(160), start=np.where(free[..., None], 0, exact), free=free
    )
    assert np.array_equal(again[hole & ~free], exact[hole & ~free])
    assert np.abs(again - exact)[free].max() < 0.5
