import json
import os

import pytest

from realfill.io import json_files
from realfill.io.json_files import parse_json, read_json

DEEP = ("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "[" * 80 + "]" * 80)


@pytest.mark.parametrize("text", DEEP, ids=["brackets", "objects", "80 brackets"])
def test_deep_json_is_refused_in_a_line(text):
    with pytest.raises(ValueError, match="nested more than 64 levels"):
        parse_json(text)


def test_sixty_four_levels_are_read():
    assert parse_json("[" * 64 + "]" * 64)


@pytest.mark.parametrize("data", [b"\xff\xfe{\0}\0", b"\x80", b"{", b"", b"1" * 5000, b'"\\ud800"'])
def test_what_is_no_json_is_a_value_error(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError):
        read_json(tmp_path / "a.json")


def test_file_names_of_other_systems_are_read_if_asked_for(tmp_path):
    name = os.fsdecode(b"a\xff.png")
    (tmp_path / "a.json").write_text(json.dumps([name]))
    assert read_json(tmp_path / "a.json", any_name=True) == [name]


def test_the_size_is_checked_before_a_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_JSON_BYTES", 1_000_000)
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2_000_000)  # takes no space on the disk
    with pytest.raises(ValueError, match="it has 2 MB; legal: up to 1 MB"):
        read_json(tmp_path / "a.json")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(OSError, match="no regular file"):
        read_json(tmp_path / "a.json")
