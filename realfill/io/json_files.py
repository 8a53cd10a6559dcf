"""JSON from anywhere: its size is checked before it is read, and every damage is one ``ValueError``."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 32_000_000
_MAX_DEPTH = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half of a character, which no file can hold


def read_json(path: Path, *, any_name: bool = False) -> Any:
    """Read a JSON file in UTF-8.

    Args:
        path: the file.
        any_name: allow text that is no Unicode, as file names of other systems are.

    Raises:
        OSError: it is missing, or no regular file, or cannot be read.
        ValueError: it is larger than 32 MB, holds no JSON, is nested more than 64 levels deep, or holds text that
            cannot be written.
    """
    if path.exists() and not path.is_file():  # reading a pipe or a device would wait for ever
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ValueError(f"it has {size / 1e6:.0f} MB; legal: up to {MAX_JSON_BYTES / 1e6:.0f} MB")
    return parse_json(path.read_text(encoding="utf-8"), any_name=any_name)


def parse_json(text: str, *, any_name: bool = False) -> Any:
    """Parse JSON; see ``read_json``.

    Raises:
        ValueError: see ``read_json``.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    if _is_deeper(value, _MAX_DEPTH):
        raise _too_deep()
    if not any_name and _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half of a character, which is no text") from None
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        nested = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [child for children in nested for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
