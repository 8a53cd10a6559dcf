"""Images: reading files, PIL images and arrays; conversion to tensors and back; resizing."""

import io
import struct
import sys
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
import torch
from helpers import make_photo, make_profile
from PIL import Image, ImageCms

from realfill.errors import SceneError
from realfill.io.images import fit_within, read_image, read_photo, resize, to_array, to_tensor
from realfill.io.photos import Photo
from realfill.io.writing import write_photo

ORIENTATIONS = {  # EXIF tag 274: how to turn the stored image upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


def exif_with(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(source):
    with pytest.raises(SceneError) as caught:
        read_image(source, "the target")
    return str(caught.value)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_undone(orientation, tmp_path):
    stored = make_photo(20, 30)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif_with(orientation))
    upright = ORIENTATIONS[orientation](stored)
    assert np.array_equal(read_image(tmp_path / "a.png")[0], upright)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(read_image(image)[0], upright)


def test_alpha_turns_with_the_image(tmp_path):
    stored = np.dstack([make_photo(20, 30), np.full((20, 30), 255, np.uint8)])
    stored[:5, :7, 3] = 0
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif_with(6))
    image, transparent = read_image(tmp_path / "a.png")
    turned = np.rot90(stored, -1)
    assert np.array_equal(image, turned[:, :, :3]) and np.array_equal(transparent, turned[:, :, 3] == 0)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif"])
def test_grey_file_becomes_three_equal_channels(suffix, tmp_path):
    grey = make_photo(20, 30)[:, :, 0]
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}", **options)
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}")[0], np.dstack([grey] * 3))


def test_one_bit_file_becomes_black_and_white(tmp_path):
    bits = make_photo(20, 30)[:, :, 0] > 120
    Image.fromarray(bits).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "1"
    assert np.array_equal(read_image(tmp_path / "a.png")[0][:, :, 1], bits * np.uint8(255))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_below_a_half_is_transparent_and_keeps_its_colour(mode, tmp_path):
    alpha = np.full((20, 30), 255, np.uint8)
    alpha[3, 4:8] = 0, 127, 128, 200
    colour = make_photo(20, 30) if mode == "RGBA" else make_photo(20, 30)[:, :, :1]
    Image.fromarray(np.dstack([colour, alpha])).save(tmp_path / "a.png")
    image, transparent = read_image(tmp_path / "a.png")
    assert np.array_equal(image, np.broadcast_to(colour, (20, 30, 3)))
    assert np.argwhere(transparent).tolist() == [[3, 4], [3, 5]]


def test_opaque_alpha_is_no_transparency(tmp_path):
    Image.fromarray(make_photo(20, 30)).convert("RGBA").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[1] is None


def test_premultiplied_alpha_is_read():
    image = Image.new("RGBA", (30, 20), (200, 100, 50, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 10))
    pixels, transparent = read_image(image.convert("RGBa"))
    assert transparent[:10, :10].all() and transparent.sum() == 100
    assert (pixels[10:] == (200, 100, 50)).all()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_premultiplied_alpha_of_16_bits_is_divided_out(tmp_path, planar):
    rng = np.random.default_rng(0)
    colours, alpha = rng.integers(0, 65535, (20, 30, 3)), rng.integers(20_000, 65535, (20, 30, 1))
    stored = np.concatenate([np.round(colours * alpha / 65535), alpha], axis=2).astype(np.uint16)
    data = stored if planar == "contig" else stored.transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif",
        data,
        photometric="rgb",
        extrasamples=["assocalpha"],
        planarconfig=planar,
        compression="zlib",
    )
    photo = read_photo(tmp_path / "a.tif")
    assert np.array_equal(photo.alpha, alpha[:, :, 0])
    assert np.abs(photo.pixels.astype(int) - colours).max() <= 2


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planar_tiff_of_16_bits_is_read(tmp_path, compression):
    image = np.random.default_rng(0).integers(0, 65535, (20, 30, 3)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        image.transpose(2, 0, 1),
        photometric="rgb",
        planarconfig="separate",
        compression=compression,
    )
    assert np.array_equal(read_photo(tmp_path / "a.tif").pixels, image)
    with Image.open(tmp_path / "a.tif") as opened:
        opened.load()
        assert read_photo(opened).pixels.dtype == np.uint8  # Pillow has already dropped the other 8 bits


def test_planar_tiff_is_turned_upright_and_loses_extra_channels(tmp_path):
    image = np.random.default_rng(0).integers(0, 65535, (4, 20, 30)).astype(np.uint16)
    kind = {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["unspecified"]}
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(274, 3, 1, 6, True)], **kind)
    assert np.array_equal(read_photo(tmp_path / "a.tif").pixels, np.rot90(image[:3].transpose(1, 2, 0), -1))


def test_tiff_of_16_bit_grey_and_alpha_is_read(tmp_path):
    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[0x010F] = "Maker"
    photo = Photo(
        pixels=rng.integers(0, 65535, (20, 30, 1)).astype(np.uint16),
        alpha=rng.integers(0, 65535, (20, 30)).astype(np.uint16),
        icc_profile=make_profile(grey=True),
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
    )
    write_photo(tmp_path / "a.tif", photo)
    found = read_photo(tmp_path / "a.tif")
    assert np.array_equal(found.pixels, photo.pixels) and np.array_equal(found.alpha, photo.alpha)
    kept = Image.Exif()
    kept.load(found.exif)
    assert (found.icc_profile, kept[0x010F]) == (photo.icc_profile, "Maker")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_of_16_bit_grey_and_premultiplied_alpha_is_turned_and_divided(tmp_path, planar):
    rng = np.random.default_rng(0)
    grey, alpha = rng.integers(0, 65535, (20, 30)), rng.integers(20_000, 65535, (20, 30))
    stored = np.stack([np.round(grey * alpha / 65535), alpha], axis=2 if planar == "contig" else 0).astype(np.uint16)
    kind = {"photometric": "minisblack", "extrasamples": ["assocalpha"], "planarconfig": planar}
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=[(274, 3, 1, 3, True)], **kind)
    photo = read_photo(tmp_path / "a.tif")
    assert np.array_equal(photo.alpha, alpha[::-1, ::-1])
    assert np.abs(photo.pixels[:, :, 0].astype(int) - grey[::-1, ::-1]).max() <= 2


def test_palette_with_a_transparent_entry(tmp_path):
    indices = np.zeros((20, 30), np.uint8)
    indices[5:9, 5:9], indices[12:, 12:] = 1, 2
    palette = Image.fromarray(indices).convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 50, 0, 255, 0])
    palette.save(tmp_path / "a.png", transparency=1)
    image, transparent = read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [10, 20, 30] and image[19, 29].tolist() == [0, 255, 0]
    assert np.array_equal(transparent, indices == 1)


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (7, 8, 9)), ("L", 7)])
def test_a_colour_key_is_transparent(mode, colour, tmp_path):
    stored = Image.new(mode, (30, 20), "white")
    stored.paste(colour, (5, 6, 15, 16))
    stored.save(tmp_path / "a.png", transparency=colour)
    image, transparent = read_image(tmp_path / "a.png")
    assert transparent[6:16, 5:15].all() and transparent.sum() == 100
    assert (image[6:16, 5:15] == colour).all() and (image[0] == 255).all()


def test_cmyk_jpeg_shows_its_colours(tmp_path):
    colour = np.full((32, 32, 3), (200, 120, 40), np.uint8)
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    image, _ = read_image(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    assert np.abs(image.astype(int) - colour).max() <= 6


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_rounded_to_8(suffix, tmp_path):
    wide = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), wide)
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}")[0][:, :, 2], np.round(wide / 257))


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_in_which_zero_is_white_is_inverted(dtype, order, alpha, tmp_path):
    most = np.iinfo(dtype).max
    grey = np.linspace(0, most, 600).astype(dtype).reshape(20, 30)
    stored = np.dstack([grey, grey[::-1]]) if alpha else grey
    extra = {"extrasamples": ["unassalpha"]} if alpha else {}
    tifffile.imwrite(tmp_path / "a.tiff", stored, photometric="miniswhite", byteorder=order, **extra)
    photo = read_photo(tmp_path / "a.tiff")
    assert photo.pixels.dtype == dtype
    assert np.array_equal(photo.pixels[:, :, 0], most - grey)
    assert np.array_equal(photo.alpha, grey[::-1]) if alpha else photo.alpha is None


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rotated_grey_tiffs_without_compression_are_read_upright(dtype, orientation, tmp_path):
    grey = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (20, 30)).astype(dtype)
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tiff", grey, photometric="minisblack", metadata=None, extratags=tag)
    tifffile.imwrite(tmp_path / "b.tiff", grey, photometric="minisblack", metadata=None, extratags=tag, compression=8)
    plain, packed = (read_photo(tmp_path / name).pixels for name in ("a.tiff", "b.tiff"))
    assert plain.shape == ((30, 20, 1) if orientation > 4 else (20, 30, 1))
    assert np.array_equal(plain, packed)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_colour_is_converted_to_8_bits_within_a_level(suffix, tmp_path):
    wide = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), wide[:, :, ::-1])
    image, _ = read_image(tmp_path / f"a.{suffix}")
    assert np.abs(image.astype(int) - np.round(wide / 257)).max() <= 1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_rotated_16_bit_colour_is_read_upright_in_full_depth(orientation, suffix, tmp_path):
    wide = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    if suffix == "tiff":
        tifffile.imwrite(
            tmp_path / "a.tiff", wide, photometric="rgb", metadata=None, extratags=[(274, "H", 1, orientation, True)]
        )
    else:
        write_photo(tmp_path / "a.png", Photo(pixels=wide))
        data = (tmp_path / "a.png").read_bytes()
        exif = exif_with(orientation).tobytes()[6:]
        chunk = b"eXIf" + exif
        chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert np.array_equal(photo.pixels, ORIENTATIONS[orientation](wide))
    assert np.array_equal(photo.srgb(), np.round(photo.pixels / 257))
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        assert np.array_equal(read_photo(opened).pixels, photo.pixels)


def test_colours_of_a_read_only_profile_are_converted_to_srgb(tmp_path, monkeypatch):
    Image.fromarray(make_photo(20, 30)).save(tmp_path / "a.png", icc_profile=make_profile())
    kept = read_photo(tmp_path / "a.png")
    monkeypatch.setattr("realfill.io.images.is_writable", lambda *_: False)
    converted = read_photo(tmp_path / "a.png")
    assert converted.icc_profile is None and np.array_equal(converted.pixels, kept.srgb())


def test_float_tiff_is_read(tmp_path):
    image = make_photo(20, 30)
    cv2.imwrite(str(tmp_path / "a.tiff"), (image / 255).astype(np.float32)[:, :, ::-1])
    assert np.array_equal(read_image(tmp_path / "a.tiff")[0], image)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16, np.uint8])
def test_arrays_of_any_range_give_the_same_image(kind):
    image = make_photo(20, 30)
    peak = {np.uint16: 257, np.uint8: 1}.get(kind, 1 / 255)
    assert np.array_equal(read_image((image * np.float64(peak)).astype(kind))[0], image)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u2"])
def test_arrays_of_both_byte_orders_give_the_same_image(kind):
    scale = 257 if kind == "u2" else 1 / 255
    arrays = [(make_photo(20, 30) * np.float64(scale)).astype(order + kind) for order in "<>"]
    photos = [read_photo(array) for array in arrays]
    assert np.array_equal(photos[0].pixels, photos[1].pixels) and photos[1].pixels.dtype.isnative


@pytest.mark.parametrize("excess", [1e-7, 1e-6, 9e-4])
def test_rounding_errors_of_float_images_are_clipped(excess, tmp_path):
    image = np.linspace(-excess, 1 + excess, 600, dtype=np.float32).reshape(20, 30)
    expected = np.linspace(0, 255, 600).reshape(20, 30)
    cv2.imwrite(str(tmp_path / "a.tiff"), image)
    for source in (image, image.astype(np.float64), tmp_path / "a.tiff", Image.fromarray(image)):
        assert np.abs(read_image(source)[0][:, :, 0] - expected).max() <= 1


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1)])
def test_array_of_one_channel_becomes_three(shape):
    assert (read_image(np.full(shape, 0.25))[0] == np.full((20, 30, 3), 64)).all()


def test_array_with_alpha():
    array = np.dstack([make_photo(20, 30), np.tile(np.uint8([0, 255]), (20, 15))])
    image, transparent = read_image(array)
    assert np.array_equal(image, array[:, :, :3]) and np.array_equal(transparent, array[:, :, 3] == 0)


def test_result_is_a_copy():
    array = make_photo(20, 30)
    image, _ = read_image(array)
    array[:] = 0
    assert image.any() and image.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (np.zeros((20, 30, 2), np.uint8), "(20, 30, 2)"),
        (np.zeros(30, np.uint8), "(30,)"),
        (np.zeros((0, 30, 3), np.uint8), "(0, 30, 3)"),
        (np.zeros((20, 30, 3), np.int64), "int64"),
        (np.full((20, 30, 3), 200.0), "200"),
        (np.full((20, 30, 3), np.nan), "nan"),
        (np.full((20, 30, 3), np.inf), "inf"),
        (np.full((20, 30, 3), -0.5), "-0.5"),
        (np.full((20, 30, 3), 1.0015), "1.0015"),
    ],
)
def test_other_arrays_are_refused(array, value):
    message = refusal(array)
    assert message.startswith("the target ") and value in message and "legal: " in message


def test_other_types_are_refused():
    assert "the target is a int; legal: " in refusal(7)


def test_colour_profile_is_converted_to_srgb(tmp_path):
    # sRGB with red and green swapped, so that the result is known
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    image = make_photo(20, 30)
    for mode in ("RGB", "RGBA"):
        Image.fromarray(image).convert(mode).save(tmp_path / "a.png", icc_profile=swapped)
        assert np.abs(read_image(tmp_path / "a.png")[0].astype(int) - image[:, :, [1, 0, 2]]).max() <= 2


@pytest.mark.parametrize("profile", ["sRGB", "LAB", b"no profile at all"])
def test_srgb_and_useless_profiles_leave_pixels_exactly(profile, tmp_path):
    if isinstance(profile, str):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(profile)).tobytes()
    image = make_photo(20, 30)
    Image.fromarray(image).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(read_image(tmp_path / "a.png")[0], image)


def test_heic_is_read(tmp_path):
    image = cv2.GaussianBlur(make_photo(64, 80), (0, 0), 3)
    pillow_heif.from_pillow(Image.fromarray(image)).save(tmp_path / "a.HEIC", quality=95)
    read, _ = read_image(tmp_path / "a.HEIC")
    assert read.shape == image.shape and np.abs(read.astype(int) - image).mean() < 3


def test_rotated_heic_is_rotated_once(tmp_path):
    image = cv2.GaussianBlur(make_photo(64, 80), (0, 0), 3)
    turned = pillow_heif.from_pillow(Image.fromarray(image))
    turned.info["exif"] = exif_with(6).tobytes()
    turned.save(tmp_path / "a.heic", quality=95)
    read, _ = read_image(tmp_path / "a.heic")
    assert read.shape == (80, 64, 3) and np.abs(read.astype(int) - np.rot90(image, -1)).mean() < 3


def test_heic_without_the_extra_is_refused_with_the_package_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    message = refusal(tmp_path / "a.heic")
    assert "a.heic" in message and "pip install pillow-heif" in message


@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning", "ignore:Corrupt EXIF:UserWarning")  # from PIL
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_truncated_file_is_refused(kind, tmp_path):
    data = encoded(make_photo(64, 80), kind)
    path = tmp_path / f"a.{kind.lower()}"
    for length in (len(data) * 2 // 3, 40, 4):
        path.write_bytes(data[:length])
        message = refusal(path)
        assert message.startswith("the target: ") and path.name in message


def test_damaged_avif_is_refused(tmp_path):
    data = bytearray(encoded(make_photo(64, 80), "AVIF"))
    start = data.index(b"mdat") + 4
    data[start : start + 8] = bytes(8)
    (tmp_path / "a.avif").write_bytes(data)
    assert "a.avif" in refusal(tmp_path / "a.avif")


def test_truncated_pil_image_is_refused():
    data = encoded(make_photo(64, 80), "JPEG")
    assert "the target" in refusal(Image.open(io.BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize("content", [b"", b"this is a text, not an image\n" * 20])
def test_file_without_an_image_is_refused(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    message = refusal(tmp_path / "a.png")
    assert message.startswith("the target: ") and "a.png" in message


def test_missing_file_and_directory_are_refused(tmp_path):
    path = tmp_path / "nothing.png"
    assert refusal(path) == f"the target: there is no file {str(path)!r}"
    for folder in (tmp_path, str(tmp_path)):
        assert refusal(folder) == f"the target: {str(tmp_path)!r} is a folder; legal: an image file"


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(make_photo(64, 80), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 80 // 2 - 1)
    assert "too large" in refusal(tmp_path / "a.png")


def test_large_photo_is_read_without_a_warning(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(make_photo(64, 80), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 80 - 1)
    assert read_image(tmp_path / "a.png")[0].shape == (64, 80, 3)


def test_tensor_and_back_is_exact():
    image = make_photo(21, 33)
    image.flat[:256] = np.arange(256)
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 21, 33) and tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(to_array(tensor[0]), image)


def test_batch_of_images_becomes_one_tensor():
    images = np.stack([make_photo(20, 30, seed) for seed in (0, 1)])
    assert torch.equal(to_tensor(images), torch.cat([to_tensor(image) for image in images]))


def test_conversion_to_bytes_rounds_and_clips():
    values = torch.tensor([-0.5, 0.0, 0.6 / 255, 99.4 / 255, 99.6 / 255, 1.0, 1.5])
    row = to_array(values.expand(3, 1, 7))
    assert row[0, :, 0].tolist() == [0, 0, 1, 99, 100, 255, 255]
    assert row.dtype == np.uint8


@pytest.mark.parametrize("size", [(48, 60), (33, 71), (192, 240), (97, 121), (300, 61), (60, 240)])
def test_resizing_keeps_pixel_centres_in_place(size):
    y, x = np.mgrid[:96, :120]
    blob = np.exp(-((y - 37.3) ** 2 + (x - 61.8) ** 2) / 72).astype(np.float32)
    small = resize(blob, size).astype(np.float64)
    rows, columns = np.mgrid[: size[0], : size[1]]
    centroid = (rows * small).sum() / small.sum(), (columns * small).sum() / small.sum()
    assert centroid == pytest.approx(((37.3 + 0.5) * size[0] / 96 - 0.5, (61.8 + 0.5) * size[1] / 120 - 0.5), abs=0.03)


def test_shrinking_averages_and_the_same_size_changes_nothing():
    image = make_photo(40, 60)
    blocks = image.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize(image, (20, 30)) - blocks).max() <= 0.5
    assert np.array_equal(resize(image, (40, 60)), image)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_resizing_keeps_type_and_channels(kind):
    assert resize(make_photo(40, 60).astype(kind), (50, 70)).dtype == kind
    assert resize(make_photo(40, 60)[:, :, 0].astype(kind), (13, 17)).shape == (13, 17)
    edge = resize(np.repeat(kind([[0, 255]]), 8, axis=0).repeat(8, axis=1), (40, 80))
    assert edge.min() <= 0 and edge.max() >= 255


@pytest.mark.parametrize(
    ("size", "longest", "fitted"),
    [
        ((100, 200), 50, (25, 50)),
        ((200, 100), 300, (200, 100)),
        ((1, 1000), 100, (1, 100)),
        ((333, 1000), 100, (33, 100)),
    ],
)
def test_fit_within_only_shrinks_and_keeps_the_aspect(size, longest, fitted):
    assert fit_within(size, longest) == fitted


def test_slight_shrinking_does_not_average():
    noise = np.random.default_rng(0).normal(size=(504, 64)).astype(np.float32)
    rows = resize(noise, (500, 64)).std(axis=1)
    bands = rows[: 500 // 20 * 20].reshape(-1, 20).mean(axis=1)  # the phase drifts from row to row
    assert bands.min() > 0.8  # by area it would be 0.71 half-way between rows
