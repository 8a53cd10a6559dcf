"""What a file tells beside its pixels: EXIF that may travel on, and XMP that says what a model did."""

from __future__ import annotations

import html
import json
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from PIL import ExifTags, Image, UnidentifiedImageError

_BASE, _IFD = ExifTags.Base, ExifTags.IFD
_KEPT = (  # what describes the photo; the rest describes how a file stores it
    _BASE.ImageDescription, _BASE.Make, _BASE.Model, _BASE.XResolution, _BASE.YResolution, _BASE.ResolutionUnit,
    _BASE.Software, _BASE.DateTime, _BASE.Artist, _BASE.HostComputer, _BASE.Copyright, _BASE.Rating,
    _BASE.XPTitle, _BASE.XPComment, _BASE.XPAuthor, _BASE.XPKeywords, _BASE.XPSubject,
)  # fmt: skip
_DROPPED = (_BASE.MakerNote, _BASE.ExifImageWidth, _BASE.ExifImageHeight, _BASE.ExifInteroperabilityOffset)
_MALFORMED = (struct.error, ValueError, TypeError, KeyError, AttributeError, OverflowError, SyntaxError, OSError)
_DIGITAL_SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:realfill="urn:realfill:1.0/"
 Iptc4xmpExt:DigitalSourceType="{source}" xmp:CreatorTool="{software}" realfill:provenance="{provenance}">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
_PROVENANCE = re.compile(r'realfill:provenance="([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Who made a picture: written into the file, so that nobody takes it for a photo.

    Attributes:
        software: the program.
        description: a sentence that says that a model completed a part.
        provenance: what it was made with; plain JSON values.
        whole: all of the picture is the model's, not a part.
    """

    software: str
    description: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False

    def json(self) -> str:
        """Write the provenance as JSON."""
        return json.dumps(dict(self.provenance))

    def xmp(self) -> str:
        """Write an XMP packet with IPTC's digital source type for what a trained model made, or completed a part of."""
        values = {"software": self.software, "description": self.description, "provenance": self.json()}
        source = "trainedAlgorithmicMedia" if self.whole else "compositeWithTrainedAlgorithmicMedia"
        return _XMP.format(
            source=_DIGITAL_SOURCES + source, **{k: escape(v, {'"': "&quot;"}) for k, v in values.items()}
        )


def read_provenance(path: str | PathLike[str]) -> dict[str, Any]:
    """Read back what ``Credit.xmp`` wrote into a PNG, TIFF or JPEG; empty where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(Path(path)) as image:
                xmp = image.info.get("xmp", b"")
        text = xmp.decode("utf-8") if isinstance(xmp, bytes) else str(xmp)
        found = _PROVENANCE.search(text)
        values = json.loads(html.unescape(found[1])) if found else {}
    except (UnidentifiedImageError, *_MALFORMED):
        return {}
    return values if isinstance(values, dict) else {}


def clean_exif(source: Image.Image | bytes) -> bytes | None:
    """Take the EXIF of an image, or of a TIFF's bytes, that may travel on to another picture of the same shot.

    Rotation goes, since reading undoes it; so do the thumbnail and the maker's notes, which may show what a hole hides,
    and everything that describes how the file was stored.

    Returns:
        EXIF as PNG and JPEG hold it, without the ``Exif`` marker; ``None`` where there is none or it is malformed.
    """
    try:
        exif, kept = Image.Exif(), Image.Exif()
        if isinstance(source, bytes):
            exif.load(source)
        else:
            exif = source.getexif()
        for tag in _KEPT:
            if tag in exif:
                kept[tag] = _as_stored(exif[tag])
        for group in (_IFD.Exif, _IFD.GPSInfo):
            values = exif.get_ifd(group).items()
            found = {t: _as_stored(v) for t, v in values if group != _IFD.Exif or t not in _DROPPED}
            if found:
                kept[group] = found
        return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None
    except _MALFORMED:
        return None


def exif_of_size(exif: bytes | None, size: tuple[int, int]) -> Image.Exif:
    """Open kept EXIF for a picture of a size (height, width) that is stored upright."""
    opened = Image.Exif()
    if exif:
        opened.load(b"Exif\0\0" + exif)
        groups = {}
        for group in (_IFD.Exif, _IFD.GPSInfo):
            if group in opened:
                groups[group] = {tag: _as_stored(value) for tag, value in opened.get_ifd(group).items()}
        for tag in _KEPT:
            if tag in opened:
                opened[tag] = _as_stored(opened[tag])
        opened[_BASE.Orientation] = 1
        groups.setdefault(_IFD.Exif, {}).update({_BASE.ExifImageWidth: size[1], _BASE.ExifImageHeight: size[0]})
        for group, values in groups.items():
            opened[group] = values
    return opened


class _Stored(str):
    """Text that Pillow reads as Latin-1, whatever it is, and that is written back as the same bytes."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:  # noqa: ARG002 - whatever is asked for
        return str.encode(self, "latin-1", "replace")


def _as_stored(value: Any) -> Any:
    """Keep text from being written with question marks where it isn't ASCII."""
    return _Stored(value) if isinstance(value, str) and not value.isascii() else value
