"""Reading masks, which come in several forms.

==============================================  ====================================================
input                                           hole
==============================================  ====================================================
a bool array                                    True
an image of two values or colours               the lighter one; a coloured one on black; the smaller
                                                of white and a colour
strokes on a transparent layer                  the strokes
a layer of one colour with a transparent part   the transparent part
a photo with a transparent part                 the transparent part
the target with strokes of one colour on it     the strokes
==============================================  ====================================================

Every other image is refused, because the brightness of a photo says nothing about a hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.errors import SceneError
from realfill.io.bands import bands
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_photo
from realfill.io.photos import Photo
from realfill.io.profiles import to_srgb
from realfill.scene.colours import describe_colour, has_few_colours, is_near, most_frequent, sample, to_grey
from realfill.scene.strokes import find_strokes

_NEAR, _CLOSE = 48, 8  # differences, in 8-bit levels, of similar colours and of a flat colour with coding noise
_MAX_OFF_AXIS, _MAX_GREY, _MIN_FLAT = 0.01, 0.15, 0.65  # shares of the pixels of an image of two colours
_MIN_SIDE_FLAT = 0.3  # share of the pixels on the side of each of the two colours
_NEUTRAL = 64  # largest difference between the channels of a grey
_LEGAL = (
    "legal: white = fill on black; a layer or photo whose transparent part is the hole; strokes of one colour on a "
    "transparent layer, or on a copy of the target of the same size"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskReading:
    """A mask and the reason for it.

    Attributes:
        mask: (H, W) bool, True = fill.
        source: description of the pixels taken as the hole, for example "the white pixels of the mask".
        is_outline: whether a detector has drawn the mask, so that nobody can have mixed up black and white.
    """

    mask: MaskArray
    source: str
    is_outline: bool = False


MaskLike: TypeAlias = ImageLike | MaskArray | MaskReading


def read_mask(source: MaskLike, target: ImageArray | None = None) -> MaskReading:
    """Read a mask; the table at the top of this module lists the forms.

    Args:
        source: a bool array; a path, PIL image or array of any numeric type; or a mask that is already read, for
            example the result of ``mask_from``.
        target: (H, W, 3) uint8 sRGB, the photo to complete. It serves to detect strokes on a copy of the target.

    Raises:
        SceneError: the mask cannot be read, or shows a photo instead of a hole.
    """
    if isinstance(source, MaskReading):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype == np.bool_ and source.ndim == 2 and source.size:
            return MaskReading(mask=source.copy(), source="the True values of the mask")
        source = _normalized(source)
    photo = read_photo(source, "the mask")
    image = to_srgb(_widened(photo.pixels), photo.icc_profile)
    if target is not None and target.shape != image.shape:
        target = None
    opacity = _opacity(photo)
    return _read_layer(image, opacity, target) if opacity is not None else _read_opaque(image, target)


def _normalized(array: NDArray[Any]) -> NDArray[Any]:
    """Convert an array of any numeric type to one that ``read_photo`` accepts, if its values allow it."""
    is_numeric = array.size and array.ndim in (2, 3) and array.dtype.kind in "iuf"
    if not is_numeric or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        return array
    low, high = array.min(), array.max()
    if array.ndim == 2 or array.shape[-1] != 4:  # with alpha, colours and alpha are looked at separately
        if low == high:
            return array > 0
        if ((array == low) | (array == high)).all():
            return array == high
    if array.dtype.kind == "f":
        return array / 255 if low >= 0 and 1.001 < high <= 255 else array
    if low < 0 or high > np.iinfo(np.uint16).max:
        return array
    return array.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)


def _widened(pixels: NDArray) -> NDArray:
    """Stretch two values, such as 0 and 1, to the full range, and 8-bit values in 16 bits to 8 bits."""
    low, high = pixels.min(), pixels.max()
    if low < high and ((pixels == low) | (pixels == high)).all():
        return np.where(pixels == high, np.uint8(255), np.uint8(0))
    return pixels.astype(np.uint8) if high <= np.iinfo(np.uint8).max else pixels


def _opacity(photo: Photo) -> NDArray[np.float32] | None:
    """Scale alpha to [0, 1], whatever the opacity of the layer; ``None`` if alpha is nearly constant."""
    if photo.alpha is None:
        return None
    low, high = int(photo.alpha.min()), int(photo.alpha.max())
    if high - low < 0.1 * high:
        return None
    return (photo.alpha.astype(np.float32) - low) / np.float32(high - low)


def _read_layer(image: ImageArray, opacity: NDArray[np.float32], target: ImageArray | None) -> MaskReading:
    """Read an image with a transparent part."""
    visible = opacity >= 0.5
    colours = sample(image[visible])
    is_flat = has_few_colours(colours)
    agrees = target is not None and cv2.absdiff(colours, sample(target[visible])).max(axis=1) <= 2 * _CLOSE
    if not is_flat and np.mean(agrees) > 0.9:
        return MaskReading(mask=_erased(opacity), source="the transparent pixels of the mask, a copy of the target")
    is_black, is_white = (is_near(colours, np.full(3, level, np.float32), 2 * _CLOSE) for level in (0, 255))
    if (is_black | is_white).mean() > 0.95 and min(is_black.mean(), is_white.mean()) > 0.005:
        return MaskReading(mask=visible & (image.min(axis=2) > 127), source="the white pixels of the mask")
    if not (is_flat or is_near(colours, most_frequent(colours), _CLOSE).mean() > 0.95):
        return MaskReading(mask=_erased(opacity), source="the transparent pixels of the mask, which shows a photo")
    if visible.mean() < 0.5:
        return MaskReading(mask=opacity >= 0.25, source="the strokes on the transparent layer of the mask")
    return MaskReading(mask=~visible, source="the transparent pixels of the mask, which has a flat colour elsewhere")


def _erased(opacity: NDArray[np.float32]) -> MaskArray:
    """Find the pixels that an eraser touched, also lightly, unless hardly a pixel is opaque."""
    touched = opacity < 0.98
    return touched if touched.mean() < 0.9 else opacity < 0.5


def _read_opaque(image: ImageArray, target: ImageArray | None) -> MaskReading:
    """Read an image without a transparent part."""
    colours = sample(image.reshape(-1, 3))
    poles = _find_poles(colours)
    if poles is None and 0 < image.max() <= _CLOSE:
        raise SceneError(f"the mask is nearly black: its brightest value is {image.max()} of 255; {_LEGAL}")
    if poles is None:
        return MaskReading(mask=image.max(axis=2) > 127, source="the white pixels of the mask")
    if target is not None:
        is_grey = bool((colours.min(axis=1) == colours.max(axis=1)).all())
        target = to_grey(target) if is_grey else target
        agrees = cv2.absdiff(colours, sample(target.reshape(-1, 3))).max(axis=1) <= 2 * _CLOSE
        between = ~(is_near(colours, poles[0], _CLOSE) | is_near(colours, poles[1], _CLOSE))
        shows_details = between.mean() > 0.05 and agrees[between].mean() > 0.5
        if shows_details or (agrees.mean() > 0.5 and not _has_two_colours(colours, poles)):
            return _read_strokes(image, target)
    if not _has_two_colours(colours, poles):
        share = 1 - (is_near(colours, poles[0], _CLOSE) | is_near(colours, poles[1], _CLOSE)).mean()
        raise SceneError(
            f"the mask looks like a photo: {100 * share:.0f} % of its pixels have neither of its two main colours, "
            f"{describe_colour(poles[0])} and {describe_colour(poles[1])}, and it is no copy of the target with "
            f"strokes; {_LEGAL}"
        )
    hole, other, source = _choose_pole(colours, poles)
    axis, mask = hole - other, np.empty(image.shape[:2], bool)
    for rows in bands(image.shape):
        mask[rows] = (image[rows].astype(np.float32) - other) @ axis > 0.5 * (axis @ axis)
    return MaskReading(mask=mask, source=source)


def _read_strokes(image: ImageArray, target: ImageArray) -> MaskReading:
    try:
        mask, paint = find_strokes(image, target)
    except SceneError as error:
        raise SceneError(f"{error}; {_LEGAL}") from None
    return MaskReading(
        mask=mask, source=f"the strokes of the colour {describe_colour(paint)} in the mask, a copy of the target"
    )


def _find_poles(colours: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Find the two most frequent, clearly different colours; ``None`` if the image has a single flat colour."""
    first = most_frequent(colours)
    distances = np.abs(colours - first).max(axis=1)
    if distances.max() <= _CLOSE:
        return None
    if distances.max() <= _NEAR:
        return first, colours[int(distances.argmax())].astype(np.float32)
    second = most_frequent(colours[distances > _NEAR])
    axis = second - first
    beyond = colours[(colours - first) @ axis > 1.3 * (axis @ axis)]  # then the second colour is only a watermark
    return first, most_frequent(beyond) if len(beyond) > 1e-4 * len(colours) else second


def _has_two_colours(colours: NDArray[np.uint8], poles: tuple[NDArray[np.float32], NDArray[np.float32]]) -> bool:
    """Tell whether an image consists of two flat colours, apart from smooth edges, coding noise and watermarks."""
    first, second = poles
    axis = second - first
    along = np.clip((colours - first) @ axis / (axis @ axis), 0, 1)
    is_off_axis = ~is_near(colours, first + along[:, None] * axis, _NEAR)
    is_grey = (along > 0.1) & (along < 0.9)
    tolerance = min(_CLOSE, 0.08 * float(np.abs(axis).max()))
    near_first, near_second = (is_near(colours, pole, tolerance) for pole in poles)
    if is_off_axis.mean() > _MAX_OFF_AXIS or is_grey.mean() > _MAX_GREY:
        return False
    is_second = along > 0.5
    return bool(
        (near_first | near_second).mean() >= _MIN_FLAT
        and near_first.sum() >= _MIN_SIDE_FLAT * (~is_second).sum()
        and near_second.sum() >= _MIN_SIDE_FLAT * is_second.sum()
    )


def _choose_pole(
    colours: NDArray[np.uint8], poles: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
    """Decide which of two colours is the hole: (hole, other, reason)."""
    dark, light = sorted(poles, key=lambda colour: float(np.dot(colour, [0.299, 0.587, 0.114])))
    if _is_neutral(light) and not _is_neutral(dark):
        is_dark = np.abs(colours - dark).max(axis=1) < np.abs(colours - light).max(axis=1)
        if is_dark.mean() < 0.5:
            return dark, light, f"the strokes of the colour {describe_colour(dark)} in the mask"
    elif _is_neutral(dark) and _is_neutral(light):
        name = "white" if light.min() > 127 else "lighter"
        return light, dark, f"the {name} pixels of the mask"
    elif _is_neutral(light) is False and _is_neutral(dark) and dark.min() > 127:
        return light, dark, f"the strokes of the colour {describe_colour(light)} in the mask"
    return light, dark, f"the pixels of the lighter colour {describe_colour(light)} of the mask"


def _is_neutral(colour: NDArray[np.float32]) -> bool:
    return float(np.ptp(colour)) <= _NEUTRAL
