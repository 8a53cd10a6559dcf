"""Uploaded files are bounded before they are decoded, and their names never become paths."""

import struct
import zlib

import pytest
from helpers import make_photo

from realfill.app.flow.uploads import Uploads, check_photo
from realfill.errors import SceneError
from realfill.io.writing import write_png


def png_header(width, height):
    """The start of a PNG of any size, with hardly a pixel."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"x")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def test_uploads_are_bounded_and_their_names_never_become_paths(monkeypatch):
    uploads = Uploads()
    path = uploads.keep("../../etc/passwd.png", b"x")
    assert path.parent == uploads.folder and path.suffix == ".png" and "passwd" not in path.name
    assert uploads.keep("evil.sh", b"x").suffix == ""
    monkeypatch.setattr("realfill.app.flow.uploads.MAX_BYTES", 10)
    with pytest.raises(SceneError, match=r"'large\.png' has 0\.0 MB"):
        uploads.keep("large.png", bytes(11))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, I am a text", "no image in a known format"),
        (png_header(40_000, 40_000), "too many pixels"),
        (png_header(12_000, 12_000), "too many pixels"),
        (png_header(16, 400), "at least 32"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "no image in a known format"),
    ],
)
def test_a_photo_is_checked_before_anybody_decodes_it(content, message):
    uploads = Uploads()
    with pytest.raises(SceneError, match=message) as error:
        uploads.keep_photo("holiday", content)
    assert str(error.value).startswith("holiday: ") and str(uploads.folder) not in str(error.value)
    assert list(uploads.folder.iterdir()) == []


def test_the_format_is_found_by_content(tmp_path):
    write_png(tmp_path / "photo.png", make_photo(40, 40))
    (tmp_path / "photo.png").rename(tmp_path / "photo")
    assert check_photo(tmp_path / "photo") == ".png"
