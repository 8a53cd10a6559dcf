"""The jobs of a visit: a quick result, a fit with previews, a part that is redone. Each calls the library."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from realfill.app.page.holes import read_hole, read_mask_file, write_mask_file
from realfill.app.page.jobs import Job
from realfill.app.page.records import RefusedError, Round, RoundKind
from realfill.app.page.uploads import PREVIEW_PX, THUMBNAIL_PX, photo_path
from realfill.app.page.visits import Visit
from realfill.compute.progress import Progress
from realfill.config import MAX_FIT_REFERENCES, EngineName, FitConfig, SampleConfig
from realfill.errors import StoppedError, warnings_to
from realfill.io.files import whole_file
from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.io.writing import write_png
from realfill.models.diffusion.adapter import Adapter
from realfill.pipeline import check_ready, complete, examine, fit, select_references
from realfill.results.completions import Completion, Completions
from realfill.scene.scene import Scene

_PREVIEW_SHARE = 0.15  # of the time of a fit that previews may take
_SEED_STEP = 1000  # between the seeds of a part that is redone and those before


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """What a visitor chooses for a fit.

    Attributes:
        base: the base model.
        num_steps: optimizer steps; ``None``: the base model's default.
        num_samples: number of results.
        preview_every_s: least seconds of training between two previews.
    """

    base: str
    num_steps: int | None = None
    num_samples: int = 4
    preview_every_s: float = 20.0


class Workshop:
    """Does the jobs. It holds the scene of one visit at a time, so that its composite is computed once."""

    def __init__(self, *, device: str | None = None, local_files_only: bool = False) -> None:
        """Compute on a device; ``None``: the best available."""
        self.device, self.local_files_only = device, local_files_only
        self._key: object = None
        self._scene: Scene | None = None

    def examine(self, visit: Visit, job: Job) -> Scene:
        """Find out how much of the hole the references show, and tell the page."""
        scene = self.scene(visit)
        evidence = examine(scene, on_step=job.on_step, progress=False)
        job.require_wanted()
        chosen = select_references(scene) if len(scene.references) > MAX_FIT_REFERENCES else None
        if scene.references:  # without any there is nothing to say
            with visit.changed():
                visit.coverage = f"The references show {100 * evidence.coverage:.0f} % of the hole."
                visit.selection = f"{chosen.describe()}." if chosen is not None else ""
        return scene

    def quick(self, visit: Visit, job: Job, engine: EngineName) -> None:
        """Fill the hole from the references, and what they do not show by an engine that needs no fit."""
        with _noted(visit):
            scene = self.examine(visit, job)
            results = complete(
                scene, engine, device=self.device, local_files_only=self.local_files_only, on_step=job.on_step,
                progress=False,
            )  # fmt: skip
            job.require_wanted()
            self._keep(visit, results, "quick", f"Quick result ({engine})")

    def fit(self, visit: Visit, job: Job, options: FitOptions) -> None:
        """Fit a base model to the scene, with previews on the way; then complete and rank."""
        config = FitConfig(base=options.base, num_steps=options.num_steps)
        sampling = SampleConfig(num_samples=options.num_samples)
        with _noted(visit):
            scene = self.scene(visit)
            check_ready(
                scene, config, sampling, device=self.device, local_files_only=self.local_files_only, progress=False
            )
            self.examine(visit, job)
            adapter = self._fit(scene, visit, job, config, options)
            adapter.save(visit.folder / "adapter", overwrite=True)
            with visit.changed():
                visit.has_adapter = True
            was_stopped, job.stopping = job.stopping, False  # a second stop ends the sampling
            results = self._complete(scene, adapter, job, sampling)
            steps = len(adapter.losses)
            note = f", stopped after {steps} steps" if was_stopped else ""
            self._keep(visit, results, "fit", f"Fit of {options.base}, {steps} steps{note}")

    def redo(
        self, visit: Visit, job: Job, parent: tuple[int, int], part: MaskArray, *, base: str, num_samples: int
    ) -> None:
        """Sample a part of a result again, by the fit if there is one, and else by the base model alone."""
        with _noted(visit):
            whole = self.scene(visit)
            number, place = parent
            if visit.round(number).scene != visit.scene_number:
                raise RefusedError("this result belongs to photos or a hole that have changed since; fill again first")
            scene = self.results(visit, number)[place].redo(part, whole)
            source = Adapter.load(visit.folder / "adapter") if visit.has_adapter else base
            sampling = SampleConfig(num_samples=num_samples, seed=_SEED_STEP * len(visit.rounds))
            results = self._complete(scene, source, job, sampling)
            self._keep(visit, results, "redo", f"A part of result {place + 1} again", parent)

    def scene(self, visit: Visit) -> Scene:
        """Return the scene of a visit.

        Raises:
            RefusedError: there is no target.
            SceneError: the photos cannot be used.
        """
        if visit.target is None:
            raise RefusedError("choose the photo to complete first")
        if self._key != visit.scene_key or self._scene is None:
            self._scene = None
            target, mask = photo_path(visit, visit.target), read_hole(visit)
            references = [photo_path(visit, upload) for upload in visit.references]
            hole = None if mask is None or not (mask.any() or visit.margins) else mask
            if visit.margins:
                sides = visit.margins
                self._scene = Scene.outpaint(
                    references, target, hole, left=sides["left"], right=sides["right"], top=sides["top"],
                    bottom=sides["bottom"],
                )  # fmt: skip
            else:
                self._scene = Scene(references, target, hole)
            self._key = visit.scene_key
        return self._scene

    def results(self, visit: Visit, number: int) -> Completions:
        """Read the results of a round from disk.

        Raises:
            RefusedError: there is no such round.
        """
        return Completions.load(visit.round_folder(number), self._scene_of(visit, visit.round(number)))

    def _scene_of(self, visit: Visit, found: Round) -> Scene:
        """Return the scene of a round; of a part that was redone, it is made from the result before."""
        whole = Scene.load(visit.scene_folder(found.scene))
        if found.parent is None:
            return whole
        number, place = found.parent
        part = read_mask_file(visit.round_folder(found.number) / "part.png")
        return self.results(visit, number)[place].redo(part, whole)

    def _fit(self, scene: Scene, visit: Visit, job: Job, config: FitConfig, options: FitOptions) -> Adapter:
        """Train; stop whenever a preview is due, show it, and resume from the checkpoint."""
        due_s = options.preview_every_s
        while True:
            job.require_wanted()
            pause = _Pause(job, due_s)
            adapter = fit(
                scene, config, device=self.device, local_files_only=self.local_files_only,
                checkpoint_dir=visit.folder / "checkpoint", overwrite=True, on_step=pause.on_step, progress=False,
            )  # fmt: skip
            job.require_wanted()
            if not pause.is_due or job.stopping or pause.is_last:
                return adapter
            started = time.monotonic()
            self._preview(scene, visit, job, adapter)
            due_s = max(options.preview_every_s, (time.monotonic() - started) / _PREVIEW_SHARE)

    def _preview(self, scene: Scene, visit: Visit, job: Job, adapter: Adapter) -> None:
        """Complete once with an adapter that is still being trained."""
        seen = job.progress
        try:
            results = complete(
                scene, adapter, SampleConfig(num_samples=1), ranked=False, device=self.device,
                local_files_only=self.local_files_only, on_step=job.on_step, progress=False,
            )  # fmt: skip
        except StoppedError:
            return
        finally:
            job.progress = seen
        _write_jpeg(visit.folder / "preview.jpg", results.best.image, PREVIEW_PX)
        job.preview += 1

    def _complete(self, scene: Scene, adapter: Adapter | str, job: Job, sampling: SampleConfig) -> Completions:
        results = complete(
            scene, adapter, sampling, device=self.device, local_files_only=self.local_files_only, on_step=job.on_step,
            progress=False,
        )  # fmt: skip
        job.require_wanted()
        return results

    def _keep(
        self, visit: Visit, results: Completions, kind: RoundKind, title: str, parent: tuple[int, int] | None = None
    ) -> None:
        """Write results and small pictures of them, and show them."""
        with visit.changed():
            number = visit.take_number()
            visit.scene_number = visit.scene_number or visit.take_number()
        _save_scene(results.scene, visit.scene_folder(visit.scene_number))
        folder = visit.round_folder(number)
        folder.mkdir(parents=True)
        results.save(folder)
        if parent is not None:
            write_mask_file(folder / "part.png", results.scene.mask)
        write_png(folder / "before.png", _before(results.scene))
        for place, completion in enumerate(results):
            _write_jpeg(folder / f"thumb-{place}.jpg", _around_hole(completion), THUMBNAIL_PX)
        height, width = results.scene.target.shape[:2]
        found = Round(
            number=number, kind=kind, title=title, size=(height, width), scene=visit.scene_number, parent=parent
        )
        with visit.changed():
            visit.rounds.append(found)


@dataclass(slots=True)
class _Pause:
    """Interrupts a fit when a preview is due."""

    job: Job
    after_s: float
    is_due: bool = False
    is_last: bool = False
    _started: float | None = None

    def on_step(self, progress: Progress) -> bool:
        """Pass a report on; the answer also ends the training when a preview is due."""
        wanted = self.job.on_step(progress)
        if progress.phase != "fit":
            return wanted
        now = time.monotonic()
        self._started = now if self._started is None else self._started
        self.is_last = progress.step >= progress.num_steps
        self.is_due = not self.is_last and now - self._started >= self.after_s
        return wanted and not self.is_due


@contextmanager
def _noted(visit: Visit) -> Iterator[None]:
    """Show the library's warnings about a job on the page."""
    notes: list[str] = []
    try:
        with warnings_to(notes.append):
            yield
    finally:
        with visit.changed():
            visit.notes = list(dict.fromkeys(notes))


def _save_scene(scene: Scene, folder: Path) -> None:
    """Save a scene once. Its folder is whole or does not exist, because later results rely on it."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a server that was killed
    scene.save(partial)
    partial.rename(folder)


def save_download(results: Completions, place: int, path: Path) -> None:
    """Write a result in the format that the path's suffix names."""
    with whole_file(path) as partial:
        named = partial.with_name(f"{partial.name}{path.suffix}")
        results[place].save(named, overwrite=True)
        named.replace(partial)


def _before(scene: Scene) -> ImageArray:
    """Return the target to compare with; what was never photographed is grey."""
    image = scene.target.copy()
    if "outpaint" in scene.history or "redo" not in scene.history:
        blank = scene.mask & ~image.any(axis=2)
        image[blank] = 128
    return image


def _around_hole(completion: Completion) -> ImageArray:
    """Cut a result to its hole and as much around it."""
    rows, columns = (np.flatnonzero(completion.scene.mask.any(axis=axis)) for axis in (1, 0))
    height, width = completion.scene.mask.shape
    grow = max(rows[-1] - rows[0], columns[-1] - columns[0]) // 4 + 8
    top, bottom = max(0, rows[0] - grow), min(height, rows[-1] + grow)
    left, right = max(0, columns[0] - grow), min(width, columns[-1] + grow)
    return completion.image[top:bottom, left:right]


def _write_jpeg(path: Path, image: ImageArray, side_px: int) -> None:
    small = resize(np.ascontiguousarray(image), fit_within((image.shape[0], image.shape[1]), side_px))
    with whole_file(path) as partial, partial.open("wb") as stream:
        Image.fromarray(np.ascontiguousarray(small)).save(stream, format="JPEG", quality=90)
