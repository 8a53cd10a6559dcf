"""Written files: exact values, profile, EXIF and credit; layered files."""

import io
import itertools
import struct
import zipfile
from dataclasses import replace
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
import tifffile
from helpers import make_photo, make_profile
from PIL import Image

from realfill.errors import RealFillWarning
from realfill.io import writing
from realfill.io.images import read_image, read_photo
from realfill.io.layers import Layer, write_layers
from realfill.io.metadata import Credit, read_provenance
from realfill.io.photos import Photo
from realfill.io.writing import write_photo, write_png

CREDIT = Credit(software="realfill 1", description='a <"façade"> & more', provenance={"seed": 3, "x": 'q"<&é\n'})
KINDS = list(itertools.product([np.uint8, np.uint16], [1, 3], [False, True]))


def make(dtype, channels, alpha, size=(61, 47), **more):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, np.iinfo(dtype).max, (*size, 4), dtype, endpoint=True)
    return Photo(pixels=noise[:, :, :channels].copy(), alpha=noise[:, :, 3].copy() if alpha else None, **more)


def camera_exif():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x010E], exif[0x011A] = 6, "Maker", "my caption", 300.0
    exif[0x8769] = {0x829D: 2.8, 0x927C: b"a preview may hide here", 0xA002: 999, 0x9003: "2024:01:02 03:04:05"}
    exif[0x8825] = {1: "N", 2: (51.0, 30.0, 0.0)}
    return exif


def equal(a, b):
    same_pixels = a.pixels.dtype == b.pixels.dtype and np.array_equal(a.pixels, b.pixels)
    return same_pixels and (a.alpha is b.alpha is None or np.array_equal(a.alpha, b.alpha))


@pytest.fixture(autouse=True)
def narrow_bands(monkeypatch):
    monkeypatch.setattr(writing, "_BAND_BYTES", 1000)  # several bands in small pictures


@pytest.mark.parametrize(("dtype", "channels", "alpha"), KINDS)
def test_png_is_read_back_exactly(dtype, channels, alpha, tmp_path):
    photo = make(dtype, channels, alpha)
    write_photo(tmp_path / "a.png", photo, CREDIT)
    assert equal(read_photo(tmp_path / "a.png"), photo)
    stored = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == dtype and np.array_equal(stored.reshape(61, 47, -1)[:, :, 0], photo.pixels[:, :, -1])


@pytest.mark.parametrize(("dtype", "channels", "alpha"), KINDS)
@pytest.mark.parametrize("suffix", ["tif", "TIFF"])
def test_tiff_is_read_back_exactly(dtype, channels, alpha, suffix, tmp_path):
    photo = make(dtype, channels, alpha)
    path = tmp_path / f"a.{suffix}"
    write_photo(path, photo, CREDIT)
    with tifffile.TiffFile(path) as opened:
        page = opened.pages[0]
        assert page.bitspersample == 8 * photo.pixels.itemsize and page.samplesperpixel == channels + alpha
        assert page.predictor == 2 and len(page.dataoffsets) > 1
    assert equal(read_photo(path), photo)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_profile_and_exif_are_kept_without_rotation_and_previews(suffix, dtype, tmp_path):
    source = Image.fromarray(make_photo(47, 61))
    source.save(tmp_path / "source.jpg", exif=camera_exif(), icc_profile=make_profile())
    read = read_photo(tmp_path / "source.jpg")
    photo = make(dtype, 3, False, exif=read.exif, icc_profile=read.icc_profile)
    write_photo(tmp_path / f"a.{suffix}", photo, CREDIT)
    assert read_photo(tmp_path / f"a.{suffix}").icc_profile == make_profile()
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        exif = stored.getexif()
        inner, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        data = (tmp_path / f"a.{suffix}").read_bytes()
    assert (exif[0x0112], exif[0x010F], exif[0x010E], exif[0x011A]) == (1, "Maker", "my caption", 300)
    assert (inner[0x829D], inner[0x9003]) == (2.8, "2024:01:02 03:04:05")
    assert (inner[0xA002], inner[0xA003]) == (47, 61)
    assert place[2] == (51, 30, 0)
    assert b"a preview may hide here" not in data


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_exif_text_outside_of_ascii_is_kept_byte_by_byte(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x013B], exif[0x8298] = "Jorg Muller", "(c) 2024"
    exif[0x8769] = {0xA430: "Andre"}
    data = exif.tobytes()  # as cameras write it: UTF-8 in fields for ASCII, here of the same length
    for plain, real in ((b"Jorg Muller", "Jörg Müll"), (b"(c) 2024", "© 2024+"), (b"Andre", "Andé")):
        assert data.count(plain) == 1 and len(plain) == len(real.encode())
        data = data.replace(plain, real.encode())
    Image.fromarray(make_photo(47, 61)).save(tmp_path / "source.jpg", exif=data)
    photo = read_photo(tmp_path / "source.jpg")
    for _ in range(2):  # what was written is read and written again
        write_photo(tmp_path / f"a.{suffix}", photo, CREDIT)
        photo = read_photo(tmp_path / f"a.{suffix}")
    written = (tmp_path / f"a.{suffix}").read_bytes()
    assert all(text.encode() in written for text in ("Jörg Müll", "© 2024+", "Andé"))
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        owner = stored.getexif().get_ifd(0x8769)[0xA430]
    assert isinstance(owner, str) and owner.encode("latin-1").decode() == "Andé"  # stored with the EXIF type for text


def test_metadata_too_long_for_a_jpeg_is_left_out_with_a_warning(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x8769] = {0x9286: b"ASCII\0\0\0" + b"x" * 70_000}
    photo = make(np.uint8, 3, False, exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    credit = replace(CREDIT, provenance={"seed": 3, "score": 0.5, "history": "y" * 70_000})
    with pytest.warns(RealFillWarning) as caught:
        write_photo(tmp_path / "a.jpg", photo, credit)
    assert [str(w.message).split(" is too long")[0] for w in caught] == ["the target's EXIF", "the provenance"]
    with Image.open(tmp_path / "a.jpg") as stored:
        assert not stored.getexif()
        assert CREDIT.software in stored.info["xmp"].decode()
    assert read_provenance(tmp_path / "a.jpg") == {"seed": 3, "score": 0.5}
    write_photo(tmp_path / "a.png", photo, credit)
    assert read_provenance(tmp_path / "a.png") == credit.provenance


def test_a_panorama_too_long_for_a_jpeg_is_refused_with_an_alternative(tmp_path):
    with pytest.raises(ValueError, match="at most 65500 pixels a side; save a PNG or TIFF"):
        write_photo(tmp_path / "a.jpg", Photo(pixels=np.zeros((1, 65_501, 3), np.uint8)))


def test_the_thumbnail_is_dropped(tmp_path):
    thumbnail = io.BytesIO()
    Image.fromarray(make_photo(16, 16)).save(thumbnail, "JPEG")
    body = bytearray(camera_exif().tobytes()[6:])  # big-endian TIFF: a second directory holds the thumbnail
    (count,) = struct.unpack(">H", body[8:10])
    struct.pack_into(">I", body, 10 + 12 * count, len(body))
    body += struct.pack(">HHHIIHHIII", 2, 0x201, 4, 1, len(body) + 30, 0x202, 4, 1, len(thumbnail.getvalue()), 0)
    exif = b"Exif\0\0" + bytes(body) + thumbnail.getvalue()
    Image.fromarray(make_photo(47, 61)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert thumbnail.getvalue() in stored.info["exif"]
    kept = read_photo(tmp_path / "a.jpg").exif
    assert kept is not None and thumbnail.getvalue()[:100] not in kept and len(kept) < 400


def test_a_photo_without_exif_gets_none(tmp_path):
    for suffix in ("png", "jpg"):
        write_photo(tmp_path / f"a.{suffix}", make(np.uint8, 3, False))
        with Image.open(tmp_path / f"a.{suffix}") as stored:
            assert not stored.getexif() and "icc_profile" not in stored.info and "xmp" not in stored.info


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_every_format_states_that_a_model_completed_the_photo(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    write_photo(path, make(np.uint8, 3, False), CREDIT)
    with Image.open(path) as stored:
        xmp = stored.info["xmp"]
    root = ET.fromstring(xmp)
    text = ET.tostring(root, encoding="unicode")
    assert "compositeWithTrainedAlgorithmicMedia" in text and root.find(".//{*}li").text == CREDIT.description
    assert read_provenance(path) == CREDIT.provenance


def test_other_files_have_no_provenance(tmp_path):
    Image.fromarray(make_photo(20, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    write_photo(tmp_path / "c.tif", make(np.uint8, 3, False))
    assert [read_provenance(tmp_path / n) for n in ("a.png", "b.png", "c.tif", "none.png")] == [{}] * 4


@pytest.mark.filterwarnings("ignore:a JPEG cannot be transparent:realfill.errors.RealFillWarning")
@pytest.mark.parametrize("photo", [make(np.uint16, 3, True), make(np.uint8, 1, False)])
def test_jpeg_comes_close(photo, tmp_path):
    smooth = Photo(pixels=cv2.GaussianBlur(photo.pixels, (0, 0), 4).reshape(photo.pixels.shape), alpha=photo.alpha)
    write_photo(tmp_path / "a.jpg", smooth)
    error = np.abs(read_image(tmp_path / "a.jpg")[0].astype(int) - smooth.srgb())
    assert 0 < error.mean() < 2
    write_photo(tmp_path / "b.jpg", smooth, quality=10)
    assert (tmp_path / "b.jpg").stat().st_size < (tmp_path / "a.jpg").stat().st_size


def test_other_suffixes_and_qualities_are_refused(tmp_path):
    photo = make(np.uint8, 3, False)
    with pytest.raises(ValueError, match=r"a\.bmp.*legal: .*\.png"):
        write_photo(tmp_path / "a.bmp", photo)
    with pytest.raises(ValueError, match="quality is 0; legal: from 1 to 100"):
        write_photo(tmp_path / "a.jpg", photo, quality=0)
    with pytest.raises(ValueError, match=r"a\.jpg.*legal: .*\.png"):
        write_png(tmp_path / "a.jpg", photo.pixels)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_no_partial_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_text("precious")
    monkeypatch.setattr(writing, "_filter_average", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_photo(tmp_path / "a.png", make(np.uint8, 3, False))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.png", "precious")]


def test_a_plain_png_holds_the_exact_pixels(tmp_path):
    image = make_photo(21, 33)
    write_png(tmp_path / "a.PNG", image)
    assert np.array_equal(read_image(tmp_path / "a.PNG")[0], image)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1)])
def test_lines_and_single_pixels_are_written(size, tmp_path):
    photo = make(np.uint16, 3, False, size)
    for suffix in ("png", "tif"):
        write_photo(tmp_path / f"a.{suffix}", photo)
        assert equal(read_photo(tmp_path / f"a.{suffix}"), photo)


def test_layers_are_an_openraster_file(tmp_path):
    patch, base = make(np.uint16, 3, True, (10, 20)), make(np.uint16, 3, False)
    layers = (Layer(name='s & "3"', photo=patch, offset=(5, 7)), Layer(name="b", photo=base, visible=False))
    write_layers(tmp_path / "a.ora", iter(layers), base, CREDIT)
    with zipfile.ZipFile(tmp_path / "a.ora") as archive:
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
        assert archive.read("mimetype") == b"image/openraster"
        root = ET.fromstring(archive.read("stack.xml"))
        archive.extractall(tmp_path)
    assert (root.get("w"), root.get("h")) == ("47", "61")
    attributes = [[node.get(k) for k in ("name", "src", "x", "y", "visibility")] for node in root.find("stack")]
    assert attributes[0] == ['s & "3"', "data/layer0.png", "5", "7", "visible"]
    assert attributes[1] == ["b", "data/layer1.png", "0", "0", "hidden"]
    assert equal(read_photo(tmp_path / "data/layer0.png"), patch)
    assert equal(read_photo(tmp_path / "data/layer1.png"), base)
    assert equal(read_photo(tmp_path / "mergedimage.png"), base)
    with Image.open(tmp_path / "mergedimage.png") as merged:
        assert "façade" in merged.text["Description"]
    assert max(read_image(tmp_path / "Thumbnails/thumbnail.png")[0].shape) <= 256
