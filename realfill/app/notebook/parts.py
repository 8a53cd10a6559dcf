"""Small parts of the panel: pictures with alternative texts, and the line beside a control that says what is wrong."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import ipywidgets as widgets
import numpy as np

from realfill.app.flow.failures import ErrorLog
from realfill.app.flow.pictures import describe_warnings
from realfill.errors import warnings_to
from realfill.io.images import ImageArray

_WIDTH_PX = 400
_LABELS = {"description_width": "150px"}


class Note(widgets.HTML):
    """A line of text beside a control; screen readers read it when it changes."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self.text = ""

    def say(self, *sentences: str, wrong: bool = False) -> None:
        """Show sentences; empty ones are left out.

        Args:
            sentences: plain text.
            wrong: whether they say that something is wrong.
        """
        self.text = " ".join(filter(None, sentences))
        role, kind = ("alert", "realfill-wrong") if wrong else ("status", "realfill-note")
        self.value = f'<div role="{role}" class="{kind}">{html.escape(self.text)}</div>' if self.text else ""


@contextmanager
def beside(note: Note, log: ErrorLog) -> Iterator[None]:
    """Run what a control does; an error or a warning appears beside it, and nothing is raised."""
    heard: list[str] = []
    try:
        with warnings_to(heard.append):
            yield
    except Exception as error:  # noqa: BLE001 - people get a sentence
        note.say(log.describe(error), wrong=True)
        return
    if heard:
        note.say(note.text, *describe_warnings(heard))


def on_click(button: widgets.Button, note: Note, log: ErrorLog, action: Callable[[], object]) -> None:
    """Connect a button to an action, whose errors appear in a note."""

    def run(_: Any) -> None:
        note.say()
        with beside(note, log):
            action()

    button.on_click(run)


def on_value(control: widgets.Widget, note: Note, log: ErrorLog, action: Callable[[Any], object]) -> None:
    """Connect the value of a control to an action, whose errors appear in a note."""

    def run(change: Any) -> None:
        note.say()
        with beside(note, log):
            action(change["new"])

    control.observe(run, "value")


def button(text: str, *, about: str = "", primary: bool = False) -> widgets.Button:
    """Make a button."""
    style = "primary" if primary else ""
    layout = widgets.Layout(width="auto", min_width="110px")
    return widgets.Button(description=text, tooltip=about or text, button_style=style, layout=layout)


def labelled(kind: Callable[..., Any], label: str, **options: Any) -> Any:
    """Make a control with a label beside it that is not cut off."""
    layout = widgets.Layout(width=f"{_WIDTH_PX}px", max_width="100%")
    return kind(description=label, style=_LABELS, layout=layout, **options)


def heading(number: int, text: str, about: str) -> widgets.HTML:
    """Make the heading of a step."""
    return widgets.HTML(f'<h3 class="realfill-step">{number}. {text}</h3><div class="realfill-about">{about}</div>')


def row(*children: widgets.Widget) -> widgets.HBox:
    """Put controls into a row that breaks where the cell is narrow."""
    return widgets.HBox(list(children), layout=widgets.Layout(flex_flow="row wrap", align_items="center"))


def picture(image: ImageArray, about: str, *, lossless: bool = False, style: str = "") -> str:
    """Return an image (H, W, 3) uint8 as HTML.

    Args:
        image: the image.
        about: its alternative text.
        lossless: PNG instead of JPEG.
        style: CSS.
    """
    text = html.escape(about, quote=True)
    return f'<img src="{data_url(image, lossless=lossless)}" alt="{text}" style="max-width:100%;{style}">'


def data_url(image: ImageArray, *, lossless: bool = False) -> str:
    """Encode an image (H, W, 3) uint8 as a URL that holds it."""
    suffix, options = (".png", []) if lossless else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90])
    encoded = cv2.imencode(suffix, np.ascontiguousarray(image[:, :, ::-1]), options)[1].tobytes()
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
