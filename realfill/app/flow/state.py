"""Flow: one photo on its way to a completion, as a user interface knows it: what is chosen, the jobs, the results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from realfill.app.flow import work
from realfill.app.flow.choice import Choice
from realfill.app.flow.engines import QuickEngine, require_runnable
from realfill.app.flow.failures import ErrorLog
from realfill.app.flow.job import BusyError, Job, JobQueue, shared_queue
from realfill.app.flow.keeping import Keeper
from realfill.app.flow.results import Result, Results
from realfill.app.flow.settings import Settings
from realfill.app.flow.uploads import Uploads
from realfill.errors import SceneError, StoppedError
from realfill.io.images import MaskArray
from realfill.scene.scene import Scene

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.results.completions import Completions
    from realfill.results.evidence import Evidence

# Modules that need torch or matplotlib are imported in the jobs, so that an interface appears at once.

PREVIEW_EVERY_S = 20.0


class Flow:
    """One photo on its way to a completion.

    Whatever starts a job raises ``BusyError`` while one waits or runs, and ``SceneError`` if something is missing.

    Attributes:
        choice: the photos and what is missing.
        settings: how the hole is filled; a job takes those of its start.
        results: what the jobs made, the latest last, and the last fit.
        job: the last job, or ``None``.
        log: describes errors, and writes reports of unexpected ones.
        on_change: called when a job has something to show, in the job's thread; an interface sets it.
        on_result: called with each new result, in the job's thread.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        choice: Choice | None = None,
        output: str | PathLike[str] | None = None,
        queue: JobQueue | None = None,
        log: ErrorLog | None = None,
        preview_every_s: float = PREVIEW_EVERY_S,
    ) -> None:
        """Start a flow.

        Args:
            settings: how the hole is filled.
            choice: what is chosen already.
            output: folder that keeps scenes, fits and results, so that ``resume`` goes on another day.
            queue: runs the jobs. ``None``: one that all flows of this process share.
            log: describes errors. ``None``: one in the output folder, else in the current folder.
            preview_every_s: least time between two previews of a fit.
        """
        self.settings, self.choice = settings, choice or Choice()
        self.job: Job | None = None
        self.results = Results(Keeper(output) if output is not None else None)
        self.log = log or ErrorLog(Path(output) if output is not None else Path.cwd())
        self.on_change: Callable[[], object] = lambda: None
        self.on_result: Callable[[Result], object] = lambda _: None
        self._queue, self._preview_every_s = queue or shared_queue(), preview_every_s
        self._examined: tuple[Scene, Evidence, str] | None = None
        self._lock = threading.Lock()

    @cached_property
    def uploads(self) -> Uploads:
        """The folder of uploaded and temporary files."""
        return Uploads()

    def resume(self) -> None:
        """Go on with the last scene of the output folder.

        Raises:
            SceneError: there is no output folder, or it holds no scene.
        """
        self.choice.use_scene(self.results.resume())

    @property
    def is_busy(self) -> bool:
        """Whether a job waits or runs."""
        return self.job is not None and self.job.is_active

    @property
    def num_before(self) -> int:
        """The number of jobs, of others too, that run or wait before the job."""
        return self._queue.count_before(self.job) if self.job is not None else 0

    @property
    def evidence(self) -> Evidence | None:
        """What the references show of the hole that is chosen; ``None`` before ``examine``."""
        return found[1] if (found := self._current_examination) is not None else None

    @property
    def coverage(self) -> list[str]:
        """What is known of the references, in sentences; none before ``examine``."""
        found = self._current_examination
        return [] if found is None else work.describe_coverage(*found)

    @property
    def _current_examination(self) -> tuple[Scene, Evidence, str] | None:
        found = self._examined
        return found if found is not None and found[0] is self.choice.current else None

    def find_people(self, detector: str = "auto") -> Job:
        """Look for people and things in the target.

        Args:
            detector: see ``load_detector``.
        """
        choice, hole = self.choice, self.choice.require_hole()

        def run(job: Job, settings: Settings) -> str:
            found = work.find_people(job, choice.full_target(), detector, settings)
            was_chosen, hole.instances = hole.marks_people, None
            hole.choose(())
            hole.instances = found
            if was_chosen:
                choice.touch()
            if not found:
                return "Nobody was found. Mark what is missing with the brush or a box."
            return f"Found {len(found)} with {found.detector}. Tick them below, or pick them in the photo."

        return self._start("Find people", run, can_stop=False)

    def examine(self) -> Job:
        """Find out how much of the hole the references show."""
        self.choice.require_ready()

        def run(job: Job, settings: Settings) -> str:
            self._examine(job, work.make_scene(job, self.choice, settings))
            return next(iter(self.coverage), "")

        return self._start("See coverage", run, can_stop=False)

    def quick(self, engine: QuickEngine = "auto") -> Job:
        """Fill from the references what they show, and the rest without a fit.

        Args:
            engine: what fills the rest. ``auto``: ``lama`` or ``migan`` if their files are on this machine, else
                ``telea``. ``base``: the base model of the settings.

        Raises:
            SceneError: something is missing.
            ValueError: the engine cannot run here.
        """
        self.choice.require_ready()
        require_runnable(engine, self.settings)

        def run(job: Job, settings: Settings) -> str:
            scene = work.make_scene(job, self.choice, settings)
            self._examine(job, scene)
            found, used = work.complete_quickly(job, scene, engine, settings)
            self._add(f"Quick result ({used})", found, scene)
            return "The quick result is below."

        return self._start("Quick result", run, can_stop=False)

    def fit(self, *, samples_if_stopped: bool = False) -> Job:
        """Fit, or go on with a fit that was stopped; then sample and rank.

        Args:
            samples_if_stopped: sample with what a fit that is stopped has learnt; else only the fit is kept.
        """
        self.choice.require_ready()
        if not self.choice.photos.references:
            raise SceneError("a fit learns from references; add at least one, or take the quick result")

        def run(job: Job, settings: Settings) -> str:
            scene = work.make_scene(job, self.choice, settings)
            work.check(job, scene, settings)
            if work.is_settled(self._examine(job, scene), settings):
                found, _ = work.complete_quickly(job, scene, "telea", settings)
                self._add("From the references alone", found, scene)
                job.note("the references show every pixel of the hole, so no fit is needed")
                return "The result is below."
            return self._fit(job, scene, settings, samples_if_stopped=samples_if_stopped)

        return self._start("Fit", run)

    def sample(self) -> Job:
        """Draw more samples with the fit there is."""
        scene, adapter = self.choice.scene, self.results.adapter
        if adapter is None:
            raise SceneError("nothing is fitted yet; press Fit first")
        if not work.has_learnt_from(adapter, scene):
            raise SceneError("the fit has learnt from other photos; press Fit to learn from these")
        title = "More samples"
        return self._start(title, lambda job, settings: self._sample(job, scene, adapter, title, scene, settings))

    def redo(self, result: Result, place: int, part: MaskArray) -> Job:
        """Fill a part of the hole again, by the fit or, if there is none of these photos, by the base model.

        Args:
            result: a result.
            place: the completion in it that is kept outside of the part, from 0.
            part: (H, W) bool of the target's size, True = fill again. Pixels outside of the hole are ignored.
        """
        if not part.any():
            raise SceneError("no part is marked; mark it with the brush or a box")

        def run(job: Job, settings: Settings) -> str:
            whole = result.scene
            inside = part & whole.mask if part.shape == whole.mask.shape else part
            scene = result.completions[place].redo(inside, scene=whole)
            source, title = self._source(whole, settings), f"A part of result {place + 1} again"
            return self._sample(job, scene, source, title, whole, settings)

        return self._start("Redo a part", run)

    def stop(self) -> None:
        """Ask the job to end; it keeps what is finished. One that waits is cancelled."""
        if self.job is not None and self.job.state == "waiting":
            self.cancel()
        elif self.job is not None:
            self.job.stop()

    def cancel(self) -> None:
        """Ask the job to end; it keeps nothing."""
        if self.job is not None:
            self._queue.cancel(self.job)

    def forget(self) -> None:
        """Forget the last job, once it has ended."""
        if not self.is_busy:
            self.job = None

    def unload(self) -> None:
        """Give memory back; everything is read or computed again when it is needed."""
        self.choice.touch()
        self._examined = None
        self.results.unload()

    def _start(self, title: str, run: Callable[[Job, Settings], str], *, can_stop: bool = True) -> Job:
        settings = self.settings
        with self._lock:
            if self.is_busy:
                raise BusyError("a job of yours is running or waiting; wait until it ends, or stop it first")
            before = self.job
            job = self.job = Job(
                title, lambda job: run(job, settings), log=self.log, can_stop=can_stop, on_change=self._tell
            )  # fmt: skip
            try:
                return self._queue.submit(job)
            except BusyError:
                self.job = before
                raise

    def _tell(self) -> None:
        self.on_change()

    def _examine(self, job: Job, scene: Scene) -> Evidence:
        found = self._examined
        if found is None or found[0] is not scene:
            found = self._examined = (scene, *work.examine(job, scene))
            self.on_change()
        return found[1]

    def _fit(self, job: Job, scene: Scene, settings: Settings, *, samples_if_stopped: bool) -> str:
        keeper = self.results.keeper
        folder = keeper.place_of(scene) if keeper is not None else self.uploads.folder
        adapter = work.fit_with_previews(
            job, scene, settings, folder=folder / "checkpoint", every_s=self._preview_every_s
        )
        self.results.take_adapter(scene, adapter)
        num_steps, was_stopped = len(adapter.losses), job.is_ending
        stopped = (
            f"Stopped after step {num_steps}. The fit so far is kept: press Fit to go on with it, or More samples to "
            "use it as it is."
        )
        if was_stopped and not samples_if_stopped:
            return stopped
        job.go_on()
        title = f"Fit of {Path(settings.fit.base).name}, {num_steps} steps{', stopped' if was_stopped else ''}"
        try:
            return self._sample(job, scene, adapter, title, scene, settings)
        except StoppedError:  # before the first sample was finished
            job.require_wanted()
            return stopped

    def _sample(
        self, job: Job, scene: Scene, source: Adapter | str, title: str, whole: Scene, settings: Settings
    ) -> str:  # fmt: skip
        first = self.results.next_seed(settings.sample.seed)
        completions = work.sample(job, scene, source, settings, first_seed=first)
        self._add(title, completions, whole)
        return work.describe_results(completions, was_stopped=job.is_ending)

    def _source(self, scene: Scene, settings: Settings) -> Adapter | str:
        """Return the fit that has learnt from the photos of a scene, else the name of the base model."""
        own = (adapter for adapter in self.results.adapters(scene) if work.has_learnt_from(adapter, scene))
        return next(own, settings.fit.base)

    def _add(self, title: str, completions: Completions, scene: Scene) -> None:
        result = self.results.make(title, completions, scene)
        self.on_result(result)
        self.results.append(result)
