"""Margins: how far a canvas reaches beyond a photo on each side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeAlias

from realfill.errors import SceneError

Reach: TypeAlias = int | float
"""How far a side grows: whole numbers are pixels, fractions shares of the photo's width or height."""

MAX_CANVAS_PX = 178_000_000  # a little less than what Pillow opens


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Pixels that are added on each side."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    @classmethod
    def of_sides(
        cls, size: tuple[int, int], *, margin: Reach, left: Reach | None, right: Reach | None, top: Reach | None,
        bottom: Reach | None,
    ) -> Margins:  # fmt: skip
        """Measure out each side; one that is ``None`` grows by ``margin``.

        Args:
            size: (height, width) of the photo.
            margin: of the sides that aren't given.
            left: whole pixels, or a share of the width as a float; likewise the others.
            right: likewise.
            top: of the height; likewise.
            bottom: likewise.

        Raises:
            SceneError: a side is negative or no number, or nothing grows, or the canvas gets absurdly large.
        """
        given = {"left": left, "right": right, "top": top, "bottom": bottom}
        sides = {}
        for name, value in given.items():
            length = size[1] if name in ("left", "right") else size[0]
            sides[name] = _pixels("margin" if value is None else name, margin if value is None else value, length)
        return _checked(cls(**sides), size)

    @classmethod
    def of_aspect(cls, size: tuple[int, int], aspect: float | tuple[float, float], *, anchor: float) -> Margins:
        """Grow the shorter way, as little as gives an aspect.

        Args:
            size: (height, width) of the photo.
            aspect: width over height, or (width, height).
            anchor: share of what is added that lies left of the photo or above it.

        Raises:
            SceneError: as for ``of_sides``; the photo has this aspect; the anchor isn't in [0, 1].
        """
        ratio = _ratio(aspect)
        if not 0 <= anchor <= 1:
            raise SceneError(f"anchor is {anchor}; legal: from 0 (all is added right or below) to 1 (left or above)")
        height, width = size
        wide = max(0, min(round(height * ratio), MAX_CANVAS_PX) - width)
        high = max(0, min(round(width / ratio), MAX_CANVAS_PX) - height)  # both are 0 to a rounding
        if wide > 0:
            sides = cls(left=round(wide * anchor), right=wide - round(wide * anchor))
        else:
            sides = cls(top=round(high * anchor), bottom=high - round(high * anchor))
        return _checked(sides, size)

    def to_dict(self) -> dict[str, int]:
        """Convert to plain JSON values."""
        return {"left": self.left, "right": self.right, "top": self.top, "bottom": self.bottom}


def _checked(margins: Margins, size: tuple[int, int]) -> Margins:
    if not any(margins.to_dict().values()):
        raise SceneError(
            f"the canvas is the target's {size[1]} x {size[0]} pixels: nothing to fill; let a side grow by pixels "
            "(100) or a share (0.3), or ask for another aspect"
        )
    height, width = size[0] + margins.top + margins.bottom, size[1] + margins.left + margins.right
    if height * width > MAX_CANVAS_PX:
        raise SceneError(
            f"the canvas has {width} x {height} pixels; legal: up to {MAX_CANVAS_PX // 10**6} million; a whole "
            "number is pixels, a fraction a share of the target"
        )
    return margins


def _pixels(name: str, value: Reach, length: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise SceneError(f"{name} is {value!r}; legal: pixels as a whole number, or a share as a float; 0 or more")
    return int(value) if isinstance(value, Integral) else round(float(value) * length)


def _ratio(aspect: float | tuple[float, float]) -> float:
    sides = aspect if isinstance(aspect, tuple | list) else (aspect, 1)
    if len(sides) != 2 or not all(isinstance(n, Real) and math.isfinite(n) and n > 0 for n in sides):
        raise SceneError(f"aspect is {aspect!r}; legal: width over height as a number, or (width, height), above 0")
    return float(sides[0]) / float(sides[1])
