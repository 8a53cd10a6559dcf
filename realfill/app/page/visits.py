"""Visits: one folder for each visitor, which survives a restart and is removed some days after its last use."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from realfill.app.flow.failures import ErrorLog
from realfill.app.flow.job import JobQueue
from realfill.app.flow.settings import Settings
from realfill.app.flow.state import PREVIEW_EVERY_S, Flow
from realfill.app.page.visit import STATE_NAME, RefusedError, Visit, make_choice
from realfill.config import FitConfig
from realfill.io.json_files import read_json

KEEP_DAYS = 7
MAX_VISITS = 200
_KEY = re.compile(r"[A-Za-z0-9_-]{32,64}")
_DAY_S, _LOOK_S = 86_400.0, 3_600.0


class Visits:
    """The visits of a folder, found by the keys that visitors hold in a cookie."""

    def __init__(
        self, folder: Path, *, settings: Settings | None = None, queue: JobQueue | None = None,
        log: ErrorLog | None = None, keep_days: float = KEEP_DAYS, preview_every_s: float = PREVIEW_EVERY_S,
    ) -> None:  # fmt: skip
        """Use a folder, which is created once there is something to keep.

        Args:
            folder: for the visits.
            settings: of their flows. ``None``: those of the packaged base.
            queue: runs the jobs of all visits. ``None``: the one of this process.
            log: describes errors. ``None``: one beside the folder.
            keep_days: days after its last use after which a visit is removed.
            preview_every_s: least time between two previews of a fit.
        """
        self.folder, self.keep_days = folder, keep_days
        self.settings = settings or Settings(fit=FitConfig(base="mini"))
        self._queue, self._preview_every_s = queue, preview_every_s
        self._log = log or ErrorLog(folder.parent / "logs", is_private=True)
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
                try:
                    self._visits[name] = self._open(self.folder / name)
                except ValueError:  # it is damaged: results and photos stay on disk
                    (self.folder / name / STATE_NAME).replace(self.folder / name / f"{STATE_NAME}.damaged")
                    self._visits[name] = self._open(self.folder / name)
            visit = self._visits[name]
            visit.used = time.time()
            return visit

    def unload_others(self, visit: Visit) -> None:
        """Give back the memory of all other visits without a job, because a job of this one begins."""
        with self._lock:
            others = [other for other in self._visits.values() if other is not visit and not other.flow.is_busy]
        for other in others:
            other.flow.unload()

    def is_busy(self, name: str) -> bool:
        """Whether a visit has a job that waits or runs."""
        with self._lock:
            return name in self._visits and self._visits[name].flow.is_busy

    def require_room(self, visit: Visit) -> None:
        """Check that a visit may keep something.

        Raises:
            RefusedError: there are too many visits.
        """
        if not visit.folder.exists() and sum(1 for _ in self._folders()) >= MAX_VISITS:
            raise RefusedError(
                f"this server already keeps the photos of {MAX_VISITS} visits; try again when some are removed"
            )

    def sweep(self) -> None:
        """Remove the visits that nobody has used for long, apart from those that have a job.

        Visits that nobody has used for an hour leave the memory.
        """
        now = time.time()
        for folder in list(self._folders()):
            with self._lock:
                if not folder.is_dir():  # the visitor has removed it meanwhile
                    continue
                visit = self._visits.get(folder.name)
                used = visit.used if visit is not None else _last_use(folder)
                is_busy = visit is not None and visit.flow.is_busy
                is_old = not is_busy and now - used > self.keep_days * _DAY_S
                if is_old:
                    self._visits.pop(folder.name, None)
                    shutil.rmtree(folder, ignore_errors=True)
            if visit is not None and not is_old:
                with suppress(OSError):  # it is tried again the next time
                    visit.save_use()
        with self._lock:
            for name, visit in list(self._visits.items()):
                if now - visit.used > _LOOK_S and not visit.flow.is_busy:
                    del self._visits[name]

    def remove(self, visit: Visit) -> None:
        """Remove everything of a visit."""
        with self._lock:
            self._visits.pop(visit.name, None)
            shutil.rmtree(visit.folder, ignore_errors=True)

    def resumable(self, limit: int) -> list[Visit]:
        """List the visits on disk that were used last, the last one first; no others are read, because holes are large.

        Args:
            limit: the largest number of visits.
        """
        found: list[Visit] = []
        on_disk = (folder for folder in self._folders() if (folder / STATE_NAME).is_file())
        for folder in sorted(on_disk, key=_last_use, reverse=True):
            if len(found) < limit:
                with suppress(ValueError):  # it is damaged
                    found.append(self._open(folder))
        return found

    def rekey(self, name: str) -> str | None:
        """Give a visit a new key, for another browser; the old key loses it. ``None`` if there is no such visit."""
        with self._lock:
            folder = self.folder / name
            if not (folder / STATE_NAME).is_file():
                return None
            self._visits.pop(name, None)
            key = self.new_key()
            folder.rename(self.folder / _name(key))
            return key

    def _open(self, folder: Path) -> Visit:
        """Open the visit of a folder, which is empty if there is none.

        Raises:
            ValueError: it is damaged.
        """
        flow = Flow(
            self.settings, choice=make_choice(), output=folder / "work", queue=self._queue, log=self._log,
            preview_every_s=self._preview_every_s,
        )  # fmt: skip
        return Visit(folder, flow)

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (path for path in self.folder.iterdir() if path.is_dir() and len(path.name) == 32)


def _last_use(folder: Path) -> float:
    """Return when a visit on disk was used last, in seconds since 1970: what it says, else the folder's own time."""
    try:
        return float(read_json(folder / STATE_NAME)["used"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.stat().st_mtime


def _name(key: str) -> str:
    """Return the folder of a key, from which the key cannot be found."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]
