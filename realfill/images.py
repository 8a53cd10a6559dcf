"""Photos in and out: reading any file, PIL image or array as sRGB, and the only conversions of range.

An ``ImageArray`` is (H, W, 3) uint8 sRGB. A tensor is (B, 3, H, W) float in [0, 1].
"""

from __future__ import annotations

import io
import re
import warnings
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from realfill.errors import SceneError

ImageArray: TypeAlias = NDArray[np.uint8]
MaskArray: TypeAlias = NDArray[np.bool_]
ImageLike: TypeAlias = str | PathLike[str] | Image.Image | NDArray

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2"}
)
_HEIF_SUFFIXES = frozenset({".heic", ".heif"})
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError)  # what PIL's readers raise
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
    if isinstance(source, np.ndarray):
        return _split_alpha(_to_uint8(source, what))
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
            with Image.open(path) as image:
                return _from_pil(image, what)
    except UnidentifiedImageError:
        return _read_with_opencv(path, what)
    except Image.DecompressionBombError as error:
        raise SceneError(f"{what}: {str(path)!r} is too large to be opened safely ({error}); shrink it first") from None
    except _UNREADABLE as error:
        raise _unreadable(error, what, f"{str(path)!r} ") from error


def write_png(path: str | PathLike[str], image: ImageArray, metadata: dict[str, str] | None = None) -> None:
    """Write an image losslessly, with text that any viewer of metadata shows.

    Args:
        path: where to; its suffix has to be ``.png``.
        image: (H, W, 3) uint8.
        metadata: PNG text entries.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"the path is {str(path)!r}; legal: one that ends in .png, which keeps every pixel exact")
    info = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()  # first to memory: a failure leaves no half a file
    Image.fromarray(image).save(buffer, format="PNG", pnginfo=info)
    Path(path).write_bytes(buffer.getvalue())


def resize(image: NDArray, size: tuple[int, int]) -> NDArray:
    """Resize: area average where it shrinks, cubic where it grows. Pixel centres keep their places.

    Args:
        image: (H, W) or (H, W, C), uint8 or float32.
        size: (height, width).

    Returns:
        The image at that size, of the same type; cubic overshoot is clipped for uint8 only.
    """
    if image.shape[:2] == tuple(size):
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(
        np.ascontiguousarray(image), (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )


def fit_within(size: tuple[int, int], max_size_px: int) -> tuple[int, int]:
    """Shrink a size (height, width), if need be, so that its longer side is at most ``max_size_px``."""
    scale = min(1.0, max_size_px / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_tensor(images: NDArray) -> torch.Tensor:
    """Convert (H, W, 3) or (B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1]."""
    batch = images if images.ndim == 4 else images[None]
    return torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2))).float() / 255


def to_array(tensor: torch.Tensor) -> ImageArray:
    """Convert (3, H, W) in [0, 1] to (H, W, 3) uint8; clips, then rounds to the nearest."""
    return (tensor.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _unreadable(error: Exception, what: str, name: str) -> SceneError:
    if isinstance(error, SceneError):
        return error
    return SceneError(f"{what}: {name}can't be read ({error}); is the file complete? Save or download it again")


def _from_pil(image: Image.Image, what: str) -> tuple[ImageArray, MaskArray | None]:
    profile = image.info.get("icc_profile")
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("P", "PA") or (image.mode in ("RGB", "L", "1") and "transparency" in image.info):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _split_alpha(_to_uint8(_wide_grey(np.asarray(image)), what))
    alpha = None
    if image.mode in ("RGBA", "LA", "RGBa", "La"):
        image = image.convert("RGBA" if image.mode.startswith("RGB") else "LA")
        alpha = image.getchannel("A")
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    pixels = np.array(_to_srgb(image, profile))
    if alpha is None:
        return pixels, None
    return _split_alpha(np.dstack([pixels, np.asarray(alpha)]))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "RGB" and ImageCms.getProfileDescription(source).strip().startswith("sRGB"):
                return image
            converted = ImageCms.profileToProfile(image, source, _SRGB, _PERCEPTUAL, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged or mismatched profile: show the pixels as viewers do, without it
    return image.convert("RGB")


def _wide_grey(values: NDArray) -> NDArray:
    if values.dtype == np.float32:
        return values if values.max(initial=0) <= 1 else values / np.float32(255)
    return values.clip(0, 65535).astype(np.uint16)


def _to_uint8(array: NDArray, what: str) -> NDArray[np.uint8]:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise SceneError(f"{what} has the shape {array.shape}; legal: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise SceneError(
                f"{what} is a float array from {array.min():.3g} to {array.max():.3g}; legal: finite values in [0, 1]"
            )
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise SceneError(f"{what} is an array of {array.dtype}; legal: uint8, uint16, bool, or float in [0, 1]")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else np.array(array)


def _split_alpha(array: NDArray[np.uint8]) -> tuple[ImageArray, MaskArray | None]:
    if array.shape[2] == 3:
        return array, None
    transparent = array[:, :, 3] < 128
    return np.ascontiguousarray(array[:, :, :3]), transparent if transparent.any() else None


def _read_with_opencv(path: Path, what: str) -> tuple[ImageArray, MaskArray | None]:
    """Read what PIL doesn't know: 16-bit colour TIFF and the like."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    array = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    if array is None:
        raise SceneError(f"{what}: {str(path)!r} is not an image that can be read; save it as PNG or JPEG")
    return _split_alpha(_to_uint8(array[:, :, ::-1], what))


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError:
        raise SceneError(
            f"{str(path)!r} is a HEIC photo, which needs an extra: pip install 'realfill[heic]'; or save it as JPEG"
        ) from None
    pillow_heif.register_heif_opener()


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sort names as people do: 2 before 10."""
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in re.split(r"(\d+)", path.name) if part]
