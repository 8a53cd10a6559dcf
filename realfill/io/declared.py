"""The size that a file declares, for formats that OpenCV decodes and Pillow does not know.

OpenCV itself takes memory for up to a billion pixels before it finds out that a file is damaged.
"""

from __future__ import annotations

import io
import re
import struct
from typing import Any

import tifffile

_PFM = re.compile(rb"P[Ff]\s+(\d{1,9})\s+(\d{1,9})\s")
_PORTABLE = re.compile(rb"P[1-6]\s(?:#[^\n]*\n|\s)*(\d{1,9})\s+(\d{1,9})\s")
_RADIANCE = re.compile(rb"\n[-+]Y (\d{1,9}) [-+]X (\d{1,9})\n")
_SUN_RASTER = b"\x59\xa6\x6a\x95"
_HEAD_BYTES = 4096


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return the (height, width) that the head of a TIFF, PFM, portable, Radiance or Sun raster file declares.

    Returns:
        ``None`` for other files.

    Raises:
        tifffile.TiffFileError: a TIFF is damaged.
    """
    head = data[:_HEAD_BYTES]
    if head[:4] in (b"II*\0", b"MM\0*"):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages[0]
            return page.imagelength * page.imagedepth, page.imagewidth * page.samplesperpixel
    if head[:4] == _SUN_RASTER:
        width, height = struct.unpack(">II", head[4:12])
        return height, width
    if head[:2] == b"#?" and (match := _RADIANCE.search(head)):
        return int(match[1]), int(match[2])
    match = _PFM.match(head) or _PORTABLE.match(head)
    return None if match is None else (int(match[2]), int(match[1]))
