"""Cameras from matches of a planted world, with focal lengths that EXIF states rightly, wrongly or not at all."""

import cv2
import numpy as np
import planted_3d
import pytest

from realfill.geometry import reconstruction
from realfill.geometry.cameras import Camera
from realfill.geometry.reconstruction import Reconstruction, _link, _starts, reconstruct

SIZES = [(300, 400), (330, 440), (300, 400)]
FOCALS = [480.0, 560.0, 450.0]


def plant_pairs(noise=0.3, count=180):
    """Let three cameras see points of two walls and a floor; return the cameras and their matches."""
    rng = np.random.default_rng(3)
    points = np.concatenate(
        [rng.uniform((-4, -2, z), (4, 2, z + depth), (count // 2, 3)) for z, depth in ((5, 1), (8, 3))]
    )
    places, turns = [(0, 0, 0), (0.9, 0.1, 0.3), (-0.8, -0.1, -0.2)], [(0, 0, 0), (0.02, -0.1, 0.02), (0, 0.09, 0)]
    cameras = []
    for size, focal, place, turn in zip(SIZES, FOCALS, places, turns, strict=True):
        rotation = cv2.Rodrigues(np.array(turn, float))[0]
        cameras.append(
            Camera(size=size, focal=focal, distortion=0.0, rotation=rotation, translation=-rotation @ np.array(place))
        )
    seen = [c.project(points)[0] + rng.normal(scale=noise, size=(len(points), 2)) for c in cameras]
    inside = np.all(
        [(xy > 0).all(axis=1) & (xy < s[::-1]).all(axis=1) for xy, s in zip(seen, SIZES, strict=True)], axis=0
    )
    assert inside.sum() > 50
    pairs = {(i, j): np.concatenate([seen[i], seen[j]], axis=1)[inside] for i in range(3) for j in range(i + 1, 3)}
    return cameras, pairs


CAMERAS, PAIRS = plant_pairs()


def errors(found):
    """Return the largest error of a focal length, as a factor, and of a rotation in degrees."""
    focal = max(max(c.focal / FOCALS[i], FOCALS[i] / c.focal) for i, c in found.cameras.items())
    turns = [cv2.Rodrigues(c.rotation @ CAMERAS[i].rotation.T)[0] for i, c in found.cameras.items()]
    return focal, np.rad2deg(max(np.linalg.norm(turn) for turn in turns))


@pytest.fixture(scope="module")
def without():
    return reconstruct(SIZES, PAIRS)


def test_exif_makes_focal_lengths_right(without):
    found = reconstruct(SIZES, PAIRS, FOCALS)
    assert set(found.cameras) == {0, 1, 2} and found.error_px < 1
    focal, turn = errors(found)
    assert focal < 1.03 and turn < 1.5
    assert focal < errors(without)[0]


def test_wrong_exif_destroys_nothing(without):
    found = reconstruct(SIZES, PAIRS, [FOCALS[0], 3 * FOCALS[1], FOCALS[2]])
    assert set(found.cameras) == set(without.cameras) == {0, 1, 2}
    assert found.error_px < 1.3 * without.error_px
    assert errors(found)[1] < 4


@pytest.mark.parametrize("factor", [0.5, 1.8])
def test_exif_that_is_wrong_in_all_photos_alike_is_noticed(factor):
    pairs = plant_pairs(count=1500)[1]
    found = reconstruct(SIZES, pairs, [factor * focal for focal in FOCALS])
    assert set(found.cameras) == {0, 1, 2}
    assert errors(found)[0] < 1.1


def test_the_optical_centre_of_a_photo_on_a_canvas_is_that_of_the_photo(without):
    left, top = 300, 40
    size = (SIZES[0][0] + top, SIZES[0][1] + left)
    pairs = {pair: matches + (np.array([left, top, 0, 0]) if pair[0] == 0 else 0) for pair, matches in PAIRS.items()}
    found = reconstruct([size, *SIZES[1:]], pairs, FOCALS, frame=(top, left, *size))
    on_its_own = reconstruct(SIZES, PAIRS, FOCALS)
    np.testing.assert_allclose(found.cameras[0].centre, CAMERAS[0].centre + np.array((left, top)))
    for number, camera in found.cameras.items():
        assert camera.focal == pytest.approx(on_its_own.cameras[number].focal, rel=0.02)
    ignored = reconstruct([size, *SIZES[1:]], pairs, FOCALS)
    assert ignored is None or errors(found)[1] + 1 < errors(ignored)[1], "the middle of the canvas is no optical centre"


def test_photos_without_exif_beside_others_are_estimated(without):
    found = reconstruct(SIZES, PAIRS, [FOCALS[0], None, None])
    assert set(found.cameras) == {0, 1, 2}
    assert errors(found)[0] < 1.1


def test_wrong_matches_are_no_points():
    rng = np.random.default_rng(0)
    wrong = {pair: rng.uniform(0, 300, (40, 4)) for pair in PAIRS}
    pairs = {pair: np.concatenate([matches, wrong[pair]]) for pair, matches in PAIRS.items()}
    found = reconstruct(SIZES, pairs, FOCALS)
    assert set(found.cameras) == {0, 1, 2}
    assert found.error_px < 1.5 and len(found.points) < 1.3 * len(PAIRS[0, 1])
    assert errors(found)[1] < 2


def test_photos_from_one_place_have_no_depth_and_no_cameras():
    rng = np.random.default_rng(1)
    points = rng.uniform((-3, -2, 5), (3, 2, 9), (300, 3))
    cameras = [
        Camera(
            size=(300, 400), focal=480.0, distortion=0.0, rotation=cv2.Rodrigues(np.array(turn))[0],
            translation=np.zeros(3),
        )
        for turn in ((0.0, 0, 0), (0.02, -0.1, 0.03))
    ]  # fmt: skip
    seen = [camera.project(points)[0] + rng.normal(scale=0.3, size=(300, 2)) for camera in cameras]
    assert reconstruct([(300, 400)] * 2, {(0, 1): np.concatenate(seen, axis=1)}, [480.0, 480.0]) is None


def plant_wide(seed, count=400):
    """Let four wide lenses with barrel distortion see a wall, a floor and a box; return cameras and matches."""
    rng = np.random.default_rng(seed)
    size, cameras = (360, 480), []
    points = np.concatenate([
        rng.uniform((-5, -3, 6), (5, 1, 6.02), (count, 3)),
        rng.uniform((-4, 1, 2), (4, 1.02, 6), (count // 2, 3)),
        rng.uniform((-1.5, -0.5, 3), (1.5, 1, 4), (count // 4, 3)),
    ])  # fmt: skip
    for n in range(4):
        place = rng.uniform(-1, 1, 3) * (0.9, 0.3, 0.5) * (n > 0)
        rotation = cv2.Rodrigues(rng.uniform(-1, 1, 3) * (0.06, 0.12, 0.06) * (n > 0))[0]
        focal, distortion = rng.uniform(0.55, 0.68) * size[1], rng.uniform(-0.16, -0.08)
        cameras.append(
            Camera(size=size, focal=focal, distortion=distortion, rotation=rotation, translation=-rotation @ place)
        )
    seen = [camera.project(points)[0] + rng.normal(scale=0.3, size=(len(points), 2)) for camera in cameras]
    inside = [(xy > 0).all(axis=1) & (xy < size[::-1]).all(axis=1) for xy in seen]
    pairs = {(i, j): np.c_[seen[i], seen[j]][inside[i] & inside[j]] for i in range(4) for j in range(i + 1, 4)}
    return cameras, pairs


@pytest.mark.parametrize(("seed", "reference"), [(1, 3), (17, 1)])
def test_a_plane_gives_the_pose_that_the_essential_matrix_can_miss(seed, reference, monkeypatch):
    monkeypatch.setattr(planted_3d, "_SUPERSAMPLING", 1)
    texture = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    planted, rng = planted_3d.plant("wide", [texture], seed), np.random.default_rng(seed)
    target, other = planted.cameras[0], planted.cameras[reference]
    at = np.argwhere(planted.visible.all(axis=0) & ~planted.scene.mask)
    at = at[rng.permutation(len(at))[:600]]
    points = target.unproject(at[:, ::-1].astype(float), planted.depth[tuple(at.T)])
    seen = [camera.project(points)[0] for camera in planted.cameras]
    one, _, _, _ = seen = [xy + rng.normal(scale=0.4, size=xy.shape) for xy in seen]
    lenses = [Camera.unplaced(camera.size, 1.2 * max(camera.size)) for camera in (target, other)]
    starts = list(_starts((lenses[0], lenses[1]), np.c_[one, seen[reference]]))
    along = [start.translation @ other.translation / np.linalg.norm(other.translation) for start in starts]
    assert len(along) > 1 and max(along[1:]) > 0.7


@pytest.mark.parametrize("seed", [4, 6])
def test_a_start_that_explains_few_matches_is_not_kept(seed):
    cameras, pairs = plant_wide(seed)
    found = reconstruct([(360, 480)] * 4, pairs)
    assert set(found.cameras) == {0, 1, 2, 3} and found.error_px < 0.45
    for number, camera in found.cameras.items():
        assert camera.focal == pytest.approx(cameras[number].focal, rel=0.03)
        assert camera.distortion == pytest.approx(cameras[number].distortion, abs=0.02)
        assert number == 0 or camera.translation @ cameras[number].translation > 0


def test_a_point_with_two_places_in_one_photo_is_no_point():
    matches = {(0, 1): np.array([[10.0, 10, 20, 20], [10, 10, 40, 40], [60, 60, 70, 70]]), (1, 2): np.zeros((1, 4))}
    matches[1, 2][0] = 70, 70, 90, 90
    tracks = _link(matches)
    assert tracks.count == 1  # of two points, one has two places in photo 1
    assert tracks.image.tolist() == [0, 1, 2] and tracks.xy.tolist() == [[60, 60], [70, 70], [90, 90]]


@pytest.mark.parametrize("turned", [False, True])
def test_more_cameras_are_better_and_then_more_points_for_their_error(turned, monkeypatch):
    def result(num_cameras, num_points, error_px):
        return Reconstruction(
            cameras=dict.fromkeys(range(num_cameras)), points=np.zeros((num_points, 3)), error_px=error_px
        )

    results = [result(2, 90, 1.1), result(3, 40, 3.0), result(3, 60, 2.0), result(2, 99, 1.1)]
    queue = results[::-1] if turned else list(results)
    monkeypatch.setattr(reconstruction, "_grow", lambda *_: queue.pop(0) if queue else None)
    assert reconstruct(SIZES, PAIRS) is results[2]


def plant_many(count):
    """Let cameras on an arc see points of two walls and a floor; return them and the matches of all pairs."""
    rng = np.random.default_rng(5)
    points = np.concatenate([rng.uniform((-4, -2, z), (4, 2, z + depth), (120, 3)) for z, depth in ((5, 1), (8, 3))])
    cameras = []
    for n in range(count):
        place = np.array([0.5 * ((n + 1) // 2) * (-1) ** n, 0.15 * (n % 3), 0.1 * n])
        rotation = cv2.Rodrigues(np.array([0.01 * n, -0.05 * place[0], 0.0]))[0]
        cameras.append(
            Camera(
                size=(300, 400), focal=420.0 + 5 * n, distortion=0.0, rotation=rotation, translation=-rotation @ place
            )
        )
    seen = [c.project(points)[0] + rng.normal(scale=0.3, size=(len(points), 2)) for c in cameras]
    inside = [((xy > 0) & (xy < (400, 300))).all(axis=1) for xy in seen]
    pairs = {
        (i, j): np.concatenate([seen[i], seen[j]], axis=1)[inside[i] & inside[j]]
        for i in range(count)
        for j in range(i + 1, count)
    }
    return cameras, pairs


@pytest.mark.parametrize("exif", [None, 1.0])
def test_many_photos_are_placed_by_a_core_that_the_others_join(exif, monkeypatch):
    cameras, pairs = plant_many(10)
    tried, adjusted = [], []
    best, adjust = reconstruction._best, reconstruction.bundle_adjust
    monkeypatch.setattr(reconstruction, "_best", lambda photos, *rest: tried.append(photos) or best(photos, *rest))
    monkeypatch.setattr(
        reconstruction, "bundle_adjust", lambda placed, *rest: adjusted.append(len(placed)) or adjust(placed, *rest)
    )
    focals = [exif and exif * c.focal for c in cameras]
    found = reconstruct([c.size for c in cameras], pairs, focals)
    assert set(found.cameras) == set(range(10)) and found.error_px < 1
    assert {len(photos) for photos in tried} == {6}
    assert sorted({n for n in adjusted if n > 6}) == [8, 10], "the joining photos are not adjusted one by one"
    for n, camera in found.cameras.items():
        turn = cv2.Rodrigues(camera.rotation @ cameras[n].rotation.T @ cameras[0].rotation)[0]
        assert np.rad2deg(np.linalg.norm(turn)) < 2
        assert abs(np.log(camera.focal / cameras[n].focal)) < 0.1


def test_a_photo_that_only_other_references_see_joins_too():
    cameras, pairs = plant_many(8)
    pairs = {(i, j): p for (i, j), p in pairs.items() if (i, j) != (0, 7)}
    found = reconstruct([c.size for c in cameras], pairs)
    assert set(found.cameras) == set(range(8))


def test_no_focal_length_leaves_exif_by_more_than_half_of_it(monkeypatch):
    monkeypatch.setattr(reconstruction, "_EXIF_SIGMA", 10.0)  # nothing but the bound holds them
    monkeypatch.setattr(reconstruction, "_contradicts", lambda *_: False)
    found = reconstruct(SIZES, PAIRS, [0.5 * focal for focal in FOCALS])
    left = [camera.focal / (0.5 * FOCALS[i]) for i, camera in found.cameras.items()]
    assert 1.3 < max(left) < 1.5 + 1e-6
