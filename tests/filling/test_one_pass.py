"""A network that fills in one pass, as an engine: windows, coarse to fine, bounded memory, only the hole changes."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from helpers import make_photo

from realfill.errors import RealFillWarning, SceneError
from realfill.filling import one_pass
from realfill.filling.one_pass import OnePass
from realfill.models.feedforward.completion import CompletionNetwork

SIZE = (90, 120)
PHOTO = make_photo(*SIZE)


@dataclass
class Constant:
    """A stand-in that predicts the same colour everywhere, and records what it was called with."""

    colour: float = 0.5
    resolution: int = 32
    name: str = "stand-in"
    device: torch.device = torch.device("cpu")
    max_pixels: float = np.inf
    calls: list = field(default_factory=list)

    def predict(self, image, hole):
        assert not image[..., :1, :1].isnan().any() and image.min() >= 0 and image.max() <= 1
        if hole.numel() > self.max_pixels:
            raise torch.OutOfMemoryError("out of memory")
        self.calls.append((image[0].permute(1, 2, 0).numpy() * 255, hole[0, 0].numpy().copy()))
        return torch.full_like(image, self.colour)


def hole_of(*boxes, size=SIZE):
    hole = np.zeros(size, bool)
    for top, left, bottom, right in boxes:
        hole[top:bottom, left:right] = True
    return hole


def fill(network, hole, image=PHOTO, **options):
    (filled,) = OnePass(network=network, **options).fill(image, hole, [0])
    return filled


SHAPES = {
    "small": hole_of((30, 40, 42, 50)),
    "large": hole_of((10, 10, 80, 100)),
    "apart": hole_of((5, 5, 12, 12), (70, 100, 80, 112)),
    "corner": hole_of((0, 0, 30, 40)),
    "row": hole_of((40, 0, 50, 120)),
    "scattered": np.random.default_rng(0).random(SIZE) < 0.5,
    "all but a pixel": ~hole_of((0, 0, 1, 1)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_only_hole_pixels_change_and_all_of_them_are_filled(shape):
    hole = SHAPES[shape]
    filled = fill(Constant(), hole)
    assert np.array_equal(filled[~hole], PHOTO[~hole])
    assert np.abs(filled[hole].astype(int) - 127.5).max() < 1


@pytest.mark.parametrize("shape", ["small", "large", "apart"])
def test_pixels_in_the_hole_have_no_influence(shape):
    torch.manual_seed(0)
    network, hole = CompletionNetwork(width=2, resolution=64).eval(), SHAPES[shape]
    black, white = (fill(network, hole, np.where(hole[:, :, None], np.uint8(v), PHOTO)) for v in (0, 255))
    assert np.array_equal(black, white)


def test_a_small_hole_is_seen_at_the_photos_own_resolution():
    network, hole = Constant(), SHAPES["small"]
    fill(network, hole)
    ((seen, seen_hole),) = network.calls
    assert seen.shape[:2] == (32, 32), "the window is as large as the network's resolution"
    rows, columns = np.nonzero(seen_hole)
    top, left = 30 - rows.min(), 40 - columns.min()
    crop = PHOTO[top : top + 32, left : left + 32]
    assert np.array_equal(seen_hole, hole[top : top + 32, left : left + 32])
    assert np.abs(seen - crop)[~seen_hole].max() < 1e-3


def test_a_photo_smaller_than_a_window_is_not_enlarged():
    network, hole = Constant(), hole_of((4, 4, 9, 9), size=(13, 20))
    fill(network, hole, PHOTO[:13, :20])
    ((seen, seen_hole),) = network.calls
    assert seen.shape[0] == 13 and seen.shape[1] <= 20 and seen_hole.sum() == hole.sum()


def test_holes_apart_are_filled_in_windows_of_their_own_where_other_holes_are_hidden():
    network = Constant()
    fill(network, SHAPES["apart"])
    assert len(network.calls) == 2 and all(seen.shape[0] < 45 for seen, _ in network.calls)
    network, near = Constant(resolution=64), hole_of((20, 20, 44, 44), (20, 50, 24, 54))
    fill(network, near)
    assert network.calls[0][1].sum() == near.sum()


def test_a_large_hole_is_filled_from_coarse_to_fine():
    network, hole = Constant(), SHAPES["large"]
    fill(network, hole)
    first, last = network.calls[0], network.calls[-1]
    assert len(network.calls) >= 3 and max(first[1].shape) <= 48
    assert last[1].shape[0] >= 70 + 2 * 5, "the last window is at the photo's own resolution"
    ring = last[1]
    assert 0 < ring.sum() < hole.sum(), "the last stage fills a ring"
    inside = np.abs(last[0] - 127.5).max(axis=2) < 1
    rows, columns = np.nonzero(ring)
    middle = slice(rows.min() + 12, rows.max() - 12), slice(columns.min() + 12, columns.max() - 12)
    assert inside[middle].all() and not ring[middle].any(), "the network sees the coarse result inside as known"


def test_a_finer_stage_fills_pixels_near_known_ones_and_keeps_the_coarse_result_further_inside():
    class Counting(Constant):
        def predict(self, image, hole):
            super().predict(image, hole)
            return torch.full_like(image, 0.2 if len(self.calls) == 1 else 0.8)

    filled = fill(Counting(), SHAPES["large"])
    assert (filled[10, 10:100] == 204).all()
    assert (filled[40:50, 40:70] == 51).all()
    column = filled[10:45, 50, 0].astype(int)
    assert column.max() <= 210 and np.abs(np.diff(column)).max() < 60, "there is no edge between them"


def test_a_large_window_is_filled_in_pieces_of_bounded_size():
    network = Constant(resolution=32)
    run = one_pass._Run(network=network, on_step=None, num_steps=1, cell_px=32)
    hole = SHAPES["large"]
    filled = run._fill_in_cells(np.where(hole[:, :, None], np.float32(0), PHOTO.astype(np.float32)), hole)
    assert (filled[hole] == 127.5).all() and np.array_equal(filled[~hole], PHOTO[~hole])
    assert len(network.calls) == 9 and max(max(seen.shape) for seen, _ in network.calls) <= 32 + 2 * 16
    assert not network.calls[-1][1].all() and network.calls[-1][1].sum() < 32 * 32, "earlier pieces are known"


def test_when_memory_runs_out_windows_are_filled_in_smaller_pieces():
    network, hole = Constant(max_pixels=5000), SHAPES["large"]
    with pytest.warns(RealFillWarning, match="out of memory; continuing with windows in pieces of"):
        filled = fill(network, hole)
    assert np.abs(filled[hole].astype(int) - 127.5).max() < 1
    assert max(seen.size for _, seen in network.calls) <= 5000


def test_a_window_that_cannot_be_smaller_raises_the_error():
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(RealFillWarning):
        fill(Constant(max_pixels=0), SHAPES["small"])


def test_poisson_takes_the_colours_at_the_border_from_the_photo():
    flat = np.full((*SIZE, 3), 90, np.uint8)
    assert (fill(Constant(), SHAPES["small"], flat)[SHAPES["small"]] == 128).all()
    assert np.abs(fill(Constant(), SHAPES["small"], flat, blend="poisson").astype(int) - 90).max() <= 2


def test_each_seed_gets_a_separate_copy_and_an_empty_hole_changes_nothing():
    engine = OnePass(network=Constant())
    first, second = engine.fill(PHOTO, SHAPES["small"], [4, 7])
    first[:] = 0
    assert second.any()
    assert engine.fill(PHOTO, SHAPES["small"], []) == []
    assert np.array_equal(engine.fill(PHOTO, np.zeros(SIZE, bool), [0])[0], PHOTO)


def test_a_hole_that_covers_all_is_refused():
    with pytest.raises(SceneError, match="covers the whole target, and 'stand-in' continues known pixels"):
        fill(Constant(), np.ones(SIZE, bool))


def test_each_window_is_reported_and_the_fill_can_be_stopped():
    reports, engine = [], OnePass(network=Constant())
    images = engine.fill(PHOTO, SHAPES["large"], [0], on_step=reports.append)
    assert [r.step for r in reports] == list(range(1, reports[0].num_steps + 1)) and len(images) == 1
    assert reports[-1].left_s == 0 and reports[0].phase == "sample"
    assert engine.fill(PHOTO, SHAPES["large"], [0], on_step=lambda _: False) == []
    assert len(engine.fill(PHOTO, SHAPES["small"], [0], on_step=lambda _: False)) == 1, "it was finished anyway"


def test_the_completion_network_fills_a_photo_smaller_than_its_receptive_field():
    network = CompletionNetwork(width=2, resolution=64).eval()
    hole = hole_of((1, 1, 3, 4), size=(5, 7))
    filled = fill(network, hole, PHOTO[:5, :7])
    assert np.array_equal(filled[~hole], PHOTO[:5, :7][~hole]) and filled[hole].any()
