"""Tiles: they cover a canvas, and cutting and merging is lossless where tiles agree."""

from itertools import pairwise

import pytest
import torch

from realfill.models.diffusion.tiles import Tiles

CANVASES = [(16, 16), (16, 17), (33, 90), (5, 70), (1, 1), (40, 16)]


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("canvas", CANVASES)
def test_tiles_cover_the_canvas_with_their_overlap(canvas, overlap):
    tiles = Tiles.cover(canvas, 16, overlap)
    covered = torch.zeros(canvas)
    for y, x in tiles.corners:
        assert y >= 0 and x >= 0 and y + tiles.size[0] <= canvas[0] and x + tiles.size[1] <= canvas[1]
        covered[y : y + tiles.size[0], x : x + tiles.size[1]] += 1
    assert covered.min() >= 1
    for axis in (0, 1):
        starts = sorted({corner[axis] for corner in tiles.corners})
        steps = [b - a for a, b in pairwise(starts)]
        assert all(step <= max(1, tiles.size[axis] * (1 - overlap)) for step in steps)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
@pytest.mark.parametrize("canvas", CANVASES)
def test_cutting_and_merging_returns_the_canvas(canvas, overlap):
    tiles = Tiles.cover(canvas, 16, overlap)
    values = torch.randn(2, 3, *canvas, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tiles.merge(tiles.cut(values)), values, atol=1e-6)
    linear = [2 * piece - 1 for piece in tiles.cut(values)]  # a pixelwise model
    assert torch.allclose(tiles.merge(linear), 2 * values - 1, atol=1e-5)


def test_a_single_tile_is_returned_unchanged():
    tiles = Tiles.cover((16, 12), 16, 0.5)
    values = torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(0))
    assert len(tiles) == 1
    assert torch.equal(tiles.merge(tiles.cut(values)), values)


def test_tiles_that_disagree_fade_into_each_other():
    tiles = Tiles.cover((8, 24), 16, 0.5)
    merged = tiles.merge([torch.zeros(1, 1, 8, 16), torch.ones(1, 1, 8, 16)])[0, 0]
    assert (merged[:, :8] == 0).all() and (merged[:, 16:] == 1).all()
    assert (merged[0].diff() >= 0).all() and merged[0].diff().max() < 0.25


def test_without_overlap_tiles_lie_side_by_side():
    tiles = Tiles.cover((16, 48), 16, 0)
    assert tiles.corners == ((0, 0), (0, 16), (0, 32))


@pytest.mark.parametrize("canvas", [(16, 40), (20, 25), (33, 90)])
def test_with_zero_overlap_nothing_is_averaged(canvas):
    tiles = Tiles.cover(canvas, 16, 0)
    owner = tiles.merge([torch.full((1, 1, *tiles.size), float(i)) for i in range(1, len(tiles) + 1)])[0, 0]
    assert set(owner.unique().tolist()) == set(range(1, len(tiles) + 1))
    for (y, x), number in zip(tiles.corners, range(1, len(tiles) + 1), strict=True):
        pixels = (owner == number).nonzero()
        assert (pixels >= torch.tensor([y, x])).all() and (
            pixels < torch.tensor([y + tiles.size[0], x + tiles.size[1]])
        ).all()
    assert tiles.times(8).averaged is False and tiles.meeting(torch.ones(canvas)).averaged is False


def test_tiles_scale_from_latents_to_pixels():
    latents = Tiles.cover((20, 40), 16, 0.25)
    pixels = latents.times(8)
    assert pixels.canvas == (160, 320) and pixels.size == (128, 128)
    assert pixels.corners == tuple((8 * y, 8 * x) for y, x in latents.corners)


def test_only_tiles_with_any_of_a_mask_are_kept():
    tiles = Tiles.cover((16, 40), 16, 0.5)
    mask = torch.zeros(16, 40, dtype=torch.bool)
    mask[3, 18:30] = True
    few = tiles.meeting(mask)
    assert tiles.corners == ((0, 0), (0, 8), (0, 16), (0, 24)) and few.corners == tiles.corners[1:]
    assert torch.equal(few.covered(), torch.arange(40).expand(16, 40) >= 8) and tiles.covered().all()
    values = torch.randn(2, 3, 16, 40, generator=torch.Generator().manual_seed(0))
    merged = few.merge(few.cut(values))
    assert torch.allclose(merged[..., 8:], values[..., 8:], atol=1e-6) and (merged[..., :8] == 0).all()
    assert len(tiles.meeting(torch.zeros_like(mask))) == 1
