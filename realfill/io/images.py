"""Reading photos from files, PIL images and arrays; resizing; conversion to tensors and back.

An ``ImageArray`` is (H, W, 3) uint8 sRGB. A tensor is (B, 3, H, W) float in [0, 1]. Torch is imported when the first
tensor is made, because geometry needs none.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from realfill.errors import SceneError
from realfill.io.declared import declared_size
from realfill.io.deep import decode_deep, decode_grey_tiff, is_negative, require_pixels, silent_opencv
from realfill.io.metadata import INCH_M, clean_exif, read_focal, read_resolution, read_texts, resolution_of
from realfill.io.photos import Photo
from realfill.io.profiles import is_readable, is_writable, to_srgb
from realfill.io.recognition import NO_PHOTOS, is_heif, is_raw

if TYPE_CHECKING:
    import torch

ImageArray: TypeAlias = NDArray[np.uint8]
MaskArray: TypeAlias = NDArray[np.bool_]
ImageLike: TypeAlias = str | PathLike[str] | Image.Image | NDArray

_UNREADABLE = (  # what decoders raise for damaged files
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, ArithmeticError, TypeError, AttributeError,
    AssertionError, MemoryError, struct.error, zlib.error, cv2.error,
)  # fmt: skip
_ROUNDING = 1e-3  # distance by which computed float images may leave [0, 1]
_CUBIC_SHARE = 0.9  # above it, area averaging would blur some rows and leave others sharp
_PERCEPTUAL = ImageCms.Intent.PERCEPTUAL
_SRGB = ImageCms.createProfile("sRGB")


def read_image(source: ImageLike, what: str = "image") -> tuple[ImageArray, MaskArray | None]:
    """Read a photo as 8-bit sRGB.

    Undoes the EXIF rotation and converts grey, palette, CMYK, 16-bit and float images and other colour profiles.
    Transparent pixels keep their stored colours.

    Args:
        source: a path; a PIL image; or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16, bool, or
            float in [0, 1].
        what: the role of the image in the scene, for error messages.

    Returns:
        The image, (H, W, 3) uint8, and its transparent pixels (alpha below a half), (H, W) bool. The second is ``None``
        if the image has no alpha channel or no transparent pixel.

    Raises:
        SceneError: the file is missing, unreadable, truncated or too large to be opened safely, or the array has an
            illegal shape, type or range.
    """
    photo = read_photo(source, what)
    return photo.srgb(), photo.fainter_than(0.5)


def read_photo(source: ImageLike, what: str = "image") -> Photo:
    """Read a photo upright, in its own colours and depth.

    Keeps 8 and 16 bits, grey and RGB, alpha, colour profile and EXIF. Converts one-bit and palette images to 8 bits,
    and CMYK, Lab, float images and 16-bit colour in files other than PNG and TIFF to 8-bit sRGB.

    Args:
        source: a path, a PIL image or an array, see ``read_image``.
        what: the role of the image in the scene, for error messages.

    Raises:
        SceneError: the image cannot be read, see ``read_image``.
    """
    if isinstance(source, np.ndarray):
        return _photo(_to_levels(source, what))
    if isinstance(source, Image.Image):
        try:
            return _from_pil(source, what)
        except _UNREADABLE as error:
            raise _unreadable(error, what, "") from error
    if not isinstance(source, str | PathLike):
        raise SceneError(f"{what} is a {type(source).__name__}; legal: a path, a PIL image or a numpy array")
    path = Path(source)
    _check_file(path, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # about EXIF that is left out
            with (
                path.open("rb") as stream,
                Image.open(stream) as image,
            ):  # by path, Pillow scrambles rotated TIFFs
                if image.format in NO_PHOTOS:  # Pillow would run Ghostscript on a document of PostScript
                    raise _unknown(what, path)
                return _from_pil(image, what)
    except UnidentifiedImageError:
        return _read_with_opencv(path, what)
    except Image.DecompressionBombError as error:
        raise _too_large(error, what, path) from None
    except _UNREADABLE as error:
        raise _unreadable(error, what, f"{str(path)!r} ") from error


def _check_file(path: Path, what: str) -> None:
    if path.is_dir():
        raise SceneError(f"{what}: {str(path)!r} is a folder; legal: an image file")
    if not path.is_file():
        raise SceneError(f"{what}: there is no file {str(path)!r}")
    if is_raw(path):
        raise SceneError(f"{what}: {str(path)!r} is a raw file of a camera; develop it and save it as TIFF or JPEG")
    if is_heif(path):
        _register_heif(path)


def resize(image: NDArray, size: tuple[int, int]) -> NDArray:
    """Resize by area averaging when shrinking, else by cubic interpolation, with aligned pixel centres.

    Args:
        image: (H, W) or (H, W, C), uint8 or float32.
        size: (height, width).

    Returns:
        The resized image, of the same type. Cubic overshoot is clipped for uint8 only.
    """
    if image.shape[:2] == tuple(size):
        return image
    shrinks = size[0] * size[1] < _CUBIC_SHARE * image.shape[0] * image.shape[1]
    return cv2.resize(
        np.ascontiguousarray(image), (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )


def fit_within(size: tuple[int, int], max_size_px: int) -> tuple[int, int]:
    """Scale a size (height, width) down so that its longer side is at most ``max_size_px``; never up."""
    scale = min(1.0, max_size_px / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_bytes(images: NDArray) -> torch.Tensor:
    """Convert (H, W, 3) or (B, H, W, 3) uint8 to a tensor (B, 3, H, W) uint8."""
    import torch  # noqa: PLC0415 - geometry does without it

    batch = images if images.ndim == 4 else images[None]
    return torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))


def to_shares(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 to float32 in [0, 1]; floating-point tensors pass unchanged."""
    return images if images.is_floating_point() else images.float() / 255


def to_tensor(images: NDArray) -> torch.Tensor:
    """Convert (H, W, 3) or (B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1]."""
    return to_shares(to_bytes(images))


def to_array(tensor: torch.Tensor) -> ImageArray:
    """Convert a tensor (3, H, W) in [0, 1] to (H, W, 3) uint8; clips, then rounds to the nearest."""
    return (tensor.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _unreadable(error: Exception, what: str, name: str) -> SceneError:
    if isinstance(error, SceneError):
        return error
    return SceneError(f"{what}: {name}cannot be read ({error}); is the file complete? Save or download it again")


def _too_large(error: Exception, what: str, path: Path) -> SceneError:
    return SceneError(f"{what}: {str(path)!r} is too large to be opened safely ({error}); shrink it first")


def _unknown(what: str, path: Path) -> SceneError:
    return SceneError(f"{what}: {str(path)!r} is not an image in a known format; save it as PNG or JPEG")


def _from_pil(image: Image.Image, what: str) -> Photo:
    profile = image.info.get("icc_profile")
    array, negative = decode_deep(image), is_negative(image)
    exif, resolution, focal, opened = clean_exif(image), read_resolution(image), read_focal(image), image
    if resolution is not None and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
        resolution = resolution.turned()
    if array is None:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # the call copies the image even if nothing changes
            image = ImageOps.exif_transpose(image)
        if image.mode in ("P", "PA") or (image.mode in ("RGB", "L", "1") and "transparency" in image.info):
            image = image.convert("LA" if image.mode == "L" else "RGBA" if image.has_transparency_data else "RGB")
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            array = _to_levels(_wide_grey(np.asarray(image)), what)
            array = np.iinfo(array.dtype).max - array if negative else array
    if array is None:
        if image.mode in ("RGBa", "La"):
            image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            image, profile = _to_rgb(image, profile), None
        array = np.array(image).reshape(image.height, image.width, -1)
    return _photo(array, profile, exif=exif, resolution=resolution, focal_px=focal, texts=read_texts(opened))


def _photo(array: NDArray, profile: bytes | None = None, **metadata: Any) -> Photo:
    """Split (H, W, C), C from 1 to 4, into colour and alpha; keep the profile if colours can be converted to it."""
    num_colours = array.shape[2] - 1 + array.shape[2] % 2
    pixels, alpha = array, None
    if num_colours < array.shape[2]:
        pixels, alpha = np.ascontiguousarray(array[:, :, :num_colours]), np.ascontiguousarray(array[:, :, num_colours])
        alpha = None if alpha.min() == np.iinfo(alpha.dtype).max else alpha
    if not is_readable(profile, num_colours):
        profile = None
    elif not is_writable(profile, num_colours):
        pixels, profile = to_srgb(pixels, profile), None
    return Photo(pixels=pixels, alpha=alpha, icc_profile=profile, **metadata)


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert CMYK and other modes in which no result can be written to RGB."""
    if profile and image.mode == "CMYK":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, _SRGB, _PERCEPTUAL, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # like image viewers, ignore a damaged or mismatched profile
    return image.convert("L" if image.mode == "1" else "RGB")


def _wide_grey(values: NDArray) -> NDArray:
    if np.issubdtype(values.dtype, np.floating):
        return values if values.max(initial=0) <= 1 + _ROUNDING else values / np.float32(255)
    return values.clip(0, 65535).astype(np.uint16)


def _to_levels(array: NDArray, what: str) -> NDArray:
    """Check an array and copy it to (H, W, C), uint8 or uint16."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise SceneError(f"{what} has the shape {array.shape}; legal: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(array.dtype, np.floating):
        low, high = array.min(), array.max()
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also true for nan
            raise SceneError(
                f"{what} is a float array with values from {low:.7g} to {high:.7g}; legal: finite values in [0, 1], "
                f"with rounding errors up to {_ROUNDING}"
            )
        return (array.clip(0, 1) * 255).round().astype(np.uint8)
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise SceneError(f"{what} is an array of {array.dtype}; legal: uint8, uint16, bool, or float in [0, 1]")
    return array.astype(array.dtype.newbyteorder("="))


def _read_with_opencv(path: Path, what: str) -> Photo:
    """Read a file that Pillow does not know, for example a TIFF with float colours."""
    data = path.read_bytes()
    try:
        grey = decode_grey_tiff(data)
    except Image.DecompressionBombError as error:
        raise _too_large(error, what, path) from None
    except _UNREADABLE as error:
        raise _unreadable(error, what, f"{str(path)!r} ") from error
    if grey is not None:
        array, tags = grey
        resolution = resolution_of(
            tags.get(ExifTags.Base.XResolution), tags.get(ExifTags.Base.YResolution),
            unit_m={2: INCH_M, 3: 0.01}.get(int(tags.get(ExifTags.Base.ResolutionUnit, 2))),
        )  # fmt: skip
        if resolution is not None and tags.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
            resolution = resolution.turned()
        return _photo(array, tags.get(ExifTags.Base.InterColorProfile), exif=clean_exif(data), resolution=resolution)
    array = _decode_with_opencv(data, what, path)
    if array is None:
        raise _unknown(what, path)
    return _photo(_to_levels(array[:, :, ::-1], what))


def _decode_with_opencv(data: bytes, what: str, path: Path) -> NDArray | None:
    """Decode an image whose declared size is known and not too large; ``None`` if OpenCV cannot."""
    try:
        size = declared_size(data)
        if size is None:
            return None
        require_pixels(size[0] * size[1])
        with silent_opencv():
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except Image.DecompressionBombError as error:
        raise _too_large(error, what, path) from None
    except _UNREADABLE as error:
        raise _unreadable(error, what, f"{str(path)!r} ") from error


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError:
        raise SceneError(
            f"{str(path)!r} is a HEIC photo, which needs another package: pip install pillow-heif; or save it as JPEG"
        ) from None
    pillow_heif.register_heif_opener()


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Return a sort key that puts the name "2" before "10"."""
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", path.name) if part]
