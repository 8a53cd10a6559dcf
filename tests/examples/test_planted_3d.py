"""Planted scenes with depth: each kind holds what its name says, and their truth is right."""

import numpy as np
import planted_3d
import pytest
from planted_cases import NUM_PARTS, Case, load_cases, load_textures
from planted_worlds import moved, rectangle
from worlds import make_world

from realfill.geometry.cameras import Camera
from realfill.io.writing import write_png

SIZE = (120, 160)
TEXTURES = [make_world(seed, (60, 60)) for seed in range(6)]


@pytest.fixture
def plant(monkeypatch):
    monkeypatch.setattr(planted_3d, "_SUPERSAMPLING", 1)
    return lambda kind, seed=0: planted_3d.plant(kind, TEXTURES, seed, size=SIZE)


def seen(planted):
    return planted.visible.any(axis=0)[planted.scene.mask].mean()


@pytest.mark.parametrize("kind", planted_3d.KINDS)
def test_the_target_shows_the_truth_outside_the_hole(plant, kind):
    planted = plant(kind)
    scene = planted.scene
    assert scene.mask.any() and not scene.mask.all()
    assert np.array_equal(scene.known[~scene.mask], planted.truth[~scene.mask])
    assert len(scene.references) == len(planted.visible) == len(planted.cameras) - 1 == (1 if kind == "single" else 3)


def test_kinds_differ_in_what_the_references_show(plant):
    assert seen(plant("plane")) > 0.95
    assert seen(plant("elsewhere")) == 0
    assert all(seen(plant("unseen", seed)) < 0.3 for seed in (0, 1))
    shown = plant("mirrored").visible.any(axis=(1, 2))
    assert shown.tolist() == [False, True, True]


def test_a_mirrored_reference_is_the_same_photo_mirrored(plant, monkeypatch):
    mirrored = plant("mirrored").scene.references
    render, photos = planted_3d.render, []

    def recorded(*arguments):
        photos.append(render(*arguments)[0])
        return photos[-1], np.ones(photos[-1].shape[:2])

    monkeypatch.setattr(planted_3d, "render", recorded)
    plant("mirrored")
    assert np.array_equal(mirrored[0], photos[1][:, ::-1]) and np.array_equal(mirrored[1], photos[2])


def test_a_moved_box_stands_by_the_hole_in_the_target_and_elsewhere_in_the_references(plant, monkeypatch):
    shots = []
    render = planted_3d.render
    monkeypatch.setattr(planted_3d, "render", lambda quads, shot, rng: shots.append(shot) or render(quads, shot, rng))
    for seed, places in ((0, 2), (1, 4)):
        shots.clear()
        planted = plant("moved", seed)
        corners = {tuple(np.round(shot.passers[0].corner, 6)) for shot in shots}
        assert len(corners) == places
        middle = np.mean([q.corner + q.right / 2 + q.down / 2 for q in shots[0].passers[1:]], axis=0)
        (x, y), _ = planted.cameras[0].project(middle)
        rows, columns = np.nonzero(planted.scene.mask)
        assert abs(x - columns.mean()) < 0.2 * SIZE[1] and abs(y - rows.mean()) < 0.1 * SIZE[0]


def test_wide_lenses_bend_lines_and_see_more(plant):
    wide, normal = plant("wide").cameras[0], plant("boxes").cameras[0]
    assert wide.focal < 0.66 * SIZE[1] < 0.79 * SIZE[1] < normal.focal
    assert wide.distortion < -0.07


def test_what_another_photo_shows_in_front_or_behind_is_not_the_same():
    camera = Camera(size=SIZE, focal=160.0, distortion=0.0, rotation=np.eye(3), translation=np.zeros(3))
    depth = np.full(SIZE, 5.0)
    for other, expected in ((5.0, True), (4.0, False), (6.0, False)):
        visible = planted_3d._visible(depth, camera, camera, np.full(SIZE, other))
        assert (visible == expected).all()


def test_moved_quads_keep_their_shape():
    quad = rectangle((0, 0, 5), 2, 1, 0.3, TEXTURES[0])
    (there,) = moved([quad], (1, 0, -2))
    assert (there.corner - quad.corner).tolist() == [1, 0, -2]
    assert there.right is quad.right and there.down is quad.down


def test_broken_textures_are_named_and_left_out(tmp_path, capsys):
    write_png(tmp_path / "good.png", np.full((8, 12, 3), 7, np.uint8))
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    assert len(planted_3d.read_textures(tmp_path)) == 1
    assert "bad.png" in capsys.readouterr().err
    (tmp_path / "good.png").unlink()
    with pytest.raises(SystemExit, match="has no photo that can be read"):
        planted_3d.read_textures(tmp_path)


def test_parts_share_no_textures(tmp_path):
    for number in range(2 * NUM_PARTS):
        write_png(tmp_path / f"{number:02}.png", np.full((8, 12, 3), number, np.uint8))
    parts = [{int(t[0, 0, 0]) for t in load_textures(tmp_path, part)} for part in range(NUM_PARTS)]
    assert sorted(n for part in parts for n in part) == list(range(2 * NUM_PARTS))


def test_a_saved_case_is_read_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    mask = rng.random(SIZE) < 0.5
    case = Case(
        name="boxes-7", truth=image, mask=mask, visible=~mask, references=[image[:30], image[:, :20]],
        composite=image[::-1].copy(), confidence=rng.random(SIZE), source=np.full(SIZE, -1), samples=image[None],
        contradiction=rng.random(SIZE), warp_references=np.array([1], np.int16), warp_masks=mask[None],
        warp_maps=np.full((1, *SIZE, 2), 24, np.int16),
    )  # fmt: skip
    (tmp_path / "part3").mkdir()
    case.save(tmp_path / "part3" / "boxes-7.npz")
    (again,) = load_cases(tmp_path, 3)
    assert (again.name, again.kind) == ("boxes-7", "boxes")
    assert [r.shape for r in again.references] == [(30, 160, 3), (120, 20, 3)]
    assert np.array_equal(again.confidence, case.confidence) and not again.known[mask].any()
    (warp,) = again.warps()
    assert warp.reference == 1 and (warp.map == 1.5).all() and np.array_equal(warp.valid_mask, mask)
