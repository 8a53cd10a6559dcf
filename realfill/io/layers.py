"""Layered files in the OpenRaster format, which GIMP, Krita and other editors open."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from xml.sax.saxutils import quoteattr

from realfill.io.files import whole_file
from realfill.io.images import fit_within, resize
from realfill.io.metadata import Credit
from realfill.io.photos import Photo
from realfill.io.writing import encode_png

_THUMBNAIL_PX = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A layer: a picture at a position on the canvas.

    Attributes:
        name: the name that the editor shows.
        photo: the picture, with transparency.
        offset: (x, y) of the upper left pixel on the canvas.
        visible: whether the layer is visible when the file is opened.
    """

    name: str
    photo: Photo
    offset: tuple[int, int] = (0, 0)
    visible: bool = True


def write_layers(path: str | PathLike[str], layers: Iterable[Layer], merged: Photo, credit: Credit) -> None:
    """Write an OpenRaster file (openraster.org): a zip archive of PNGs and an index.

    Args:
        path: the file, which should end in ``.ora``.
        layers: the layers, topmost first; the iterable is consumed one layer at a time.
        merged: the picture that the visible layers show together, for programs that know no layers.
        credit: a statement of who made the picture.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    height, width = merged.pixels.shape[:2]
    index = []
    image = merged.srgb()
    thumbnail = resize(image, fit_within(image.shape[:2], _THUMBNAIL_PX))
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        archive.writestr("mimetype", "image/openraster")  # the format wants it first and uncompressed
        for i, layer in enumerate(layers):
            _add(archive, f"data/layer{i}.png", layer.photo, None)
            x, y = layer.offset
            visibility = "visible" if layer.visible else "hidden"
            attributes = f'src="data/layer{i}.png" x="{x}" y="{y}" visibility="{visibility}"'
            index.append(f"<layer name={quoteattr(layer.name)} {attributes}/>")
        stack = f'<image version="0.0.3" w="{width}" h="{height}"><stack>{"".join(index)}</stack></image>'
        archive.writestr("stack.xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{stack}\n')
        _add(archive, "mergedimage.png", merged, credit)
        _add(archive, "Thumbnails/thumbnail.png", Photo(pixels=thumbnail), None)


def _add(archive: zipfile.ZipFile, name: str, photo: Photo, credit: Credit | None) -> None:
    buffer = io.BytesIO()
    encode_png(buffer, photo, credit)
    archive.writestr(name, buffer.getvalue())
