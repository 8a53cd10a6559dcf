"""The desk: checks what a visitor asks for, and puts it into the queue as a job.

The modules that compute load torch, so they are imported by the jobs, and the page opens at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from realfill.app.page.holes import has_hole, part_path, read_mask_file
from realfill.app.page.jobs import Job, JobQueue
from realfill.app.page.records import RefusedError
from realfill.app.page.visits import Visit, Visits
from realfill.config import CLASSICAL_ENGINES, EngineName

if TYPE_CHECKING:
    from realfill.app.page.work import Workshop

# ruff: noqa: PLC0415 - see above

MAX_STEPS = 20_000
MAX_SAMPLES = 16


@dataclass(slots=True, kw_only=True)
class Desk:
    """Takes the orders of all visitors.

    Attributes:
        visits: all visits.
        queue: runs the jobs.
        base: the base model of fits.
        device: where to compute; ``None``: the best available.
        local_files_only: do not use the network for base models.
        preview_every_s: least seconds of training between two previews.
    """

    visits: Visits
    queue: JobQueue
    base: str = "mini"
    device: str | None = None
    local_files_only: bool = False
    preview_every_s: float = 20.0
    _workshop: Workshop | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def quick(self, visit: Visit, engine: EngineName) -> None:
        """Order a quick result.

        Raises:
            RefusedError: it cannot be ordered.
        """
        if engine not in CLASSICAL_ENGINES:
            raise RefusedError(f"the engine is {engine!r}; legal: {', '.join(CLASSICAL_ENGINES)}")
        _require_hole(visit)
        self._submit(visit, "Quick result", lambda job: self.workshop().quick(visit, job, engine))

    def fit(self, visit: Visit, num_steps: int | None, num_samples: int) -> None:
        """Order a fit.

        Args:
            visit: the visit.
            num_steps: optimizer steps; ``None``: the base model's default.
            num_samples: number of results.

        Raises:
            RefusedError: it cannot be ordered.
        """
        from realfill.app.page.work import FitOptions

        _require_hole(visit)
        if not visit.references:
            raise RefusedError("a fit learns from references; add at least one, or take the quick result")
        if num_steps is not None and not 1 <= num_steps <= MAX_STEPS:
            raise RefusedError(f"the number of steps is {num_steps}; legal: from 1 to {MAX_STEPS}")
        _require_samples(num_samples)
        options = FitOptions(
            base=self.base, num_steps=num_steps, num_samples=num_samples, preview_every_s=self.preview_every_s
        )
        self._submit(visit, "Fit", lambda job: self.workshop().fit(visit, job, options), can_stop=True)

    def redo(self, visit: Visit, num_samples: int) -> None:
        """Order the marked part of a result again.

        Raises:
            RefusedError: it cannot be ordered.
        """
        _require_samples(num_samples)
        part = read_mask_file(part_path(visit)) if visit.part else None
        if part is None or not part.any():
            raise RefusedError("mark the part of the chosen result first, with the brush or a box")
        number, place = visit.part
        self._submit(
            visit, "Redo a part",
            lambda job: self.workshop().redo(
                visit, job, (number, place), part, base=self.base, num_samples=num_samples
            ),
            can_stop=True,
        )  # fmt: skip

    def find_people(self, visit: Visit) -> None:
        """Order the people in the target, numbered.

        Raises:
            RefusedError: it cannot be ordered.
        """
        if visit.target is None:
            raise RefusedError("choose the photo to complete first")

        def work(job: Job) -> None:
            from realfill.app.page.people import find_people

            find_people(visit, job, device=self.device)

        self._submit(visit, "Find people", work)

    def take_example(self, visit: Visit) -> None:
        """Make the demo's scene the photos of a visit.

        Raises:
            RefusedError: a job is using the photos.
        """
        self.visits.require_room(visit)

        def work(job: Job) -> None:
            from realfill.app.page.example import take_example

            job.require_wanted()
            take_example(visit)

        self._submit(visit, "Example", work)

    def download(self, visit: Visit, number: int, place: int, kind: str) -> Path:
        """Write a result in a format, once, and return the file.

        Raises:
            RefusedError: there is no such result.
        """
        from realfill.app.page.work import save_download

        visit.round(number)
        path = visit.round_folder(number) / f"download-{place}.{kind}"
        with self._lock:
            if not path.is_file():
                results = self.workshop().results(visit, number)
                if not 0 <= place < len(results):
                    raise RefusedError("this result is gone; reload the page")
                save_download(results, place, path)
        return path

    def workshop(self) -> Workshop:
        """Return what computes; loading it takes seconds."""
        from realfill.app.page.work import Workshop

        with self._lock:
            if self._workshop is None:
                self._workshop = Workshop(device=self.device, local_files_only=self.local_files_only)
            return self._workshop

    def _submit(self, visit: Visit, title: str, work: Callable[[Job], None], *, can_stop: bool = False) -> None:
        self.queue.submit(Job(owner=visit.name, title=title, work=work, can_stop=can_stop))


def _require_hole(visit: Visit) -> None:
    if visit.target is None:
        raise RefusedError("choose the photo to complete first")
    if not has_hole(visit):
        raise RefusedError("mark what is missing first: with the brush, a box, a click or the margins")


def _require_samples(num_samples: int) -> None:
    if not 1 <= num_samples <= MAX_SAMPLES:
        raise RefusedError(f"the number of results is {num_samples}; legal: from 1 to {MAX_SAMPLES}")
