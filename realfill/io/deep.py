"""Decoders for 16-bit colour and for unusual TIFFs, which Pillow cuts to 8 bits or misreads."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

_TIFF_MAGIC = (b"II*\0", b"MM\0*")


def max_pixels() -> float:
    """Return the largest number of pixels that is decoded, which is Pillow's limit for any file."""
    limit = Image.MAX_IMAGE_PIXELS
    return float("inf") if limit is None else 2 * limit


def require_pixels(num_pixels: int) -> None:
    """Check a size that a file declares, before memory is taken for it.

    Raises:
        Image.DecompressionBombError: it is too large.
    """
    if num_pixels > max_pixels():
        raise Image.DecompressionBombError(f"it declares {num_pixels} pixels; legal: up to {max_pixels():.0f}")


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV from writing about damaged files to standard error."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def decode_deep(image: Image.Image) -> NDArray[np.uint16] | None:
    """Decode 16-bit colour upright, (H, W, C); ``None`` if the image has fewer bits or another mode."""
    tiles = getattr(image, "tile", ())  # Pillow empties it when it loads the image
    if tiles and image.format == "TIFF" and image.mode in ("RGB", "RGBA") and _is_deep_and_planar(image):
        return _decode_planar(image)
    stored = "".join(str(tile[3]) for tile in tiles)
    if "16" not in stored or image.format not in ("PNG", "TIFF") or image.mode not in ("RGB", "RGBA", "LA"):
        return None
    stream: Any = getattr(image, "fp", None)
    position = stream.tell()
    stream.seek(0)
    with silent_opencv():
        array = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    stream.seek(position)
    if array is None or array.dtype != np.uint16 or array.ndim != 3:
        return None
    order = [2, 3] if "LA" in stored else [2, 1, 0, 3] if image.mode == "RGBA" else [2, 1, 0]
    if array.shape[2] <= max(order):
        return None
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if image.format == "PNG" else 1  # OpenCV turns TIFF
    array = np.ascontiguousarray(_upright(array[:, :, order], orientation))
    return _unpremultiplied(array) if "RGBa" in stored else array


def is_negative(image: Any) -> bool:
    """Tell whether 0 is white in a TIFF. Pillow inverts such images itself only up to 8 bits."""
    return image.format == "TIFF" and image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0


def _is_deep_and_planar(image: Any) -> bool:
    tags = image.tag_v2
    return tags.get(ExifTags.Base.PlanarConfiguration) == 2 and 16 in tags.get(ExifTags.Base.BitsPerSample, ())


def _decode_planar(image: Any) -> NDArray[np.uint16] | None:
    """Decode a 16-bit TIFF with planar channels; ``None`` if only Pillow knows its compression."""
    position = image.fp.tell()
    image.fp.seek(0)
    try:
        with tifffile.TiffFile(image.fp) as file:
            page: Any = file.pages[0]
            require_pixels(page.size // len(image.getbands()))
            try:
                array = page.asarray()[: len(image.getbands())]
            except ValueError:
                if page.compression == 1:
                    raise
                return None
    finally:
        image.fp.seek(position)
    if array.ndim != 3 or array.dtype != np.uint16 or len(array) != len(image.getbands()):
        raise ValueError("the layout of its channels is unknown; save them interleaved")
    array = _upright(array.transpose(1, 2, 0), image.tag_v2.get(ExifTags.Base.Orientation, 1))
    premultiplied = image.tag_v2.get(ExifTags.Base.ExtraSamples, (0,))[0] == 1
    return _unpremultiplied(np.ascontiguousarray(array)) if premultiplied else np.ascontiguousarray(array)


def _unpremultiplied(array: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Convert premultiplied to straight alpha: (H, W, C), alpha last."""
    alpha = np.maximum(array[:, :, -1:], 1).astype(np.float64)
    colours = np.minimum(array[:, :, :-1] * (65535 / alpha), 65535).round().astype(np.uint16)
    return np.concatenate([colours, array[:, :, -1:]], axis=2)


def _upright(array: NDArray, orientation: int) -> NDArray:
    """Undo the EXIF rotation of an array (H, W, C)."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def decode_grey_tiff(data: bytes) -> tuple[NDArray, dict[int, Any]] | None:
    """Decode a grey TIFF that Pillow does not open, and for which OpenCV loses depth, alpha or the sign of a negative.

    Args:
        data: the content of the file.

    Returns:
        The upright image, (H, W, 1 or 2) uint8 or uint16, and the tags by number; ``None`` if it is not a grey TIFF.

    Raises:
        ValueError: the compression is unknown.
    """
    if data[:4] not in _TIFF_MAGIC:
        return None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        if page.samplesperpixel > 2 or page.dtype not in (np.uint8, np.uint16) or page.photometric > 1:
            return None
        if not page.size:
            raise ValueError("it has no pixels")
        require_pixels(page.size // page.samplesperpixel)
        try:
            array = page.asarray()
        except ValueError as error:
            raise ValueError(f"{error}: save it without compression or with deflate (ZIP)") from error
        tags = {tag.code: tag.value for tag in page.tags}
    if array.ndim == 2:
        array = array[:, :, None]
    array = array.transpose(1, 2, 0) if array.shape[0] == 2 else array
    array = np.ascontiguousarray(_upright(array, int(tags.get(ExifTags.Base.Orientation, 1))))
    array = _unpremultiplied(array) if tuple(tags.get(ExifTags.Base.ExtraSamples, ())) == (1,) else array
    if tags[ExifTags.Base.PhotometricInterpretation] == 0:
        array[:, :, 0] = np.iinfo(array.dtype).max - array[:, :, 0]
    return array, tags
