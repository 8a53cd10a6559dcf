"""Photo encoders: lossless PNG and TIFF, and JPEG, with colour profile, metadata and credit.

PNG and TIFF are encoded here because none of the required libraries writes 16-bit colour together with metadata: Pillow
is limited to 8 bits, OpenCV writes no profile and no grey with alpha, tifffile writes no EXIF. The encoders work on
bands of rows, so that a large photo is not copied.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags

from realfill.errors import warn
from realfill.io.files import whole_file
from realfill.io.images import ImageArray
from realfill.io.metadata import INCH_M, Credit, add_resolution, exif_of_size
from realfill.io.photos import Photo
from realfill.io.profiles import to_depth

_ZLIB_LEVEL = 4  # higher levels save a few percent and take several times as long
_BAND_BYTES = 1 << 20
_PNG_AVERAGE = 3
_JPEG_SIDE_PX, _JPEG_EXIF_BYTES, _JPEG_XMP_BYTES = 65_500, 65_533, 65_504  # limits of libjpeg and of a segment
_TIFF_DEFLATE, _TIFF_HORIZONTAL_DIFFERENCE = 8, 2
_Encoder: TypeAlias = Callable[[BinaryIO, Photo, Credit | None], None]


def write_photo(path: str | PathLike[str], photo: Photo, credit: Credit | None = None, *, quality: int = 95) -> None:
    """Write a photo in its own colours and depth, with its profile and metadata.

    Args:
        path: the file. ``.png``, ``.tif`` and ``.tiff`` keep every value exactly; ``.jpg`` and ``.jpeg`` have 8 bits,
            no alpha, and only approximate values.
        photo: the photo to write.
        credit: a statement of who made the picture; ``None`` writes no statement.
        quality: JPEG quality, from 1 to 100.

    Raises:
        ValueError: the suffix or the quality is illegal.
        OutputError: the file cannot be written, or the disk is full.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; legal: from 1 to 100")
    encode = encoder_for(Path(path), quality=quality)
    with whole_file(path) as partial, partial.open("wb") as stream:
        encode(stream, photo, credit)


def require_size(photo: Photo, file_format: str) -> None:
    """Check that a photo fits into a file format.

    Args:
        photo: the photo.
        file_format: ``png``, ``tiff`` or ``jpeg``.

    Raises:
        ValueError: the photo is too large for a JPEG.
    """
    if file_format == "jpeg" and max(photo.pixels.shape[:2]) > _JPEG_SIDE_PX:
        raise ValueError(f"a JPEG holds at most {_JPEG_SIDE_PX} pixels a side; save a PNG or TIFF")


def write_png(path: str | PathLike[str], image: ImageArray) -> None:
    """Write an sRGB image losslessly.

    Args:
        path: the file; it must end in ``.png``.
        image: (H, W, 3) uint8.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"the path is {str(path)!r}; legal: a path that ends in .png, which keeps every pixel exactly")
    write_photo(path, Photo(pixels=image))


def encoder_for(path: Path, *, quality: int = 95) -> _Encoder:
    """Choose the encoder by the suffix of a path.

    Raises:
        ValueError: no encoder has this suffix.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        return encode_png
    if suffix in (".tif", ".tiff"):
        return _encode_tiff
    if suffix in (".jpg", ".jpeg"):
        return lambda stream, photo, credit: _encode_jpeg(stream, photo, credit, quality)
    raise ValueError(
        f"the path is {str(path)!r}; legal: a path that ends in .png or .tif, which keep every pixel exactly, or .jpg"
    )


def encode_png(stream: BinaryIO, photo: Photo, credit: Credit | None = None) -> None:
    """Encode a PNG (ISO/IEC 15948) with the filter "average" in every row."""
    height, width = photo.pixels.shape[:2]
    bits, kind = 8 * photo.pixels.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[_num_channels(photo)]
    stream.write(b"\x89PNG\r\n\x1a\n")
    _chunk(stream, b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    if photo.icc_profile:
        _chunk(stream, b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.icc_profile))
    if photo.resolution is not None:
        x, y = photo.resolution.per(1)
        _chunk(stream, b"pHYs", struct.pack(">IIB", round(x), round(y), photo.resolution.unit_m is not None))
    if photo.exif:
        exif = exif_of_size(photo.exif, (height, width), resolution=photo.resolution)
        _chunk(stream, b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    texts = dict(photo.texts)
    if credit is not None:
        texts.setdefault("Description", credit.description)  # the photographer's own description stays
        texts |= {"Software": credit.software, "realfill": credit.json(), "XML:com.adobe.xmp": credit.xmp()}
    for key, value in texts.items():
        keyword = key.encode("latin-1", "ignore")[:79]
        if keyword:
            _chunk(stream, b"iTXt", keyword + b"\0\0\0\0\0" + value.replace("\0", " ").encode())
    deflate = zlib.compressobj(_ZLIB_LEVEL)
    row_above = None
    for band in _bands(photo):
        rows = band.astype(band.dtype.newbyteorder(">")).reshape(len(band), -1).view(np.uint8)
        row_above = np.zeros_like(rows[:1]) if row_above is None else row_above
        data = deflate.compress(_filter_average(rows, row_above, band.shape[2] * band.itemsize).tobytes())
        row_above = rows[-1:]
        if data:
            _chunk(stream, b"IDAT", data)
    _chunk(stream, b"IDAT", deflate.flush())
    _chunk(stream, b"IEND", b"")


def _filter_average(rows: NDArray[np.uint8], row_above: NDArray[np.uint8], pixel_bytes: int) -> NDArray[np.uint8]:
    """Apply the PNG filter "average": subtract from each byte the mean, rounded down, of its left and upper bytes."""
    upper = np.concatenate([row_above, rows[:-1]])
    left = np.zeros_like(rows)
    left[:, pixel_bytes:] = rows[:, :-pixel_bytes]
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _PNG_AVERAGE
    filtered[:, 1:] = rows - (upper // 2 + left // 2 + (upper & left & 1))
    return filtered


def _chunk(stream: BinaryIO, kind: bytes, data: bytes) -> None:
    stream.write(struct.pack(">I", len(data)) + kind)
    stream.write(data)
    stream.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _encode_tiff(stream: BinaryIO, photo: Photo, credit: Credit | None) -> None:
    """Encode a TIFF 6.0 of one page, with deflated strips and the horizontal-difference predictor."""
    height, width = photo.pixels.shape[:2]
    channels, bits = _num_channels(photo), 8 * photo.pixels.itemsize
    strips = []
    for band in _bands(photo):
        rows = band.copy()
        rows[:, 1:] -= band[:, :-1]
        strips.append(zlib.compress(rows.astype(rows.dtype.newbyteorder("<")).tobytes(), _ZLIB_LEVEL))
    sizes = [len(strip) for strip in strips]
    tags = ExifTags.Base
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in exif_of_size(photo.exif, (height, width), texts=photo.texts).items():
        directory[tag] = value
    if photo.resolution is not None:
        add_resolution(directory, photo.resolution)
    directory[tags.ImageWidth], directory[tags.ImageLength] = width, height
    directory[tags.BitsPerSample] = (bits,) * channels
    directory[tags.Compression], directory[tags.Predictor] = _TIFF_DEFLATE, _TIFF_HORIZONTAL_DIFFERENCE
    directory[tags.PhotometricInterpretation] = 2 if channels > 2 else 1
    directory[tags.SamplesPerPixel] = channels
    directory[tags.RowsPerStrip] = min(_band_rows(photo), height)
    directory.tagtype[tags.StripOffsets] = directory.tagtype[tags.StripByteCounts] = TiffTags.LONG
    directory[tags.StripOffsets] = tuple(sum(sizes[:i]) for i in range(len(sizes)))
    directory[tags.StripByteCounts] = tuple(sizes)
    if channels in (2, 4):
        directory[tags.ExtraSamples] = 2  # unassociated alpha
    if photo.icc_profile:
        directory.tagtype[tags.InterColorProfile] = TiffTags.UNDEFINED
        directory[tags.InterColorProfile] = photo.icc_profile
    if credit is not None:
        directory[tags.Software] = credit.software
        if tags.ImageDescription not in directory:  # the photographer's own description stays
            directory[tags.ImageDescription] = credit.description
        directory.tagtype[TiffImagePlugin.XMP] = TiffTags.BYTE
        directory[TiffImagePlugin.XMP] = credit.xmp().encode()
    directory.save(stream)
    stream.writelines(strips)


def _encode_jpeg(stream: BinaryIO, photo: Photo, credit: Credit | None, quality: int) -> None:
    """Encode a JPEG without chroma subsampling."""
    require_size(photo, "jpeg")
    if photo.transparent is not None:
        warn(
            "a JPEG cannot be transparent: the colours of the target's transparent pixels become visible; save a PNG "
            "or TIFF to keep the transparency"
        )
    pixels = to_depth(photo.pixels, np.uint8)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    exif = exif_of_size(photo.exif, photo.pixels.shape[:2], resolution=photo.resolution, texts=photo.texts)
    options: dict[str, Any] = {"exif": exif.tobytes()} if len(exif) else {}
    if photo.resolution is not None and photo.resolution.unit_m is not None:
        options["dpi"] = photo.resolution.per(INCH_M)
    if len(comment := photo.texts.get("Comment", "").encode()) <= _JPEG_EXIF_BYTES:
        options["comment"] = comment
    if len(options.get("exif", b"")) > _JPEG_EXIF_BYTES:
        del options["exif"]
        warn("the target's EXIF is too long for a JPEG and is left out; save a PNG or TIFF to keep it")
    if photo.icc_profile:
        options["icc_profile"] = photo.icc_profile
    if credit is not None:
        options["xmp"] = credit.xmp().encode()
        if len(options["xmp"]) > _JPEG_XMP_BYTES:
            short = {k: v for k, v in credit.provenance.items() if k in ("seed", "score")}
            options["xmp"] = replace(credit, provenance=short).xmp().encode()
            warn("the provenance is too long for a JPEG and is left out; save a PNG or TIFF to keep it")
    image.save(stream, "JPEG", quality=quality, subsampling=0, **options)


def _num_channels(photo: Photo) -> int:
    return photo.pixels.shape[2] + (photo.alpha is not None)


def _band_rows(photo: Photo) -> int:
    return max(1, _BAND_BYTES // (photo.pixels.shape[1] * _num_channels(photo) * photo.pixels.itemsize))


def _bands(photo: Photo) -> Iterator[NDArray]:
    """Yield bands of rows (h, W, C) with the alpha as the last channel."""
    num_rows = _band_rows(photo)
    for top in range(0, len(photo.pixels), num_rows):
        rows = slice(top, top + num_rows)
        if photo.alpha is None:
            yield np.ascontiguousarray(photo.pixels[rows])
        else:
            yield np.concatenate([photo.pixels[rows], photo.alpha[rows, :, None]], axis=2)
