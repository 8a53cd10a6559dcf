"""References: their masks, and the focal lengths that their files state."""

import numpy as np
import pytest
from helpers import make_photo
from PIL import ExifTags, Image

from realfill import Scene
from realfill.errors import RealFillWarning, SceneError
from realfill.results.provenance import hash_scene

PHOTO, OTHER = make_photo(64, 80), make_photo(50, 70, 1)
HOLE = np.zeros((64, 80), bool)
HOLE[20:40, 30:60] = True
STRANGER = np.zeros((50, 70), bool)
STRANGER[10:30, 5:25] = True


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def white(mask):
    return mask.astype(np.uint8) * 255


@pytest.mark.parametrize(
    "mask", [STRANGER, white(STRANGER), Image.fromarray(white(STRANGER))], ids=["bool", "grey", "PIL"]
)
def test_a_masked_part_of_a_reference_is_blank_whatever_it_shows(mask):
    noise = np.random.default_rng(0).integers(0, 256, OTHER.shape, np.uint8)
    changed = np.where(STRANGER[..., None], noise, OTHER)
    one, two = (Scene([PHOTO, r], PHOTO, HOLE, reference_masks=[None, mask]) for r in (OTHER, changed))
    assert one.reference_masks[0] is None and np.array_equal(one.reference_masks[1], STRANGER)
    assert np.array_equal(one.references[1], np.where(STRANGER[..., None], 0, OTHER))
    assert np.array_equal(one.references[0], PHOTO)
    assert hash_scene(one) == hash_scene(two) != hash_scene(Scene([PHOTO, OTHER], PHOTO, HOLE))


def test_masks_of_references_are_read_from_a_folder_by_name_and_saved(tmp_path):
    write(tmp_path / "ref" / "a.jpg", PHOTO)
    write(tmp_path / "ref" / "b.png", OTHER)
    write(tmp_path / "ref_masks" / "b.png", white(STRANGER))
    write(tmp_path / "target" / "target.png", PHOTO)
    write(tmp_path / "target" / "mask.png", white(HOLE))
    scene = Scene.load(tmp_path)
    assert scene.reference_masks[0] is None and np.array_equal(scene.reference_masks[1], STRANGER)
    scene.save(tmp_path / "saved")
    again = Scene.load(tmp_path / "saved")
    assert again.reference_masks[0] is None and np.array_equal(again.reference_masks[1], STRANGER)
    assert hash_scene(again) == hash_scene(scene)


def test_a_mask_without_its_reference_is_named(tmp_path):
    write(tmp_path / "ref" / "a.png", OTHER)
    write(tmp_path / "ref_masks" / "c.png", white(STRANGER))
    write(tmp_path / "target" / "target.png", PHOTO)
    write(tmp_path / "target" / "mask.png", white(HOLE))
    with pytest.warns(RealFillWarning, match=r"left out: c\.png \(no reference of this name\)"):
        assert Scene.load(tmp_path).reference_masks == (None,)


def test_masks_stay_with_their_references():
    scene = Scene([PHOTO, OTHER, PHOTO], PHOTO, HOLE, reference_masks=[None, STRANGER, None])
    assert scene.with_references(1).reference_masks == (None,)
    chosen = scene.with_chosen_references([2, 1])
    assert chosen.reference_masks[0] is None and np.array_equal(chosen.reference_masks[1], STRANGER)
    assert np.array_equal(chosen.references[1], scene.references[1]) and len(chosen.focal_lengths) == 3
    grown = Scene.outpaint([OTHER], PHOTO, left=20, reference_masks=[STRANGER])
    assert np.array_equal(grown.reference_masks[0], STRANGER)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ([STRANGER, None], ["there are 2 reference_masks and 1 references", "legal: one for each"]),
        ([STRANGER.T], ["the mask of reference 0 is 50 x 70 pixels and the photo 70 x 50", "EXIF rotation"]),
        ([STRANGER | True], ["the mask of reference 0 covers the whole photo", "Remove the photo"]),
        ([OTHER], ["the mask of reference 0 looks like a photo"]),
        (STRANGER, ["reference_masks is a single mask", "legal: a list"]),
    ],
    ids=["number", "turned", "everything", "photo", "single"],
)
def test_unusable_masks_are_refused(masks, words):
    with pytest.raises(SceneError) as caught:
        Scene([make_photo(50, 70, 2)], PHOTO, HOLE, reference_masks=masks)
    assert [word for word in words if word not in str(caught.value)] == []


def test_an_empty_mask_leaves_nothing_out():
    assert Scene([OTHER], PHOTO, HOLE, reference_masks=[STRANGER & False]).reference_masks == (None,)


def exif(**tags):
    found = Image.Exif()
    found[ExifTags.IFD.Exif] = {getattr(ExifTags.Base, name): value for name, value in tags.items()}
    return found


@pytest.mark.parametrize(
    ("tags", "focal"),
    [
        ({"FocalLengthIn35mmFilm": 28}, 28 / np.hypot(36, 24) * np.hypot(80, 60)),
        ({"FocalLength": 4.0, "FocalPlaneXResolution": 500.0, "FocalPlaneResolutionUnit": 3,
          "ExifImageWidth": 160, "ExifImageHeight": 120}, 4 * 500 / 10 / 2),
        ({"FocalLength": 4.0}, None),
        ({"FocalLengthIn35mmFilm": 0}, None),
        ({"FocalLengthIn35mmFilm": 60000}, None),
        ({"FocalLength": 4.0, "FocalPlaneXResolution": 0.0}, None),
        ({}, None),
    ],
    ids=["film", "sensor", "no sensor", "unknown", "implausible", "zero", "nothing"],
)  # fmt: skip
def test_focal_lengths_are_read_from_exif_in_pixels(tags, focal, tmp_path):
    write(tmp_path / "a.jpg", make_photo(60, 80), exif=exif(**tags))
    scene = Scene([tmp_path / "a.jpg", PHOTO], tmp_path / "a.jpg", HOLE[:60])
    assert scene.focal_lengths == pytest.approx((focal, focal, None))


def test_a_saved_scene_keeps_focal_lengths(tmp_path):
    write(tmp_path / "a.jpg", make_photo(60, 80), exif=exif(FocalLengthIn35mmFilm=28))
    scene = Scene([tmp_path / "a.jpg", PHOTO], PHOTO, HOLE)
    scene.save(tmp_path / "saved")
    assert Scene.load(tmp_path / "saved").focal_lengths == pytest.approx(scene.focal_lengths)
