"""Flow: one photo on its way to a completion, as a user interface knows it: what is chosen, the jobs, the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from realfill.app.flow import work
from realfill.app.flow.choice import Choice
from realfill.app.flow.job import BusyError, Job
from realfill.app.flow.keeping import Keeper
from realfill.app.flow.settings import Settings, suggest_base
from realfill.app.flow.uploads import Uploads
from realfill.app.flow.work import QuickEngine
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.errors import SceneError, StoppedError
from realfill.io.images import MaskArray
from realfill.scene.scene import Scene

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.results.completion import Completion
    from realfill.results.completions import Completions
    from realfill.results.evidence import Evidence

# Modules that need torch or matplotlib are imported in the jobs, so that an interface appears at once.
# ruff: noqa: PLC0415

_PREVIEW_EVERY_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a job made.

    Attributes:
        title: for example "Fit".
        completions: best first.
        scene: the scene whose hole limits what can be redone.
    """

    title: str
    completions: Completions
    scene: Scene


class Flow:
    """One photo on its way to a completion.

    Attributes:
        choice: the photos and what is missing.
        settings: how the hole is filled.
        adapter: the last fit, or ``None``.
        results: what the jobs made, the latest last.
        job: the last job, or ``None``.
        uploads: the folder of uploaded and temporary files.
        log: file for unexpected errors.
        on_change: called when a job has something to show, in the job's thread; an interface sets it.
    """

    def __init__(
        self,
        *,
        fit: FitConfig | None = None,
        sample: SampleConfig | None = None,
        rank: RankConfig | None = None,
        device: str | None = None,
        local_files_only: bool = False,
        output: str | PathLike[str] | None = None,
        preview_every_s: float = _PREVIEW_EVERY_S,
    ) -> None:
        """Start without photos.

        Args:
            fit: settings of the fit. ``None``: Stable Diffusion 2 on a GPU if its weights are on this machine, else the
                packaged base.
            sample: settings of the samples.
            rank: settings of the ranking.
            device: where to compute. ``None``: the best available.
            local_files_only: do not use the network for weights.
            output: folder that keeps scenes, fits and results, so that ``resume`` goes on another day.
            preview_every_s: least time between two previews of a fit.
        """
        self.settings = Settings(
            fit=fit or FitConfig(base=suggest_base(device)), sample=sample or SampleConfig(),
            rank=rank or RankConfig(), device=device, local_files_only=local_files_only,
        )  # fmt: skip
        self.choice = Choice()
        self.adapter: Adapter | None = None
        self.results: list[Result] = []
        self.job: Job | None = None
        self.uploads = Uploads()
        self._keeper = Keeper(output) if output is not None else None
        self.log = (self._keeper.folder if self._keeper else Path.cwd()) / "realfill-errors.log"
        self.on_change: Callable[[], object] = lambda: None
        self._preview_every_s = preview_every_s
        self._examined: tuple[Scene, Evidence, str] | None = None

    def use_example(self) -> None:
        """Start from the demo's scene."""
        from realfill.app.demo import demo_scene

        self.choice.use_scene(demo_scene()[0])

    def resume(self) -> None:
        """Go on with the last scene of the output folder.

        Raises:
            SceneError: there is no output folder, or it holds no scene.
        """
        if self._keeper is None:
            raise SceneError("no output folder is given; legal: the output of an earlier panel")
        scene, self.adapter, results = self._keeper.open()
        self.choice.use_scene(scene)
        self.results = [Result(title=title, completions=found, scene=scene) for title, found in results]

    @property
    def evidence(self) -> Evidence | None:
        """What the references show of the hole that is chosen; ``None`` before ``examine``."""
        found = self._current_examination
        return None if found is None else found[1]

    @property
    def learns_from(self) -> str:
        """Which of more than five references a fit learns from, in a sentence; else empty."""
        found = self._current_examination
        return "" if found is None else found[2]

    @property
    def _current_examination(self) -> tuple[Scene, Evidence, str] | None:
        found = self._examined
        return found if found is not None and found[0] is self.choice.current else None

    @property
    def completions(self) -> Completions | None:
        """The latest completions."""
        return self.results[-1].completions if self.results else None

    def find_people(self, detector: str = "auto") -> Job:
        """Look for people and things in the target.

        Args:
            detector: see ``load_detector``.

        Raises:
            SceneError: there is no target.
            BusyError: another job is running.
        """
        choice, hole, image = self.choice, self.choice.require_hole(), self.choice.full_target()

        def run(job: Job) -> str:
            job.enter("looking for people")
            found = work.find_people(image, detector, self.settings)
            was_chosen, hole.instances = hole.chosen or hole.everyone_but, found
            hole.choose(())
            if was_chosen:
                choice.touch()
            if not found:
                return "Nobody was found. Mark what is missing with the brush or a box."
            return f"Found {len(found)} with {found.detector}. Tick them below, or pick them in the photo."

        return self._start("Find people", run)

    def examine(self) -> Job:
        """Find out how much of the hole the references show.

        Raises:
            SceneError: something is missing.
            BusyError: another job is running.
        """
        scene = self.choice.scene
        return self._start("See coverage", lambda job: work.describe_coverage(scene, self._examine(job, scene)))

    def quick(self, engine: QuickEngine = "auto") -> Job:
        """Fill from the references what they show, and the rest without a fit.

        Args:
            engine: what fills the rest. ``auto``: ``lama`` or ``migan`` if the weights are on this machine, else
                ``telea``. ``unfitted``: the base model of the settings.

        Raises:
            SceneError: something is missing.
            BusyError: another job is running.
        """
        scene, settings = self.choice.scene, self.settings

        def run(job: Job) -> str:
            coverage = work.describe_coverage(scene, self._examine(job, scene))
            job.enter("filling the rest")
            self._add("Quick result", work.complete_quickly(job, scene, engine, settings), scene)
            return f"The quick result is below. {coverage}"

        return self._start("Quick result", run)

    def fit(self) -> Job:
        """Fit, or go on with a fit that was stopped; then sample and rank.

        Raises:
            SceneError: something is missing.
            BusyError: another job is running.
        """
        scene, settings = self.choice.scene, self.settings

        def keep(adapter: Adapter) -> None:
            self.adapter = adapter
            if self._keeper is not None:
                self._keeper.keep_adapter(scene, adapter)

        def run(job: Job) -> str:
            work.check(job, scene, settings)
            if work.is_settled(self._examine(job, scene), settings):
                self._add("Fit", work.complete_quickly(job, scene, "telea", settings), scene)
                return "The references show every pixel of the hole, so no fit is needed. The result is below."
            folder = self._keeper.checkpoint_folder(scene) if self._keeper else self.uploads.folder / "checkpoint"
            adapter = work.fit_with_previews(
                job, scene, settings, folder=folder, keep=keep, every_s=self._preview_every_s
            )
            stopped = (
                f"Stopped after step {len(adapter.losses)}. The fit so far is kept: press Fit to go on with it, or "
                "More samples to use it as it is."
            )
            if job.is_stopping:
                return stopped
            try:
                return self._sample(job, scene, adapter, self._with_new_seeds(), "Fit", scene)
            except StoppedError:  # before the first sample was finished
                return stopped

        return self._start("Fit", run)

    def sample(self) -> Job:
        """Draw more samples with the fit there is.

        Raises:
            SceneError: nothing is fitted, the fit belongs to other photos, or something is missing.
            BusyError: another job is running.
        """
        scene, adapter, config = self.choice.scene, self.adapter, self._with_new_seeds()
        if adapter is None:
            raise SceneError("nothing is fitted yet; press Fit first")
        if not work.has_learnt_from(adapter, scene):
            raise SceneError("the fit has learnt from other photos; press Fit to learn from these")
        return self._start(
            "More samples", lambda job: self._sample(job, scene, adapter, config, "More samples", scene)
        )  # fmt: skip

    def redo(self, result: Result, completion: Completion, part: MaskArray) -> Job:
        """Fill a part of the hole again, by the fit or, if there is none of these photos, by the base model.

        Args:
            result: the result that the completion belongs to.
            completion: what is kept outside of the part.
            part: (H, W) bool of the target's size, True = fill again. What lies outside of the hole is ignored.

        Raises:
            SceneError: the part has no pixel in the hole.
            BusyError: another job is running.
        """
        inside = part & result.scene.mask if part.shape == result.scene.mask.shape else part
        scene = completion.redo(inside, scene=result.scene)
        adapter, config = self.adapter, self._with_new_seeds()
        is_own = adapter is not None and work.has_learnt_from(adapter, result.scene)
        source = adapter if adapter is not None and is_own else self.settings.fit.base
        return self._start(
            "Redo a part", lambda job: self._sample(job, scene, source, config, "Redone part", result.scene)
        )  # fmt: skip

    def stop(self) -> None:
        """Ask the running job to end; it keeps what is finished."""
        if self.job is not None:
            self.job.stop()

    def _start(self, title: str, run: Callable[[Job], str]) -> Job:
        before, self.job = self.job, Job(title, log=self.log, on_change=self._tell)
        try:
            return self.job.start(run)
        except BusyError:
            self.job = before
            raise

    def _tell(self) -> None:
        self.on_change()

    def _examine(self, job: Job, scene: Scene) -> Evidence:
        found = self._examined
        if found is None or found[0] is not scene:
            found = (scene, *work.examine(job, scene))
            self._examined = found
        return found[1]

    def _sample(
        self, job: Job, scene: Scene, source: Adapter | str, config: SampleConfig, title: str, whole: Scene
    ) -> str:  # fmt: skip
        from realfill.pipeline import complete

        job.enter("sampling and ranking")
        completions = complete(
            scene, source, config, ranking=self.settings.rank, on_step=job.on_step, progress=False,
            **self.settings.keywords,
        )  # fmt: skip
        self._add(title, completions, whole)
        count, order = len(completions), "the best first" if completions.ranked else "not ranked"
        stopped = "Stopped. " if job.is_stopping else ""
        return f"{stopped}{count} result{'s are' if count != 1 else ' is'} below{f', {order}' if count > 1 else ''}."

    def _with_new_seeds(self) -> SampleConfig:
        """Return the settings of the samples with seeds that no result has yet."""
        config = self.settings.sample
        used = [seed for result in self.results for seed in result.completions.seeds if seed is not None]
        return dataclasses.replace(config, seed=max([config.seed - 1, *used]) + 1)

    def _add(self, title: str, completions: Completions, scene: Scene) -> None:
        self.results.append(Result(title=title, completions=completions, scene=scene))
        if self._keeper is not None:
            self._keeper.keep_completions(scene, title, completions)
