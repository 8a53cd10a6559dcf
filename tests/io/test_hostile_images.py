"""Images that declare too much, hold something else, or are damaged: one SceneError, and no memory is taken."""

import struct
import tracemalloc

import cv2
import numpy as np
import pytest
from garbage_planted import png, tiff

from realfill.errors import SceneError
from realfill.io.images import natural_key, read_photo
from realfill.io.metadata import read_provenance, read_texts
from realfill.io.recognition import find_fault, is_raw

BILLION = 100_000
OTHERS = {
    "float map": b"PF\n100000 100000\n-1.0\n",
    "Radiance": b"#?RADIANCE\n\n-Y 100000 +X 100000\n",
    "Sun raster": b"\x59\xa6\x6a\x95" + struct.pack(">7I", BILLION, BILLION, 24, 0, 1, 0, 0),
    "PNG": png(BILLION, BILLION),
    "PNG of 16 bits": png(BILLION, BILLION, depth=16),
    "TIFF": tiff(BILLION, BILLION),
    "grey TIFF of two samples": tiff(BILLION, BILLION, samples=2, bits=16),
    "TIFF of a great depth": tiff(64, 48, samples=2, bits=16, depth=1_000_000_000),
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(SceneError, match=r"the target: .*a\.png' (is too large|cannot be read|is not an image)"):
        read_photo(tmp_path / "a.png", "the target")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_postscript_is_not_run_whatever_its_name(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EOF\n")
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program is run"))
    with pytest.raises(SceneError, match="not an image in a known format"):
        read_photo(tmp_path / "a.png", "the target")


def test_a_float_map_within_the_limits_is_still_read(tmp_path):
    cv2.imwrite(str(tmp_path / "a.pfm"), np.full((40, 50, 3), 0.5, np.float32))
    assert read_photo(tmp_path / "a.pfm").pixels.shape == (40, 50, 3)


HEADS = (png(0, 48), tiff(0, 48), b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"GIF89a", b"BM")


@pytest.mark.parametrize("data", HEADS)
def test_damaged_heads_are_one_error(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SceneError):
        read_photo(tmp_path / "a.png")


def test_damage_is_not_written_about_to_standard_error(tmp_path, capfd):
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((64, 64, 3), np.uint16))
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:8] + data[200:])
    with pytest.raises(SceneError):
        read_photo(tmp_path / "a.tif")
    assert "[ERROR" not in capfd.readouterr().err


def test_recognising_a_huge_tiff_is_no_error(tmp_path):
    (tmp_path / "a").write_bytes(tiff(BILLION, BILLION))
    assert not is_raw(tmp_path / "a")
    find_fault(tmp_path / "a")
    assert read_provenance(tmp_path / "a") == {}


def test_a_name_with_a_superscript_is_sorted(tmp_path):
    assert natural_key(tmp_path / "1²") != natural_key(tmp_path / "12")


def test_text_with_many_long_words_is_searched_in_linear_time():
    class Png:
        format = "PNG"
        text = {"Comment": ("a" * 199 + "!") * 500, "Raw": "b" * 200}  # noqa: RUF012 - a stand-in

    assert list(read_texts(Png())) == ["Comment"]
