"""Photo: a picture as its file holds it, upright: its own values, depth, colours and EXIF."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfill.io.bands import bands
from realfill.io.profiles import from_srgb, is_srgb, to_depth, to_srgb

_OPAQUE = 0.98  # a soft eraser leaves less; lossy files may leave that much instead of all


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photo:
    """A picture in its own colours; what a result goes back into, so that known pixels come out as they went in.

    Attributes:
        pixels: (H, W, C) uint8 or uint16; C = 3, or 1 for grey.
        alpha: (H, W) of the same type, 0 = transparent; ``None``: all opaque.
        icc_profile: of the pixels; ``None``: they are sRGB.
        exif: camera, lens, exposure, place and the like, without rotation, thumbnail and maker's notes.
    """

    pixels: NDArray
    alpha: NDArray | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None

    @property
    def transparent(self) -> NDArray[np.bool_] | None:
        """Which pixels are transparent, be it a little (alpha below 98 %), (H, W) bool; ``None``: none."""
        return self.fainter_than(_OPAQUE)

    def fainter_than(self, share: float) -> NDArray[np.bool_] | None:
        """Which pixels have less alpha than a share of the most, (H, W) bool; ``None``: none."""
        if self.alpha is None:
            return None
        faint = self.alpha < share * np.iinfo(self.alpha.dtype).max
        return faint if faint.any() else None

    def srgb(self) -> NDArray[np.uint8]:
        """Convert to 8-bit sRGB, (H, W, 3); the pixels themselves where they are that."""
        return to_srgb(self.pixels, self.icc_profile)

    def encode(self, values: NDArray) -> NDArray:
        """Convert sRGB values, (K, 3) uint8 or uint16, to this photo's kind: (K, C) of its type."""
        return from_srgb(values, self.icc_profile, self.pixels.shape[2], self.pixels.dtype)

    def encode_smooth(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert an sRGB image, (H, W, 3) in [0, 255], to this photo's colours, unrounded: (H, W, C) in [0, 255]."""
        if is_srgb(self.icc_profile) and self.pixels.shape[2] == 3:
            return image
        converted = np.empty((*image.shape[:2], self.pixels.shape[2]), np.float32)
        for rows in bands(image.shape):
            wide = (image[rows].reshape(-1, 3) * np.float32(257)).round().clip(0, 65535).astype(np.uint16)
            own = from_srgb(wide, self.icc_profile, self.pixels.shape[2], np.dtype(np.uint16))
            converted[rows] = own.reshape(converted[rows].shape) / np.float32(257)
        return converted

    def decode(self, values: NDArray) -> NDArray[np.uint8]:
        """Convert values of this photo's kind, (K, C), to 8-bit sRGB, (K, 3)."""
        return to_srgb(values, self.icc_profile)

    def filled(self, mask: NDArray[np.bool_], values: NDArray) -> Photo:
        """Put values under a mask and make them opaque; everything else stays.

        Args:
            mask: (H, W) bool, True = fill.
            values: (K, C), one for each True pixel, row by row.
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
        """Keep only what was filled: values under a mask, and nothing (transparent black) outside it."""
        pixels = np.zeros_like(self.pixels)
        put(pixels, mask, values)
        return dataclasses.replace(
            self, pixels=pixels, alpha=to_depth(mask.view(np.uint8) * np.uint8(255), pixels.dtype)
        )

    def blanked(self, mask: NDArray[np.bool_]) -> Photo:
        """Set what lies under a mask to zero."""
        return dataclasses.replace(self, pixels=np.where(mask[:, :, None], self.pixels.dtype.type(0), self.pixels))

    def padded(self, *, left: int, right: int, top: int, bottom: int) -> Photo:
        """Lay the photo on a larger, transparent canvas; the sides are in pixels."""
        dtype, sides = self.pixels.dtype, ((top, bottom), (left, right))
        alpha = self.alpha
        if alpha is None:
            alpha = np.full(self.pixels.shape[:2], np.iinfo(dtype).max, dtype)
        return dataclasses.replace(self, pixels=np.pad(self.pixels, (*sides, (0, 0))), alpha=np.pad(alpha, sides))


def put(pixels: NDArray, mask: NDArray[np.bool_], values: NDArray) -> None:
    """Set ``pixels[mask] = values`` band by band: numpy would need 16 bytes of indices for each pixel."""
    done = 0
    for rows in bands(mask.shape):
        band = mask[rows]
        count = int(np.count_nonzero(band))
        pixels[rows][band] = values[done : done + count]
        done += count
