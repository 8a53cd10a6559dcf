"""The panel: the four steps in a cell of a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from realfill.app.flow.job import Job
from realfill.app.flow.keeping import holds_work
from realfill.app.flow.settings import Settings, suggest_base
from realfill.app.flow.state import Flow
from realfill.app.notebook.hole import HoleStep
from realfill.app.notebook.parts import Note, beside
from realfill.app.notebook.photos import PhotosStep
from realfill.app.notebook.results import ResultsStep
from realfill.app.notebook.work import WorkStep
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.io.images import ImageLike
from realfill.scene.mask_reading import MaskLike
from realfill.scene.scene import Scene

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.results.completions import Completions
    from realfill.results.evidence import Evidence

_STYLE = (files("realfill.app.notebook") / "style.css").read_text(encoding="utf-8")


class Panel(widgets.VBox):
    """The whole job as widgets. The next cell finds the results in its attributes.

    Attributes:
        flow: the state behind the widgets.
        photos: step 1.
        hole: step 2.
        work: step 3.
        outcome: step 4.
    """

    def __init__(self, flow: Flow) -> None:
        """Show a flow; see ``panel``."""
        self.flow = flow
        self.note = Note()
        self.outcome = ResultsStep(flow, self._start)
        self.work = WorkStep(flow)
        self.hole = HoleStep(flow, self.work.refresh, self._start)
        self.photos = PhotosStep(flow, self._follow_photos)
        flow.on_change = self._follow_job
        style = widgets.HTML(f"<style>{_STYLE}</style>")
        super().__init__([style, self.photos, self.hole, self.work, self.outcome, self.note])
        self.add_class("realfill-panel")
        self.refresh()

    @property
    def scene(self) -> Scene:
        """The scene that is chosen.

        Raises:
            SceneError: something is missing or cannot be used.
        """
        return self.flow.choice.scene

    @property
    def evidence(self) -> Evidence | None:
        """What the references show of the hole; ``None`` before it was looked at."""
        return self.flow.evidence

    @property
    def adapter(self) -> Adapter | None:
        """The last fit, or ``None``."""
        return self.flow.results.adapter

    @property
    def completions(self) -> Completions | None:
        """The completions of the last job that made some, best first; ``None`` before."""
        return self.flow.results[-1].completions if self.flow.results else None

    def refresh(self) -> None:
        """Show the state anew, for example after it was changed from another cell."""
        self.photos.refresh()
        if self.flow.choice.photos.target is not None:
            self.hole.reset()
        self.work.refresh()
        self.outcome.refresh()

    def _follow_photos(self) -> None:
        self.hole.reset()
        self.work.refresh()

    def _follow_job(self) -> None:
        """Show how far a job is; the job's thread calls this."""
        with beside(self.note, self.flow.log):
            self.work.refresh()
            job = self.flow.job
            if job is None or job.is_active:
                return
            if job.title == "Find people":
                self.hole.list_people()
                self.hole.refresh()
            self.outcome.refresh()

    def _start(self, note: Note, begin: Callable[[], Job]) -> None:
        self.work.start(note, begin)


def panel(
    scene: Scene | None = None,
    *,
    target: ImageLike | None = None,
    references: Sequence[ImageLike] | str | PathLike[str] = (),
    mask: MaskLike | None = None,
    demo: bool = False,
    fit: FitConfig | None = None,
    sample: SampleConfig | None = None,
    rank: RankConfig | None = None,
    output: str | PathLike[str] | None = None,
    device: str | None = None,
    local_files_only: bool = False,
    completion: str | PathLike[str] | None = None,
) -> Panel:
    """Make the panel: the whole job as widgets, for Jupyter and Colab.

    Put it on the last line of a cell::

        from realfill.app import panel

        p = panel(demo=True)
        p

    The next cells find ``p.completions``, ``p.scene``, ``p.adapter`` and ``p.evidence``.

    Args:
        scene: start from a scene.
        target: or start from a photo: a path, a PIL image or an array.
        references: other photos of the place, or the path of a folder of photos.
        mask: what is missing, in any of the forms that ``Scene`` takes.
        demo: start from the demo's scene.
        fit: settings of the fit, which the controls change. ``None``: Stable Diffusion 2 on a GPU if its weights are on
            this machine, else the packaged base.
        sample: settings of the samples.
        rank: settings of the ranking.
        output: folder that keeps scenes, fits and results. If it is the output of an earlier panel, and neither a scene
            nor a target is given, the panel goes on with it.
        device: where to compute. ``None``: the best available.
        local_files_only: do not use the network for weights.
        completion: weights that ``realfill train-completion`` wrote, for the quick engine ``completion``. ``None``: the
            packaged ones.

    Raises:
        SceneError: a photo or the mask cannot be used.
        ValueError: both a scene and photos are given, or the device is not available.
    """
    given = [
        name for name, value in (("scene", scene), ("target", target), ("demo", demo or None)) if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given; legal: one of scene, target and demo")
    settings = Settings(
        fit=fit or FitConfig(base=suggest_base(device)), sample=sample or SampleConfig(), rank=rank or RankConfig(),
        device=device, local_files_only=local_files_only,
        completion=Path(completion) if completion is not None else None,
    )  # fmt: skip
    flow = Flow(settings, output=output)
    if scene is not None:
        flow.choice.use_scene(scene)
    elif demo:
        flow.choice.use_example()
    elif target is None and output is not None and holds_work(output):
        flow.resume()
    if target is not None:
        flow.choice.set_target(target)
    if isinstance(references, str | PathLike) or len(references):
        flow.choice.add_references(references)
    if mask is not None:
        flow.choice.set_mask(mask)
    return Panel(flow)
