"""Step 3: coverage, a quick result, the fit, and how far the job is."""

from __future__ import annotations

import html
from collections.abc import Callable

import ipywidgets as widgets

from realfill.app.flow.engines import list_engines
from realfill.app.flow.job import Job
from realfill.app.flow.pictures import (
    EVIDENCE_COLOURS,
    describe_job,
    describe_warnings,
    draw_losses,
    evidence_map,
    share_done,
)
from realfill.app.flow.settings import BASES, EFFORTS
from realfill.app.flow.state import Flow
from realfill.app.notebook.parts import Note, button, heading, labelled, on_click, on_value, picture, row

_MOST_SAMPLES, _MOST_STEPS = 64, 100_000


class WorkStep(widgets.VBox):
    """The jobs: their settings, their buttons, and the progress of the one that runs."""

    def __init__(self, flow: Flow) -> None:
        """Make the controls."""
        self._flow = flow
        self.note, self.status, self.coverage = Note(), Note(), Note()
        self._watched: tuple[Job, Note] | None = None
        self.see = button("See coverage", about="Find out how much of the hole the references show; some seconds")
        self.quick = button("Quick result", about="From the references and a quick engine, without a fit; some seconds")
        self.engine = labelled(widgets.Dropdown, "rest filled by", options=[])
        self.obstacles = widgets.HTML()
        self.fit = button("Fit", about="Learn the scene from the references, then sample and rank", primary=True)
        self.more = button("More samples", about="Sample again with the fit there is")
        self.stop = button("Stop", about="End the job after its current step and keep what there is")
        self.stop.disabled = True
        self.bar = widgets.FloatProgress(max=1.0, layout=widgets.Layout(width="100%", max_width="640px"))
        self._curve = widgets.HTML(layout=widgets.Layout(width="480px", max_width="100%"))
        self._preview, self._map = widgets.HTML(), widgets.HTML()
        self._make_settings()
        self._list_engines()
        self._connect()
        super().__init__([
            heading(
                3, "Fill it", "What references show is taken from them. A fit teaches the model the scene, for the "
                "rest. Look at the coverage first: more photos help more than a longer fit.",
            ),
            row(self.see, self.quick, self.engine), self.obstacles, self.coverage, self._map,
            row(self.base, self.effort), row(self.num_steps, self.num_samples), row(self.fit, self.more, self.stop),
            self.note, self.bar, self.status, row(self._curve, self._preview),
        ])  # fmt: skip

    def start(self, note: Note, begin: Callable[[], Job]) -> None:
        """Start a job, whose outcome appears in a note too."""
        self._watched = None
        self._watched = (begin(), note)
        self.refresh()

    def refresh(self) -> None:
        """Show the job and what is known by now."""
        job = self._flow.job
        busy = job is not None and job.is_active
        for control in (self.see, self.quick, self.fit):
            control.disabled = busy
        self.more.disabled = busy or self._flow.results.adapter is None
        self.stop.disabled = not busy or (job is not None and job.is_ending)
        self._show_coverage()
        if job is not None:
            self._show_job(job)

    def _make_settings(self) -> None:
        fit, sample = self._flow.settings.fit, self._flow.settings.sample
        bases = [(text, name) for name, text in BASES.items()]
        if fit.base not in BASES:
            bases.append((fit.base, fit.base))
        self.base = labelled(widgets.Dropdown, "base model", options=bases, value=fit.base)
        effort = next(text for text, preset in EFFORTS.items() if preset == fit.preset)
        self.effort = labelled(widgets.Dropdown, "effort", options=list(EFFORTS), value=effort)
        self.num_steps = labelled(
            widgets.BoundedIntText, "steps (0: by effort)", max=_MOST_STEPS, value=fit.num_steps or 0
        )  # fmt: skip
        self.num_samples = labelled(
            widgets.BoundedIntText, "results (0: by effort)", max=_MOST_SAMPLES, value=sample.num_samples or 0
        )  # fmt: skip

    def _connect(self) -> None:
        flow, log = self._flow, self._flow.log
        for control in (self.base, self.effort, self.num_steps, self.num_samples):
            on_value(control, self.note, log, lambda _: self._apply_settings())
        on_click(self.see, self.note, log, lambda: self.start(self.note, flow.examine))
        on_click(self.quick, self.note, log, lambda: self.start(self.note, lambda: flow.quick(self.engine.value)))
        on_click(self.fit, self.note, log, lambda: self.start(self.note, flow.fit))
        on_click(self.more, self.note, log, lambda: self.start(self.note, flow.sample))
        on_click(self.stop, self.note, log, flow.stop)

    def _list_engines(self) -> None:
        """Offer the engines that can run here, and say of the others why they cannot."""
        chosen, found = self.engine.value, list_engines(self._flow.settings)
        self.engine.options = [(engine.label, engine.name) for engine in found if not engine.obstacle]
        self.engine.value = chosen or "auto"
        lines = "".join(
            f"<li>{html.escape(f'{e.label}: {e.obstacle}')}</li>" for e in found if e.obstacle
        )  # fmt: skip
        self.obstacles.value = lines and (
            f'<details class="realfill-about"><summary>engines that cannot run here</summary><ul>{lines}</ul></details>'
        )

    def _apply_settings(self) -> None:
        self._flow.settings = self._flow.settings.changed(
            base=self.base.value, preset=EFFORTS[self.effort.value], num_steps=self.num_steps.value or None,
            num_samples=self.num_samples.value or None,
        )  # fmt: skip
        self._list_engines()

    def _show_coverage(self) -> None:
        evidence, choice = self._flow.evidence, self._flow.choice
        if evidence is None or choice.current is None:
            self.coverage.say()
            self._map.value = ""
            return
        if self._map.value:
            return
        self.coverage.say(*self._flow.coverage)
        image = evidence_map(choice.current, evidence)
        self._map.value = _figure(picture(image, evidence.describe(), style="max-height:260px"), EVIDENCE_COLOURS)

    def _show_job(self, job: Job) -> None:
        self.bar.value = share_done(job)
        self.bar.bar_style = {"done": "success", "failed": "danger", "stopped": "warning"}.get(job.state, "info")
        self.status.say(
            describe_job(job, self._flow.num_before), *describe_warnings(job.notes), wrong=job.state == "failed"
        )
        self._curve.value = draw_losses(job.losses)
        drawn = "" if job.preview is None else picture(job.preview, "preview", style="max-height:260px")
        self._preview.value = drawn and _figure(drawn, "preview of the fit")
        if self._watched is not None and self._watched[0] is job and not job.is_active:
            note = self._watched[1]
            if note is not self.note:
                note.say(job.message, wrong=job.state == "failed")


def _figure(image: str, caption: str) -> str:
    return f'<figure style="margin:4px 0">{image}<figcaption>{html.escape(caption)}</figcaption></figure>'
