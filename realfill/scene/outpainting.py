"""Outpainting: the margins that a larger canvas adds to a photo."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias

from realfill.errors import SceneError

Length: TypeAlias = int | str
"""The growth of a side: pixels as a number (100) or text ("100px"), or a share of the photo as text ("30%")."""
Aspect: TypeAlias = float | str | tuple[float, float]
"""Width over height (1.5), or both, as (16, 9) or "16:9"."""

MAX_CANVAS_PX = 178_000_000  # slightly below the limit at which Pillow refuses to open an image
_LENGTH = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|px|)\s*")
_LENGTH_HELP = 'legal: whole pixels, 100 or "100px", or a share of the photo, "30%"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """The number of pixels that are added on each side."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    @classmethod
    def of_sides(
        cls, size: tuple[int, int], *, margin: Length, left: Length | None, right: Length | None, top: Length | None,
        bottom: Length | None,
    ) -> Margins:  # fmt: skip
        """Convert the lengths of the sides to pixels.

        Args:
            size: (height, width) of the photo.
            margin: the growth of every side that is ``None``.
            left: growth to the left; a share refers to the width.
            right: growth to the right; a share refers to the width.
            top: growth at the top; a share refers to the height.
            bottom: growth at the bottom; a share refers to the height.

        Raises:
            SceneError: a length is illegal, no side grows, or the canvas is larger than 178 million pixels.
        """
        lengths = {"left": left, "right": right, "top": top, "bottom": bottom}
        sides = {}
        for name, length in lengths.items():
            side_px = size[1] if name in ("left", "right") else size[0]
            argument = (name, length) if length is not None else ("margin", margin)
            sides[name] = _to_pixels(*argument, side_px)
        return _checked(cls(**sides), size)

    @classmethod
    def of_aspect(cls, size: tuple[int, int], aspect: Aspect, *, anchor: float) -> Margins:
        """Extend the side that is too short for an aspect.

        Args:
            size: (height, width) of the photo.
            aspect: width over height, or (width, height), or text such as "16:9".
            anchor: the share of the new pixels that lies to the left of the photo or above it.

        Raises:
            SceneError: an argument is illegal, the photo already has this aspect, or the canvas is larger than 178
                million pixels.
        """
        ratio = _ratio(aspect)
        if not 0 <= anchor <= 1:
            raise SceneError(f"anchor is {anchor}; legal: from 0 (grow to the right or down) to 1 (to the left or up)")
        height, width = size
        extra_width = max(0, min(round(height * ratio), MAX_CANVAS_PX) - width)
        extra_height = max(0, min(round(width / ratio), MAX_CANVAS_PX) - height)  # both are 0 up to rounding
        if extra_width > 0:
            left = round(extra_width * anchor)
            margins = cls(left=left, right=extra_width - left)
        else:
            top = round(extra_height * anchor)
            margins = cls(top=top, bottom=extra_height - top)
        return _checked(margins, size)

    def to_dict(self) -> dict[str, int]:
        """Return the margins as plain JSON values."""
        return {"left": self.left, "right": self.right, "top": self.top, "bottom": self.bottom}


def _checked(margins: Margins, size: tuple[int, int]) -> Margins:
    if not any(margins.to_dict().values()):
        raise SceneError(
            f"the canvas has the size of the target, {size[1]} x {size[0]} pixels, so there is nothing to fill; let a "
            'side grow by pixels (100) or a share ("30%"), or choose another aspect'
        )
    height, width = size[0] + margins.top + margins.bottom, size[1] + margins.left + margins.right
    if height * width > MAX_CANVAS_PX:
        raise SceneError(
            f"the canvas has {width} x {height} pixels; legal: up to {MAX_CANVAS_PX // 10**6} million in all; let the "
            "sides grow less"
        )
    return margins


def _to_pixels(name: str, length: Length, side_px: int) -> int:
    """Convert a length to pixels; ``side_px`` is the side of the photo to which a share refers."""
    if isinstance(length, str):
        match = _LENGTH.fullmatch(length)
        if match is None:
            raise SceneError(f"{name} is {length!r}; {_LENGTH_HELP}")
        number, is_share = float(match[1]), match[2] == "%"
    elif isinstance(length, Real) and not isinstance(length, bool) and math.isfinite(length) and length >= 0:
        number, is_share = float(length), False
    else:
        raise SceneError(f"{name} is {length!r}; {_LENGTH_HELP}")
    if is_share:
        return round(number / 100 * side_px)
    if not number.is_integer():
        raise SceneError(f"{name} is {length!r}, which is not a whole number of pixels; {_LENGTH_HELP}")
    return int(number)


def _ratio(aspect: Aspect) -> float:
    sides = aspect
    if isinstance(sides, str):
        sides = tuple(float(n) if re.fullmatch(r"\s*\d*\.?\d+\s*", n) else math.nan for n in sides.split(":"))
    if isinstance(sides, Real):
        sides = (sides,)
    if not isinstance(sides, tuple | list) or len(sides) not in (1, 2) or not all(map(_is_positive, sides)):
        raise SceneError(f'aspect is {aspect!r}; legal: width over height as 1.5, (16, 9) or "16:9", above 0')
    return float(sides[0]) / float(sides[1] if len(sides) == 2 else 1)


def _is_positive(number: object) -> bool:
    return isinstance(number, Real) and math.isfinite(number) and float(number) > 0
