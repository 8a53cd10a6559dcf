"""Pictures of a composite: each shows what its name says."""

import numpy as np
import pytest

from realfill.geometry.depth import DepthMap
from realfill.geometry.fields import WarpField
from realfill.geometry.layers import Layer
from realfill.geometry.pictures import draw_confidence, draw_depth, draw_layers, draw_matches, draw_sources

SIZE = (60, 80)
IMAGE = np.full((*SIZE, 3), 200, np.uint8)


@pytest.fixture
def hole():
    mask = np.zeros(SIZE, bool)
    mask[20:40, 30:60] = True
    return mask


def test_matches_join_their_points_in_two_photos_of_different_size():
    reference = np.full((120, 100, 3), 50, np.uint8)
    picture = draw_matches(IMAGE, reference, np.array([[10.0, 20.0, 60.0, 100.0]]))
    assert picture.shape == (120, 180, 3)
    blank = draw_matches(IMAGE, reference, np.zeros((0, 4)))
    drawn = (picture != blank).any(axis=2)
    assert drawn[17:24, 7:14].any() and drawn[97:104, 137:144].any() and drawn[60, 70:80].any()
    assert not drawn[:15].any()
    crowd = np.random.default_rng(0).uniform(0, 60, (5000, 4))
    assert (draw_matches(IMAGE, reference, crowd) != blank).any(axis=2).mean() < 0.9


def layer(reference, level):
    valid = np.ones(SIZE, bool)
    valid[:, 70:] = False
    warp = WarpField(
        reference=reference, kind="plane", map=np.zeros((*SIZE, 2), np.float32), valid_mask=valid, hidden=~valid & False
    )
    return Layer(
        warp=warp, image=np.full((*SIZE, 3), level, np.float32), colours=np.eye(4, 3), misfit=1.0,
        cost=np.zeros((30, 40)), error=np.zeros((30, 40)),
    )  # fmt: skip


def test_layers_stand_in_rows_with_their_references_colours(hole):
    picture = draw_layers([layer(0, 100), layer(1, 150), layer(0, 220)], hole, columns=2)
    assert picture.shape == (120, 160, 3)
    assert (picture[50, 20] == 100).all() and (picture[50, 100] == 150).all() and (picture[110, 20] == 220).all()
    assert (picture[50, 75] == 35).all(), "what the reference does not show is dimmed"
    assert (picture[0, 0] == picture[60, 0]).all() and (picture[0, 0] != picture[0, 80]).any()
    assert (picture[20, 30:60] == 255).all(), "the outline of the hole"
    with pytest.raises(ValueError, match="no layers"):
        draw_layers([], hole)


def test_confidence_is_brighter_where_it_is_higher(hole):
    confidence = np.where(np.arange(80)[None] < 45, 0.1, 0.95) * np.ones((60, 1))
    picture = draw_confidence(IMAGE, confidence, hole)
    assert picture.shape == IMAGE.shape and (picture[~hole] == 70).all()
    assert picture[30, 50].sum() > picture[30, 40].sum() + 150


def test_sources_have_the_colour_of_their_reference_and_nothing_is_black(hole):
    source = np.full(SIZE, -1, np.int16)
    source[:, :40], source[:, 40:50] = 0, 2
    picture = draw_sources(IMAGE.astype(np.uint16) * 257, source, hole)
    colours = [tuple(picture[30, x]) for x in (35, 45, 55)]
    assert len(set(colours)) == 3 and colours[2] == (0, 0, 0)
    assert np.argmax(colours[0]) == 0 and np.argmax(colours[1]) == 1  # orange, green


def test_near_is_bright_in_a_picture_of_depth(hole):
    depth = np.where(np.arange(20)[None] < 10, 2.0, 9.0) * np.ones((15, 1))
    picture = draw_depth(DepthMap(depth=depth.astype(np.float32), checked=depth), hole)
    assert picture.shape == IMAGE.shape
    assert picture[5, 5].sum() > picture[5, 75].sum() + 200


def test_large_photos_are_drawn_small():
    picture = draw_confidence(np.zeros((900, 1600, 3), np.uint8), np.ones((900, 1600)), np.ones((900, 1600), bool))
    assert picture.shape == (432, 768, 3)
