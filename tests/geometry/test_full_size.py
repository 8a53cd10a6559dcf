"""The composite at the target's own size: detail, depth, odd holes, and an end at any step."""

import time

import cv2
import numpy as np
import pytest
from worlds import make_world

from realfill.benchmark.metrics import native_detail, psnr, seam
from realfill.errors import StoppedError
from realfill.geometry import working
from realfill.geometry.composite import composite
from realfill.geometry.working import thin_out


class Wall:
    """A photographed wall: a target, references by known homographies, and a few matches on it."""

    def __init__(self, size, hole, scales=(1.0, 1.6), seed=5, grey=False, crop=None):
        height, width = size
        world = make_world(seed, (round(1.2 * height), round(1.2 * width)))
        world = np.repeat(world.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2) if grey else world
        top, left = round(0.1 * height), round(0.1 * width)
        self.truth = world[top : top + height, left : left + width]
        self.hole = hole
        self.references, self.pairs = [], {}
        rng = np.random.default_rng(seed)
        for number, scale in enumerate(scales, 1):
            matrix = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), 3 * number, scale), (0, 0, 1)])
            matrix[:2, 2] += (scale - 1) * np.array([width, height]) / 2 + (2 * number, -number)
            matrix[:2] = matrix[:2] if crop is None else matrix[:2] - np.array([[0, 0, crop[1]], [0, 0, crop[0]]])
            shown = (round(scale * height), round(scale * width)) if crop is None else crop[2:]
            from_world = matrix @ np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
            self.references.append(cv2.warpPerspective(world, from_world, shown[::-1], flags=cv2.INTER_CUBIC))
            points = rng.uniform((0, 0), (width, height), (2000, 2))
            there = cv2.perspectiveTransform(points[None], matrix)[0]
            x, y = points.astype(int).T
            seen = ~hole[y, x] & (there > 0).all(axis=1) & (there < shown[::-1]).all(axis=1)
            noisy = there[seen] + rng.normal(0, 0.3, (seen.sum(), 2))
            self.pairs[0, number] = np.c_[points[seen], noisy][:28].astype(np.float32)  # too few for cameras

    @property
    def known(self):
        return np.where(self.hole[..., None], np.uint8(0), self.truth)

    def complete(self, **options):
        return composite(self.known, self.hole, self.references, pairs=self.pairs, **options)


def ellipse(size, centre=(0.5, 0.5), axes=(0.14, 0.18)):
    place, radii = (tuple(int(s * n) for s, n in zip(part, size[::-1], strict=True)) for part in (centre, axes))
    return cv2.ellipse(np.zeros(size, np.uint8), place, radii, 0, 0, 360, 1, -1) > 0


LARGE, SMALL = (450, 600), (150, 200)
WORKING_PX = 240


@pytest.fixture(scope="module")
def large():
    hole = ellipse(LARGE)
    hole[:, :40] = True  # at the photo's border
    hole[40:48, 530:540] = True  # small, and far from the others
    return Wall(LARGE, hole, scales=(1.3,))


@pytest.fixture(scope="module")
def filled(large):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(working, "WORKING_PX", WORKING_PX)
        return large.complete()


def test_the_hole_is_filled_at_the_size_of_the_target(large, filled):
    assert filled.image.shape == large.truth.shape and filled.confidence.shape == filled.source.shape == LARGE
    assert np.array_equal(filled.image[~large.hole], large.truth[~large.hole])
    assert all(max(layer.image.shape) == WORKING_PX for layer in filled.layers)
    photographed = large.hole & (filled.source >= 0)
    assert photographed.sum() > 0.85 * large.hole.sum()  # the turned reference lacks a corner
    assert psnr(filled.image, large.truth, photographed) > 28
    assert (filled.confidence[~large.hole] == 1).all() and (
        filled.confidence[large.hole & (filled.source < 0)] == 0
    ).all()


def test_photographed_pixels_have_the_detail_of_the_references(large, filled):
    photographed = large.hole & (filled.source >= 0)
    assert 0.9 < native_detail(filled.image, large.truth, photographed) < 1.2
    assert seam(filled.image, large.hole) < 1.3


@pytest.mark.parametrize(
    ("hole", "options"),
    [
        (np.pad(np.zeros((150, 140), bool), ((0, 0), (0, 60)), constant_values=True), {}),
        (~np.pad(np.zeros((40, 60), bool), ((20, 90), (20, 120)), constant_values=True) ^ True, {}),
        (ellipse(SMALL), {"crop": (45, 55, 50, 50), "scales": (1.0,)}),
        (ellipse(SMALL), {"grey": True}),
        (ellipse(SMALL), {"scales": ()}),
        (np.ones(SMALL, bool), {}),
    ],
    ids=["a third at the border", "most of the photo", "small references", "grey photos", "no reference", "everything"],
)
def test_odd_holes_and_references_are_completed(hole, options):
    wall = Wall(SMALL, hole, **options)
    result = wall.complete()
    assert np.array_equal(result.image[~hole], wall.truth[~hole])
    assert np.isfinite(result.confidence).all() and result.confidence.min() >= 0 and result.confidence.max() <= 1
    photographed = hole & (result.source >= 0)
    if options.get("scales") == () or hole.all():
        assert not photographed.any()
    else:
        assert photographed.any() and psnr(result.image, wall.truth, photographed & (result.confidence > 0.3)) > 20


def test_a_grey_photo_stays_grey():
    wall = Wall(SMALL, ellipse(SMALL), grey=True)
    assert np.ptp(wall.complete().image.astype(int), axis=2).max() <= 3


def test_sixteen_bits_go_in_and_come_out():
    wall = Wall(SMALL, ellipse(SMALL))
    shallow = wall.complete().image
    wall.truth = wall.truth.astype(np.uint16) * 257 + 3
    wall.references = [reference.astype(np.uint16) * 257 for reference in wall.references]
    deep = composite(
        np.where(wall.hole[..., None], 0, wall.truth).astype(np.uint16), wall.hole, wall.references, pairs=wall.pairs
    ).image
    assert deep.dtype == np.uint16 and np.array_equal(deep[~wall.hole], wall.truth[~wall.hole])
    assert np.abs(deep / 257 - shallow)[wall.hole].mean() < 1
    assert len(np.unique(deep[wall.hole])) > 300, "more values than 8 bits have"


@pytest.fixture(scope="module")
def small():
    return Wall(SMALL, ellipse(SMALL))


def test_steps_are_counted_and_do_not_change_the_result(small):
    steps = []
    watched = small.complete(on_step=lambda progress: steps.append((progress.phase, progress.step, progress.num_steps)))
    numbers = [step for _, step, _ in steps]
    assert numbers == sorted(numbers) and numbers[0] == 0 and numbers[-1] == 100 and len(set(numbers)) > 6
    assert {(phase, total) for phase, _, total in steps} == {("composite", 100)}
    assert np.array_equal(watched.image, small.complete().image)


def test_an_end_before_the_layers_are_chosen_keeps_nothing(small):
    with pytest.raises(StoppedError, match="before there was anything"):
        small.complete(on_step=lambda progress: progress.step < 60)
    with pytest.raises(StoppedError):
        small.complete(on_step=lambda progress: False)


def test_an_end_while_rendering_enlarges_what_is_left(small):
    result = small.complete(on_step=lambda progress: progress.step < 85)
    assert np.array_equal(result.image[~small.hole], small.truth[~small.hole])
    assert (result.source[small.hole] >= 0).mean() > 0.9 and psnr(result.image, small.truth, small.hole) > 18


def test_the_composite_of_a_large_photo_asks_whether_to_go_on_at_least_every_two_seconds(monkeypatch):
    monkeypatch.setattr("realfill.compute.threads.num_threads", lambda: 1)  # so that this thread does all the work
    size, spent = (3000, 4000), []
    wall = Wall(size, ellipse(size), scales=(1.3,))
    wall.complete(on_step=lambda progress: spent.append(time.thread_time()) or progress.step < 96)
    assert np.diff([*spent, time.thread_time()]).max() < 2  # "within a second or two"


def test_matches_are_thinned_out_evenly_and_the_surest_stay():
    rng = np.random.default_rng(0)
    crowd, few = rng.uniform(0, 20, (900, 4)), rng.uniform(300, 400, (30, 4))
    matches = np.concatenate([crowd, few])
    (kept,) = thin_out({(0, 1): matches}, (400, 400), 60).values()
    assert len(kept) == 60 and (kept[:, 0] >= 300).sum() == 30
    order = [int(np.flatnonzero((matches == row).all(axis=1))[0]) for row in kept]
    assert order == sorted(order) and order[0] == 0
