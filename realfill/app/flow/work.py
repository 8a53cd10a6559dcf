"""The work of the jobs: calls of the library, in the order of the flow, with their progress."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realfill.app.flow.choice import Choice
from realfill.app.flow.engines import QuickEngine, best_engine
from realfill.app.flow.failures import as_sentence
from realfill.app.flow.job import Job
from realfill.app.flow.settings import Settings
from realfill.compute.progress import Progress
from realfill.config.fit import MAX_FIT_REFERENCES
from realfill.errors import StoppedError
from realfill.io.images import ImageArray
from realfill.scene.scene import Scene

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.results.completions import Completions
    from realfill.results.evidence import Evidence
    from realfill.segmentation.instances import Instances

# Modules that need torch are imported where they are used, so that an interface appears at once.
# ruff: noqa: PLC0415

_PREVIEW_SHARE = 8  # least time between previews, as a multiple of the time that one takes


def find_people(job: Job, image: ImageArray, detector: str, settings: Settings) -> Instances:
    """Find people and things in a photo (H, W, 3)."""
    from realfill.segmentation.detection import PEOPLE, find_instances

    job.enter("looking for people")
    found = find_instances(image, detector=detector, classes=PEOPLE, **settings.keywords)
    job.require_wanted()
    return found


def make_scene(job: Job, choice: Choice, settings: Settings) -> Scene:
    """Make the scene that is chosen. Where people go, those in the references are found and hidden first."""
    from realfill.pipeline.strangers import find_strangers
    from realfill.segmentation.detection import PEOPLE, load_detector

    new = choice.strangers_to_find
    if new:
        job.enter("looking for people in the references")
        detector, counts = load_detector("auto", **settings.keywords), []
        for number, photo in new:
            (found,) = find_strangers([photo.source], PEOPLE, detector, first=number)
            job.require_wanted()
            if job.is_ending:
                raise StoppedError("the job was ended before the references were checked")
            choice.hidden[photo] = found.mask
            counts += [f"{found.count} in reference {number}"] if found.count else []
        job.note(f"people hidden in the references: {', '.join(counts) or 'none were found'}")
        choice.touch()
    return choice.scene


def examine(job: Job, scene: Scene) -> tuple[Evidence, str]:
    """Find out how much of the hole the references show, and which of many a fit learns from.

    Returns:
        The evidence; a sentence, which is empty for up to five references.
    """
    from realfill.pipeline import examine as examine_scene
    from realfill.pipeline import select_references

    job.enter("aligning the references" if scene.references else "looking at the hole")
    evidence = examine_scene(scene, on_step=job.on_step, progress=False)
    job.require_wanted()
    if len(scene.references) <= MAX_FIT_REFERENCES:
        return evidence, ""
    job.enter("choosing references")
    return evidence, select_references(scene).describe("the fit learns from")


def describe_coverage(scene: Scene, evidence: Evidence, learns_from: str) -> list[str]:
    """Say in sentences what the references show of the hole, and which of them a fit learns from."""
    if not scene.references:
        return ["There are no references, so everything in the hole is invented."]
    shown = f"The references show {100 * evidence.coverage:.0f} % of the hole: {evidence.describe()}."
    return [shown, as_sentence(learns_from)] if learns_from else [shown]


def describe_results(completions: Completions, *, was_stopped: bool) -> str:
    """Say in a sentence what a job made."""
    count, order = len(completions), "the best first" if completions.ranked else "not ranked"
    stopped = "Stopped. " if was_stopped else ""
    return f"{stopped}{count} result{'s are' if count != 1 else ' is'} below{f', {order}' if count > 1 else ''}."


def is_settled(evidence: Evidence, settings: Settings) -> bool:
    """Tell whether the references show every pixel of the hole, so that a fit would change nothing."""
    uses_references = "paper" not in (settings.fit.preset, settings.sample.preset)
    return uses_references and evidence.shares["photographed"] == 1


def complete_quickly(
    job: Job, scene: Scene, engine: QuickEngine, settings: Settings
) -> tuple[Completions, QuickEngine]:  # fmt: skip
    """Complete a scene without a fit; return the name of the engine too."""
    from realfill.pipeline import complete
    from realfill.pipeline.plain import fill_the_rest

    job.enter("filling the rest")
    options: dict[str, Any] = {"on_step": job.on_step, "progress": False, **settings.keywords}
    engine = best_engine() if engine == "auto" else engine
    if engine == "base":
        found = complete(scene, settings.fit.base, settings.sample, ranking=settings.rank, **options)
    elif engine == "completion":
        found = fill_the_rest(scene, engine, None, weights=settings.completion, **options)
    else:
        found = complete(scene, engine, **options)
    job.require_wanted()
    return found, engine


def sample(
    job: Job, scene: Scene, source: Adapter | str, settings: Settings, *, first_seed: int
) -> Completions:  # fmt: skip
    """Complete a scene with a fit or a base model, and rank."""
    from realfill.pipeline import complete

    job.enter("sampling and ranking")
    config = dataclasses.replace(settings.sample, seed=first_seed)
    found = complete(
        scene, source, config, ranking=settings.rank, on_step=job.on_step, progress=False, **settings.keywords
    )  # fmt: skip
    job.require_wanted()
    return found


def check(job: Job, scene: Scene, settings: Settings) -> None:
    """Check, before a fit, that everything is there that it needs."""
    from realfill.pipeline import check_ready

    job.enter("checking the base model")
    check_ready(scene, settings.fit, settings.sample, ranking=settings.rank, progress=False, **settings.keywords)
    job.require_wanted()


def fit_with_previews(job: Job, scene: Scene, settings: Settings, *, folder: Path, every_s: float) -> Adapter:
    """Fit, and pause every so often to draw a sample. A fit that pauses ends with the same result as one that does not.

    Args:
        job: receives the reports and the previews, and can stop the fit.
        scene: the scene.
        settings: the recipe.
        folder: for the checkpoint from which the fit goes on after a pause, or after it was stopped.
        every_s: least time between two previews.

    Returns:
        The adapter. If the job was stopped, it has learnt what it could until then.
    """
    from realfill.pipeline import fit

    due_s = time.monotonic() + every_s
    while True:
        pause = _Pause(job, due_s)
        job.enter("fitting")
        adapter = fit(
            scene, settings.fit, checkpoint_dir=folder, overwrite=True, on_step=pause.on_step, progress=False,
            **settings.keywords,
        )  # fmt: skip
        job.require_wanted()
        if job.is_ending or not pause.is_due:
            return adapter
        started_s = time.monotonic()
        _preview(job, scene, adapter, settings)
        now_s = time.monotonic()
        due_s = now_s + max(every_s, _PREVIEW_SHARE * (now_s - started_s))


def has_learnt_from(adapter: Adapter, scene: Scene) -> bool:
    """Tell whether a fit has learnt from the target or from a reference of a scene."""
    from realfill.results.provenance import hash_scene

    photos = {value for name, value in hash_scene(scene).items() if name.startswith(("target", "reference"))}
    learnt = adapter.manifest.get("inputs", {})
    return not photos.isdisjoint(learnt[name] for name in learnt if name.startswith(("target", "reference")))


class _Pause:
    """Ends the steps of a fit at a given time, unless the last step is done."""

    def __init__(self, job: Job, due_s: float) -> None:
        self._job, self._due_s = job, due_s
        self.is_due = False

    def on_step(self, progress: Progress) -> bool:
        is_fit = progress.phase == "fit" and progress.step < progress.num_steps
        self.is_due = is_fit and time.monotonic() >= self._due_s
        return self._job.on_step(progress) and not self.is_due


def _preview(job: Job, scene: Scene, adapter: Adapter, settings: Settings) -> None:
    """Show one sample of what is learnt so far; a job that is stopped shows none."""
    from realfill.pipeline import complete

    job.enter("drawing a preview")
    config = dataclasses.replace(settings.sample, num_samples=1, preset="draft")
    try:
        drawn = complete(
            scene, adapter, config, ranked=False, on_step=job.goes_on, progress=False, **settings.keywords
        )  # fmt: skip
    except StoppedError:
        return
    job.show(drawn.best.image)
