"""The lock of an output folder, so that two processes cannot write to one folder at the same time."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from os import PathLike
from pathlib import Path

from filelock import FileLock, Timeout

from realfill.errors import OutputError

_LOCK_NAME, _HOLDER_NAME = ".realfill.lock", ".realfill.lock.json"
_PARTIAL = ".partial"
_PARTIAL_FOLDER = re.compile(r"\.partial(-\d+-\w+)?")
_TIMEOUT_S = 0.2  # a process that releases the lock is given this long


@contextmanager
def locked(directory: str | PathLike[str]) -> Iterator[Path]:
    """Hold the lock of an output folder, which is created if it does not exist.

    The operating system releases the lock when its process ends, however it ends, so a dead process
    never holds it. Partial folders that a dead process left behind are removed. The lock is reentrant within a
    thread. Processes that torchrun or accelerate started for one job share the lock of the first of them.

    Args:
        directory: the output folder.

    Yields:
        The folder.

    Raises:
        OutputError: another process holds the lock, or the folder cannot be written to.
    """
    folder = Path(directory)
    if os.environ.get("RANK", "0") != "0":
        yield folder
        return
    lock = _acquire(folder)
    try:
        if lock.lock_counter == 1:
            _write_holder(folder)
            _remove_partial_folders(folder)
        yield folder
    finally:
        if lock.lock_counter == 1:
            for name in (_HOLDER_NAME, _LOCK_NAME):
                with suppress(OSError):  # Windows keeps an open file; it is harmless
                    (folder / name).unlink(missing_ok=True)
        lock.release()


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Create a folder for files that are being written, next to their destination; it is removed at the end."""
    partial = _make_partial_folder(folder)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_writable(directory: str | PathLike[str]) -> Path:
    """Check that files can be written to a folder; create it if it does not exist.

    Raises:
        OutputError: the path is a file, or the folder cannot be written to.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(_make_partial_folder(folder), ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written to ({error.strerror}); choose another folder") from error
    return folder


def _acquire(folder: Path) -> FileLock:
    require_writable(folder)
    lock = FileLock(folder.resolve() / _LOCK_NAME, is_singleton=True)
    try:
        lock.acquire(timeout=_TIMEOUT_S)
    except Timeout:
        raise OutputError(
            f"{str(folder)!r} is in use by {_describe_holder(folder)}; wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be locked ({error.strerror}); choose another folder") from error
    return lock


def _write_holder(folder: Path) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with suppress(OSError):  # only the message of other processes lacks it then
        (folder / _HOLDER_NAME).write_text(json.dumps(holder), encoding="utf-8")


def _describe_holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / _HOLDER_NAME).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _make_partial_folder(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}-{os.getpid()}-", dir=folder))


def _remove_partial_folders(folder: Path) -> None:
    """Remove partial folders; while the lock is held, all of them belong to processes that ended."""
    for path in folder.iterdir():
        if _PARTIAL_FOLDER.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
