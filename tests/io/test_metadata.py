"""Metadata: resolution and text are kept from reading to writing, except for text that may show the hidden pixels."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from helpers import make_photo
from PIL import Image, PngImagePlugin

from realfill import Scene
from realfill.io.images import read_photo
from realfill.io.metadata import Credit, Resolution
from realfill.io.writing import write_photo

PHOTO = make_photo(40, 50)
HOLE = np.zeros((40, 50), bool)
HOLE[10:20, 10:30] = True
CREDIT = Credit(software="realfill 1", description="a model completed it", provenance={"seed": 3})


def png_chunks(path):
    data, start = path.read_bytes(), 8
    while start < len(data):
        (length,) = struct.unpack(">I", data[start : start + 4])
        yield data[start + 4 : start + 8], data[start + 8 : start + 8 + length]
        start += 12 + length


def pillow_file(path, **options):
    Image.fromarray(PHOTO).save(path, **options)


def deep_tiff(path, **options):
    tifffile.imwrite(path, PHOTO.astype(np.uint16) * 257, photometric="rgb", **options)


def grey_tiff(path, **options):
    grey_alpha = PHOTO[:, :, :2].astype(np.uint16) * 257
    tifffile.imwrite(path, grey_alpha, photometric="minisblack", extrasamples=["unassalpha"], **options)


INCH, CENTIMETRE = {"resolutionunit": "INCH"}, {"resolutionunit": "CENTIMETER"}
SOURCES = {
    "a.png": (pillow_file, {"dpi": (300, 200)}),
    "a.tif": (pillow_file, {"dpi": (300, 200)}),
    "a.jpg": (pillow_file, {"dpi": (300, 200)}),
    "a.bmp": (pillow_file, {"dpi": (300, 200)}),
    "deep.tif": (deep_tiff, {"resolution": (300, 200), **INCH}),
    "cm.tif": (deep_tiff, {"resolution": (118.11, 78.74), **CENTIMETRE}),
    "grey.tif": (grey_tiff, {"resolution": (300, 200), **INCH}),
}


@pytest.mark.filterwarnings("ignore:a JPEG cannot be transparent:realfill.errors.RealFillWarning")
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("name", SOURCES)
def test_the_resolution_is_kept_from_every_format_to_every_other(name, suffix, tmp_path):
    write, options = SOURCES[name]
    write(tmp_path / name, **options)
    photo = read_photo(tmp_path / name)
    for _ in range(2):  # a completion is completed again
        write_photo(tmp_path / f"b.{suffix}", photo, CREDIT)
        photo = read_photo(tmp_path / f"b.{suffix}")
    assert photo.resolution.per(0.0254) == pytest.approx((300, 200), rel=1e-4)


def test_the_chunk_of_a_png_stays_the_same(tmp_path):
    pillow_file(tmp_path / "a.png", dpi=(96, 72))
    write_photo(tmp_path / "b.png", read_photo(tmp_path / "a.png"))
    chunks = [dict(png_chunks(tmp_path / f"{name}.png"))[b"pHYs"] for name in "ab"]
    assert chunks[0] == chunks[1] == struct.pack(">IIB", 3780, 2835, 1)


def test_the_ratio_of_pixels_without_a_unit_is_kept(tmp_path):
    pillow_file(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    body = b"pHYs" + struct.pack(">IIB", 4, 3, 0)
    (tmp_path / "a.png").write_bytes(
        data[:33] + struct.pack(">I", 9) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    )
    photo = read_photo(tmp_path / "a.png")
    assert photo.resolution == Resolution(4, 3, None)
    for suffix in ("png", "tif"):
        write_photo(tmp_path / f"b.{suffix}", photo)
        assert read_photo(tmp_path / f"b.{suffix}").resolution == Resolution(4, 3, None)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_the_resolution_turns_with_the_photo(suffix, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    pillow_file(tmp_path / f"a.{suffix}", dpi=(300, 200), exif=exif)
    assert read_photo(tmp_path / f"a.{suffix}").resolution.per(0.0254) == pytest.approx((200, 300), rel=1e-4)


def test_a_photo_without_resolution_and_text_gets_none(tmp_path):
    pillow_file(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.resolution is None and photo.texts == {}
    write_photo(tmp_path / "b.png", photo)
    assert {kind for kind, _ in png_chunks(tmp_path / "b.png")} == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize("values", [(0, 300), ("nan", 300)])
def test_a_meaningless_resolution_is_ignored(values, tmp_path):
    image = Image.fromarray(PHOTO)
    image.info["dpi"] = tuple(float(v) for v in values)
    assert read_photo(image).resolution is None


def text_png(path, **texts):
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value) if not value.isascii() else info.add_text(key, value, zip=len(value) > 100)
    pillow_file(path, pnginfo=info)
    return path


def test_text_of_a_png_is_kept_beside_the_credit(tmp_path):
    texts = {"Title": "Frühstück", "Author": "Jörg", "Description": "my caption", "Software": "GIMP", "Note": "n " * 99}
    photo = read_photo(text_png(tmp_path / "a.png", **texts))
    for _ in range(2):
        write_photo(tmp_path / "b.png", photo, CREDIT)
        photo = read_photo(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as stored:
        kept = stored.text
    assert {key: kept[key] for key in ("Title", "Author", "Note")} == {k: texts[k] for k in ("Title", "Author", "Note")}
    assert kept["Software"] == "realfill 1" and kept["realfill"] == '{"seed": 3}'


def test_the_photographers_description_stays_and_an_earlier_credit_goes(tmp_path):
    photo = read_photo(text_png(tmp_path / "a.png", Description="my caption"))
    write_photo(tmp_path / "b.png", photo, CREDIT)
    write_photo(tmp_path / "c.png", read_photo(text_png(tmp_path / "d.png", Title="t")), CREDIT)
    again = read_photo(tmp_path / "c.png")
    assert dict(again.texts) == {"Title": "t"}
    for _ in range(2):
        with Image.open(tmp_path / "b.png") as stored:
            assert stored.text["Description"] == "my caption"
        write_photo(tmp_path / "b.png", read_photo(tmp_path / "b.png"), CREDIT)


def thumbnail():
    buffer = io.BytesIO()
    Image.fromarray(PHOTO[:32, :32]).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("XML:com.adobe.xmp", "<x:xmpmeta>history</x:xmpmeta>"),
        ("Raw profile type exif", "\nexif\n 20\n45786966"),
        ("Raw profile type APP1", "\ngeneric profile\n 20\n45786966"),
        ("Thumb::URI", "file:///tmp/secret.png"),
        ("PreviewImage", "x"),
        ("note", base64.b64encode(thumbnail()).decode()),
        ("note", "data:image/jpeg;base64,AAAA"),
        ("note", "\n".join(thumbnail().hex()[i : i + 72] for i in range(0, 1440, 72))),
    ],
)
def test_text_that_may_show_the_hidden_pixels_is_dropped(key, value, tmp_path):
    photo = read_photo(text_png(tmp_path / "a.png", **{key: value, "Title": "kept"}))
    write_photo(tmp_path / "b.png", photo)
    assert dict(photo.texts) == {"Title": "kept"} == dict(read_photo(tmp_path / "b.png").texts)


def test_text_after_the_pixels_and_text_of_16_bit_files_is_kept(tmp_path):
    write_photo(tmp_path / "a.png", read_photo(PHOTO.astype(np.uint16) * 257))
    data, body = (tmp_path / "a.png").read_bytes(), b"tEXtTitle\0late"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk + data[-12:])
    photo = read_photo(tmp_path / "a.png")
    assert dict(photo.texts) == {"Title": "late"} and photo.pixels.dtype == np.uint16


def test_text_moves_to_the_fields_of_other_formats(tmp_path):
    photo = read_photo(
        text_png(tmp_path / "a.png", Author="Jörg", Copyright="mine", Comment="hello", Description="cap")
    )
    for suffix in ("tif", "jpg"):
        write_photo(tmp_path / f"b.{suffix}", photo, CREDIT)
        data = (tmp_path / f"b.{suffix}").read_bytes()
        assert all(text.encode() in data for text in ("Jörg", "mine", "cap"))
    assert dict(read_photo(tmp_path / "b.jpg").texts) == {"Comment": "hello"}


def test_the_comment_of_a_jpeg_is_kept(tmp_path):
    pillow_file(tmp_path / "a.jpg", comment="häuser".encode())
    for suffix in ("jpg", "png"):
        write_photo(tmp_path / f"b.{suffix}", read_photo(tmp_path / "a.jpg"))
        assert dict(read_photo(tmp_path / f"b.{suffix}").texts) == {"Comment": "häuser"}


def test_a_scene_keeps_resolution_and_text_of_the_target(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "t")
    pillow_file(tmp_path / "a.png", dpi=(300, 300), pnginfo=info)
    for scene in (Scene([], tmp_path / "a.png", HOLE), Scene.outpaint([], tmp_path / "a.png", left=9)):
        filled = scene.original.filled(scene.mask, scene.original.pixels[scene.mask])
        assert filled.resolution.per(0.0254) == pytest.approx((300, 300), rel=1e-4) and filled.texts == {"Title": "t"}
    scene.save(tmp_path / "scene")
    assert Scene.load(tmp_path / "scene").original.texts == {"Title": "t"}
