"""Seamless blending: the screened Poisson equation against a dense solver, and exact known pixels."""

import numpy as np
import pytest

from realfill.geometry import seamless
from realfill.geometry.seamless import blend_layers


def dense(image, labels, stack, known, hole, screen):
    """Minimise the screened Poisson energy of one channel by a dense solver."""
    height, width = hole.shape
    number = -np.ones(hole.shape, int)
    number[hole] = np.arange(hole.sum())
    matrix, right = np.zeros((hole.sum(), hole.sum())), np.zeros(hole.sum())
    for y, x in zip(*np.nonzero(hole), strict=True):
        row = number[y, x]
        matrix[row, row] += screen
        right[row] += screen * image[y, x]
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            v, u = y + dy, x + dx
            if not (0 <= v < height and 0 <= u < width):
                continue
            step = np.mean([stack[n][v, u] - stack[n][y, x] for n in (labels[y, x], labels[v, u])])
            matrix[row, row] += 1
            right[row] -= step
            if hole[v, u]:
                matrix[row, number[v, u]] -= 1
            else:
                right[row] += known[v, u]
    result = known.astype(float).copy()
    result[hole] = np.linalg.solve(matrix, right)
    return result


@pytest.mark.parametrize("seed", range(3))
def test_the_result_is_that_of_a_dense_solver(seed, monkeypatch):
    monkeypatch.setattr(seamless, "_TOLERANCE", 1e-12)
    rng = np.random.default_rng(seed)
    known = rng.integers(60, 190, (9, 11, 3), np.uint8)
    layers = [rng.uniform(60, 190, (9, 11, 3)).astype(np.float32) for _ in range(2)]
    labels = (rng.random((9, 11)) < 0.5).astype(int)
    hole = np.zeros((9, 11), bool)
    hole[2:7, 3:11] = True
    image = blend_layers(layers, labels, known, hole)
    screen = 1 / (seamless._REACH * 11) ** 2
    for channel in range(3):
        stack = [layer[..., channel] for layer in layers]
        chosen = np.where(labels == 0, stack[0], stack[1])
        expected = dense(chosen, labels, stack, known[..., channel], hole, screen).clip(0, 255)
        assert np.abs(image[..., channel] - expected).max() <= 0.51
    assert np.array_equal(image[~hole], known[~hole])


def test_an_offset_of_the_layer_fades_from_the_border():
    y, x = np.mgrid[:60, :80]
    truth = np.repeat((100 + 40 * np.sin(x / 5) * np.cos(y / 7))[..., None], 3, axis=2).astype(np.float32)
    hole = np.zeros((60, 80), bool)
    hole[15:45, 20:60] = True
    image = blend_layers([truth + 30], np.zeros((60, 80), int), truth.astype(np.uint8), hole).astype(float)
    error = np.abs(image - truth).mean(axis=2)
    assert error[15, 20:60].mean() < 6 and error[30, 40] > 15
