"""COCO's run-length encoding of masks, in its plain and its compressed form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from realfill.errors import SceneError
from realfill.io.images import MaskArray

_MAX_SHIFT = 60  # a number has at most 13 characters


def decode_rle(counts: str | Sequence[int], size: tuple[int, int]) -> MaskArray:
    """Decode the lengths of runs of False and True in turn, column by column.

    Args:
        counts: the lengths, beginning with False; or COCO's compressed text of them.
        size: (height, width).

    Raises:
        SceneError: the runs do not cover the image exactly.
    """
    return decode_rles([counts], size)


def decode_rles(encodings: Iterable[str | Sequence[int]], size: tuple[int, int]) -> MaskArray:
    """Decode run-length encodings and join them, in time that hardly depends on their number; see ``decode_rle``."""
    steps = np.zeros(size[0] * size[1] + 1, np.int32)  # +1 where a run of True begins, -1 where it ends
    for counts in encodings:
        runs = _uncompressed(counts) if isinstance(counts, str) else [int(n) for n in counts]
        if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
            raise SceneError(
                f"a run-length encoding has {sum(runs)} pixels; legal: {size[1]} x {size[0]} as its size says"
            )
        ends = np.cumsum(runs)
        np.add.at(steps, ends[:-1:2], 1)
        np.add.at(steps, ends[1::2], -1)
    return np.ascontiguousarray((np.cumsum(steps)[:-1] > 0).reshape(size[1], size[0]).T)


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
            if not 0 <= code < 64 or shift > _MAX_SHIFT:
                raise SceneError("a compressed run-length encoding holds other characters or too large a number")
            value |= (code & 0x1F) << shift
            more, place, shift = bool(code & 0x20), place + 1, shift + 5
            if not more and code & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
