"""Step 2: what is missing, by brush, box, people, mask file or a larger canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as widgets

from realfill.app.flow.failures import as_sentence
from realfill.app.flow.hole import MAX_GROW_PX
from realfill.app.flow.pictures import describe_choice, draw_choice
from realfill.app.flow.state import Flow
from realfill.app.notebook.parts import Note, beside, button, heading, labelled, on_click, on_value, row
from realfill.app.notebook.surface import Point, Surface, box_of

_SIDES = ("left", "right", "top", "bottom")
_TOOLS = [("Brush", "brush"), ("Rubber", "rubber"), ("Box", "box"), ("Pick a person or a thing", "pick")]
_MAX_GROWTH = 100  # percent of the photo's side
_GOES, _STAYS = "the ticked go", "everyone but the ticked goes"


class HoleStep(widgets.VBox):
    """The live picture of the hole, and its controls."""

    def __init__(self, flow: Flow, on_change: Callable[[], object], start: Callable[..., object]) -> None:
        """Make the controls.

        Args:
            flow: the state.
            on_change: called when something else is missing.
            start: starts a job: ``start(note, job)``.
        """
        self._flow, self._on_change, self._start = flow, on_change, start
        self._quiet = False
        self.note, self.summary = Note(), Note()
        self.surface = Surface("hole", "The photo; what is missing is red", self._draw)
        self._make_drawing()
        self._make_people()
        self._make_file()
        self._make_canvas()
        self.grow = labelled(widgets.IntSlider, "grow by (px)", max=MAX_GROW_PX, continuous_update=False)
        self.clear = button("Clear all", about="Mark nothing as missing")
        on_value(self.grow, self.note, flow.log, lambda _: self._apply_numbers())
        on_click(self.clear, self.note, flow.log, self._clear)
        tabs = widgets.Tab([self._drawing, self._people, self._file, self._canvas])
        tabs.titles = ("Brush and box", "People", "Mask file", "Larger canvas")
        super().__init__([
            heading(2, "What is missing", "Mark it in the photo. Everything that you mark counts together."),
            tabs, self.note, self.surface, row(self.grow, self.clear), self.summary,
        ])  # fmt: skip

    # Controls of each tab

    def _make_drawing(self) -> None:
        log = self._flow.log
        self.tool = widgets.ToggleButtons(options=_TOOLS, style={"button_width": "auto"})
        self.width = labelled(widgets.IntSlider, "brush width (%)", value=6, min=1, max=40, continuous_update=False)
        self.across = labelled(widgets.IntRangeSlider, "box, from left (px)", max=1, continuous_update=True)
        self.down = labelled(widgets.IntRangeSlider, "box, from top (px)", max=1, continuous_update=True)
        self.add_box = button("Add the box", about="Mark the box of the two sliders as missing")
        for control in (self.tool, self.width):
            on_value(control, self.note, log, lambda _: self.refresh())
        for control in (self.across, self.down):
            on_value(control, self.note, log, lambda _: self._outline_box())
        on_click(self.add_box, self.note, log, self._add_box)
        about = widgets.HTML('<div class="realfill-about">Draw in the photo, or set a box by numbers:</div>')
        self._drawing = widgets.VBox([row(self.tool, self.width), about, row(self.across, self.down, self.add_box)])

    def _make_people(self) -> None:
        log = self._flow.log
        self.find = button("Find people", about="Look for people and things in the photo; this takes some seconds")
        self.people_note = Note()
        self.ticks: list[widgets.Checkbox] = []
        self.rule = labelled(widgets.Dropdown, "rule", options=[_GOES, _STAYS])
        self.shadows = widgets.Checkbox(description="with the ground where they stand", indent=False)
        self.strangers = widgets.Checkbox(
            description="hide people in the references too", tooltip="so that nobody is taken from them", indent=False,
            value=True, layout=widgets.Layout(width="auto", max_width="100%"),
        )  # fmt: skip
        self._list = row()
        on_click(self.find, self.people_note, log, lambda: self._start(self.people_note, self._flow.find_people))
        for control in (self.rule, self.shadows):
            on_value(control, self.note, log, lambda _: self._apply_people())
        on_value(self.strangers, self.note, log, lambda _: self._apply_people())
        self._people = widgets.VBox([
            row(self.find, self.rule, self.shadows), self.people_note, self._list, self.strangers,
        ])  # fmt: skip

    def _make_file(self) -> None:
        self.mask_upload = widgets.FileUpload(
            description="Upload a mask", accept="image/*,.json,.tif,.tiff", layout=widgets.Layout(width="auto")
        )
        self.mask_path = labelled(widgets.Text, "or its path", placeholder="mask.png", continuous_update=False)
        self.mask_note = Note()
        self.mask_upload.observe(lambda _: self._take_mask(), "value")
        on_value(self.mask_path, self.mask_note, self._flow.log, self._read_mask_path)
        about = widgets.HTML(
            '<div class="realfill-about">White on black, strokes on a layer or on a copy of the photo, a transparent '
            "part, or outlines as JSON of COCO or LabelMe.</div>"
        )
        self._file = widgets.VBox([about, row(self.mask_upload, self.mask_path), self.mask_note])

    def _make_canvas(self) -> None:
        self.sides = {
            side: labelled(widgets.IntSlider, f"{side} (%)", max=_MAX_GROWTH, continuous_update=True) for side in _SIDES
        }
        for slider in self.sides.values():
            on_value(slider, self.note, self._flow.log, lambda _: self._apply_numbers())
        about = widgets.HTML('<div class="realfill-about">Shares of the photo by which the canvas grows:</div>')
        self._canvas = widgets.VBox([about, *self.sides.values()])

    # What they do

    def reset(self) -> None:
        """Follow a new photo: the controls show its size and its hole."""
        hole, log = self._flow.choice.require_hole(), self._flow.log
        with beside(self.note, log):
            self._quiet = True
            height, width = hole.size
            for slider, side in ((self.across, width), (self.down, height)):
                slider.max = side
                slider.value = (side // 3, side - side // 3)
            for slider in self.sides.values():
                slider.value = 0
            self.grow.value, self.rule.value, self.shadows.value = 0, _GOES, False
        self._quiet = False
        self.list_people()
        self.refresh()

    def refresh(self) -> None:
        """Draw the hole that is chosen."""
        if self._flow.choice.photos.target is None:
            return
        with beside(self.note, self._flow.log):
            self.summary.say(describe_choice(self._flow.choice))
            self._show(draw_choice(self._flow.choice))

    def list_people(self) -> None:
        """Show a tick for each person that was found."""
        instances = self._flow.choice.require_hole().instances
        self.ticks = [
            widgets.Checkbox(description=f"{i.number}: {i.name}", indent=False, layout=widgets.Layout(width="130px"))
            for i in instances or ()
        ]
        for tick in self.ticks:
            on_value(tick, self.note, self._flow.log, lambda _: self._apply_people())
        self._list.children = tuple(self.ticks)

    def _show(self, image: object) -> None:
        radius = self.width.value / 200
        self.surface.show(image, tool=self.tool.value, radius=radius)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self._flow.choice.touch()
        self.refresh()
        self._on_change()

    def _draw(self, tool: str, points: Sequence[Point]) -> None:
        self.note.say()
        with beside(self.note, self._flow.log):
            hole, pixels = self._flow.choice.require_hole(), self._in_photo(points)
            if tool == "pick":
                self._pick(pixels[0])
            elif tool == "box":
                hole.add_box(box_of(pixels, hole.size))
            else:
                hole.paint(pixels, self.width.value / 200 * self._canvas_size()[1], rub_out=tool == "rubber")
            self._changed()

    def _pick(self, point: Point) -> None:
        hole = self._flow.choice.require_hole()
        self.note.say(as_sentence(self._flow.choice.toggle_at(point)))
        self._quiet = True
        for number, tick in enumerate(self.ticks):
            tick.value = number in hole.chosen
        self._quiet = False

    def _canvas_size(self) -> tuple[int, int]:
        """Return the (height, width) of the canvas in pixels."""
        (height, width), margins = self._flow.choice.target.size, self._flow.choice.margins
        return height + margins["top"] + margins["bottom"], width + margins["left"] + margins["right"]

    def _in_photo(self, points: Sequence[Point]) -> list[Point]:
        """Convert shares of the picture, which shows the canvas, to pixels of the photo."""
        (height, width), margins = self._canvas_size(), self._flow.choice.margins
        return [(x * width - margins["left"], y * height - margins["top"]) for x, y in points]

    def _outline_box(self) -> None:
        if not self._quiet and self._flow.choice.photos.target is not None:
            box = (self.down.value[0], self.across.value[0], self.down.value[1], self.across.value[1])
            self._show(draw_choice(self._flow.choice, box=box))

    def _add_box(self) -> None:
        (left, right), (top, bottom) = self.across.value, self.down.value
        self._flow.choice.require_hole().add_box((top, left, bottom, right))
        self._changed()

    def _apply_people(self) -> None:
        if self._quiet:
            return
        hole = self._flow.choice.require_hole()
        hole.shadows, self._flow.choice.hides_strangers = self.shadows.value, self.strangers.value
        ticked = [number for number, tick in enumerate(self.ticks) if tick.value]
        hole.choose(ticked, everyone_but=self.rule.value == _STAYS)
        self._changed()

    def _apply_numbers(self) -> None:
        if self._quiet:
            return
        hole = self._flow.choice.require_hole()
        hole.grow_px = self.grow.value
        self._flow.choice.set_margins(**{side: slider.value / 100 for side, slider in self.sides.items()})
        self._changed()

    def _take_mask(self) -> None:
        files, self.mask_upload.value = self.mask_upload.value, ()
        if not files:
            return
        self.mask_note.say()
        with beside(self.mask_note, self._flow.log):
            name = files[0]["name"]
            self._flow.choice.set_mask(self._flow.uploads.keep(name, files[0]["content"]), name)
            self._changed()

    def _read_mask_path(self, path: str) -> None:
        if path.strip():
            self._flow.choice.set_mask(path.strip(), path.strip())
            self._changed()

    def _clear(self) -> None:
        self._flow.choice.require_hole().clear()
        self._flow.choice.set_margins()
        self.reset()
        self._on_change()
