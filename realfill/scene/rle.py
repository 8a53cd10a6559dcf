"""COCO's run-length encoding of masks, in its plain and its compressed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realfill.errors import SceneError
from realfill.io.images import MaskArray


def decode_rle(counts: str | Sequence[int], size: tuple[int, int]) -> MaskArray:
    """Decode the lengths of runs of False and True in turn, column by column.

    Args:
        counts: the lengths, beginning with False; or COCO's compressed text of them.
        size: (height, width).

    Raises:
        SceneError: the runs do not cover the image exactly.
    """
    runs = _uncompressed(counts) if isinstance(counts, str) else [int(n) for n in counts]
    if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
        raise SceneError(f"a run-length encoding has {sum(runs)} pixels; legal: {size[1]} x {size[0]} as its size says")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(values.reshape(size[1], size[0]).T)


def _uncompressed(text: str) -> list[int]:
    """Read numbers of five bits a character, each from the fourth on as a difference to the one before the last."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place >= len(text):
                raise SceneError("a compressed run-length encoding ends within a number; is the file complete?")
            code = ord(text[place]) - 48
            value |= (code & 0x1F) << shift
            more, place, shift = bool(code & 0x20), place + 1, shift + 5
            if not more and code & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
