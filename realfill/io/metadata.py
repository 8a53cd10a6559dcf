"""Metadata: the EXIF that a completion may keep, and XMP that states that a model made it."""

from __future__ import annotations

import html
import json
import math
import re
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias
from xml.sax.saxutils import escape

from PIL import ExifTags, Image, UnidentifiedImageError

from realfill.io.json_files import parse_json

_BASE, _IFD = ExifTags.Base, ExifTags.IFD
_KEPT = (  # tags that describe the photo; other tags describe the storage
    _BASE.ImageDescription, _BASE.Make, _BASE.Model, _BASE.XResolution, _BASE.YResolution, _BASE.ResolutionUnit,
    _BASE.Software, _BASE.DateTime, _BASE.Artist, _BASE.HostComputer, _BASE.Copyright, _BASE.Rating,
    _BASE.XPTitle, _BASE.XPComment, _BASE.XPAuthor, _BASE.XPKeywords, _BASE.XPSubject,
)  # fmt: skip
_DROPPED = (_BASE.MakerNote, _BASE.ExifImageWidth, _BASE.ExifImageHeight, _BASE.ExifInteroperabilityOffset)
_MALFORMED = (
    struct.error, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, SyntaxError, OSError, EOFError,
    RuntimeError, MemoryError, zlib.error,
)  # fmt: skip
_DIGITAL_SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:realfill="urn:realfill:1.0/"
 Iptc4xmpExt:DigitalSourceType="{source}" xmp:CreatorTool="{software}" realfill:provenance="{provenance}">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
INCH_M = 0.0254
_TIFF_UNITS = {2: INCH_M, 3: 0.01}
_MAX_RESOLUTION = 1e7  # pixels per unit; also fits into the integers of PNG
_XMP_KEY = "XML:com.adobe.xmp"
_PICTURE_KEYS = re.compile(r"xmp|raw profile|thumb|preview", re.IGNORECASE)
_WORD = r"[A-Za-z0-9+/=_-]"
_DATA = re.compile(rf"(?:{_WORD}{{40,}}+\s*+){{4}}|{_WORD}{{200}}|data:image", re.ASCII)  # hexadecimal or base64
_EXIF_OF_TEXT = {"Description": _BASE.ImageDescription, "Author": _BASE.Artist, "Copyright": _BASE.Copyright}
_FILM_DIAGONAL_MM = math.hypot(36, 24)  # of the film that FocalLengthIn35mmFilm refers to (CIPA DCG-001)
_FOCAL_PLANE_UNITS_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}
_FOCAL_RANGE = (0.1, 50.0)  # plausible focal lengths, as a share of the longer side
_PROVENANCE = re.compile(r'realfill:provenance="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Resolution:
    """The physical resolution of a photo.

    Attributes:
        x: pixels per unit of width.
        y: pixels per unit of height.
        unit_m: the unit in metres: 0.0254 for inches; ``None`` if only the ratio of ``x`` and ``y`` is known.
    """

    x: float
    y: float
    unit_m: float | None = INCH_M

    def per(self, unit_m: float) -> tuple[float, float]:
        """Convert to pixels per another unit."""
        factor = unit_m / (self.unit_m or unit_m)
        return self.x * factor, self.y * factor

    def turned(self) -> Resolution:
        """Swap width and height."""
        return Resolution(self.y, self.x, self.unit_m)


def read_resolution(image: Image.Image) -> Resolution | None:
    """Read the resolution from PNG, TIFF, JPEG and other files; ``None`` if the file states none."""
    info: Mapping[Any, Any] = image.info
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        values = (tags.get(_BASE.XResolution), tags.get(_BASE.YResolution))
        return resolution_of(*values, unit_m=_TIFF_UNITS.get(tags.get(_BASE.ResolutionUnit, 2)))
    if image.format == "JPEG" and "jfif_density" in info and (info["jfif_unit"] or info["jfif_density"] != (1, 1)):
        return resolution_of(*info["jfif_density"], unit_m={1: INCH_M, 2: 0.01}.get(info["jfif_unit"]))
    if image.format == "PNG" and "aspect" in info:
        return resolution_of(*info["aspect"], unit_m=None)
    if image.format == "PNG" and "dpi" in info:
        return resolution_of(*(round(n / INCH_M) for n in info["dpi"]), unit_m=1)
    return resolution_of(*info["dpi"], unit_m=INCH_M) if "dpi" in info else None


def resolution_of(x: Any, y: Any, *, unit_m: float | None) -> Resolution | None:
    """Make a resolution of the values in a file; ``None`` if they are missing or meaningless."""
    try:
        pair = [float(Fraction(*n)) if isinstance(n, tuple) else float(n) for n in (x, y)]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return Resolution(pair[0], pair[1], unit_m) if all(0 < n < _MAX_RESOLUTION for n in pair) else None


def read_texts(image: Any) -> dict[str, str]:
    """Read the text of a PNG and the comment of a JPEG.

    XMP, text that may hold a picture of what the hole hides (raw profiles, previews, encoded data), and the credit of
    an earlier completion are left out.
    """
    texts: dict[str, str] = {}
    if image.format == "PNG":
        texts = {str(key): str(value) for key, value in getattr(image, "text", {}).items()}
    elif image.format in ("JPEG", "MPO") and isinstance(image.info.get("comment"), bytes):
        data = image.info["comment"].rstrip(b"\0")
        try:
            texts = {"Comment": data.decode("utf-8")}
        except UnicodeDecodeError:
            texts = {"Comment": data.decode("latin-1")}
    dropped = {"realfill", "Software"} if "realfill" in texts else set()
    if "realfill" in texts and escape(texts.get("Description", "")) in texts.get(_XMP_KEY, ""):
        dropped.add("Description")  # else it is the photographer's
    return {k: v for k, v in texts.items() if k not in dropped and not _PICTURE_KEYS.search(k) and not _DATA.search(v)}


DigitalSource: TypeAlias = Literal[
    "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeCapture", "algorithmicallyEnhanced"
]
"""IPTC's digital source types: made by a trained model, composed with such parts, composed of photos alone, or altered
by an algorithm that was not trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """A statement in the file of how the picture or a part of it was made, so that nobody takes it for a photo.

    Attributes:
        software: the program.
        description: sentences that state where the pixels come from.
        provenance: base, configs and the like, as plain JSON values.
        source: IPTC's digital source type.
    """

    software: str
    description: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: DigitalSource = "compositeWithTrainedAlgorithmicMedia"

    def json(self) -> str:
        """Return the provenance as JSON."""
        return json.dumps(dict(self.provenance))

    def xmp(self) -> str:
        """Return an XMP packet with IPTC's digital source type."""
        values = {"software": self.software, "description": self.description, "provenance": self.json()}
        return _XMP.format(
            source=_DIGITAL_SOURCES + self.source, **{k: escape(v, {'"': "&quot;"}) for k, v in values.items()}
        )


def read_provenance(path: str | PathLike[str]) -> dict[str, Any]:
    """Read the provenance of a ``Credit`` from a PNG, TIFF or JPEG; empty if the file has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(Path(path)) as image:
                xmp = image.info.get("xmp", b"")
        text = xmp.decode("utf-8") if isinstance(xmp, bytes) else str(xmp)
        match = _PROVENANCE.search(text)
        values = parse_json(html.unescape(match[1])) if match else {}
    except (UnidentifiedImageError, Image.DecompressionBombError, *_MALFORMED):
        return {}
    return values if isinstance(values, dict) else {}


def clean_exif(source: Image.Image | bytes) -> bytes | None:
    """Extract the EXIF that a completion of the photo may keep.

    The rotation is dropped because reading undoes it. The thumbnail and the maker's notes are dropped because they may
    show what the hole hides, and tags about the storage because they do not apply to another file.

    Args:
        source: an image, or the bytes of a TIFF.

    Returns:
        EXIF in the form of PNG and JPEG, without the ``Exif`` marker; ``None`` if it is missing or malformed.
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
            tags = {t: _as_stored(v) for t, v in values if group != _IFD.Exif or t not in _DROPPED}
            if tags:
                kept[group] = tags
        return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None
    except _MALFORMED:
        return None


def read_focal(image: Image.Image) -> float | None:
    """Read the focal length from EXIF, in pixels of the image.

    It follows from the equivalent on 35 mm film, else from the focal length in millimetres and the resolution of the
    sensor. The value is wrong if the photo was cropped.

    Returns:
        ``None`` if EXIF states neither, or the value is not plausible.
    """
    try:
        tags = image.getexif().get_ifd(_IFD.Exif)
        film = float(tags.get(_BASE.FocalLengthIn35mmFilm) or 0)
        if film > 0:
            focal = film / _FILM_DIAGONAL_MM * math.hypot(*image.size)
        else:
            unit_mm = _FOCAL_PLANE_UNITS_MM[int(tags.get(_BASE.FocalPlaneResolutionUnit, 2))]
            sides = [float(tags.get(tag) or 0) for tag in (_BASE.ExifImageWidth, _BASE.ExifImageHeight)]
            resized = max(image.size) / max(sides) if max(sides) > 0 else 1.0
            focal = float(tags[_BASE.FocalLength]) * float(tags[_BASE.FocalPlaneXResolution]) / unit_mm * resized
    except _MALFORMED:
        return None
    low, high = (share * max(image.size) for share in _FOCAL_RANGE)
    return focal if low < focal < high else None


def exif_of_focal(focal_px: float, size: tuple[int, ...]) -> bytes:
    """Write a focal length as EXIF, as its equivalent on 35 mm film in whole millimetres, for an image (height, width).

    Returns:
        EXIF as ``clean_exif`` returns it.
    """
    exif = Image.Exif()
    film = focal_px / math.hypot(*size[:2]) * _FILM_DIAGONAL_MM
    exif[_IFD.Exif] = {_BASE.FocalLengthIn35mmFilm: max(1, min(round(film), 65535))}
    return exif.tobytes().removeprefix(b"Exif\0\0")


def without_location(exif: bytes | None) -> bytes | None:
    """Drop the GPS data of the result of ``clean_exif``; ``None`` if nothing else is in it."""
    if not exif:
        return None
    opened = Image.Exif()
    opened.load(b"Exif\0\0" + exif)
    kept = Image.Exif()
    for tag in _KEPT:
        if tag in opened:
            kept[tag] = _as_stored(opened[tag])
    if tags := {tag: _as_stored(value) for tag, value in opened.get_ifd(_IFD.Exif).items()}:
        kept[_IFD.Exif] = tags
    return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None


def exif_of_size(
    exif: bytes | None,
    size: tuple[int, int],
    *,
    resolution: Resolution | None = None,
    texts: Mapping[str, str] | None = None,
) -> Image.Exif:
    """Complete the result of ``clean_exif`` for a file.

    Args:
        exif: the EXIF, or ``None``.
        size: (height, width) of the upright picture.
        resolution: the resolution; it replaces a resolution in the EXIF.
        texts: text by the keywords of PNG, for fields that are missing in the EXIF.
    """
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
    for key, tag in _EXIF_OF_TEXT.items():
        if texts and key in texts and tag not in opened:
            opened[tag] = _Stored(texts[key].encode().decode("latin-1"))
    if resolution is not None and len(opened):
        add_resolution(opened, resolution)
    return opened


def add_resolution(tags: Any, resolution: Resolution) -> None:
    """Set the resolution in EXIF or in the directory of a TIFF."""
    unit_m = 0.01 if resolution.unit_m == 0.01 else INCH_M
    tags[_BASE.XResolution], tags[_BASE.YResolution] = resolution.per(unit_m)
    tags[_BASE.ResolutionUnit] = 1 if resolution.unit_m is None else 3 if unit_m == 0.01 else 2


class _Stored(str):
    """Text that Pillow decoded as Latin-1, whatever its encoding, and that it must write back as the same bytes."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:  # noqa: ARG002 - Pillow asks for ASCII
        return str.encode(self, "latin-1", "replace")


def _as_stored(value: Any) -> Any:
    """Protect text outside of ASCII, for which Pillow would write question marks."""
    return _Stored(value) if isinstance(value, str) and not value.isascii() else value
