"""Colour profiles: conversion of a file's colours to 8-bit sRGB, and of generated pixels to the file's colours.

Reading needs only 8 bits and uses LittleCMS. Writing keeps 16 bits. Pillow's binding of LittleCMS is limited to 8 bits,
so profiles that consist of a matrix and tone curves, or of one curve for grey, are computed here: cameras and editors
write such profiles. Other profiles go through the 8 bits of LittleCMS.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_CHUNK = 1 << 19  # pixels converted at a time
_SAME = 2  # different profiles of sRGB disagree by up to this many 8-bit levels
_SPACES = {1: ("GRAY", "L"), 3: ("RGB", "RGB")}
_PERCEPTUAL = ImageCms.Intent.PERCEPTUAL
_SRGB = ImageCms.createProfile("sRGB")
_SRGB_TO_XYZ = np.array(  # linear sRGB to XYZ under D50, the white point of ICC profiles
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
_Curve: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def is_readable(profile: bytes | None, num_channels: int) -> bool:
    """Tell whether a profile is valid and fits pixels with a number of channels."""
    try:
        opened = _open(profile or b"")
        if _space(opened) != _SPACES[num_channels][0]:
            return False
        ImageCms.buildTransform(opened, _SRGB, _SPACES[num_channels][1], "RGB", _PERCEPTUAL)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False
    return True


def is_writable(profile: bytes | None, num_channels: int) -> bool:
    """Tell whether colours can be converted to a readable profile; profiles of some scanners are input only."""
    try:
        if not is_srgb(profile):
            _encoder(profile or b"", num_channels)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, struct.error, np.linalg.LinAlgError):
        return False
    return True


def to_srgb(pixels: NDArray, profile: bytes | None) -> NDArray[np.uint8]:
    """Convert pixels to 8-bit sRGB.

    Args:
        pixels: (..., C) uint8 or uint16, C = 3 for RGB or 1 for grey.
        profile: the ICC profile of the pixels, or ``None`` for sRGB.

    Returns:
        (..., 3) uint8; ``pixels`` itself if they already have this form.
    """
    channels = pixels.shape[-1]
    if is_srgb(profile):
        if pixels.dtype == np.uint8:
            return pixels if channels == 3 else np.repeat(pixels, 3, axis=-1)
        transform = None
    else:
        transform = ImageCms.buildTransform(_open(profile or b""), _SRGB, _SPACES[channels][1], "RGB", _PERCEPTUAL)
    flat = pixels.reshape(-1, channels)
    converted = np.empty((len(flat), 3), np.uint8)
    for part in _chunks(len(flat)):
        narrow = to_depth(flat[part], np.uint8)
        converted[part] = narrow if transform is None else _apply(transform, narrow)
    return converted.reshape(*pixels.shape[:-1], 3)


def from_srgb(values: NDArray, profile: bytes | None, num_channels: int, dtype: np.dtype) -> NDArray:
    """Convert sRGB values to another colour space and depth.

    Args:
        values: (K, 3) uint8 or uint16.
        profile: the ICC profile of the result, or ``None`` for sRGB.
        num_channels: 3 for RGB, or 1 for grey, which holds the luminance.
        dtype: uint8 or uint16.

    Returns:
        (K, num_channels) of ``dtype``. Colours outside of the colour space are clipped.
    """
    encode = None if is_srgb(profile) else _encoder(profile or b"", num_channels)
    converted = np.empty((len(values), num_channels), dtype)
    peak = np.iinfo(dtype).max
    for part in _chunks(len(values)):
        chunk = values[part]
        if encode is not None:
            share = encode(chunk / np.float64(np.iinfo(values.dtype).max))
            converted[part] = (share.clip(0, 1) * peak).round()
        elif num_channels == 3:
            converted[part] = to_depth(chunk, dtype)
        else:  # the luminance is rounded at 16 bits, so that grey stays exactly grey
            wide = to_depth(chunk, np.uint16) @ np.array([0.299, 0.587, 0.114])
            converted[part, 0] = to_depth(wide.round().astype(np.uint16), dtype)
    return converted


def to_depth(values: NDArray, dtype: type | np.dtype) -> NDArray:
    """Convert between 8 and 16 bits, rounded to the nearest; 255 corresponds to 65535."""
    if values.dtype == dtype:
        return values
    if dtype == np.uint16:
        return values.astype(np.uint16) * np.uint16(257)
    flat, narrow = values.reshape(-1), np.empty(values.size, np.uint8)
    for part in _chunks(values.size):
        narrow[part] = (flat[part].astype(np.uint32) + 128) // 257
    return narrow.reshape(values.shape)


@functools.lru_cache(maxsize=16)
def is_srgb(profile: bytes | None) -> bool:
    """Tell whether a profile is sRGB by its effect: names mislead, because linear profiles are called sRGB too."""
    if profile is None:
        return True
    opened = _open(profile)
    if _space(opened) != "RGB":
        return False
    channels = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.uint8)
    ramps = (np.arange(256, dtype=np.uint8)[:, None, None] * channels).reshape(-1, 3)
    transform = ImageCms.buildTransform(opened, _SRGB, "RGB", "RGB", _PERCEPTUAL)
    return bool(np.abs(_apply(transform, ramps).astype(int) - ramps).max() <= _SAME)


def _open(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def _space(opened: ImageCms.ImageCmsProfile) -> str:
    core: Any = opened.profile
    return core.xcolor_space.strip()


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, length, _CHUNK))


def _apply(transform: ImageCms.ImageCmsTransform, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert (K, C) uint8 with LittleCMS."""
    line = values[None, :, 0] if values.shape[1] == 1 else values[None]
    converted = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(line)), transform)
    assert converted is not None
    return np.asarray(converted).reshape(len(values), -1)


def _encoder(profile: bytes, num_channels: int) -> _Curve:
    """Return the conversion of sRGB values, (K, 3) in [0, 1], to a profile: exact if possible, else by LittleCMS."""
    exact = _matrix_encoder(profile, num_channels)
    if exact is not None:
        return exact
    transform = ImageCms.buildTransform(_SRGB, _open(profile), "RGB", _SPACES[num_channels][1], _PERCEPTUAL)
    return lambda shares: _apply(transform, (shares * 255).round().astype(np.uint8)) / np.float64(255)


def _matrix_encoder(profile: bytes, num_channels: int) -> _Curve | None:
    """Build the exact conversion from matrix and curves; ``None`` if the profile has tables or unknown curves."""
    tags = _tags(profile)
    names = ("rTRC", "gTRC", "bTRC") if num_channels == 3 else ("kTRC",)
    primaries = ("rXYZ", "gXYZ", "bXYZ") if num_channels == 3 else ()
    if profile[20:24] != b"XYZ " or "B2A0" in tags or not tags.keys() >= {*names, *primaries}:
        return None
    curves = [_curve(tags[name]) for name in names]
    if not all(curves):
        return None
    if num_channels == 3:
        columns = [np.array(struct.unpack(">3i", tags[name][8:20])) / 65536 for name in primaries]
        matrix = np.linalg.inv(np.column_stack(columns)) @ _SRGB_TO_XYZ
    else:
        matrix = _SRGB_TO_XYZ[1:2]
    grid = np.linspace(0, 1, 16385)
    tables = [curve(grid) for curve in curves if curve is not None]

    def encode(shares: NDArray[np.float64]) -> NDArray[np.float64]:
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4) @ matrix.T
        return np.column_stack([np.interp(linear[:, i], table, grid) for i, table in enumerate(tables)])

    return encode


def _tags(profile: bytes) -> dict[str, bytes]:
    """Parse the tag table of an ICC profile (ICC.1:2022, section 7)."""
    (count,) = struct.unpack(">I", profile[128:132])
    entries = [struct.unpack(">4sII", profile[132 + 12 * i : 144 + 12 * i]) for i in range(count)]
    return {name.decode("latin-1"): profile[start : start + size] for name, start, size in entries}


def _curve(tag: bytes) -> _Curve | None:
    """Parse a tone curve (ICC.1:2022, sections 10.6 and 10.18), which maps stored to linear values, both in [0, 1]."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack(">I", tag[8:12])
        values = np.frombuffer(tag[12 : 12 + 2 * count], ">u2").astype(np.float64)
        if count == 0:
            return lambda x: x
        if count == 1:
            return lambda x: x ** (values[0] / 256)
        return lambda x: np.interp(x, np.linspace(0, 1, count), values / 65535)
    kind = struct.unpack(">H", tag[8:10])[0] if tag[:4] == b"para" else 5
    if kind > 4:
        return None
    count = (1, 3, 4, 5, 7)[kind]
    g, *rest = (v / 65536 for v in struct.unpack(f">{count}i", tag[12 : 12 + 4 * count]))
    a, b, *rest = rest or (1.0, 0.0)
    if kind < 3:
        offset = rest[0] if rest else 0.0
        return lambda x: (a * x + b).clip(0) ** g + offset
    c, d, e, f = (*rest, 0.0, 0.0)[:4]
    return lambda x: np.where(x >= d, (a * x + b).clip(0) ** g + e, c * x + f)
