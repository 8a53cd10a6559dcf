"""Composites of photographed boxes: a passer-by, six references, matches on a plane, and an end at any moment."""

import time

import cv2
import numpy as np
import pytest
from planted_3d import Shot, render
from planted_worlds import boxes, rectangle
from worlds import make_world

from realfill.benchmark.metrics import psnr
from realfill.errors import StoppedError
from realfill.geometry.cameras import Camera
from realfill.geometry.composite import composite
from realfill.geometry.correspondences import match_all, verify
from realfill.geometry.fields import grid_of
from realfill.geometry.matching import SiftMatcher

TEXTURES = [make_world(seed, (300, 300)) for seed in range(8)]
PASSER = rectangle((0.06, 0.05, 2.6), 0.4, 0.5, 0.2, make_world(20, (60, 60)))
LIMIT_S = 2.0  # "within a second or two"


def camera(size, focal, place=(0, 0, 0), turn=0.0):
    """Return a camera that stands at a place of the scene and is turned about the vertical axis."""
    rotation = cv2.Rodrigues(np.array([0, turn, 0.0]))[0]
    return Camera(size=size, focal=focal, distortion=0.0, rotation=rotation, translation=-rotation @ np.array(place))


class Photographed:
    """Boxes on a floor, seen by several cameras, the target's first; some things are in the first reference only."""

    def __init__(self, seed, cameras, hole, passers=()):
        rng = np.random.default_rng(seed)
        self.quads, self.cameras, self.hole = boxes(TEXTURES, rng), cameras, hole
        self.truth, self.depth = render(self.quads, Shot(camera=cameras[0], noise=1.5), rng)
        self.known = np.where(hole[..., None], np.uint8(0), self.truth)
        gains = [np.full(3, 1 + 0.03 * (-1) ** n) for n in range(len(cameras) - 1)]
        shots = [
            Shot(camera=camera, gain=gain, noise=1.5, passers=() if n else passers)
            for n, (camera, gain) in enumerate(zip(cameras[1:], gains, strict=True))
        ]
        self.references = [render(self.quads, shot, rng)[0] for shot in shots]

    def complete(self, **options):
        return composite(self.known, self.hole, self.references, **options)

    def seen_by(self, number, image):
        """Return what the target's pixels see in an image of a reference, by the true cameras and depth."""
        points = self.cameras[0].unproject(grid_of(self.hole.shape), self.depth)
        place = self.cameras[number + 1].project(points)[0].astype(np.float32)
        return cv2.remap(image, place[..., 0], place[..., 1], cv2.INTER_NEAREST)


class Watch:
    """An ``on_step`` that ends the work at a hundredth of it, and notes when it is asked.

    Times of computing are those of the calling thread or of this process, so that others do not lengthen them.
    """

    def __init__(self, until=101):
        self.until, self.answers = until, []

    def __call__(self, progress):
        self.answers.append((progress.step < self.until, time.monotonic(), time.process_time(), time.thread_time()))
        return self.answers[-1][0]

    def longest_s(self):
        """Return the longest time between two questions, or from the last one until now."""
        return np.diff([*(own for *_, own in self.answers), time.thread_time()]).max()

    def since_the_first_no_s(self, num_threads):
        """Return for how long the work has gone on; on a busy machine, for how long each thread has computed."""
        _, at, spent, _ = next(answer for answer in self.answers if not answer[0])
        return min(time.monotonic() - at, (time.process_time() - spent) / num_threads)


@pytest.fixture
def num_threads(monkeypatch):
    """Let composites work in two threads."""
    monkeypatch.setattr("realfill.compute.threads.num_threads", lambda: 2)
    return 2


@pytest.fixture(scope="module")
def passed():
    """Boxes whose nearest reference shows a passer-by where the hole is."""
    size, focal = (360, 480), 450.0
    places = ((0, 0, 0), 0.0), ((0.12, 0, 0.05), 0.0), ((-0.6, -0.1, 0.1), -0.08), ((0.6, 0.1, -0.1), 0.08)
    hole = cv2.ellipse(np.zeros(size, np.uint8), (240, 188), (90, 82), 0, 0, 360, 1, -1) > 0
    return Photographed(2, [camera(size, focal, *place) for place in places], hole, (PASSER,))


@pytest.fixture(scope="module")
def watched(passed):
    """Return a composite and the longest time between its questions; the calling thread does all the work."""
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("realfill.compute.threads.num_threads", lambda: 1)
        result = passed.complete(on_step=watch)
    return result, watch.longest_s()


@pytest.fixture(scope="module")
def pairs(passed):
    return match_all([passed.known, *passed.references], passed.hole)


def test_a_passer_by_who_stands_in_one_reference_does_not_show(passed, watched):
    result, hole = watched[0], passed.hole
    passed_by, empty = (
        render(passed.quads, Shot(camera=passed.cameras[1], passers=passers), None)[1] for passers in ((PASSER,), ())
    )
    stands = hole & (passed.seen_by(0, (passed_by < empty).astype(np.uint8)) > 0)
    assert 0.15 < stands.sum() / hole.sum() < 0.5
    error = np.abs(result.image.astype(int) - passed.truth)[stands].mean()
    of_passer = np.abs(passed.seen_by(0, passed.references[0]).astype(int) - passed.truth)[stands].mean()
    assert error < of_passer / 3, f"{error:.1f} levels, the passer-by {of_passer:.1f}"
    assert (result.source[stands] == 0).mean() < 0.02
    assert (result.source[hole & ~stands] == 0).mean() > 0.3, "the rest of the reference is used"


def test_a_composite_asks_whether_to_go_on_at_least_every_two_seconds(watched):
    assert watched[1] < LIMIT_S


@pytest.mark.parametrize("until", [2, 9, 45, 96])
def test_a_composite_ends_within_two_seconds(passed, pairs, num_threads, until):
    watch = Watch(until)
    try:
        result = passed.complete(pairs=pairs if until > 22 else None, on_step=watch)
    except StoppedError:
        result = None
    assert watch.since_the_first_no_s(num_threads) < LIMIT_S
    assert (result is None) == (until < 96)
    if result is not None:
        assert np.array_equal(result.image[~passed.hole], passed.truth[~passed.hole])
        assert psnr(result.image, passed.truth, passed.hole) > 18


def test_six_references_that_each_show_a_part_are_all_used():
    size, focal = (180, 240), 200.0
    hole = np.zeros(size, bool)
    hole[65:120, 15:225] = True
    places = [
        ((0.15 * n, 0.05 * (-1) ** round(n + 2.5), 0.1), -np.arctan(38 * n / focal)) for n in np.arange(6) - 2.5
    ]  # each shows about 60 columns of the target
    narrow = [camera((225, 76), 250.0, *place) for place in places]
    scene = Photographed(3, [camera(size, focal), *narrow], hole)
    matcher = SiftMatcher(max_size_px=480, max_ratio=0.8)  # quicker than affine views
    result = scene.complete(pairs=match_all([scene.known, *scene.references], hole, matcher=matcher))
    assert set(np.unique(result.source[hole])) == {0, 1, 2, 3, 4, 5}
    telea = cv2.inpaint(scene.known, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    reached, guessed = psnr(result.image, scene.truth, hole), psnr(telea, scene.truth, hole)
    assert reached > guessed + 4, f"{reached:.1f} dB, Telea {guessed:.1f} dB"


def test_matches_on_a_plane_are_verified():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = rng.uniform((70, 95), (118, 240), (60, 2))
        moved = points @ np.array([[0.99, 0.005], [-0.01, 1]]) - (62, 7) + rng.normal(0, 0.1, points.shape)
        wrong = rng.uniform(0, 240, (2, 4))
        kept = verify(np.concatenate([np.c_[points, moved], wrong]).astype(np.float32), (270, 270))
        assert len(kept) >= 57, f"seed {seed}"
