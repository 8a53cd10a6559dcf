"""Random damages of files for ``garbage_study.py``."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

from garbage_inputs import Subject

Bytes = Callable[[bytes, random.Random], bytes]


def _place(data: bytes, rng: random.Random) -> int:
    """Choose a byte: half of the time in the header."""
    end = min(len(data), 600) if rng.random() < 0.5 else len(data)
    return rng.randrange(max(1, end))


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip 1 to 40 random bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 5, 40))):
        if changed:
            changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off."""
    return data[: _place(data, rng)]


def blank(data: bytes, rng: random.Random) -> bytes:
    """Set a range to zero, or to 255."""
    start = _place(data, rng)
    length = rng.choice((1, 4, 16, 300))
    return data[:start] + rng.choice((b"\0", b"\xff")) * len(data[start : start + length]) + data[start + length :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Insert random bytes."""
    start = _place(data, rng)
    return data[:start] + rng.randbytes(rng.choice((1, 3, 50))) + data[start:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """Repeat a range."""
    start = _place(data, rng)
    return data[:start] + data[start : start + rng.randrange(1, 200)] * 2 + data[start:]


def splice(other: bytes) -> Bytes:
    """Put the head of another file before the tail of this one."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        cut = rng.choice((4, 8, 32, 128))
        return other[:cut] + data[cut:]

    return mutate


def mend_png(data: bytes) -> bytes:
    """Correct the checksums of a damaged PNG, so that decoders go on to what is inside."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    place, parts = 8, [data[:8]]
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        parts.append(data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join(parts)


_GARBAGE_VALUES = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1", "0", "1e308", "1" + "0" * 400, "1" + "0" * 5000, '""', '"x"', "null",
    "true", "[]", "{}", "[[1]]", '"../../../etc/passwd"', '"/etc/passwd"', '"a\\nb\\u0000\\u202ec"', '{"a": {"b": 1}}',
    "[" * 500 + "]" * 500, "2147483648", "9223372036854775808", "0.5", '"\\ud800"', '"' + "y" * 5000 + '"',
)  # fmt: skip


def replace_value(data: bytes, rng: random.Random) -> bytes:
    """Replace one value of a JSON text by another, delete it, or add a key."""
    values = json.loads(data)
    places: list[tuple[Any, Any]] = []
    _collect(values, places)
    if not places:
        return rng.choice(_GARBAGE_VALUES).encode()
    holder, key = rng.choice(places)
    marker = "\ue000marker"
    if rng.random() < 0.2:
        del holder[key]
    elif isinstance(holder, dict) and rng.random() < 0.1:
        holder["../" + str(key)] = holder[key]
    else:
        holder[key] = marker
    return json.dumps(values).replace(json.dumps(marker), rng.choice(_GARBAGE_VALUES)).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items)[:60]:
        places.append((value, key))
        _collect(item, places)


def replace_header(data: bytes, rng: random.Random) -> bytes:
    """Replace a value in the header of a safetensors file, and correct the header's length."""
    (length,) = struct.unpack("<Q", data[:8])
    header = replace_value(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def mutate(subject: Subject, data: bytes, other: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Damage a file in one of the ways that suit it; return the name of the way and the result."""
    ways: dict[str, Bytes] = {
        "flipped": flip, "truncated": truncate, "blanked": blank, "inserted": insert, "repeated": repeat,
        "spliced": splice(other),
    }  # fmt: skip
    if subject.is_json:
        ways |= {f"value {i}": replace_value for i in range(6)}
    if subject.target.endswith(".safetensors"):
        ways |= {f"header {i}": replace_header for i in range(4)}
    if data[:4] == b"\x89PNG":
        ways |= {f"mended {f.__name__}": lambda d, r, f=f: mend_png(f(d, r)) for f in (flip, blank, repeat)}
    name = rng.choice(sorted(ways))
    return name, ways[name](data, rng)
