"""Photos in: any file, PIL image or array, in its own colours or as sRGB; and the only conversions of range.

An ``ImageArray`` is (H, W, 3) uint8 sRGB. A tensor is (B, 3, H, W) float in [0, 1].
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from realfill.errors import SceneError
from realfill.io.metadata import clean_exif
from realfill.io.photos import Photo
from realfill.io.profiles import is_readable, is_writable, to_srgb

ImageArray: TypeAlias = NDArray[np.uint8]
MaskArray: TypeAlias = NDArray[np.bool_]
ImageLike: TypeAlias = str | PathLike[str] | Image.Image | NDArray

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2"}
)
_HEIF_SUFFIXES = frozenset({".heic", ".heif"})
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, struct.error)  # of readers
_TIFF_MAGIC = (b"II*\0", b"MM\0*")
_HARDLY = 0.9  # share of the pixels from which on shrinking is cubic: averaging would blur some rows and not others
_PERCEPTUAL = ImageCms.Intent.PERCEPTUAL
_SRGB = ImageCms.createProfile("sRGB")


def read_image(source: ImageLike, what: str = "image") -> tuple[ImageArray, MaskArray | None]:
    """Read a photo as it is meant to be seen.

    Undoes EXIF rotation; converts grey, palette, CMYK, 16-bit and float images and other colour profiles to 8-bit
    sRGB. Transparent pixels keep what colour they have.

    Args:
        source: a path; a PIL image; or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16, bool, or
            float in [0, 1].
        what: the image's part in the scene, for error messages.

    Returns:
        The image, (H, W, 3) uint8, and which pixels are transparent (alpha below a half), (H, W) bool, or ``None``
        where there is no alpha channel or nothing is transparent.

    Raises:
        SceneError: the file is missing, unreadable, truncated or absurdly large; the array has another shape or type.
    """
    photo = read_photo(source, what)
    return photo.srgb(), photo.fainter_than(0.5)


def read_photo(source: ImageLike, what: str = "image") -> Photo:
    """Read a photo upright, in its own colours and depth.

    8 and 16 bits, grey and RGB, alpha, colour profile and EXIF are kept. What can't be kept becomes 8-bit sRGB: CMYK
    and Lab, float images, 16-bit colour in other files than PNG and TIFF. One bit and palettes become 8 bits.

    Args:
        source: as for ``read_image``.
        what: likewise.

    Raises:
        SceneError: likewise.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, what)
    if isinstance(source, Image.Image):
        try:
            return _from_pil(source, what)
        except _UNREADABLE as error:
            raise _unreadable(error, what, "") from error
    if not isinstance(source, str | PathLike):
        raise SceneError(f"{what} is a {type(source).__name__}; legal: a path, a PIL image or a numpy array")
    path = Path(source)
    if not path.is_file():
        raise SceneError(f"{what}: there is no file {str(path)!r}")
    if path.suffix.lower() in _HEIF_SUFFIXES:
        _register_heif(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with path.open("rb") as stream, Image.open(stream) as image:  # given a path, Pillow scrambles turned TIFFs
                return _from_pil(image, what)
    except UnidentifiedImageError:
        return _read_with_opencv(path, what)
    except Image.DecompressionBombError as error:
        raise SceneError(f"{what}: {str(path)!r} is too large to be opened safely ({error}); shrink it first") from None
    except _UNREADABLE as error:
        raise _unreadable(error, what, f"{str(path)!r} ") from error


def resize(image: NDArray, size: tuple[int, int]) -> NDArray:
    """Resize: area average where it shrinks, cubic where it grows or hardly changes. Pixel centres keep their places.

    Args:
        image: (H, W) or (H, W, C), uint8 or float32.
        size: (height, width).

    Returns:
        The image at that size, of the same type; cubic overshoot is clipped for uint8 only.
    """
    if image.shape[:2] == tuple(size):
        return image
    shrinks = size[0] * size[1] < _HARDLY * image.shape[0] * image.shape[1]
    return cv2.resize(
        np.ascontiguousarray(image), (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )


def fit_within(size: tuple[int, int], max_size_px: int) -> tuple[int, int]:
    """Shrink a size (height, width), if need be, so that its longer side is at most ``max_size_px``."""
    scale = min(1.0, max_size_px / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_bytes(images: NDArray) -> torch.Tensor:
    """Bring (H, W, 3) or (B, H, W, 3) uint8 into torch's order: (B, 3, H, W) uint8."""
    batch = images if images.ndim == 4 else images[None]
    return torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))


def to_shares(images: torch.Tensor) -> torch.Tensor:
    """Bring uint8 to float32 in [0, 1]; what is floating is that already."""
    return images if images.is_floating_point() else images.float() / 255


def to_tensor(images: NDArray) -> torch.Tensor:
    """Convert (H, W, 3) or (B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1]."""
    return to_shares(to_bytes(images))


def to_array(tensor: torch.Tensor) -> ImageArray:
    """Convert (3, H, W) in [0, 1] to (H, W, 3) uint8; clips, then rounds to the nearest."""
    return (tensor.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _unreadable(error: Exception, what: str, name: str) -> SceneError:
    if isinstance(error, SceneError):
        return error
    return SceneError(f"{what}: {name}can't be read ({error}); is the file complete? Save or download it again")


def _from_pil(image: Image.Image, what: str) -> Photo:
    profile = image.info.get("icc_profile")
    array, negative = _decode_deep(image), _is_negative(image)
    exif = clean_exif(image)
    if array is None:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would only be copied
            image = ImageOps.exif_transpose(image)
        if image.mode in ("P", "PA") or (image.mode in ("RGB", "L", "1") and "transparency" in image.info):
            clear = "transparency" in image.info or image.mode == "PA"
            image = image.convert("LA" if image.mode == "L" else "RGBA" if clear else "RGB")
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            array = _to_levels(_wide_grey(np.asarray(image)), what)
            array = np.iinfo(array.dtype).max - array if negative else array
    if array is None:
        if image.mode in ("RGBa", "La"):
            image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            image, profile = _flat(image, profile), None
        array = np.array(image).reshape(image.height, image.width, -1)
    return _photo(array, profile, exif)


def _photo(array: NDArray, profile: bytes | None = None, exif: bytes | None = None) -> Photo:
    """Split (H, W, C), C from 1 to 4, into colour and alpha; keep the profile if there is a way back into it."""
    num_colours = array.shape[2] - 1 + array.shape[2] % 2
    pixels, alpha = array, None
    if num_colours < array.shape[2]:
        pixels, alpha = np.ascontiguousarray(array[:, :, :num_colours]), np.ascontiguousarray(array[:, :, num_colours])
        alpha = None if alpha.min() == np.iinfo(alpha.dtype).max else alpha
    if not is_readable(profile, num_colours):
        profile = None
    elif not is_writable(profile, num_colours):
        pixels, profile = to_srgb(pixels, profile), None
    return Photo(pixels=pixels, alpha=alpha, icc_profile=profile, exif=exif)


def _decode_deep(image: Image.Image) -> NDArray[np.uint16] | None:
    """Decode 16-bit colour, which PIL would cut to 8: (H, W, C) upright; ``None``: it is something else."""
    tiles = getattr(image, "tile", ())  # none once it is loaded
    if tiles and image.format == "TIFF" and image.mode in ("RGB", "RGBA") and _is_deep_and_planar(image):
        return _decode_planar(image)
    stored = "".join(str(tile[3]) for tile in tiles)
    if "16" not in stored or image.format not in ("PNG", "TIFF") or image.mode not in ("RGB", "RGBA", "LA"):
        return None
    stream: Any = getattr(image, "fp", None)
    position = stream.tell()
    stream.seek(0)
    array = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    stream.seek(position)
    if array is None or array.dtype != np.uint16 or array.ndim != 3:
        return None
    order = [2, 3] if "LA" in stored else [2, 1, 0, 3] if image.mode == "RGBA" else [2, 1, 0]
    if array.shape[2] <= max(order):
        return None
    orientation = (
        1 if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation, 1)
    )  # or undone already
    array = np.ascontiguousarray(_upright(array[:, :, order], orientation))
    return _divided(array) if "RGBa" in stored else array


def _is_negative(image: Any) -> bool:
    """Whether a TIFF's 0 is white; PIL sees to that up to 8 bits only."""
    return image.format == "TIFF" and image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0


def _is_deep_and_planar(image: Any) -> bool:
    tags = image.tag_v2
    return tags.get(ExifTags.Base.PlanarConfiguration) == 2 and 16 in tags.get(ExifTags.Base.BitsPerSample, ())


def _decode_planar(image: Any) -> NDArray[np.uint16] | None:
    """Decode a 16-bit TIFF whose channels lie one after the other, which PIL cuts to 8 bits or misreads.

    ``None``: a compression that can't be decoded here, and that PIL can, to 8 bits.
    """
    position = image.fp.tell()
    image.fp.seek(0)
    try:
        with tifffile.TiffFile(image.fp) as file:
            page: Any = file.pages[0]
            try:
                array = page.asarray()[: len(image.getbands())]
            except ValueError:
                if page.compression == 1:
                    raise
                return None
    finally:
        image.fp.seek(position)
    if array.ndim != 3 or array.dtype != np.uint16 or len(array) != len(image.getbands()):
        raise ValueError("its channels are stored in a way that isn't known; save them interleaved")
    array = _upright(array.transpose(1, 2, 0), image.tag_v2.get(ExifTags.Base.Orientation, 1))
    multiplied = image.tag_v2.get(ExifTags.Base.ExtraSamples, (0,))[0] == 1
    return _divided(np.ascontiguousarray(array)) if multiplied else np.ascontiguousarray(array)


def _divided(array: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Divide colours by the alpha that they were multiplied with: (H, W, C), alpha last."""
    alpha = np.maximum(array[:, :, -1:], 1).astype(np.float64)
    colours = np.minimum(array[:, :, :-1] * (65535 / alpha), 65535).round().astype(np.uint16)
    return np.concatenate([colours, array[:, :, -1:]], axis=2)


def _upright(array: NDArray, orientation: int) -> NDArray:
    """Undo EXIF rotation of (H, W, C)."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def _flat(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert CMYK and other modes, which no result can be written in, to RGB."""
    if profile and image.mode == "CMYK":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, _SRGB, _PERCEPTUAL, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged or mismatched profile: show the pixels as viewers do, without it
    return image.convert("L" if image.mode == "1" else "RGB")


def _wide_grey(values: NDArray) -> NDArray:
    if values.dtype == np.float32:
        return values if values.max(initial=0) <= 1 else values / np.float32(255)
    return values.clip(0, 65535).astype(np.uint16)


def _from_array(array: NDArray, what: str) -> Photo:
    return _photo(_to_levels(array, what))


def _to_levels(array: NDArray, what: str) -> NDArray:
    """Check an array and bring it to (H, W, C), uint8 or uint16; a copy."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise SceneError(f"{what} has the shape {array.shape}; legal: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise SceneError(
                f"{what} is a float array from {array.min():.3g} to {array.max():.3g}; legal: finite values in [0, 1]"
            )
        return (array * 255).round().astype(np.uint8)
    if array.dtype not in (np.uint8, np.uint16):
        raise SceneError(f"{what} is an array of {array.dtype}; legal: uint8, uint16, bool, or float in [0, 1]")
    return np.array(array)


def _read_with_opencv(path: Path, what: str) -> Photo:
    """Read what PIL doesn't know: float colour TIFF and the like."""
    try:
        grey = _read_grey_tiff(path)
    except _UNREADABLE as error:
        raise _unreadable(error, what, f"{str(path)!r} ") from error
    if grey is not None:
        return grey
    data = np.frombuffer(path.read_bytes(), np.uint8)
    array = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    if array is None:
        raise SceneError(f"{what}: {str(path)!r} is not an image that can be read; save it as PNG or JPEG")
    return _from_array(array[:, :, ::-1], what)


def _read_grey_tiff(path: Path) -> Photo | None:
    """Read a grey TIFF, of which OpenCV would leave 8 bits, no alpha, or a negative; ``None``: it is something else."""
    data = path.read_bytes()
    if data[:4] not in _TIFF_MAGIC:
        return None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        if page.samplesperpixel > 2 or page.dtype not in (np.uint8, np.uint16) or page.photometric > 1:
            return None
        try:
            array = page.asarray()
        except ValueError as error:
            raise ValueError(f"{error}: save it without compression, or with ZIP's (deflate)") from error
        tags = {tag.code: tag.value for tag in page.tags}
    if array.ndim == 2:
        array = array[:, :, None]
    array = array.transpose(1, 2, 0) if array.shape[0] == 2 else array
    array = np.ascontiguousarray(_upright(array, int(tags.get(ExifTags.Base.Orientation, 1))))
    array = _divided(array) if tuple(tags.get(ExifTags.Base.ExtraSamples, ())) == (1,) else array
    if tags[ExifTags.Base.PhotometricInterpretation] == 0:
        array[:, :, 0] = np.iinfo(array.dtype).max - array[:, :, 0]
    return _photo(array, tags.get(ExifTags.Base.InterColorProfile), clean_exif(data))


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError:
        raise SceneError(
            f"{str(path)!r} is a HEIC photo, which needs a package more: pip install pillow-heif; or save it as JPEG"
        ) from None
    pillow_heif.register_heif_opener()


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sort names as people do: 2 before 10."""
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in re.split(r"(\d+)", path.name) if part]
