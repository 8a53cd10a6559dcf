"""Bands: horizontal slices of a large image, which keep intermediate arrays small."""

from __future__ import annotations

_BAND_PX = 1 << 20


def bands(shape: tuple[int, ...]) -> list[slice]:
    """Split the rows of an image (H, W, ...) into bands of about a megapixel; all but the last have 16n rows."""
    rows = 16 * max(1, _BAND_PX // 16 // max(1, shape[1]))
    return [slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows)]
