"""Pictures of the composite of a scene: which there are, what they show, and which matches are drawn."""

import dataclasses

import numpy as np
import pytest
from composites import make_composite
from helpers import make_photo
from worlds import SHIFTED, SIZE, TARGET, VIEWS, blob, view

from realfill import GeometryConfig, Scene, complete, draw_composite
from realfill.geometry.composite import composite
from realfill.geometry.depth import DepthMap
from realfill.geometry.fields import WarpField
from realfill.geometry.layers import Layer
from realfill.geometry.pictures import draw_all, draw_matches
from realfill.io.images import resize


@pytest.fixture
def found(scene, with_composites, monkeypatch):
    """A composite of the small scene that is found at once, and the calls."""
    del with_composites
    result, calls = make_composite(scene), []
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: calls.append(1) or result)
    return result, calls


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Match photos as they are: affine views take seconds."""
    monkeypatch.setattr("realfill.geometry.correspondences._AFFINE_STAGES", ())


@pytest.fixture(scope="module")
def planar():
    """A scene of a plane: a reference that is shifted, one of another place, and one with a part left out."""
    return Scene(
        [view(SHIFTED), make_photo(120, 160, 9), view(VIEWS["turned"])], TARGET, blob(),
        reference_masks=[None, None, blob((120, 60), (25, 25))],
    )  # fmt: skip


def layer(shape, reference, level):
    everywhere = np.ones(shape, bool)
    half = (shape[0] // 2, shape[1] // 2)
    warp = WarpField(
        reference=reference, kind="plane", map=np.zeros((*shape, 2), np.float32), valid_mask=everywhere,
        hidden=~everywhere,
    )  # fmt: skip
    return Layer(
        warp=warp, image=np.full((*shape, 3), level, np.float32), colours=np.eye(4, 3), misfit=1.0,
        cost=np.zeros(half), error=np.zeros(half),
    )  # fmt: skip


def test_all_pictures_of_a_composite_are_drawn(planar, with_composites, monkeypatch):
    depth = np.ones((15, 20), np.float32)
    planes = make_composite(planar)
    planes = dataclasses.replace(planes, layers=tuple(layer(SIZE, n % 3, 40 * n) for n in range(5)))
    pairs = {(0, n): np.full((1, 4), 50.0) for n in (1, 3)}
    found = dataclasses.replace(planes, depth=DepthMap(depth=depth, checked=depth), pairs=pairs)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: found)
    drawn = draw_composite(planar, progress=False)
    assert list(drawn) == ["matches_0", "matches_1", "matches_2", "layers", "depth", "sources", "confidence"]
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in drawn.values())
    assert drawn["depth"].shape == drawn["sources"].shape == drawn["confidence"].shape == (150, 200, 3)
    assert drawn["matches_0"].shape == (150, 400, 3) and drawn["matches_1"].shape == (150, 360, 3)
    assert drawn["layers"].shape == (300, 600, 3)
    assert [drawn["layers"][y, x, 0] for y, x in ((20, 20), (20, 220), (20, 420), (170, 20))] == [0, 40, 80, 120]
    for number, has_lines in enumerate((True, False, True)):
        blank = draw_matches(planar.known, planar.references[number], np.zeros((0, 4)))
        assert (drawn[f"matches_{number}"] != blank).any() == has_lines
    without = draw_all(planes, planar.known, planar.mask)
    assert list(without) == ["layers", "sources", "confidence"]  # no cameras, and no references are given
    assert all((without[name] == drawn[name]).all() for name in without)
    del with_composites


def test_pictures_have_the_colours_that_the_composite_says(scene, found):
    result, _ = found
    drawn = draw_composite(scene, progress=False)
    assert list(drawn) == ["matches_0", "matches_1", "sources", "confidence"]  # it has no layers and no cameras
    shown = [drawn["sources"][scene.mask & (result.source == number)].astype(int) for number in (-1, 0, 1)]
    assert all(len(part) for part in shown) and not shown[0].any()
    assert (shown[1][:, 0] > shown[1][:, 2]).all() and (shown[2][:, 2] > shown[2][:, 0]).all()  # orange, sky blue
    assert (np.argsort(drawn["confidence"][scene.mask & (result.confidence > 0.5)], axis=1)[:, 0] == 2).all()  # yellow
    assert (drawn["confidence"][scene.mask & (result.confidence == 0)] == (68, 1, 84)).all()


def test_the_composite_is_that_of_earlier_jobs(scene, found):
    complete(scene, "telea", progress=False)
    draw_composite(scene, progress=False)
    assert len(found[1]) == 1


def test_without_a_composite_there_are_no_pictures(scene, found):
    assert draw_composite(scene, GeometryConfig(enabled=False), progress=False) == {}
    assert not found[1]


def test_a_scene_without_references_has_no_pictures(scene, with_composites):
    del with_composites
    assert draw_composite(Scene([], scene.target, scene.mask), progress=False) == {}


@pytest.mark.parametrize("factor", [1, 5])
def test_the_composite_has_its_matches_in_the_photos_own_pixels(planar, factor):
    """Also if the geometry is computed on smaller copies; photos of another place have none."""
    hole = np.kron(planar.mask, np.ones((factor, factor), bool))
    known = resize(planar.known, hole.shape)
    known[hole] = 0
    found = composite(known, hole, planar.references, reference_masks=planar.reference_masks)
    assert (0, 2) not in found.pairs or not len(found.pairs[0, 2])
    for number, matrix in ((1, SHIFTED), (3, VIEWS["turned"])):
        matches = found.pairs[0, number]
        assert len(matches) > 30
        points = (matches[:, :2] + 0.5) / factor - 0.5
        ends = np.c_[points, np.ones(len(points))] @ np.asarray(matrix, float).T
        assert np.median(np.linalg.norm(ends[:, :2] / ends[:, 2:] - matches[:, 2:], axis=1)) < 1


def test_many_layers_are_drawn_smaller_and_in_a_square(planar):
    layers = tuple(layer(SIZE, 0, 100) for _ in range(401))
    drawn = draw_all(dataclasses.replace(make_composite(planar), layers=layers), planar.known, planar.mask)["layers"]
    assert drawn.shape == (20 * 146, 21 * 195, 3)  # up to 4096 pixels
