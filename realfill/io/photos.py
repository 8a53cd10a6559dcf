"""The ``Photo``: a decoded file, upright, with its own values, depth, colours and metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from realfill.io.bands import bands
from realfill.io.metadata import Resolution
from realfill.io.profiles import from_srgb, is_srgb, to_depth, to_srgb

_OPAQUE = 0.98  # lossy files store opaque pixels with slightly less than full alpha; a soft eraser leaves less


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photo:
    """A picture in the colours and depth of its file. Results are written back into it, so known pixels stay exact.

    Attributes:
        pixels: (H, W, C) uint8 or uint16; C = 3, or 1 for grey.
        alpha: (H, W) of the same type, 0 = transparent; ``None`` means opaque.
        icc_profile: the ICC profile of the pixels; ``None`` means sRGB.
        exif: EXIF without rotation, thumbnail and maker's notes.
        resolution: the physical resolution that the file states.
        focal_px: the focal length in pixels that EXIF states.
        texts: text by the keywords of PNG, for example "Title" or "Comment".
    """

    pixels: NDArray
    alpha: NDArray | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    resolution: Resolution | None = None
    focal_px: float | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def transparent(self) -> NDArray[np.bool_] | None:
        """The pixels with an alpha below 98 %, (H, W) bool; ``None`` if there are none."""
        return self.fainter_than(_OPAQUE)

    def fainter_than(self, share: float) -> NDArray[np.bool_] | None:
        """Find the pixels with an alpha below a share of the maximum: (H, W) bool; ``None`` if there are none."""
        if self.alpha is None:
            return None
        faint = self.alpha < share * np.iinfo(self.alpha.dtype).max
        return faint if faint.any() else None

    def srgb(self) -> NDArray[np.uint8]:
        """Convert to 8-bit sRGB, (H, W, 3), without a copy if the pixels already have this form."""
        return to_srgb(self.pixels, self.icc_profile)

    def encode(self, values: NDArray) -> NDArray:
        """Convert sRGB values, (K, 3) uint8 or uint16, to the colours and the type of this photo, (K, C)."""
        return from_srgb(values, self.icc_profile, self.pixels.shape[2], self.pixels.dtype)

    def encode_smooth(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert an sRGB image, (H, W, 3) in [0, 255], to this photo's colours without rounding, (H, W, C)."""
        if is_srgb(self.icc_profile) and self.pixels.shape[2] == 3:
            return image
        converted = np.empty((*image.shape[:2], self.pixels.shape[2]), np.float32)
        for rows in bands(image.shape):
            wide = (image[rows].reshape(-1, 3) * np.float32(257)).round().clip(0, 65535).astype(np.uint16)
            encoded = from_srgb(wide, self.icc_profile, self.pixels.shape[2], np.dtype(np.uint16))
            converted[rows] = encoded.reshape(converted[rows].shape) / np.float32(257)
        return converted

    def decode(self, values: NDArray) -> NDArray[np.uint8]:
        """Convert values in this photo's colours, (K, C), to 8-bit sRGB, (K, 3)."""
        return to_srgb(values, self.icc_profile)

    def filled(self, mask: NDArray[np.bool_], values: NDArray) -> Photo:
        """Return a copy with new, opaque pixels under a mask.

        Args:
            mask: (H, W) bool, True = fill.
            values: (K, C), one row for each True pixel, in row-major order.
        """
        pixels = self.pixels.copy()
        put(pixels, mask, values)
        alpha = self.alpha
        if alpha is not None:
            opaque = np.iinfo(alpha.dtype).max
            alpha = np.where(mask, opaque, alpha).astype(alpha.dtype)
            alpha = None if (alpha == opaque).all() else alpha
        return dataclasses.replace(self, pixels=pixels, alpha=alpha)

    def patch(self, mask: NDArray[np.bool_], values: NDArray) -> Photo:
        """Return only the values under a mask, on transparent black."""
        pixels = np.zeros_like(self.pixels)
        put(pixels, mask, values)
        return dataclasses.replace(
            self, pixels=pixels, alpha=to_depth(mask.view(np.uint8) * np.uint8(255), pixels.dtype)
        )

    def blanked(self, mask: NDArray[np.bool_]) -> Photo:
        """Return a copy with the pixels under a mask set to zero."""
        return dataclasses.replace(self, pixels=np.where(mask[:, :, None], self.pixels.dtype.type(0), self.pixels))

    def padded(self, *, left: int, right: int, top: int, bottom: int) -> Photo:
        """Return a copy on a larger, transparent canvas; the sides are in pixels."""
        dtype, sides = self.pixels.dtype, ((top, bottom), (left, right))
        alpha = self.alpha
        if alpha is None:
            alpha = np.full(self.pixels.shape[:2], np.iinfo(dtype).max, dtype)
        return dataclasses.replace(self, pixels=np.pad(self.pixels, (*sides, (0, 0))), alpha=np.pad(alpha, sides))


def put(pixels: NDArray, mask: NDArray[np.bool_], values: NDArray) -> None:
    """Set ``pixels[mask] = values`` band by band, because numpy alone needs 16 bytes of indices for each pixel."""
    done = 0
    for rows in bands(mask.shape):
        band = mask[rows]
        count = int(np.count_nonzero(band))
        pixels[rows][band] = values[done : done + count]
        done += count
