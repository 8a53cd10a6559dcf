"""The study itself: it notices tracebacks, code that runs, memory, the network and unclear errors."""

import random
import socket
import time
from pathlib import Path

import garbage_study
import numpy as np
import pytest
from garbage_mutations import mend_png, replace_header, replace_value
from garbage_planted import png
from garbage_study import Input, Outcome, markdown, run

from realfill.errors import SceneError


def fail(error):
    raise error


def take_memory(_):
    return f"{np.ones(700_000_000, np.uint8).sum()} {np.ones(700_000_000, np.uint8).sum()}"


def use_network(_):
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    except OSError:
        return "hidden"


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("right", lambda folder: "fine"),
        ("error", lambda folder: fail(SceneError("a line; legal: others"))),
        ("defect", lambda folder: fail(ValueError("a bug"))),
        ("defect", lambda folder: fail(SystemExit(0))),
        ("defect", lambda folder: Path("ran-code").touch()),
        ("defect", use_network),
    ],
)
def test_the_law(tmp_path, kind, read):
    assert run(Input(name="x", make=lambda folder: None, read=read), tmp_path).kind == kind


def test_memory_beyond_the_declared_size_is_a_defect(tmp_path, monkeypatch):
    monkeypatch.setattr(garbage_study, "_MAX_BYTES", 1 << 29)
    assert run(Input(name="x", make=lambda folder: None, read=take_memory), tmp_path).kind == "defect"


def test_time_beyond_the_limit_is_a_defect(tmp_path, monkeypatch):
    monkeypatch.setattr(garbage_study, "_MAX_S", 0.1)
    outcome = run(Input(name="x", make=lambda folder: None, read=lambda folder: time.sleep(9)), tmp_path)
    assert (outcome.kind, outcome.seconds < 5) == ("defect", True)


def test_mutations_keep_what_later_decoders_need():
    damaged = bytearray(png(8, 8))
    damaged[20] ^= 1
    assert mend_png(bytes(damaged)) != bytes(damaged)
    assert mend_png(png(8, 8)) == png(8, 8)
    changed = replace_value(b'{"a": {"b": 1}, "c": [2]}', random.Random(3))
    assert changed != b'{"a": {"b": 1}, "c": [2]}'
    header = replace_header(b"\x0c\0\0\0\0\0\0\0" + b'{"a": "bcd"}' + b"data", random.Random(0))
    assert header.endswith(b"data") and int.from_bytes(header[:8], "little") == len(header) - 12


def test_the_report_counts_and_lists_defects():
    outcomes = [
        Outcome(name="a", kind="right", line="", seconds=1.0, extra_bytes=5),
        Outcome(name="b", kind="defect", line="ValueError: x", seconds=0.5, extra_bytes=9_000_000),
    ]
    text = markdown(outcomes)
    assert "| 2 | 1 | 0 | 1 |" in text
    assert "Slowest: 1.0 CPU seconds (a)." in text and "9 MB (b)" in text and "- b: ValueError: x" in text
