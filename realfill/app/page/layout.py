"""The layout of the page in Gradio: what is always there, and the buttons that start jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from realfill.app.flow.failures import ErrorLog
from realfill.app.page import orders
from realfill.app.page.guard import VISIT_COOKIE
from realfill.app.page.visit import Visit
from realfill.app.page.visits import Visits

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
HEAD = (
    '<link rel="stylesheet" href="/page/page.css"><script type="module" src="/page/page.js"></script>'
    '<meta name="color-scheme" content="light dark">'
)


def make_theme() -> gr.Theme:
    """Make a theme whose fonts are those of the visitor's computer."""
    return gr.themes.Base(primary_hue="teal", neutral_hue="gray", font=list(_FONTS), font_mono=list(_MONO))


def build_page(visits: Visits, log: ErrorLog) -> gr.Blocks:
    """Build the page; what changes with the visit is fetched by ``page.js``."""
    act = _actions(visits, log)
    with gr.Blocks(title="realfill", analytics_enabled=False) as page:
        _html("# realfill\nFill a hole in a photo with what your other photos of the moment show there.")
        _photos(act)
        _hole(act)
        _fill(act)
        _results(act)
        _html('<visit-part name="keeping"></visit-part>')
        _html("<job-status></job-status>")
    return page


Act = Callable[[Callable[..., None]], Callable[..., str]]


def _actions(visits: Visits, log: ErrorLog) -> Act:
    """Make handlers of orders: what cannot be done is said beside the button."""

    def act(order: Callable[..., None]) -> Callable[..., str]:
        def handle(request: gr.Request, *values: Any) -> str:
            visit = visits.find(request.cookies.get(VISIT_COOKIE))
            if visit is None:
                return "This visit has ended; reload the page."
            try:
                order(visits, visit, *values)
            except Exception as error:  # noqa: BLE001 - visitors get a sentence instead of a traceback
                return log.describe(error, "an order")
            return ""

        return handle

    return act


def _photos(act: Act) -> None:
    _html("## 1. Photos")
    _html('<visit-part name="photos"></visit-part>')
    example = gr.Button("Try the example", size="md", scale=0)
    _say(example.click, act(orders.example), [])


def _hole(act: Act) -> None:
    _html("## 2. What is missing?\nPaint over what is to be filled, drag a box, or click on a person or a thing.")
    _html('<visit-part name="hole"></visit-part>')
    people = gr.Button("Find people", size="md", scale=0)
    _say(people.click, act(orders.find_people), [])
    _html('<visit-part name="people"></visit-part>')


def _fill(act: Act) -> None:
    _html("## 3. Fill\nFirst see in seconds what the references show of the hole; then fit a model for the rest.")
    _html('<visit-part name="engines"></visit-part>')
    quick = gr.Button("Coverage and quick result", variant="primary")
    _say(quick.click, act(orders.quick), [])
    _html('<visit-part name="coverage"></visit-part>')
    with gr.Row(elem_classes="rf-fill"):
        steps = gr.Number(value=0, precision=0, label="Steps (0: as many as the base model needs)")
        samples = gr.Slider(1, 16, value=4, step=1, label="Results to choose from")
    fit = gr.Button("Fit and complete", variant="primary")

    def order_fit(visits: Visits, visit: Visit, num_steps: float | None, num_samples: float) -> None:
        orders.fit(visits, visit, int(num_steps) if num_steps else None, int(num_samples))

    _say(fit.click, act(order_fit), [steps, samples])


def _results(act: Act) -> None:
    _html("## 4. Results")
    _html('<visit-part name="results"></visit-part>')
    with gr.Accordion("Redo a part of the chosen result", open=False):
        _html("<part-editor></part-editor>")
        samples = gr.Slider(1, 16, value=4, step=1, label="Results to choose from")
        redo = gr.Button("Redo the marked part", variant="primary")

        def order_redo(visits: Visits, visit: Visit, num_samples: float) -> None:
            orders.redo(visits, visit, int(num_samples))

        _say(redo.click, act(order_redo), [samples])


def _say(event: Callable[..., Any], handle: Callable[..., str], inputs: list[Any]) -> None:
    """Connect a button, and put what it says below it."""
    message = gr.Markdown("", elem_classes="rf-message", sanitize_html=True)
    event(handle, inputs, message, show_progress="hidden", queue=False, api_visibility="private")


def _html(text: str) -> gr.Markdown:
    """Put fixed text or an element of ``page.js`` on the page; nothing in it comes from outside."""
    return gr.Markdown(text, sanitize_html=False)
