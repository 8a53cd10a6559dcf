"""Outpainting: the new pixels of a larger canvas are the hole, and the pixels of the target stay exact."""

import numpy as np
import pytest
from helpers import TINY_FIT, make_photo, make_profile
from PIL import Image

from realfill import FitConfig, RankConfig, SampleConfig, Scene, complete, fit
from realfill.config import WindowConfig
from realfill.errors import SceneError
from realfill.io.images import read_photo

PHOTO = make_photo(45, 67)
NARROW = make_photo(36, 61)
SIZE = PHOTO.shape[:2]
INNER = np.zeros(SIZE, bool)
INNER[10:20, 30:40] = True


def place_of(scene, top, left):
    return scene.target[top : top + SIZE[0], left : left + SIZE[1]], scene.mask[
        top : top + SIZE[0], left : left + SIZE[1]
    ]


@pytest.mark.parametrize(
    ("sides", "size", "corner"),
    [
        ({"left": 10}, (45, 77), (0, 10)),
        ({"right": "50%"}, (45, 101), (0, 0)),
        ({"top": 7, "bottom": 2}, (54, 67), (7, 0)),
        ({"margin": "30%"}, (73, 107), (14, 20)),
        ({"margin": 5, "left": 31}, (55, 103), (5, 31)),
        ({"aspect": (16, 9)}, (45, 80), (0, 6)),
        ({"aspect": 1, "anchor": 1.0}, (67, 67), (22, 0)),
        ({"aspect": 6.0}, (45, 270), (0, 102)),
        ({"aspect": (1, 6)}, (402, 67), (178, 0)),
        ({"aspect": [np.int64(1), 6]}, (402, 67), (178, 0)),
        ({"left": np.int64(3), "top": np.float32(9)}, (54, 70), (9, 3)),
    ],
)
def test_the_target_is_exact_at_its_place_and_everything_else_is_hole(sides, size, corner):
    scene = Scene.outpaint([PHOTO], PHOTO, **sides)
    pixels, mask = place_of(scene, *corner)
    assert scene.target.shape == (*size, 3) and scene.mask.shape == size
    assert np.array_equal(pixels, PHOTO) and not mask.any()
    assert (~scene.mask).sum() == PHOTO[:, :, 0].size
    assert scene.frame == (*corner, corner[0] + PHOTO.shape[0], corner[1] + PHOTO.shape[1])
    assert scene.history["outpaint"]["top"] == corner[0] and scene.history["outpaint"]["left"] == corner[1]


def test_an_inner_mask_or_transparent_pixels_join_the_hole():
    transparent = np.dstack([PHOTO, np.where(INNER, 0, 255).astype(np.uint8)])
    for scene in (Scene.outpaint([], PHOTO, INNER, left=9), Scene.outpaint([], transparent, left=9)):
        assert np.array_equal(place_of(scene, 0, 9)[1], INNER) and scene.mask[:, :9].all()
    empty = Scene.outpaint([], PHOTO, INNER & False, left=9)
    assert not empty.mask[:, 9:].any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to fill"),
        ({"left": -3}, "left is -3"),
        ({"aspect": (9, 16), "target": make_photo(1334, 750)}, "nothing to fill"),
        ({"aspect": (1, 3), "target": make_photo(1000, 333)}, "nothing to fill"),
        ({"margin": "1000000%"}, "legal: up to 178 million"),
        ({"left": 3, "aspect": "2:1"}, "both an aspect and sides"),
        ({"left": 3, "mask": INNER[:, :50]}, "mask is 50 x 45"),
        ({"left": 3, "mask": INNER[:, :50] & False}, "mask is 50 x 45"),
        ({"left": 3, "mask": INNER | True}, "covers the whole target"),
        ({"left": 3, "target": PHOTO[:20]}, "the target is 67 x 20"),
    ],
)
def test_illegal_arguments_are_refused(options, words):
    with pytest.raises(SceneError, match=words):
        Scene.outpaint([], **{"target": PHOTO, **options})


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_completed_canvas_holds_the_original_file_exactly(kind, tiny_sd, tmp_path):
    if kind == np.uint16:
        target = np.random.default_rng(0).integers(0, 65536, (36, 61, 3)).astype(kind)
    else:
        target = tmp_path / "target.png"
        Image.fromarray(NARROW).save(target, icc_profile=make_profile())
    scene = Scene.outpaint([], target, left="40%", top=5)
    config = SampleConfig(num_samples=1, num_inference_steps=2)
    best = complete(scene, tiny_sd, config, progress=False).best
    assert best.provenance["scene"]["outpaint"] == {"left": 24, "right": 0, "top": 5, "bottom": 0}
    best.save(tmp_path / "a.png")
    read, original = read_photo(tmp_path / "a.png"), read_photo(target)
    assert read.alpha is None and read.icc_profile == original.icc_profile and read.pixels.shape == (41, 85, 3)
    assert np.array_equal(read.pixels[5:, 24:], original.pixels)
    assert len(np.unique(read.pixels[:, :24])) > 3
    if kind == np.uint16:
        assert (read.pixels[:, :24] % 257 != 0).any(), "finer than 8 bits"


@pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")
@pytest.mark.parametrize("aspect", [6.0, (1, 6)])
def test_panoramas_are_fitted_and_completed(aspect, tiny_sd):
    scene = Scene.outpaint([NARROW], PHOTO, aspect=aspect)
    adapter = fit(scene, FitConfig(base=tiny_sd, **TINY_FIT), progress=False)
    config = SampleConfig(num_samples=1, num_inference_steps=2)
    best = complete(scene, adapter, config, ranking=RankConfig(matcher="sift"), progress=False).best
    assert (best.image == scene.target)[~scene.mask].all()


@pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")
@pytest.mark.parametrize("place", [(20, 30), (0, 0), (40, 60)])
@pytest.mark.parametrize("stages", [1, 9])
def test_a_hole_of_one_pixel_is_fitted_and_filled(place, stages, tiny_sd):
    target = make_photo(41, 61)
    mask = np.zeros(target.shape[:2], bool)
    mask[place] = True
    scene = Scene([NARROW], target, mask).blanked()
    adapter = fit(scene, FitConfig(base=tiny_sd, **TINY_FIT), window=WindowConfig(num_stages=stages), progress=False)
    config = SampleConfig(num_samples=2, num_inference_steps=2, stage_steps=(2,))
    completions = complete(scene, adapter, config, ranking=RankConfig(matcher="sift"), progress=False)
    for completion in completions:
        assert (completion.image == target)[~mask].all()
    blank = scene.target[mask]
    assert any((completion.image[mask] != blank).any() for completion in completions)


def test_an_outpainted_scene_is_saved_and_read_back(tmp_path):
    scene = Scene.outpaint([PHOTO], PHOTO, margin=8)
    scene.save(tmp_path)
    again = Scene.load(tmp_path)
    assert np.array_equal(again.target, scene.target) and np.array_equal(again.mask, scene.mask)
