"""Scene: reading, checking and saving, with refusals and warnings."""

import warnings
from itertools import repeat

import numpy as np
import pillow_heif
import pytest
import tifffile
from helpers import make_photo, make_profile
from PIL import Image

from realfill import Scene
from realfill.errors import OutputError, RealFillError, RealFillWarning, SceneError
from realfill.scene.mask_reading import MaskReading
from realfill.scene.mask_sources import combine
from realfill.scene.masks import dilate

PHOTO = make_photo(64, 80)
HOLE = np.zeros((64, 80), bool)
HOLE[20:40, 30:60] = True


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def transparent_where(mask, image=PHOTO):
    return np.dstack([image, np.where(mask, 0, 255).astype(np.uint8)])


def equal(a, b):
    pairs = zip([*a.references, a.target, a.mask], [*b.references, b.target, b.mask], strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_realbench_layout_is_read_with_references_in_natural_order(tmp_path):
    for i in (1, 2, 10):
        write(tmp_path / "ref" / f"{i}.{'png' if i == 2 else 'jpg'}", np.full((40, 50, 3), 20 * i, np.uint8))
    (tmp_path / "ref" / ".3.png").write_text("no photo")
    write(tmp_path / "target" / "target.png", PHOTO)
    write(tmp_path / "target" / "gt.png", 255 - PHOTO)
    write(tmp_path / "target" / "mask.png", HOLE.astype(np.uint8) * 255)
    scene = Scene.load(tmp_path)
    assert [int(r[0, 0, 0]) for r in scene.references] == [20, 40, 200]
    assert np.array_equal(scene.target, PHOTO) and np.array_equal(scene.mask, HOLE)


def test_other_formats_are_read_and_png_is_preferred(tmp_path):
    write(tmp_path / "target" / "target.bmp", 255 - PHOTO)
    write(tmp_path / "target" / "target.png", PHOTO)
    write(tmp_path / "target" / "mask.bmp", HOLE.astype(np.uint8) * 255)
    with pytest.warns(RealFillWarning, match=r"target.png' is used, and target.bmp beside it is not"):
        scene = Scene.load(str(tmp_path))
    assert scene.references == () and np.array_equal(scene.target, PHOTO) and np.array_equal(scene.mask, HOLE)


def test_a_file_with_another_name_is_not_the_target(tmp_path):
    write(tmp_path / "target" / "target.old.png", 255 - PHOTO)
    write(tmp_path / "target" / "target.png", transparent_where(HOLE))
    assert np.array_equal(Scene.load(tmp_path).target, PHOTO)


def test_saved_scene_is_read_back_exactly(tmp_path, scene):
    scene.save(tmp_path / "a" / "b")
    assert equal(Scene.load(tmp_path / "a" / "b"), scene)


def test_a_saved_scene_keeps_16_bits_profile_and_exif(tmp_path):
    wide = np.random.default_rng(0).integers(0, 65536, PHOTO.shape).astype(np.uint16)
    scene = Scene([], wide, HOLE)
    assert scene.target.dtype == np.uint8 and scene.original.pixels.dtype == np.uint16
    scene.save(tmp_path / "a")
    assert np.array_equal(Scene.load(tmp_path / "a").original.pixels, wide)
    write(tmp_path / "b.png", PHOTO, icc_profile=make_profile())
    Scene([], tmp_path / "b.png", HOLE).save(tmp_path / "b")
    again = Scene.load(tmp_path / "b")
    assert again.original.icc_profile == make_profile() and np.array_equal(again.original.pixels, PHOTO)
    assert not np.array_equal(again.target, PHOTO)


def test_an_8_bit_srgb_target_is_stored_once():
    scene = Scene([], PHOTO, HOLE)
    assert scene.original.pixels is scene.target


def test_saving_over_a_scene_is_refused(tmp_path, scene):
    scene.save(tmp_path)
    with pytest.raises(OutputError, match="already holds a scene"):
        Scene([], PHOTO, HOLE).save(tmp_path)
    assert equal(Scene.load(tmp_path), scene)


def test_transparent_pixels_are_the_mask(tmp_path):
    write(tmp_path / "target" / "target.png", transparent_where(HOLE))
    for scene in (Scene.load(tmp_path), Scene([], transparent_where(HOLE))):
        assert np.array_equal(scene.mask, HOLE) and np.array_equal(scene.target, PHOTO)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_touched_by_a_soft_eraser_are_filled_and_become_opaque(dtype):
    most = np.iinfo(dtype).max
    alpha = np.full(HOLE.shape, most, dtype)
    alpha[HOLE], alpha[:9], alpha[-3:] = 0, most * 0.7, most * 0.99
    scene = Scene([], np.dstack([(PHOTO / 255 * most).astype(dtype), alpha]))
    soft = HOLE.copy()
    soft[:9] = True
    assert np.array_equal(scene.mask, soft)
    filled = scene.original.filled(soft, np.zeros((soft.sum(), 3), dtype))
    assert filled.transparent is None


def test_in_a_target_without_opaque_pixels_the_mostly_transparent_ones_are_filled():
    faint = np.dstack([PHOTO, np.where(HOLE, 0, 200).astype(np.uint8)])
    with pytest.warns(RealFillWarning, match="transparent outside of the mask"):
        assert np.array_equal(Scene([], faint).mask, HOLE)
    with pytest.raises(SceneError, match="there is no mask"):
        Scene([], np.dstack([PHOTO, np.full(HOLE.shape, 200, np.uint8)]))


@pytest.mark.parametrize("blank", [0, 255])
def test_a_border_mixed_with_the_blank_under_the_hole_causes_a_warning(blank):
    photo = make_photo(256, 320)
    hole = np.zeros((256, 320), bool)
    hole[80:160, 120:240] = True
    clean = np.where(hole[:, :, None], np.uint8(blank), photo)
    size = (120, 90)  # both are resized together, the mask sharply
    small = np.array(Image.fromarray(clean).resize(size, Image.Resampling.BICUBIC))
    sharp = np.array(Image.fromarray(hole).resize(size, Image.Resampling.NEAREST))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scene([], clean, hole)
        Scene([], photo, hole)
    with pytest.warns(RealFillWarning, match="mixed with the blank area in it"):
        Scene([], np.where(sharp[:, :, None], np.uint8(blank), small), sharp)


@pytest.mark.parametrize("slope", [0.0, 5.0])
def test_a_hole_in_a_clear_sky_causes_no_warning(slope):
    rng, rows = np.random.default_rng(0), np.arange(512)[:, None, None]
    hole = np.zeros((512, 512), bool)
    hole[200:230, 220:250] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            away = slope * np.maximum(0, np.abs(rows - 215) - 15)  # the sky darkens away from the hole
            sky = np.array([120, 160, 220]) - away + rng.normal(0, 0.3, (512, 512, 3))
            Scene([], sky.round().clip(0, 255).astype(np.uint8), hole)


def test_a_given_mask_wins_over_transparency():
    with pytest.warns(RealFillWarning, match="transparent outside of the mask"):
        assert np.array_equal(Scene([], transparent_where(HOLE), HOLE[::-1]).mask, HOLE[::-1])


def test_transparent_pixels_outside_of_the_mask_cause_a_warning():
    clear = np.roll(HOLE, 12, axis=1) & ~HOLE
    with pytest.warns(RealFillWarning, match="of the target is transparent outside of the mask"):
        Scene([PHOTO], transparent_where(clear), HOLE)


def test_paths_pil_images_and_arrays_give_the_same_scene(tmp_path):
    write(tmp_path / "a.png", PHOTO)
    by_array = Scene([PHOTO], PHOTO, HOLE)
    for photo in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(PHOTO)):
        assert equal(Scene([photo], photo, HOLE), by_array)


def test_changing_the_input_does_not_change_the_scene():
    photo, mask = PHOTO.copy(), HOLE.copy()
    scene = Scene([photo], photo, mask)
    photo[:], mask[:] = 0, False
    assert equal(scene, Scene([PHOTO], PHOTO, HOLE))


def test_known_is_a_copy_with_a_blank_hole():
    scene = Scene([], PHOTO, HOLE)
    known = scene.known
    assert not known[HOLE].any() and np.array_equal(known[~HOLE], PHOTO[~HOLE]) and known.dtype == np.uint8
    known[:] = 7
    assert np.array_equal(scene.target, PHOTO)


def test_the_mask_of_a_canvas_is_full():
    scene = Scene.canvas((40, 50), [PHOTO])
    assert scene.mask.shape == (40, 50) and scene.mask.all()
    assert scene.known.shape == (40, 50, 3) and not scene.known.any()
    assert np.array_equal(scene.references[0], PHOTO)


@pytest.mark.parametrize("size", [(31, 40), (40, 0), (-5, 40), (20_000, 10_000)])
def test_canvas_of_an_impossible_size_is_refused(size):
    with pytest.raises(SceneError, match="legal: "):
        Scene.canvas(size)


@pytest.mark.parametrize("number", [-1, 2])
def test_an_illegal_number_of_references_is_refused(number):
    with pytest.raises(SceneError, match=f"num_references is {number}; legal: from 0 to 1"):
        Scene.canvas((40, 50), [PHOTO]).with_references(number)


def test_a_dilated_scene_has_a_larger_hole_and_the_same_photos():
    scene = Scene([PHOTO], PHOTO, HOLE)
    assert np.array_equal(scene.dilated(3).mask, dilate(HOLE, 3)) and scene.dilated(3).mask.sum() > HOLE.sum()
    assert np.array_equal(scene.dilated(3).target, PHOTO) and np.array_equal(scene.mask, HOLE)
    assert equal(scene.dilated(0), scene)
    with pytest.raises(SceneError, match="grown by 60 pixels, covers the whole target"):
        scene.dilated(60)
    assert Scene.canvas((40, 50)).dilated(2).mask.all()


def test_a_negative_dilation_is_refused():
    with pytest.raises(ValueError, match="legal: 0 or more"):
        Scene([], PHOTO, HOLE).dilated(-1)


def test_repr_tells_the_sizes():
    assert repr(Scene([PHOTO], PHOTO, HOLE)).startswith("Scene(1 reference, target")
    assert repr(Scene([PHOTO, PHOTO], PHOTO, HOLE)) == "Scene(2 references, target 80 x 64, hole 11.7 % of the pixels)"


@pytest.mark.parametrize("kind", [tuple, iter, lambda photos: (p for p in photos), np.stack])
def test_references_are_any_iterable(kind):
    assert equal(Scene(kind([PHOTO, 255 - PHOTO]), PHOTO, HOLE), Scene([PHOTO, 255 - PHOTO], PHOTO, HOLE))


SMALL = make_photo(31, 80)
REFUSED = [
    ("single photo", lambda: Scene("a.png", PHOTO, HOLE), ["references is a single photo", "legal: a list"]),
    ("single array", lambda: Scene(PHOTO, PHOTO, HOLE), ["references is a single photo", "legal: a list"]),
    ("too many references", lambda: Scene([PHOTO] * 31, PHOTO, HOLE), ["there are 31 references", "legal: up to 30"]),
    ("a number", lambda: Scene(7, PHOTO, HOLE), ["references is a int", "legal: a list or another iterable"]),
    ("endless", lambda: Scene(repeat(PHOTO), PHOTO, HOLE), ["there are 1000 references or more", "legal: up to 30"]),
    ("no file", lambda: Scene([PHOTO, "nowhere.png"], PHOTO, HOLE), ["reference 1", "nowhere.png"]),
    ("no mask", lambda: Scene([], PHOTO), ["there is no mask", "white = fill"]),
    ("opaque", lambda: Scene([], transparent_where(HOLE & False)), ["there is no mask", "white = fill"]),
    ("small target", lambda: Scene([], SMALL, HOLE[:31]), ["the target is 80 x 31 pixels", "legal: at least 32"]),
    ("small reference", lambda: Scene([PHOTO, SMALL], PHOTO, HOLE), ["reference 1 is 80 x 31", "legal: at least 32"]),
    ("other size", lambda: Scene([], PHOTO, HOLE[:50]), ["mask is 80 x 50", "target 80 x 64", "legal: ", "resize"]),
    ("turned", lambda: Scene([], PHOTO, HOLE.T), ["mask is 64 x 80", "target 80 x 64", "legal: ", "EXIF"]),
    ("empty mask", lambda: Scene([], PHOTO, ~HOLE & HOLE), ["mask is empty", "white (True)"]),
    ("full mask", lambda: Scene([], PHOTO, HOLE | True), ["mask covers the whole target", "legal: black (False)"]),
    ("mask of text", lambda: Scene([], PHOTO, np.array([["a"]])), ["the mask is an array of <U1", "legal: uint8"]),
    ("number", lambda: Scene([], 7, HOLE), ["the target is a int", "legal: a path"]),
]


@pytest.mark.parametrize(("make", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_unusable_parts_are_refused_with_the_legal_ones(make, words):
    with pytest.raises(SceneError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == []
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, RealFillError)


def test_a_folder_without_a_scene_is_refused(tmp_path):
    with pytest.raises(SceneError, match=r"there is no folder '.*nowhere'"):
        Scene.load(tmp_path / "nowhere")
    write(tmp_path / "ref" / "0.png", PHOTO)
    with pytest.raises(SceneError, match=r"has no target/target\.png; legal: ref/\*"):
        Scene.load(tmp_path)
    write(tmp_path / "target" / "target.jpg", PHOTO)
    with pytest.raises(SceneError, match="there is no mask"):
        Scene.load(tmp_path)


def test_more_than_thirty_references_in_a_folder_are_refused(tmp_path):
    for i in range(31):
        write(tmp_path / "ref" / f"{i}.png", PHOTO)
    write(tmp_path / "target" / "target.png", transparent_where(HOLE))
    with pytest.raises(SceneError, match="there are 31 references; legal: up to 30"):
        Scene.load(tmp_path)


def blanked(mask, value=255):
    return np.where(mask[:, :, None], np.uint8(value), PHOTO)


def test_transparent_references_cause_a_warning_at_the_callers_line():
    with pytest.warns(RealFillWarning, match="reference 1 is transparent in 12 %") as caught:
        Scene([PHOTO, transparent_where(HOLE)], PHOTO, HOLE)
    with pytest.warns(RealFillWarning, match="reference 0 is transparent") as outpainted:
        Scene.outpaint([transparent_where(HOLE)], PHOTO, margin=4)
    with pytest.warns(RealFillWarning, match="reference 0 is transparent") as canvas:
        Scene.canvas((64, 64), [transparent_where(HOLE)])
    assert {w[0].filename for w in (caught, outpainted, canvas)} == {__file__}


def test_an_inverted_mask_causes_a_warning_at_the_callers_line():
    with pytest.warns(RealFillWarning, match="hides 88 % of the target.*inverted") as caught:
        Scene([], PHOTO, ~HOLE)
    assert caught[0].filename == __file__


def test_a_large_outline_that_a_detector_has_drawn_causes_no_warning(recwarn):
    outline = MaskReading(mask=~HOLE, source="person 0", is_outline=True)
    Scene([], PHOTO, outline).remasked(outline)
    assert not recwarn.list
    drawn = MaskReading(mask=HOLE, source="a box")
    assert combine([outline]).is_outline and not combine([outline, drawn]).is_outline


def test_an_inverted_mask_in_a_folder_causes_a_warning_at_the_callers_line(tmp_path):
    write(tmp_path / "target" / "target.png", PHOTO)
    write(tmp_path / "target" / "mask.png", ~HOLE)
    with pytest.warns(RealFillWarning, match="inverted") as caught:
        Scene.load(tmp_path)
    assert caught[0].filename == __file__


def test_a_mask_of_the_photo_instead_of_the_blank_causes_a_warning():
    photo = np.zeros((64, 80), bool)
    photo[:, 25:55] = True
    with pytest.warns(RealFillWarning, match="inverted"):
        Scene([], blanked(~photo), photo)


@pytest.mark.parametrize("value", [0, 255])
def test_correct_masks_cause_no_warning(value):
    border = np.ones((64, 80), bool)
    border[12:52, 20:58] = False
    assert 0.69 < border.mean() < 0.72
    half = np.indices((64, 80))[1] < 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scene([], blanked(border, value), border)
        Scene([], PHOTO, HOLE)
        Scene([], blanked(HOLE, value), HOLE)
        Scene([], PHOTO, half)


def rewritten(path, suffix, kind=None, **options):
    """Save an image in another format beside the original, and remove the original."""
    with Image.open(path) as image:
        image.convert("RGB").save(path.with_suffix(suffix), kind, **options)
    path.unlink()


def saved_scene(folder):
    Scene([PHOTO] * 4, PHOTO, HOLE).save(folder)
    return folder


def test_every_readable_format_is_accepted_by_its_content(tmp_path):
    folder = saved_scene(tmp_path)
    formats = {"0": (".jfif", "JPEG"), "1": (".mpo", "JPEG"), "2": (".ppm", None), "3": (".pcx", None)}
    for name, (suffix, kind) in formats.items():
        rewritten(folder / "ref" / f"{name}.png", suffix, kind)
    rewritten(folder / "target" / "target.png", ".tga")
    (folder / "target" / "mask.png").rename(folder / "target" / "mask")
    scene = Scene.load(folder)
    assert len(scene.references) == 4 and np.array_equal(scene.references[2], PHOTO)
    assert np.array_equal(scene.target, PHOTO) and np.array_equal(scene.mask, HOLE)


def test_a_heic_photo_is_read_under_any_name(tmp_path):
    folder = saved_scene(tmp_path)
    pillow_heif.from_pillow(Image.fromarray(PHOTO)).save(folder / "a.heic", quality=95)
    (folder / "a.heic").replace(folder / "ref" / "4.jpg")
    assert Scene.load(folder).references[4].shape == PHOTO.shape


def test_files_among_the_references_that_are_no_photos_are_named(tmp_path):
    folder = saved_scene(tmp_path)
    (folder / "ref" / "IMG_1.CR2").write_bytes(b"raw")
    (folder / "ref" / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(40))
    (folder / "ref" / "thumb.jpg").mkdir()
    for name in (".hidden", "Thumbs.db"):
        (folder / "ref" / name).write_bytes(b"")
    with pytest.warns(RealFillWarning) as caught:
        assert len(Scene.load(folder).references) == 4
    assert len(caught) == 1 and caught[0].filename == __file__
    names = "IMG_1.CR2 (a raw file of a camera), clip.mov (no image in a known format), thumb.jpg (a folder)"
    assert f"left out: {names}. Save photos" in str(caught[0].message)


@pytest.mark.parametrize("kind", [{"extratags": [(50706, "B", 4, (1, 4, 0, 0), True)]}, {"subfiletype": 1}], ids=str)
def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_photo(kind, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PHOTO, photometric="rgb", **kind)
    with pytest.raises(SceneError, match=r"a\.tif' is a raw file of a camera; develop it"):
        Scene([tmp_path / "a.tif"], PHOTO, HOLE)


def test_an_unreadable_target_or_mask_is_named(tmp_path):
    folder = saved_scene(tmp_path)
    for name in ("target", "mask"):
        (folder / "target" / f"{name}.png").rename(folder / "target" / f"{name}.bak.png")
    (folder / "target" / "target.xcf").write_bytes(b"gimp xcf v011")
    with pytest.raises(
        SceneError, match=r"no target that can be read: target\.xcf \(no image in a known format\); leg"
    ):
        Scene.load(folder)
    write(folder / "target" / "target.png", transparent_where(HOLE))
    (folder / "target" / "mask.xcf").write_bytes(b"gimp xcf v011")
    with pytest.warns(RealFillWarning, match=r"mask' is not used: mask\.xcf \(no image in a known format\)"):
        assert np.array_equal(Scene.load(folder).mask, HOLE)


def test_a_damaged_photo_is_an_error_and_not_left_out(tmp_path):
    folder = saved_scene(tmp_path)
    (folder / "ref" / "5.png").write_bytes(b"")
    with pytest.raises(SceneError, match=r"5\.png"):
        Scene.load(folder)


def test_names_are_found_in_any_case(scene, tmp_path):
    scene.save(tmp_path)
    (tmp_path / "target" / "target.png").rename(tmp_path / "target" / "Target.PNG")
    (tmp_path / "target" / "mask.png").rename(tmp_path / "target" / "Mask.Png")
    assert np.array_equal(Scene.load(tmp_path).mask, scene.mask)
