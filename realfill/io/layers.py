"""Layers: an OpenRaster file, which GIMP, Krita and others open with every completion above the untouched original."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from xml.sax.saxutils import quoteattr

from realfill.io.images import fit_within, resize
from realfill.io.metadata import Credit
from realfill.io.photos import Photo
from realfill.io.writing import encode_png

_THUMBNAIL_PX = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A picture on a larger canvas.

    Attributes:
        name: as the editor shows it.
        photo: the picture, with transparency.
        offset: (x, y) of its first pixel on the canvas.
        visible: whether the editor shows it at first.
    """

    name: str
    photo: Photo
    offset: tuple[int, int] = (0, 0)
    visible: bool = True


def write_layers(path: str | PathLike[str], layers: Iterable[Layer], merged: Photo, credit: Credit) -> None:
    """Write an OpenRaster file (openraster.org): a zip of PNGs and their order.

    Args:
        path: where to; its suffix has to be ``.ora``.
        layers: the topmost first; taken one at a time.
        merged: what the visible ones show together, for programs that know no layers.
        credit: who made it.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    height, width = merged.pixels.shape[:2]
    lines = []
    small = merged.srgb()
    small = resize(small, fit_within(small.shape[:2], _THUMBNAIL_PX))
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            archive.writestr("mimetype", "image/openraster")  # first, and stored: how the format is known
            for i, layer in enumerate(layers):
                _add(archive, f"data/layer{i}.png", layer.photo, None)
                x, y = layer.offset
                visibility = "visible" if layer.visible else "hidden"
                place = f'src="data/layer{i}.png" x="{x}" y="{y}" visibility="{visibility}"'
                lines.append(f"<layer name={quoteattr(layer.name)} {place}/>")
            stack = f'<image version="0.0.3" w="{width}" h="{height}"><stack>{"".join(lines)}</stack></image>'
            archive.writestr("stack.xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{stack}\n')
            _add(archive, "mergedimage.png", merged, credit)
            _add(archive, "Thumbnails/thumbnail.png", Photo(pixels=small), None)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, name: str, photo: Photo, credit: Credit | None) -> None:
    buffer = io.BytesIO()
    encode_png(buffer, photo, credit)
    archive.writestr(name, buffer.getvalue())
