"""The files of results that browsers ask for: small pictures, the picture to compare with, and downloads."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from realfill.app.flow.results import Result
from realfill.io.files import whole_file
from realfill.io.images import ImageArray, fit_within, resize
from realfill.io.writing import write_png
from realfill.results.completion import Completion
from realfill.scene.scene import Scene

_THUMBNAIL_PX, _PREVIEW_PX = 320, 2048
_downloads = threading.Lock()  # one at a time, because each may take much memory


def draw_small_pictures(result: Result) -> None:
    """Write the small pictures of a new result, and give its memory back."""
    assert result.folder is not None
    completions = result.completions
    write_png(result.folder / "before.png", _before(completions.scene))
    for place, completion in enumerate(completions):
        with whole_file(result.folder / f"thumb-{place}.jpg") as partial:
            partial.write_bytes(encode_jpeg(_around_hole(completion), _THUMBNAIL_PX))
    result.unload()


def encode_jpeg(image: ImageArray, side_px: int = _PREVIEW_PX) -> bytes:
    """Encode an image (H, W, 3) uint8 as a JPEG, shrunk to a longer side."""
    small = resize(np.ascontiguousarray(image), fit_within((image.shape[0], image.shape[1]), side_px))
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(small)).save(stream, format="JPEG", quality=90)
    return stream.getvalue()


def save_download(result: Result, place: int, kind: str) -> Path:
    """Write a completion in the format of a suffix, once; return the file."""
    assert result.folder is not None
    path = result.folder / f"download-{place}.{kind}"
    with _downloads:
        if not path.is_file():
            with whole_file(path) as partial:
                named = partial.with_name(f"{partial.name}{path.suffix}")
                result.completions[place].save(named, overwrite=True)
                named.replace(partial)
            result.unload()
    return path


def _before(scene: Scene) -> ImageArray:
    """Return the target to compare with; pixels that were never photographed are grey."""
    image = scene.target.copy()
    if "outpaint" in scene.history or "redo" not in scene.history:
        blank = scene.mask & ~image.any(axis=2)
        image[blank] = 128
    return image


def _around_hole(completion: Completion) -> ImageArray:
    """Cut a result to its hole and as much around it."""
    rows, columns = (np.flatnonzero(completion.scene.mask.any(axis=axis)) for axis in (1, 0))
    height, width = completion.scene.mask.shape
    grow = max(rows[-1] - rows[0], columns[-1] - columns[0]) // 4 + 8
    top, bottom = max(0, rows[0] - grow), min(height, rows[-1] + grow)
    left, right = max(0, columns[0] - grow), min(width, columns[-1] + grow)
    return completion.image[top:bottom, left:right]
