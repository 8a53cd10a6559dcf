"""Depth from elsewhere: aligned with the reconstruction, and used by the composite."""

import cv2
import numpy as np
import pytest

from realfill.errors import SceneError
from realfill.geometry.cameras import Camera
from realfill.geometry.composite import composite
from realfill.geometry.fields import grid_of
from realfill.geometry.given_depth import given_depth

SIZE = (120, 160)
CAMERA = Camera(size=SIZE, focal=180.0, distortion=0.0, rotation=np.eye(3), translation=np.zeros(3))
KNOWN = np.zeros((*SIZE, 3), np.uint8)


def slope():
    """Return the depth of a wall that recedes, with a step in it."""
    x, y = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    return np.where(y > 60, 3.0, 6.0) + 0.01 * x


def points_on(depth, count=400, wrong=0.0):
    rng = np.random.default_rng(0)
    places = rng.integers((5, 5), (SIZE[1] - 5, SIZE[0] - 5), (count, 2))
    far = depth[places[:, 1], places[:, 0]]
    far = np.where(rng.random(count) < wrong, far * rng.uniform(1.5, 3, count), far)
    return CAMERA.unproject(places.astype(float), far)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.02, 0.0), (7.0, 0.3)])
@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_scale_and_shift_of_the_inverse_are_found(scale, shift, wrong):
    truth = slope()
    found = given_depth(lambda _: 1 / (scale / truth + shift), KNOWN, CAMERA, points_on(truth, wrong=wrong))
    assert found.dtype == np.float32
    assert np.abs(np.median(found / truth) - 1) < 0.01 and np.abs(found / truth - 1).max() < 0.05


def test_a_flat_depth_takes_the_scale_only():
    found = given_depth(lambda image: np.full(image.shape[:2], 0.5), KNOWN, CAMERA, points_on(np.full(SIZE, 4.0)))
    np.testing.assert_allclose(found, 4, rtol=0.01)


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (np.ones((3, 4)), r"shape \(3, 4\); legal: \(120, 160\)"),
        (np.zeros(SIZE), "not above 0"),
        (np.full(SIZE, np.nan), "not finite"),
    ],
)
def test_unusable_depth_is_refused(depth, words):
    with pytest.raises(SceneError, match=words):
        given_depth(lambda _: depth, KNOWN, CAMERA, points_on(slope()))


def test_the_composite_uses_the_given_depth_with_the_hole_hidden():
    rng = np.random.default_rng(1)
    texture = cv2.resize(rng.integers(30, 226, (60, 80, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    truth, depth = texture[60:180, 80:240].copy(), slope()
    places = [(0.5, 0.05, 0.0), (-0.4, 0.1, 0.1)]
    cameras = [
        Camera(size=SIZE, focal=180.0, distortion=0.0, rotation=np.eye(3), translation=-np.array(place))
        for place in places
    ]
    pixels = grid_of(SIZE)
    scene = CAMERA.unproject(pixels, depth)
    shown = [c.project(scene)[0] for c in cameras]
    references = [splat(truth, xy, texture[:120, :160]) for xy in shown]
    hole = np.zeros(SIZE, bool)
    hole[40:80, 60:100] = True
    chosen = rng.choice(np.flatnonzero(~hole.ravel()), 300, replace=False)
    at = pixels.reshape(-1, 2)[chosen]
    inside = np.all(
        [((xy.reshape(-1, 2)[chosen] > 2) & (xy.reshape(-1, 2)[chosen] < (157, 117))).all(axis=1) for xy in shown],
        axis=0,
    )
    seen = [at[inside], *(xy.reshape(-1, 2)[chosen][inside] for xy in shown)]
    pairs = {(i, j): np.concatenate([seen[i], seen[j]], axis=1) for i in range(3) for j in range(i + 1, 3)}
    asked = []

    def estimate(image):
        asked.append(image)
        return 2 * depth

    result = composite(truth, hole, references, pairs=pairs, focals=[180.0] * 3, depth=estimate)
    assert result.reconstruction is not None and len(asked) == 1 and not asked[0][hole].any()
    warps = [layer.warp for layer in result.layers if layer.warp.kind == "depth"]
    assert warps, "no layer stands on the given depth"
    for warp in warps:
        error = np.linalg.norm(warp.map - shown[warp.reference], axis=2)[hole & warp.valid_mask]
        assert np.median(error) < 1.5


def splat(image, places, background):
    """Paint pixels at their places in another view, the later over the earlier."""
    result = background.copy()
    at = np.rint(places).astype(int)
    ok = ((at >= 0) & (at < (SIZE[1], SIZE[0]))).all(axis=2)
    for grown in (1, 0):
        for dy in range(-grown, grown + 1):
            for dx in range(-grown, grown + 1):
                y = (at[..., 1] + dy).clip(0, SIZE[0] - 1)[ok]
                x = (at[..., 0] + dx).clip(0, SIZE[1] - 1)[ok]
                result[y, x] = image[ok]
    return result
