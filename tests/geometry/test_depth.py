"""Depth of the target's pixels: slopes, outlines, what only one reference shows, and odd holes."""

import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from planted_3d import Shot, plant, render
from planted_worlds import rectangle
from worlds import make_world

from realfill.geometry import depth as depth_module
from realfill.geometry.cameras import Camera
from realfill.geometry.depth import sweep
from realfill.geometry.fields import grid_of

TEXTURES = [make_world(n, (300, 400)) for n in range(4)]
SIZE = (120, 160)
LARGE = (270, 360)  # larger than the sweep, so that the working size has rounds of its own


def solved(kind, seed, size):
    """Return a planted scene with its true cameras, and scene points."""
    planted = plant(kind, TEXTURES, seed, size=size)
    seen = planted.visible.any(axis=0) & ~planted.scene.mask
    points = planted.cameras[0].unproject(grid_of(size), planted.depth)[seen][::50]
    scene = planted.scene
    return SimpleNamespace(
        planted=planted, known=scene.known, hole=scene.mask, references=list(scene.references), points=points,
        cameras=dict(enumerate(planted.cameras)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def boxes():
    return solved("boxes", 2, SIZE)


@pytest.fixture(scope="module")
def large():
    return solved("boxes", 2, LARGE)


def find(scene):
    return sweep(scene.cameras, scene.points, scene.known, scene.hole, scene.references)


def errors(scene, found):
    """Return the relative error of the depth of each pixel of the hole that two references show."""
    depth = cv2.resize(found.depth, scene.hole.shape[::-1], interpolation=cv2.INTER_NEAREST)
    shown = scene.planted.visible.sum(axis=0) > 1
    return np.abs(depth / scene.planted.depth - 1)[scene.hole & shown]


def test_the_depth_of_a_planted_scene_is_recovered(boxes):
    error = errors(boxes, find(boxes))
    assert np.median(error) < 0.006 and (error > 0.1).mean() < 0.25


def test_surfaces_are_nearer_to_the_truth_than_the_planes_of_the_sweep(large, monkeypatch):
    fine = errors(large, find(large))
    monkeypatch.setattr(depth_module, "_FINE_ROUNDS", ())
    coarse = errors(large, find(large))
    monkeypatch.setattr(depth_module, "_ROUNDS", ())
    swept = errors(large, find(large))
    assert np.median(fine) < 0.85 * np.median(coarse) < 0.85 * 0.5 * np.median(swept)
    assert (fine > 0.05).mean() < (coarse > 0.05).mean() < (swept > 0.05).mean()


def test_depth_around_the_hole_is_checked_without_the_target(boxes):
    """The target's pixels in the ring change its depth, not the depth that it is judged by."""
    cameras, points = boxes.cameras, boxes.points
    near = cv2.dilate(boxes.hole.astype(np.uint8), np.ones((15, 15))) > 0
    noise = np.random.default_rng(0).integers(0, 256, boxes.known.shape, np.uint8)
    disturbed = np.where((near & ~boxes.hole)[..., None], noise, boxes.known)
    one, other = (sweep(cameras, points, known, boxes.hole, boxes.references) for known in (boxes.known, disturbed))
    changed = []
    for a, b in ((one.depth, other.depth), (one.checked, other.checked)):
        ring = cv2.resize((near & ~boxes.hole).astype(np.uint8), a.shape[::-1], interpolation=cv2.INTER_AREA) > 0
        changed.append(np.abs(a[ring] / b[ring] - 1).mean())
    assert changed[1] < 0.5 * changed[0]


def test_what_only_one_reference_shows_takes_its_depth_from_the_things_it_belongs_to():
    """The outline of a red thing before a blue wall lies in the hole; the reference alone shows where it runs."""
    size = (150, 200)
    blue, red = (
        (make_world(n, (300, 300)) * 0.45 + tint).clip(0, 255).astype(np.uint8)
        for n, tint in ((0, (0, 60, 130)), (1, (130, 40, 0)))
    )
    quads = [rectangle((0, 0, 8), 24, 18, 0, blue), rectangle((0, 1.5, 4), 2.2, 3, 0, red)]
    cameras = [
        Camera(size=size, focal=200.0, distortion=0.0, rotation=np.eye(3), translation=np.array(place))
        for place in ((0, 0, 0.0), (-0.5, 0.05, 0))
    ]
    rng = np.random.default_rng(0)
    (target, truth), (reference, _) = (render(quads, Shot(camera=camera, noise=1.0), rng) for camera in cameras)
    hole = cv2.ellipse(np.zeros(size, np.uint8), (100, 75), (48, 30), 0, 0, 360, 1, -1) > 0
    sparse = np.zeros(size, bool)
    sparse[::5, ::5] = True
    points = cameras[0].unproject(grid_of(size)[sparse & ~hole], truth[sparse & ~hole])
    found = sweep(dict(enumerate(cameras)), points, np.where(hole[..., None], np.uint8(0), target), hole, [reference])
    error = np.abs(cv2.resize(found.depth, size[::-1]) / truth - 1)[hole]
    assert error.mean() < 0.06
    assert (error > 0.1).mean() < 0.1


@pytest.mark.parametrize(
    ("size", "hole", "count"),
    [
        ((48, 64), (slice(None), slice(None)), 1),
        ((48, 64), (slice(None), slice(None)), 3),
        ((48, 64), (slice(0, 1), slice(0, 1)), 1),
        ((20, 300), (slice(None), slice(100, 300)), 2),
        ((48, 64), (slice(0, 0), slice(0, 0)), 7),
    ],
)
def test_any_hole_and_number_of_references_have_a_finite_depth(size, hole, count):
    photos = [make_world(n, size) for n in range(count + 1)]
    cameras = {
        n: Camera(size=size, focal=60.0, distortion=0.0, rotation=np.eye(3), translation=np.array([0.1 * n, 0, 0.02]))
        for n in range(count + 1)
    }
    points = np.random.default_rng(0).uniform((-2, -2, 4), (2, 2, 6), (60, 3))
    mask = np.zeros(size, bool)
    mask[hole] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sweep(cameras, points, photos[0], mask, photos[1:])
    for depth in (found.depth, found.checked):
        assert np.isfinite(depth).all() and (depth > 0).all()
