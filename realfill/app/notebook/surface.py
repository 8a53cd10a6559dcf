"""A picture to draw on. ipywidgets has no pointer events, so a script in it writes strokes into a hidden field.

The script runs in the user's browser, in the output of the cell. Where a front end does not run it, nothing can be
drawn; every tool has a control with numbers beside it.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import ipywidgets as widgets

from realfill.app.notebook.parts import data_url
from realfill.errors import SceneError
from realfill.io.images import ImageArray

Point = tuple[float, float]
OnStroke = Callable[[str, Sequence[Point]], object]
"""Takes the tool, and points (x, y) in shares of the picture."""

_SCRIPT = (files("realfill.app.notebook") / "surface.js").read_text(encoding="utf-8")
_TOOLS = ("brush", "rubber", "box", "pick")


class Surface(widgets.VBox):
    """A picture with a brush, a rubber, a box and a pointer."""

    def __init__(self, name: str, about: str, on_stroke: OnStroke) -> None:
        """Make an empty surface.

        Args:
            name: unique within the panel, in lower-case letters.
            about: the alternative text of the picture.
            on_stroke: called with each finished stroke.
        """
        self._name, self._about, self._on_stroke = f"realfill-strokes-{name}", about, on_stroke
        self._view = widgets.HTML()
        self.strokes = widgets.Textarea(layout=widgets.Layout(display="none"))
        self.strokes.add_class(self._name)
        self.strokes.observe(lambda change: self._take(change["new"]), "value")
        self._seen: set[float] = set()
        super().__init__([self._view, self.strokes])

    def show(self, image: ImageArray | None, *, tool: str, radius: float) -> None:
        """Show a picture, or nothing.

        Args:
            image: (H, W, 3) uint8.
            tool: ``brush``, ``rubber``, ``box`` or ``pick``.
            radius: half of the brush's width, as a share of the picture's width.
        """
        self._view.value = "" if image is None else (
            f'<div class="realfill-surface" data-tool="{tool}" data-radius="{radius}" data-field="{self._name}">'
            f'<img src="{data_url(image)}" alt="{html.escape(self._about, quote=True)}" draggable="false">'
            f'<canvas></canvas><img src="data:," alt="" hidden onerror="{html.escape(_SCRIPT, quote=True)}"></div>'
        )  # fmt: skip

    def _take(self, text: str) -> None:
        """Take the strokes that are new; the browser sends all that were drawn on this picture."""
        for stroke in _read(text):
            if stroke["id"] not in self._seen:
                self._seen.add(stroke["id"])
                self._on_stroke(stroke["tool"], [(float(x), float(y)) for x, y in stroke["points"]])


def _read(text: str) -> list[dict[str, Any]]:
    """Read the strokes that the browser sent; what is no stroke is left out."""
    try:
        strokes = json.loads(text) if text else []
    except ValueError:
        return []
    return [stroke for stroke in strokes if _is_stroke(stroke)] if isinstance(strokes, list) else []


def _is_stroke(stroke: Any) -> bool:
    try:
        points = [(float(x), float(y)) for x, y in stroke["points"]]
        is_finite = all(math.isfinite(value) for point in points for value in point)
        return bool(points) and is_finite and stroke["tool"] in _TOOLS and isinstance(stroke["id"], int | float)
    except (KeyError, TypeError, ValueError):
        return False


def box_of(points: Sequence[Point], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box that two ends of a stroke span, (top, left, bottom, right) in pixels, cut to the photo.

    Args:
        points: (x, y) in pixels.
        size: (height, width) of the photo.

    Raises:
        SceneError: it has no pixel in the photo.
    """
    (x0, y0), (x1, y1) = points[0], points[-1]
    left, right = (min(max(round(x), 0), size[1]) for x in sorted((x0, x1)))
    top, bottom = (min(max(round(y), 0), size[0]) for y in sorted((y0, y1)))
    if left == right or top == bottom:
        raise SceneError("the box is empty; draw it from one corner to the other")
    return top, left, bottom, right
