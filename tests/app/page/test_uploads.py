"""Photos are checked before they are decoded, and kept under names of the page's own."""

import asyncio
import struct
import zlib

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill.app.page import uploads
from realfill.app.page.holes import save_hole
from realfill.app.page.records import RefusedError
from realfill.app.page.uploads import drop_reference, keep_photo, photo_path, receive
from realfill.app.page.visits import Visits


@pytest.fixture
def visit(tmp_path):
    return Visits(tmp_path / "visits").find(Visits.new_key())


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "received"
    Image.fromarray(make_photo(48, 64, 0)).save(path, format="PNG")
    return path


def png_header(width, height):
    """The start of a PNG of any size, with hardly a pixel."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"x")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


async def in_chunks(*chunks):
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd.png", "C:\\x\\y.png", "/root/.bashrc", "a\x00b\n.png", "", "ü" * 500]
)
def test_the_name_of_a_file_never_becomes_a_path(visit, photo, tmp_path, name):
    upload = keep_photo(visit, photo, "target", name)
    assert upload.file == "1.png" and photo_path(visit, upload).parent == visit.folder / "photos"
    assert {path.name for path in (visit.folder / "photos").iterdir()} == {"1.png", "1.thumb.jpg", "preview.png"}
    assert upload.name and len(upload.name) <= 80 and upload.name.isprintable()
    assert not photo.exists()


def test_the_stored_photo_is_the_file_that_was_sent(visit, photo):
    sent = photo.read_bytes()
    upload = keep_photo(visit, photo, "reference", "x.jpg")
    assert photo_path(visit, upload).read_bytes() == sent and upload.size == (48, 64)


def test_the_format_is_found_by_content(visit, tmp_path):
    path = tmp_path / "received"
    Image.fromarray(make_photo(48, 64, 0)).save(path, format="JPEG")
    assert keep_photo(visit, path, "target", "holiday.png").file == "1.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, I am a text", "no image in a known format"),
        (png_header(40_000, 40_000), "too many pixels"),
        (png_header(12_000, 12_000), "too many pixels"),
        (png_header(16, 400), "at least 32"),
        (png_header(64, 64), "cannot be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "no image in a known format"),
    ],
)
def test_what_is_no_usable_photo_is_refused_in_a_sentence(visit, tmp_path, content, message):
    path = tmp_path / "received"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=message) as error:
        keep_photo(visit, path, "target", "photo.png")
    assert str(tmp_path) not in str(error.value)
    assert visit.target is None


def test_a_photo_of_too_many_pixels_is_never_decoded(visit, tmp_path, monkeypatch):
    path = tmp_path / "received"
    path.write_bytes(png_header(11_000, 11_000))
    monkeypatch.setattr(uploads, "read_image", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(RefusedError, match="too many pixels"):
        keep_photo(visit, path, "target", "photo.png")


def test_a_truncated_photo_is_refused(visit, photo):
    photo.write_bytes(photo.read_bytes()[:-200])
    with pytest.raises(RefusedError, match="is the file complete"):
        keep_photo(visit, photo, "target", "photo.png")


def test_the_number_of_references_is_bounded(visit, photo, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_REFERENCES", 1)
    sent = photo.read_bytes()
    keep_photo(visit, photo, "reference", "a")
    photo.write_bytes(sent)
    with pytest.raises(RefusedError, match="1 references already"):
        keep_photo(visit, photo, "reference", "b")
    drop_reference(visit, visit.references[0].file)
    keep_photo(visit, photo, "reference", "b")
    assert [upload.name for upload in visit.references] == ["b"]


def test_another_target_ends_what_was_marked_on_the_first(visit, photo):
    sent = photo.read_bytes()
    first = keep_photo(visit, photo, "target", "a")
    save_hole(visit, np.ones((48, 64), bool))
    version = visit.mask_version
    photo.write_bytes(sent)
    second = keep_photo(visit, photo, "target", "b")
    assert first.file != second.file and not photo_path(visit, first).exists()
    assert visit.mask_version != version and not (visit.folder / "mask.png").exists()


@pytest.mark.parametrize("announced", [None, 5])
def test_a_body_that_is_too_large_is_cut_off(tmp_path, announced):
    path, read = tmp_path / "body", []

    async def endless():
        while True:
            read.append(1)
            yield b"x" * 10

    with pytest.raises(RefusedError, match="too large"):
        asyncio.run(receive(endless(), path, announced=announced, limit=95))
    assert len(read) == 10


def test_a_body_that_announces_too_much_is_not_read(tmp_path):
    with pytest.raises(RefusedError, match="too large"):
        asyncio.run(receive(in_chunks(b"x"), tmp_path / "body", announced=96, limit=95))
    assert not (tmp_path / "body").exists()


def test_an_empty_body_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="empty"):
        asyncio.run(receive(in_chunks(), tmp_path / "body", announced=0))
