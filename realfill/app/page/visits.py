"""Visits: one folder for each visitor, which survives a restart and is removed some days after its last use."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from realfill.app.page.records import RefusedError, Round, Upload
from realfill.io.files import write_text

KEEP_DAYS = 7
MAX_VISITS = 200
_STATE_NAME = "visit.json"
_KEY = re.compile(r"[A-Za-z0-9_-]{32,64}")
_DAY_S, _LOOK_S = 86_400.0, 3_600.0


@dataclass(slots=True, kw_only=True)
class Visit:
    """What a visitor has uploaded, marked and computed. Whoever changes it does so within ``changed``.

    Attributes:
        folder: everything of the visit. It exists once there is something to keep.
        used: time of the last request, in seconds since 1970.
        target: the photo to complete.
        references: the other photos.
        next_number: number of the next file; it never repeats, so that browsers cannot show an old file.
        margins: growth of the canvas in pixels, by side.
        mask_version: changes whenever the hole does; 0: there is no hole yet.
        people: the numbers of the people found in the target, and a caption for each.
        chosen: the numbers of the people who are to go.
        coverage: what the references show of the hole, in a line; empty before it is known.
        selection: which references a fit learns from, in a line; empty if it is all of them.
        rounds: the results, oldest first.
        part: round and place of the result of which a part is marked to be sampled again; empty if none is.
        has_adapter: whether a fit of this scene is saved.
        scene_number: number of the folder that holds this scene; 0: it is not saved yet.
        notes: warnings about the last job.
        revision: changes whenever the page should show something else.
    """

    folder: Path
    used: float = field(default_factory=time.time)
    target: Upload | None = None
    references: list[Upload] = field(default_factory=list)
    next_number: int = 1
    margins: dict[str, int] = field(default_factory=dict)
    mask_version: int = 0
    people: dict[int, str] = field(default_factory=dict)
    chosen: list[int] = field(default_factory=list)
    coverage: str = ""
    selection: str = ""
    rounds: list[Round] = field(default_factory=list)
    part: list[int] = field(default_factory=list)
    has_adapter: bool = False
    scene_number: int = 0
    notes: list[str] = field(default_factory=list)
    revision: int = 1
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _saved_used: float = field(default=0.0, repr=False)

    @property
    def name(self) -> str:
        """Name of the folder; it tells nothing about the key of the visitor."""
        return self.folder.name

    @property
    def scene_key(self) -> tuple[Any, ...]:
        """Everything that decides the scene."""
        files = tuple(upload.file for upload in self.references)
        target = self.target.file if self.target is not None else ""
        return (self.name, target, files, tuple(sorted(self.margins.items())), self.mask_version)

    @contextmanager
    def changed(self) -> Iterator[Self]:
        """Change the visit: one thread at a time, written to disk at the end, and seen by every tab."""
        with self._lock:
            yield self
            self.revision += 1
            self.used = time.time()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._save()

    def save_use(self) -> None:
        """Write the time of the last use to disk, if there is a folder, so that it counts after a restart.

        Raises:
            OutputError: the disk is full, or the folder has been removed meanwhile.
        """
        with self._lock:
            if self.used > self._saved_used and self.folder.is_dir():
                self._save()

    def _save(self) -> None:
        write_text(self.folder / _STATE_NAME, json.dumps(self._to_dict(), indent=1) + "\n")
        self._saved_used = self.used

    def scene_changed(self) -> None:
        """Forget what was found out about an earlier scene; results stay. Call it within ``changed``."""
        self.coverage, self.selection, self.has_adapter, self.scene_number = "", "", False, 0

    def round(self, number: int) -> Round:
        """Find a round by its number.

        Raises:
            RefusedError: there is none.
        """
        for found in self.rounds:
            if found.number == number:
                return found
        raise RefusedError("this result is gone; reload the page")

    def round_folder(self, number: int) -> Path:
        """Return the folder of a round."""
        return self.folder / "rounds" / str(number)

    def scene_folder(self, number: int) -> Path:
        """Return the folder of a scene as it was when results were made."""
        return self.folder / "scenes" / str(number)

    def take_number(self) -> int:
        """Return a number that no file of the visit has had. Call it within ``changed``."""
        self.next_number += 1
        return self.next_number - 1

    def _to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in _PLAIN}
        values |= {
            "target": asdict(self.target) if self.target is not None else None,
            "references": [asdict(upload) for upload in self.references],
            "people": {str(number): caption for number, caption in self.people.items()},
            "rounds": [asdict(found) for found in self.rounds],
        }
        return values

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the visit that a folder holds.

        Raises:
            ValueError: the folder holds none, or it is damaged.
        """
        try:
            values = json.loads((folder / _STATE_NAME).read_text(encoding="utf-8"))
            visit = cls(folder=folder, **{name: values[name] for name in _PLAIN})
            visit.target = Upload.from_dict(values["target"]) if values["target"] is not None else None
            visit.references = [Upload.from_dict(item) for item in values["references"]]
            visit.people = {int(number): caption for number, caption in values["people"].items()}
            visit.rounds = [Round.from_dict(item) for item in values["rounds"]]
            visit._saved_used = visit.used
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{str(folder)!r} holds no visit, or a damaged one: {error}") from error
        return visit


_PLAIN = (
    "used", "next_number", "margins", "mask_version", "chosen", "coverage", "selection", "part", "has_adapter",
    "scene_number", "notes", "revision",
)  # fmt: skip


class Visits:
    """The visits of a folder, found by the keys that visitors hold in a cookie."""

    def __init__(self, folder: Path, *, keep_days: float = KEEP_DAYS) -> None:
        """Use a folder, which is created once there is something to keep.

        Args:
            folder: for the visits.
            keep_days: days after its last use after which a visit is removed.
        """
        self.folder, self.keep_days = folder, keep_days
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    @staticmethod
    def new_key() -> str:
        """Make a key that cannot be guessed."""
        return secrets.token_urlsafe(32)

    def find(self, key: str | None) -> Visit | None:
        """Return the visit of a key, which is new if there is nothing on disk; ``None`` if this is no key."""
        if key is None or not _KEY.fullmatch(key):
            return None
        name = _name(key)
        with self._lock:
            if name not in self._visits:
                folder = self.folder / name
                try:
                    self._visits[name] = Visit.load(folder)
                except ValueError:
                    self._visits[name] = Visit(folder=folder)
            visit = self._visits[name]
            visit.used = time.time()
            return visit

    def touch(self, name: str) -> None:
        """Let every tab of a visit ask for its parts again."""
        with self._lock:
            visit = self._visits.get(name)
        if visit is not None:
            visit.revision += 1

    def require_room(self, visit: Visit) -> None:
        """Check that a visit may keep something.

        Raises:
            RefusedError: there are too many visits.
        """
        if not visit.folder.exists() and sum(1 for _ in self._folders()) >= MAX_VISITS:
            raise RefusedError(
                f"this server already keeps the photos of {MAX_VISITS} visits; try again when some are removed"
            )

    def sweep(self, *, busy: frozenset[str] = frozenset()) -> None:
        """Remove the visits that nobody has used for long, apart from those that have a job."""
        now = time.time()
        with self._lock:  # those who only looked at the page
            for name in [n for n, v in self._visits.items() if now - v.used > _LOOK_S and not v.folder.exists()]:
                del self._visits[name]
        for folder in list(self._folders()):
            with self._lock:
                visit = self._visits.get(folder.name)
                try:
                    used = visit.used if visit is not None else Visit.load(folder).used
                except ValueError:
                    used = folder.stat().st_mtime
                is_old = folder.name not in busy and now - used > self.keep_days * _DAY_S
                if is_old:
                    self._visits.pop(folder.name, None)
                    shutil.rmtree(folder, ignore_errors=True)
            if visit is not None and not is_old:
                with suppress(OSError):  # it is tried again the next time
                    visit.save_use()

    def remove(self, visit: Visit) -> None:
        """Remove everything of a visit."""
        with self._lock:
            self._visits.pop(visit.name, None)
            shutil.rmtree(visit.folder, ignore_errors=True)

    def resumable(self) -> list[Visit]:
        """List the visits on disk, the last used first."""
        found = []
        for folder in self._folders():
            try:
                found.append(Visit.load(folder))
            except ValueError:
                continue
        return sorted(found, key=lambda visit: -visit.used)

    def rekey(self, name: str) -> str | None:
        """Give a visit a new key, for another browser; the old key loses it. ``None`` if there is no such visit."""
        with self._lock:
            folder = self.folder / name
            if not (folder / _STATE_NAME).is_file():
                return None
            self._visits.pop(name, None)
            key = self.new_key()
            folder.rename(self.folder / _name(key))
            return key

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (path for path in self.folder.iterdir() if path.is_dir() and len(path.name) == 32)


def _name(key: str) -> str:
    """Return the folder of a key, from which the key cannot be found."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]
