"""Contradiction: a composite's pixels are compared with the layers of other references."""

import numpy as np
from worlds import TARGET, blob, make_world

from realfill.geometry.agreement import contradiction
from realfill.geometry.composite import Composite
from realfill.geometry.fields import warp_by_plane
from realfill.geometry.layers import Layer

HOLE = blob()
LEFT = np.arange(200)[None, :] < 100
OTHER = make_world(9)[:150, :200]


def layer(reference, image, valid=None, hidden=None):
    warp = warp_by_plane(reference, np.eye(3), (150, 200), (150, 200))
    nothing = np.zeros(HOLE.shape, bool)
    warp = type(warp)(
        reference=reference, kind="plane", map=warp.map, valid_mask=~nothing if valid is None else valid & ~nothing,
        hidden=nothing if hidden is None else hidden & ~nothing,
    )  # fmt: skip
    return Layer(
        warp=warp,
        image=image.astype(np.float32),
        misfit=1.0,
        colours=np.eye(4, 3),
        cost=np.zeros((75, 100), np.float32),
        error=np.zeros((75, 100), np.float32),
    )


def measured(*layers, source=0):
    result = Composite(
        image=TARGET, confidence=np.ones(HOLE.shape, np.float32), source=np.where(HOLE, source, -1).astype(np.int16),
        layers=layers, reconstruction=None,
    )  # fmt: skip
    return contradiction(result, HOLE)


def test_another_reference_that_shows_the_same_agrees_and_one_that_shows_something_else_contradicts():
    assert measured(layer(0, OTHER), layer(1, TARGET))[HOLE].max() < 3
    assert np.median(measured(layer(0, TARGET), layer(1, OTHER))[HOLE]) > 20
    assert measured(layer(1, OTHER), layer(2, TARGET))[HOLE].max() < 3


def test_a_layer_of_the_same_reference_says_nothing():
    assert np.isinf(measured(layer(0, TARGET), layer(0, OTHER))).all()
    assert np.isinf(measured(layer(1, TARGET), source=-1)).all()


def test_a_layer_speaks_only_where_it_reaches_and_is_not_hidden():
    for part in (measured(layer(1, TARGET, valid=LEFT)), measured(layer(1, TARGET, hidden=~LEFT))):
        assert np.isfinite(part[HOLE & LEFT]).all() and np.isinf(part[HOLE & ~LEFT]).all()
        assert part[HOLE & LEFT].max() < 3


def test_outside_the_hole_there_is_nothing_to_contradict():
    assert np.isinf(measured(layer(1, TARGET))[~HOLE]).all()
