"""Reading a mask in every form; refusing a photo without a hole."""

import io

import cv2
import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill import Scene
from realfill.errors import SceneError
from realfill.io.photos import Photo
from realfill.io.writing import write_photo
from realfill.scene.mask_reading import read_mask

SIZE = (160, 200)
NOISE = np.random.default_rng(0).normal(0, 6, (*SIZE, 3))
PHOTO = (make_photo(*SIZE) + NOISE).clip(0, 255).astype(np.uint8)
DARK = (make_photo(*SIZE, 1) * 0.25 + NOISE / 2).clip(0, 255).astype(np.uint8)
HOLE = cv2.ellipse(np.zeros(SIZE, np.uint8), (110, 70), (40, 25), 20, 0, 360, 1, -1) > 0
SOFT = cv2.GaussianBlur(HOLE.astype(np.float32), (0, 0), 1)  # anti-aliased
WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)


def flat(colour):
    return np.broadcast_to(np.uint8(colour), (*SIZE, 3))


def with_alpha(image, alpha):
    return np.dstack([image, np.asarray(alpha).round().astype(image.dtype)])


def painted(image, colour, opacity=1.0, shape=SOFT):
    weight = opacity * shape[:, :, None]
    return (image * (1 - weight) + np.float32(colour) * weight).round().astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return Image.open(buffer)


def covers(mask, hole=HOLE, tolerance_px=2):
    kernel = np.ones((2 * tolerance_px + 1,) * 2, np.uint8)
    largest, smallest = cv2.dilate(hole.astype(np.uint8), kernel) > 0, cv2.erode(hole.astype(np.uint8), kernel) > 0
    return bool((mask <= largest).all() and (smallest <= mask).all())


TWO_VALUED = {
    "bool": HOLE,
    "bool with three channels": np.dstack([HOLE] * 3),
    "one channel": HOLE[:, :, None].astype(np.uint8) * 200,
    "faint": HOLE.astype(np.uint8) * 20,
    "0 and 255": np.dstack([HOLE * np.uint8(255)] * 3),
    "with opaque alpha": with_alpha(flat(BLACK) + np.uint8(255) * HOLE[:, :, None], np.full(SIZE, 255)),
    "with constant alpha": with_alpha(flat(BLACK) + np.uint8(255) * HOLE[:, :, None], np.full(SIZE, 90)),
    "labels 1 and 2": HOLE.astype(np.uint8) + 1,
    "-1 and 1": HOLE.astype(np.int8) * 2 - 1,
    "0.0 and 0.5": HOLE * 0.5,
    "0.0 and 255.0": HOLE * 255.0,
    "PIL 1": Image.fromarray(HOLE),
    "PIL L": Image.fromarray(HOLE.astype(np.uint8) * 255),
    "PIL L of 0 and 1": Image.fromarray(HOLE.astype(np.uint8)),
    "PIL I": Image.fromarray(HOLE.astype(np.int32)),
    "PIL I;16": Image.fromarray(HOLE.astype(np.uint16)),
    "PIL F": Image.fromarray(HOLE.astype(np.float32)),
    "PIL CMYK": Image.fromarray(np.dstack([HOLE * np.uint8(255)] * 3)).convert("CMYK"),
    "PIL P": Image.fromarray(np.dstack([HOLE * np.uint8(255)] * 3)).convert("P"),
    "palette of labels": encoded(Image.fromarray(HOLE.astype(np.uint8)).convert("P"), "PNG"),
    "1-bit TIFF": encoded(HOLE, "TIFF"),
    "GIF": encoded(HOLE.astype(np.uint8) * 255, "GIF"),
}


@pytest.mark.parametrize("name", TWO_VALUED)
def test_of_two_values_the_larger_one_is_filled(name):
    assert np.array_equal(read_mask(TWO_VALUED[name]).mask, HOLE)
    assert np.array_equal(Scene([], PHOTO, TWO_VALUED[name]).mask, HOLE)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_two_values_are_read_in_every_numeric_type_and_byte_order(kind, order):
    for peak in (1, 255):
        assert np.array_equal(read_mask(HOLE.astype(order + kind) * np.array(peak, order + kind)).mask, HOLE)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("peak", [1, 255, "full"])
def test_two_values_are_read_from_files_of_every_depth(suffix, dtype, peak, tmp_path):
    levels = HOLE * dtype(np.iinfo(dtype).max if peak == "full" else peak)
    for channels in (1, 3):
        write_photo(tmp_path / f"a.{suffix}", Photo(pixels=np.dstack([levels] * channels)))
        assert np.array_equal(read_mask(tmp_path / f"a.{suffix}").mask, HOLE)


ANTI_ALIASED = {
    "uint8": (SOFT * 255).round().astype(np.uint8),
    "float": SOFT.astype(np.float64),
    "float up to 1.0000001": SOFT * np.float32(1.0000001),
    "float up to 255": SOFT * 255,
    "int64 up to 255": (SOFT * 255).round().astype(np.int64),
    "8-bit values in 16 bits": (SOFT * 255).round().astype(">u2"),
    "16 bits": (SOFT * 65535).round().astype(np.uint16),
    "JPEG": encoded((SOFT * 255).astype(np.uint8), "JPEG", quality=30),
    "sharp JPEG": encoded(HOLE.astype(np.uint8) * 255, "JPEG", quality=20),
    "colour JPEG": encoded(painted(flat(BLACK), WHITE), "JPEG", quality=30),
    "WebP": encoded(painted(flat(BLACK), WHITE), "WEBP", quality=30),
    "feathered": (cv2.GaussianBlur(SOFT, (0, 0), 4) * 255).astype(np.uint8),
    "watermark": painted(painted(flat(BLACK), WHITE, 0.15, (np.indices(SIZE).sum(axis=0) % 40 < 4) * 1.0), WHITE),
    "red on black": painted(flat(BLACK), RED),
    "dark blue on black": painted(flat(BLACK), (0, 0, 100)),
    "red on white": painted(flat(WHITE), RED),
    "yellow on grey": painted(flat((180, 180, 180)), (255, 255, 0)),
    "yellow on purple": painted(flat((68, 1, 84)), (253, 231, 37)),
}


@pytest.mark.parametrize("name", ANTI_ALIASED)
def test_masks_with_smooth_edges_noise_or_colour_are_read(name):
    assert covers(read_mask(ANTI_ALIASED[name]).mask) and covers(read_mask(ANTI_ALIASED[name], PHOTO).mask)


def test_the_threshold_is_half_of_white():
    levels = np.zeros((20, 100), np.uint8)
    levels[:, 50:], levels[0, :4] = 255, (1, 127, 128, 254)
    assert read_mask(levels).mask[0, :5].tolist() == [False, False, True, True, False]
    assert read_mask(levels / 255).mask[0, :5].tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("photo", [PHOTO, DARK, PHOTO[:, :, :1], (PHOTO * np.float64(257)).astype(np.uint16)])
@pytest.mark.parametrize("target", [PHOTO, DARK, None])
def test_an_erased_photo_means_its_transparent_part(photo, target):
    peak = np.iinfo(photo.dtype).max
    alpha = np.where(HOLE, 0, peak)
    if photo.shape[2] == 1:
        mask = Image.fromarray(with_alpha(photo, alpha), "LA") if photo.dtype == np.uint8 else None
    else:
        mask = with_alpha(photo, alpha)
    reading = read_mask(mask, target)
    assert np.array_equal(reading.mask, HOLE) and reading.source.startswith("the transparent pixels of the mask")


@pytest.mark.parametrize("kind", ["palette", "colour key", "cleared colours", "soft eraser", "faint"])
def test_an_erased_photo_is_read_in_every_kind_of_transparency(kind, tmp_path):
    alpha = np.where(HOLE, 0, 255)
    if kind == "palette":
        image = encoded(Image.fromarray(with_alpha(PHOTO, alpha)).quantize(64), "PNG")
    elif kind == "colour key":
        image = encoded(np.where(HOLE[:, :, None], np.uint8((1, 254, 3)), PHOTO), "PNG", transparency=(1, 254, 3))
    elif kind == "cleared colours":
        image = with_alpha(np.where(HOLE[:, :, None], np.uint8(0), PHOTO), alpha)
    elif kind == "soft eraser":
        image = with_alpha(PHOTO, 255 * (1 - SOFT))
    else:
        image = with_alpha(PHOTO, alpha * 0.8)
    assert covers(Scene([], PHOTO, image).mask, tolerance_px=4 if kind == "soft eraser" else 0)


def test_an_erased_photo_of_which_little_is_left_means_its_transparent_part():
    opaque = np.zeros(SIZE, bool)
    opaque[40:100, 60:140] = True
    for photo in (PHOTO, DARK):
        assert np.array_equal(read_mask(with_alpha(photo, 255 * opaque), photo).mask, ~opaque)


@pytest.mark.parametrize("opacity", [1.0, 0.4, 0.1])
@pytest.mark.parametrize("colour", [WHITE, BLACK, RED, (10, 200, 30)])
def test_strokes_on_a_transparent_layer_are_filled_whatever_their_colour_and_opacity(colour, opacity):
    for shape in (HOLE, SOFT):
        layer = with_alpha(flat(colour), 255 * opacity * shape)
        for target in (PHOTO, flat(colour), None):
            reading = read_mask(layer, target)
            assert covers(reading.mask) and reading.source == "the strokes on the transparent layer of the mask"


def test_strokes_of_two_colours_on_a_transparent_layer_are_filled():
    layer = with_alpha(np.where(np.indices(SIZE)[0][:, :, None] < 70, np.uint8(RED), np.uint8((0, 0, 255))), 255 * HOLE)
    assert np.array_equal(read_mask(layer).mask, HOLE)


@pytest.mark.parametrize("colour", [WHITE, BLACK, RED])
@pytest.mark.parametrize("cleared", [False, True])
def test_in_a_layer_of_one_colour_the_transparent_part_is_filled(colour, cleared):
    image = np.where(HOLE[:, :, None] & cleared, np.uint8(0), np.uint8(colour))
    reading = read_mask(with_alpha(image, 255 * ~HOLE))
    assert np.array_equal(reading.mask, HOLE) and "transparent pixels" in reading.source


def test_black_and_white_on_a_layer_are_read_as_such():
    alpha = np.full(SIZE, 255)
    alpha[:, :20] = 0
    assert np.array_equal(read_mask(with_alpha(painted(flat(BLACK), WHITE, shape=HOLE), alpha)).mask, HOLE)


@pytest.mark.parametrize("colour", [WHITE, BLACK, RED, (0, 255, 0)])
@pytest.mark.parametrize("opacity", [1.0, 0.5])
@pytest.mark.parametrize("photo", [PHOTO, DARK])
def test_strokes_on_a_copy_of_the_target_are_found_by_difference(photo, opacity, colour):
    if photo is DARK and colour == BLACK:
        pytest.skip("black paint on a dark photo cannot be seen")
    for shape in (HOLE * 1.0, SOFT):
        reading = read_mask(painted(photo, colour, opacity, shape), photo)
        assert covers(reading.mask, tolerance_px=3) and reading.source.startswith("the strokes of the colour rgb(")


@pytest.mark.parametrize("quality", [95, 75])
def test_strokes_on_a_copy_that_was_saved_as_a_jpeg_are_found(quality):
    copy = encoded(painted(PHOTO, RED), "JPEG", quality=quality)
    assert covers(read_mask(copy, PHOTO).mask, tolerance_px=4)


def test_thin_scribbles_on_a_copy_are_found():
    line = cv2.polylines(
        np.zeros(SIZE, np.uint8), [np.int32([[20, 20], [60, 90], [150, 30], [180, 140]])], False, 255, 3
    )
    smooth = cv2.GaussianBlur(line, (0, 0), 0.7) / 255
    assert covers(read_mask(painted(PHOTO, RED, shape=smooth), PHOTO).mask, line > 0)


def test_white_strokes_over_white_parts_of_the_target_have_no_holes():
    target = PHOTO.copy()
    target[60:80, 100:120] = 255
    assert covers(read_mask(painted(target, WHITE), target).mask, tolerance_px=3)


def test_strokes_on_a_grey_copy_or_with_another_colour_depth_are_found(tmp_path):
    grey = np.asarray(Image.fromarray(PHOTO).convert("L"))
    assert covers(read_mask(painted(np.dstack([grey] * 3), WHITE)[:, :, 0], PHOTO).mask, tolerance_px=3)
    wide = painted(PHOTO, RED).astype(np.uint16) * 257
    assert covers(Scene([], PHOTO, wide).mask, tolerance_px=3)


def test_strokes_on_a_scanned_page_are_found():
    page = np.full((*SIZE, 3), 255, np.uint8)
    for row in range(15, 160, 18):
        cv2.putText(page, "some printed text", (5, row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, BLACK, 1, cv2.LINE_AA)
    assert covers(read_mask(painted(page, RED), page).mask, tolerance_px=3)


REFUSED = {
    "the target itself": (PHOTO, PHOTO, "shows the target itself"),
    "the target as a JPEG": (encoded(PHOTO, "JPEG", quality=90), PHOTO, "shows the target"),
    "another photo": (make_photo(*SIZE, 5), PHOTO, "looks like a photo"),
    "a photo without a target": (PHOTO, None, "looks like a photo"),
    "a dark photo": (DARK, None, "looks like a photo"),
    "a dark photo beside another": (DARK, PHOTO, "looks like a photo"),
    "a grey photo": (PHOTO[:, :, 0], None, "looks like a photo"),
    "a bright photo": (255 - DARK, None, "looks like a photo"),
    "strokes on a photo of another size": (painted(PHOTO, RED), PHOTO[:100], "looks like a photo"),
    "a gradient": (np.tile(np.linspace(0, 255, 200).astype(np.uint8), (160, 1)), None, "looks like a photo"),
    "a photo of low contrast": ((PHOTO * 0.2 + 100).astype(np.uint8), None, "looks like a photo"),
    "another motif in a part": (np.where(HOLE[:, :, None], PHOTO[::-1], PHOTO), PHOTO, "changes in many colours"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_photo_without_a_hole_is_refused_with_the_legal_forms(name):
    mask, target, words = REFUSED[name]
    with pytest.raises(SceneError, match="; legal: white = fill") as caught:
        read_mask(mask, target)
    assert words in str(caught.value)
    assert "%" in str(caught.value) or "nothing painted" in str(caught.value)


@pytest.mark.parametrize("array", [np.array([["a"]]), np.zeros((20, 30, 2)), np.full((40, 40), np.nan), -SOFT])
def test_arrays_that_are_no_images_are_refused(array):
    with pytest.raises(SceneError, match=r"the mask .*; legal: "):
        read_mask(array)


def test_a_mask_is_a_copy():
    mask = HOLE.copy()
    reading = read_mask(mask)
    mask[:] = False
    assert np.array_equal(reading.mask, HOLE)


@pytest.mark.parametrize(
    ("scene", "source"),
    [
        (lambda: Scene([], PHOTO, HOLE), "the True values of the mask"),
        (lambda: Scene([], PHOTO, HOLE * np.uint8(255)), "the white pixels of the mask"),
        (lambda: Scene([], with_alpha(PHOTO, 255 * ~HOLE)), "the transparent pixels of the target"),
        (
            lambda: Scene([], PHOTO, painted(PHOTO, RED)),
            "the strokes of the colour rgb(255, 0, 0) in the mask, a copy of",
        ),
        (lambda: Scene.outpaint([], PHOTO, left=9), "the canvas around the target"),
        (lambda: Scene.outpaint([], PHOTO, HOLE, left=9), "the canvas around the target, and the True values of the"),
        (lambda: Scene.canvas((40, 40)), "the whole canvas"),
        (lambda: Scene([], PHOTO, HOLE).dilated(2), "the True values of the mask, grown by 2 pixels"),
    ],
)
def test_a_scene_tells_what_was_taken_for_the_hole(scene, source):
    assert scene().mask_source.startswith(source)


def test_strokes_of_two_colours_on_a_copy_are_refused_and_not_half_used():
    elsewhere = np.zeros(SIZE, np.float32)
    elsewhere[120:140, 20:60] = 1
    image = painted(painted(PHOTO, RED), (0, 0, 255), shape=elsewhere)
    with pytest.raises(
        SceneError, match=r"strokes of the colour rgb\(.*\), and with other changes in .*% of its pixels"
    ):
        read_mask(image, PHOTO)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_three_small_values_are_not_called_empty(dtype):
    labels = HOLE.astype(dtype) * 2
    labels[:5] = 1
    with pytest.raises(SceneError, match="the mask is nearly black: its brightest value is 2 of 255"):
        read_mask(labels)


def test_the_transparency_of_a_palette_in_memory_is_read():
    palette = Image.fromarray(with_alpha(PHOTO, 255 * ~HOLE)).quantize(64)
    assert covers(read_mask(palette, PHOTO).mask)
