"""Step 4: the results, best first: before and after, what was photographed, a part again, and files."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np

from realfill.app.flow.hole import Hole
from realfill.app.flow.keeping import Suffix, save_all
from realfill.app.flow.pictures import PREVIEW_PX, describe_completion, describe_evidence, draw_part, evidence_map
from realfill.app.flow.results import Result
from realfill.app.flow.state import Flow
from realfill.app.notebook.parts import (
    Note,
    beside,
    button,
    data_url,
    heading,
    labelled,
    on_click,
    on_value,
    picture,
    row,
)
from realfill.app.notebook.surface import Point, Surface, box_of
from realfill.errors import SceneError
from realfill.io.images import ImageArray, fit_within, resize

if TYPE_CHECKING:
    from realfill.results.completion import Completion

_FULL_PX = 2400  # longer side of the before and after pictures in the page
_CELL_PX, _MOST_CELLS = 160, 64
_PART_RADIUS = 0.03  # half of the brush's width, as a share of the photo's
_LINK_BYTES = 40_000_000  # the largest file that a link holds
_SUFFIXES: list[tuple[str, Suffix]] = [
    ("PNG (exact)", ".png"), ("TIFF (exact)", ".tif"), ("JPEG", ".jpg"), ("layers for GIMP and Krita", ".ora")
]  # fmt: skip
_KINDS = {".png": "image/png", ".tif": "image/tiff", ".jpg": "image/jpeg", ".ora": "image/openraster"}


class ResultsStep(widgets.VBox):
    """The gallery and the chosen result."""

    def __init__(self, flow: Flow, start: Callable[..., object]) -> None:
        """Make the controls.

        Args:
            flow: the state.
            start: starts a job: ``start(note, job)``.
        """
        self._flow, self._start, self._shown, self._quiet = flow, start, 0, False
        self.note, self.about = Note(), Note()
        self.which = labelled(widgets.Dropdown, "results of", options=[])
        self.cells: list[widgets.Button] = []
        self._gallery, self._pair, self._map = row(), widgets.HTML(), widgets.HTML()
        self._number = 0
        self._make_redo()
        self._make_saving()
        on_value(self.which, self.note, flow.log, lambda _: self._quiet or self._choose(0))
        self._tabs = widgets.Tab([self._pair, self._map, self._redo, self._saving])
        self._tabs.titles = ("Before and after", "Evidence", "Redo a part", "Save")
        title = heading(4, "Results", "The best is first. Choose one to look at it closely.")
        self._body = widgets.VBox([self.which, self._gallery, self.about, self._tabs, self.note])
        super().__init__([title, self._body])
        self._body.layout.display = "none"

    def refresh(self) -> None:
        """Show a result that is new."""
        results = self._flow.results
        if len(results) == self._shown:
            return
        self._shown = len(results)
        self._quiet = True
        self.which.options = [(f"{i + 1}. {result.title}", i) for i, result in enumerate(results)]
        self.which.value = len(results) - 1
        self._quiet = False
        self._body.layout.display = ""
        self._choose(0, regroup=True)

    @property
    def result(self) -> Result:
        """The result that is shown.

        Raises:
            SceneError: there is none yet.
        """
        if not self._flow.results:
            raise SceneError("there is no result yet; make one first")
        return self._flow.results[self.which.value]

    @property
    def completion(self) -> Completion:
        """The completion that is shown.

        Raises:
            SceneError: there is none yet.
        """
        return self.result.completions[self._number]

    def _choose(self, number: int, *, regroup: bool = True) -> None:
        """Show one completion of the chosen result."""
        self._number = number
        if regroup:
            self._show_gallery()
        for i, cell in enumerate(self.cells):
            cell.button_style = "primary" if i == number else ""
        completion, original = self.completion, self.result.scene
        self.about.say(f"Showing result {number + 1}.", *describe_completion(completion, number)[1:])
        self._pair.value = _pair(original.target, completion.image)
        evidence = completion.evidence
        self._map.value = "" if evidence is None else (
            f"<figure style='margin:4px 0'>{picture(evidence_map(completion.scene, evidence), evidence.describe())}"
            f"<figcaption>{html.escape(describe_evidence(evidence))}</figcaption></figure>"
        )  # fmt: skip
        self._part = Hole((original.mask.shape[0], original.mask.shape[1]))
        self._show_part()

    def _show_gallery(self) -> None:
        cells, self.cells = [], []
        for number, completion in enumerate(self.result.completions[:_MOST_CELLS]):
            small = resize(completion.image, fit_within(completion.image.shape[:2], _CELL_PX))
            caption = " ".join(describe_completion(completion, number)[:1])
            choose = button(f"Show {number + 1}", about=caption)
            on_click(choose, self.note, self._flow.log, lambda number=number: self._choose(number, regroup=False))
            self.cells.append(choose)
            text = f"<figure style='margin:0;max-width:{_CELL_PX}px'>{picture(small, caption)}<figcaption>"
            cells.append(widgets.VBox([widgets.HTML(f"{text}{html.escape(caption)}</figcaption></figure>"), choose]))
        self._gallery.children = tuple(cells)

    # A part again

    def _make_redo(self) -> None:
        self._part = Hole((1, 1))
        self.surface = Surface("part", "The result; the part to redo is red", self._draw)
        self.tool = widgets.ToggleButtons(
            options=[("Brush", "brush"), ("Rubber", "rubber"), ("Box", "box")], style={"button_width": "auto"}
        )
        self.across = labelled(widgets.IntRangeSlider, "box, from left (px)", max=1)
        self.down = labelled(widgets.IntRangeSlider, "box, from top (px)", max=1)
        self.add_box = button("Add the box", about="Add the box of the two sliders to the part")
        self.redo = button("Redo this part", about="Fill the part again with new seeds", primary=True)
        on_value(self.tool, self.note, self._flow.log, lambda _: self._show_part())
        on_click(self.add_box, self.note, self._flow.log, self._add_box)
        on_click(self.redo, self.note, self._flow.log, self._redo_part)
        self._redo = widgets.VBox([
            self.tool, row(self.across, self.down, self.add_box), self.surface, self.redo,
        ])  # fmt: skip

    def _show_part(self) -> None:
        reading = self._part.reading()
        image = draw_part(self.completion.image, self.result.scene.mask, None if reading is None else reading.mask)
        self.surface.show(image, tool=str(self.tool.value), radius=_PART_RADIUS)
        height, width = self._part.size
        for slider, side in ((self.across, width), (self.down, height)):
            if slider.max != side:
                slider.max, slider.value = side, (side // 3, side - side // 3)

    def _draw(self, tool: str, points: Sequence[Point]) -> None:
        self.note.say()
        with beside(self.note, self._flow.log):
            height, width = self._part.size
            pixels = [(x * width, y * height) for x, y in points]
            if tool == "box":
                self._part.add_box(box_of(pixels, self._part.size))
            else:
                self._part.paint(pixels, _PART_RADIUS * width, rub_out=tool == "rubber")
            self._show_part()

    def _add_box(self) -> None:
        (left, right), (top, bottom) = self.across.value, self.down.value
        self._part.add_box((top, left, bottom, right))
        self._show_part()

    def _redo_part(self) -> None:
        reading = self._part.reading()
        if reading is None:
            raise SceneError("no part is marked; draw it in the picture, or add a box")
        self._start(self.note, lambda: self._flow.redo(self.result, self._number, reading.mask))

    # Files

    def _make_saving(self) -> None:
        self.suffix = labelled(widgets.Dropdown, "file format", options=_SUFFIXES)
        self.link = button("Make a download link", about="Encode this result in the chosen format")
        self._anchor = widgets.HTML()
        self.folder = labelled(widgets.Text, "folder", placeholder="where to save all results and the fit")
        self.save = button("Save all", about="Write all results of the job that is shown, and the fit, to the folder")
        self.save_note = Note()
        on_click(self.link, self.save_note, self._flow.log, self._make_link)
        on_click(self.save, self.save_note, self._flow.log, self._save_all)
        self._saving = widgets.VBox([
            row(self.suffix, self.link, self._anchor), row(self.folder, self.save), self.save_note,
        ])  # fmt: skip

    def _make_link(self) -> None:
        suffix = self.suffix.value
        path = self._flow.uploads.folder / f"download{suffix}"
        self.completion.save(path, overwrite=True)
        content = path.read_bytes()
        if len(content) > _LINK_BYTES:
            raise SceneError(
                f"the file has {len(content) / 1e6:.0f} MB, and a link holds {_LINK_BYTES / 1e6:.0f} MB; save to a "
                "folder instead"
            )
        name = f"realfill-{self.which.value + 1}-{self._number + 1}{suffix}"
        url = f"data:{_KINDS[suffix]};base64,{base64.b64encode(content).decode('ascii')}"
        self._anchor.value = f'<a download="{name}" href="{url}">Download {name} ({len(content) / 1e6:.1f} MB)</a>'

    def _save_all(self) -> None:
        if not self.folder.value.strip():
            raise SceneError("no folder is named; legal: the path of a folder without results")
        result, adapter = self.result.completions, self._flow.results.adapter
        self.save_note.say(save_all(self.folder.value.strip(), result, adapter))


def _pair(before: ImageArray, after: ImageArray) -> str:
    """Lay a picture over another, with sliders for the border between them and for the zoom, which the browser runs."""
    size = fit_within(before.shape[:2], _FULL_PX)
    one, two = (data_url(np.ascontiguousarray(resize(image, size))) for image in (before, after))
    stack = "this.closest('.realfill-pair').querySelector('.realfill-stack')"
    slide = f"{stack}.lastElementChild.style.clipPath='inset(0 0 0 '+this.value+'%)'"
    zoom = f"{stack}.style.width='calc('+this.value/100+' * min(100%, {size[1]}px))'"
    most = max(200, round(200 * size[1] / PREVIEW_PX))
    slider = 'type="range" onkeydown="event.stopPropagation()"'  # else the notebook takes the arrow keys
    pictures = f'<img src="{one}" alt="before"><img class="realfill-after" src="{two}" alt="after">'
    return (
        '<div class="realfill-pair" data-lm-suppress-shortcuts="true"><div class="realfill-frame">'
        f'<div class="realfill-stack" style="width:min(100%, {size[1]}px)">{pictures}</div></div>'
        f'<label>before / after <input {slider} min="0" max="100" value="50" oninput="{slide}"></label>'
        f'<label>zoom <input {slider} min="100" max="{most}" value="100" oninput="{zoom}"></label></div>'
    )
