"""A visit: a flow whose photos, hole and results are files in a folder, so that it survives a restart."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from realfill.app.flow.choice import Choice
from realfill.app.flow.engines import QuickEngine
from realfill.app.flow.hole import Hole
from realfill.app.flow.photos import NamedPhoto, Photos
from realfill.app.flow.results import Result
from realfill.app.flow.state import Flow
from realfill.app.page.gallery import draw_small_pictures
from realfill.errors import RealFillError
from realfill.io.files import write_text
from realfill.io.images import MaskArray
from realfill.io.json_files import read_json

PREVIEW_PX, THUMBNAIL_PX = 2048, 320
STATE_NAME, _HOLE_NAME = "visit.json", "hole.npz"
_PLAIN = ("used", "next_number", "engine", "mask_version", "coverage", "notes", "outcome", "revision")


class RefusedError(RealFillError):
    """A request cannot be met; the message is shown beside the control that it belongs to."""


class Visit:
    """A visitor's flow, and what the page shows of it. Whoever changes it does so within ``changed``.

    Attributes:
        folder: everything of the visit. It exists once there is something to keep.
        flow: what is chosen, the job and the results.
        used: time of the last request, in seconds since 1970.
        next_number: number of the next file; it never repeats, so that browsers cannot show an old file.
        engine: the chosen engine of quick results.
        mask_version: changes whenever the hole does; 0: nothing was marked yet.
        part: number and place of a result, and the part of it that is marked to be sampled again; ``None``: none.
        coverage: what the references show of the hole, in sentences; empty before it is known.
        notes: what is worth knowing about the last job.
        outcome: title and message of the last job.
        revision: changes whenever the page should show something else.
    """

    def __init__(self, folder: Path, flow: Flow) -> None:
        """Start without photos, or with those that the folder holds.

        Args:
            folder: the folder of the visit.
            flow: a flow whose photos are those of ``make_choice``.

        Raises:
            ValueError: the state in the folder is damaged.
        """
        self.folder, self.flow, self.used = folder, flow, time.time()
        self.next_number, self.mask_version, self.revision = 1, 0, 1
        self.engine: QuickEngine = "auto"
        self.part: tuple[int, int, MaskArray] | None = None
        self.coverage: list[str] = []
        self.notes: list[str] = []
        self.outcome: tuple[str, str] = ("", "")
        self._lock = threading.RLock()
        self._saved_used = 0.0
        flow.on_change, flow.on_result = self._follow_job, draw_small_pictures
        flow.results.read()
        if (folder / STATE_NAME).is_file():
            self._load()

    @property
    def name(self) -> str:
        """Name of the folder; it tells nothing about the key of the visitor."""
        return self.folder.name

    @property
    def photos(self) -> Photos:
        """The target and the references."""
        return self.flow.choice.photos

    @property
    def photo_folder(self) -> Path:
        """The folder of the photos."""
        return self.folder / "photos"

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Change the visit: one thread at a time, written to disk at the end, and seen by every tab."""
        with self._lock:
            yield
            self.revision += 1
            self.used = time.time()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._save()

    @contextmanager
    def scene_changed(self) -> Iterator[Choice]:
        """Change what is chosen; what was found out about the scene before is forgotten, and results stay.

        Raises:
            RefusedError: a job uses it, which may have begun while the request arrived.
        """
        with self.changed():
            self.require_idle()
            yield self.flow.choice
            self.flow.choice.touch()
            self.coverage, self.notes, self.outcome = [], [], ("", "")

    @contextmanager
    def hole_changed(self) -> Iterator[Hole]:
        """Change the hole.

        Raises:
            SceneError: there is no target.
            RefusedError: as for ``scene_changed``.
        """
        with self.scene_changed() as choice:
            hole = choice.require_hole()
            yield hole
            self.mask_version = self.take_number()
            hole.save(self.folder / _HOLE_NAME)

    def take_number(self) -> int:
        """Return a number that no file of the visit has had. Call it within ``changed``."""
        self.next_number += 1
        return self.next_number - 1

    def require_idle(self) -> None:
        """Check that no job uses the photos.

        Raises:
            RefusedError: one does.
        """
        if self.flow.is_busy:
            raise RefusedError("a job is using these photos; wait until it ends, or cancel it")

    def result(self, number: int, place: int = 0) -> Result:
        """Find a result by its number.

        Raises:
            RefusedError: there is none, or it has no completion at this place.
        """
        for found in self.flow.results:
            if found.number == number and 0 <= place < found.count:
                return found
        raise RefusedError("this result is gone; reload the page")

    def save_use(self) -> None:
        """Write the time of the last use to disk, if there is a folder, so that it counts after a restart.

        Raises:
            OutputError: the disk is full, or the folder has been removed meanwhile.
        """
        with self._lock:
            if self.used > self._saved_used and self.folder.is_dir():
                self._save()

    def _follow_job(self) -> None:
        """Show what a job has found out; the job's thread calls this."""
        job, coverage = self.flow.job, self.flow.coverage
        if job is None:
            return
        if not job.is_active and job.title == "Find people" and job.state == "done":
            with self.hole_changed():
                pass
        if not job.is_active or (coverage and coverage != self.coverage):
            with self.changed():
                self.coverage, self.notes = coverage or self.coverage, list(job.notes)
                if not job.is_active:
                    self.outcome = (job.title, "" if job.state == "failed" else job.message)

    def _save(self) -> None:
        choice = self.flow.choice
        target, references = choice.photos.target, choice.photos.references
        values: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN} | {
            "target": None if target is None else _record(target), "references": list(map(_record, references)),
            "margins": dict(choice.margins), "hides_strangers": choice.hides_strangers,
        }  # fmt: skip
        write_text(self.folder / STATE_NAME, json.dumps(values, indent=1) + "\n")
        self._saved_used = self.used

    def _load(self) -> None:
        choice = self.flow.choice
        try:
            values = read_json(self.folder / STATE_NAME)
            for name in _PLAIN:
                setattr(self, name, values[name])
            self.outcome = (self.outcome[0], self.outcome[1])
            self.photos.references = [self._photo(record) for record in values["references"]]
            if values["target"] is not None:
                self.photos.target = self._photo(values["target"])
                choice.hole = Hole.load(self.folder / _HOLE_NAME)
            choice.margins, choice.hides_strangers = values["margins"], values["hides_strangers"]
            self._saved_used = self.used
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{str(self.folder)!r} holds no visit, or a damaged one: {error}") from error

    def _photo(self, record: dict[str, Any]) -> NamedPhoto:
        size = (record["size"][0], record["size"][1])
        return NamedPhoto(name=record["name"], source=self.photo_folder / record["file"], size=size)


def make_choice() -> Choice:
    """Start a choice whose previews have the sizes of the page's."""
    return Choice(Photos(preview_px=PREVIEW_PX, thumbnail_px=THUMBNAIL_PX))


def file_of(photo: NamedPhoto) -> Path:
    """Return the file of a photo of a visit."""
    assert isinstance(photo.source, Path)
    return photo.source


def without_preview(photo: NamedPhoto) -> NamedPhoto:
    """Return a photo without its preview, which is a file."""
    return dataclasses.replace(photo, preview=None, transparent=None)


def _record(photo: NamedPhoto) -> dict[str, Any]:
    return {"file": file_of(photo).name, "name": photo.name, "size": photo.size}
