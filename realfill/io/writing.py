"""Photos out: PNG and TIFF, which keep every value, and JPEG, which comes close; with colours, EXIF and credit.

The first two are written here, since no library that this package needs writes 16-bit colour together with what a file
has to tell: Pillow has 8 bits, OpenCV no profile and no grey with alpha, tifffile no EXIF. A band of rows at a time, so
that a large photo takes no memory of its own.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags

from realfill.errors import RealFillWarning
from realfill.io.images import ImageArray
from realfill.io.metadata import Credit, exif_of_size
from realfill.io.photos import Photo
from realfill.io.profiles import to_depth

SUFFIXES = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg"}
_LEVEL = 4  # of zlib: beyond it, files shrink by a few percent and take several times as long
_BAND_BYTES = 1 << 20
_PNG_AVERAGE = 3
_JPEG_SIDE_PX, _JPEG_EXIF_BYTES, _JPEG_XMP_BYTES = 65_500, 65_533, 65_504  # more doesn't fit into its segments
_TIFF_DEFLATE, _TIFF_DIFFERENCES = 8, 2
_Encoder: TypeAlias = Callable[[BinaryIO, Photo, Credit | None], None]


def write_photo(path: str | PathLike[str], photo: Photo, credit: Credit | None = None, *, quality: int = 95) -> None:
    """Write a photo in its own colours and depth, with its profile and EXIF.

    Args:
        path: where to. ``.png``, ``.tif`` and ``.tiff`` keep every value; ``.jpg`` and ``.jpeg`` have 8 bits, no alpha,
            and values only close to the photo's.
        photo: what to write.
        credit: who made it; ``None``: nothing is said about that.
        quality: of a JPEG, from 1 to 100.

    Raises:
        ValueError: another suffix or quality.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; legal: from 1 to 100")
    target = Path(path)
    encode = encoder_for(target, quality=quality)
    partial = target.with_name(target.name + ".partial")  # a failure leaves no half a file
    try:
        with partial.open("wb") as stream:
            encode(stream, photo, credit)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def require_size(photo: Photo, file_format: str) -> None:
    """Make sure that a file of a format, ``png``, ``tiff`` or ``jpeg``, holds so large a photo.

    Raises:
        ValueError: it doesn't.
    """
    if file_format == "jpeg" and max(photo.pixels.shape[:2]) > _JPEG_SIDE_PX:
        raise ValueError(f"a JPEG holds at most {_JPEG_SIDE_PX} pixels a side; save a PNG or TIFF")


def write_png(path: str | PathLike[str], image: ImageArray) -> None:
    """Write a picture losslessly.

    Args:
        path: where to; its suffix has to be ``.png``.
        image: (H, W, 3) uint8.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"the path is {str(path)!r}; legal: one that ends in .png, which keeps every pixel exact")
    write_photo(path, Photo(pixels=image))


def encoder_for(path: Path, *, quality: int = 95) -> _Encoder:
    """Choose the encoder by a path's suffix.

    Raises:
        ValueError: there is none.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        return encode_png
    if suffix in (".tif", ".tiff"):
        return _encode_tiff
    if suffix in (".jpg", ".jpeg"):
        return lambda stream, photo, credit: _encode_jpeg(stream, photo, credit, quality)
    raise ValueError(
        f"the path is {str(path)!r}; legal: one that ends in .png or .tif, which keep every pixel exact, or in .jpg"
    )


def encode_png(stream: BinaryIO, photo: Photo, credit: Credit | None = None) -> None:
    """Write a PNG (ISO/IEC 15948): rows predicted from their left and upper neighbours, then deflated."""
    height, width = photo.pixels.shape[:2]
    bits, kind = 8 * photo.pixels.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[_num_channels(photo)]
    stream.write(b"\x89PNG\r\n\x1a\n")
    _chunk(stream, b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    if photo.icc_profile:
        _chunk(stream, b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.icc_profile))
    if photo.exif:
        _chunk(stream, b"eXIf", exif_of_size(photo.exif, (height, width)).tobytes().removeprefix(b"Exif\0\0"))
    if credit is not None:
        texts = {"Software": credit.software, "Description": credit.description, "realfill": credit.json()}
        for key, value in {**texts, "XML:com.adobe.xmp": credit.xmp()}.items():
            _chunk(stream, b"iTXt", key.encode() + b"\0\0\0\0\0" + value.encode())
    deflate = zlib.compressobj(_LEVEL)
    above = None
    for band in _bands(photo):
        rows = band.astype(band.dtype.newbyteorder(">")).reshape(len(band), -1).view(np.uint8)
        above = np.zeros_like(rows[:1]) if above is None else above
        data = deflate.compress(_predict(rows, above, band.shape[2] * band.itemsize).tobytes())
        above = rows[-1:]
        if data:
            _chunk(stream, b"IDAT", data)
    _chunk(stream, b"IDAT", deflate.flush())
    _chunk(stream, b"IEND", b"")


def _predict(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> NDArray[np.uint8]:
    """Apply PNG's filter "average": each byte less the mean, rounded down, of those to the left and above."""
    upper = np.concatenate([above, rows[:-1]])
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
    """Write a TIFF 6.0: one page, deflated strips of horizontal differences."""
    height, width = photo.pixels.shape[:2]
    channels, bits = _num_channels(photo), 8 * photo.pixels.itemsize
    strips = []
    for band in _bands(photo):
        rows = band.copy()
        rows[:, 1:] -= band[:, :-1]
        strips.append(zlib.compress(rows.astype(rows.dtype.newbyteorder("<")).tobytes(), _LEVEL))
    sizes = [len(strip) for strip in strips]
    tags = ExifTags.Base
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in exif_of_size(photo.exif, (height, width)).items():
        directory[tag] = value
    directory[tags.ImageWidth], directory[tags.ImageLength] = width, height
    directory[tags.BitsPerSample] = (bits,) * channels
    directory[tags.Compression], directory[tags.Predictor] = _TIFF_DEFLATE, _TIFF_DIFFERENCES
    directory[tags.PhotometricInterpretation] = 2 if channels > 2 else 1
    directory[tags.SamplesPerPixel] = channels
    directory[tags.RowsPerStrip] = min(_band_rows(photo), height)
    directory.tagtype[tags.StripOffsets] = directory.tagtype[tags.StripByteCounts] = TiffTags.LONG
    directory[tags.StripOffsets] = tuple(sum(sizes[:i]) for i in range(len(sizes)))
    directory[tags.StripByteCounts] = tuple(sizes)
    if channels in (2, 4):
        directory[tags.ExtraSamples] = 2  # alpha that isn't multiplied in
    if photo.icc_profile:
        directory.tagtype[tags.InterColorProfile] = TiffTags.UNDEFINED
        directory[tags.InterColorProfile] = photo.icc_profile
    if credit is not None:
        directory[tags.Software] = credit.software
        if tags.ImageDescription not in directory:  # else the photographer's own
            directory[tags.ImageDescription] = credit.description
        directory.tagtype[TiffImagePlugin.XMP] = TiffTags.BYTE
        directory[TiffImagePlugin.XMP] = credit.xmp().encode()
    directory.save(stream)
    stream.writelines(strips)


def _encode_jpeg(stream: BinaryIO, photo: Photo, credit: Credit | None, quality: int) -> None:
    """Write a JPEG of full colour resolution."""
    require_size(photo, "jpeg")
    if photo.transparent is not None:
        warnings.warn(
            "a JPEG can't be transparent: what the target's transparent pixels hold is shown; a PNG or TIFF keeps them "
            "so", RealFillWarning, stacklevel=3,
        )  # fmt: skip
    pixels = to_depth(photo.pixels, np.uint8)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    exif = exif_of_size(photo.exif, photo.pixels.shape[:2])
    options = {"exif": exif.tobytes()} if len(exif) else {}
    if len(options.get("exif", b"")) > _JPEG_EXIF_BYTES:
        del options["exif"]
        _warn_left_out("the target's EXIF")
    if photo.icc_profile:
        options["icc_profile"] = photo.icc_profile
    if credit is not None:
        options["xmp"] = credit.xmp().encode()
        if len(options["xmp"]) > _JPEG_XMP_BYTES:
            least = {k: v for k, v in credit.provenance.items() if k in ("seed", "score")}
            options["xmp"] = replace(credit, provenance=least).xmp().encode()
            _warn_left_out("what the completion was made with")
    image.save(stream, "JPEG", quality=quality, subsampling=0, **options)


def _warn_left_out(what: str) -> None:
    warnings.warn(f"{what} is too long for a JPEG and left out; a PNG or TIFF holds it", RealFillWarning, stacklevel=4)


def _num_channels(photo: Photo) -> int:
    return photo.pixels.shape[2] + (photo.alpha is not None)


def _band_rows(photo: Photo) -> int:
    return max(1, _BAND_BYTES // (photo.pixels.shape[1] * _num_channels(photo) * photo.pixels.itemsize))


def _bands(photo: Photo) -> Iterator[NDArray]:
    """Cut a photo into bands of rows, (h, W, C), alpha last."""
    num_rows = _band_rows(photo)
    for top in range(0, len(photo.pixels), num_rows):
        rows = slice(top, top + num_rows)
        if photo.alpha is None:
            yield np.ascontiguousarray(photo.pixels[rows])
        else:
            yield np.concatenate([photo.pixels[rows], photo.alpha[rows, :, None]], axis=2)
