"""The lock of an output folder, so that two processes cannot write to one folder at the same time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from os import PathLike
from pathlib import Path

from filelock import FileLock, Timeout

from realfill.errors import OutputError
from realfill.io.files import partial_folder, remove_partials, write_text
from realfill.io.json_files import parse_json

_LOCK_NAME, _HOLDER_NAME = ".realfill.lock", ".realfill.lock.json"
_TIMEOUT_S = 0.2  # a process that releases the lock is given this long


@contextmanager
def locked(directory: str | PathLike[str]) -> Iterator[Path]:
    """Hold the lock of an output folder, which is created if it does not exist.

    The operating system releases the lock when its process ends, however it ends, so the lock of a dead process is
    never in the way. Partial files that a dead process left there or in a folder below are removed. The lock is
    reentrant within a thread. Processes that torchrun or accelerate started for one job share the lock of the first
    of them.

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
            for place in (folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())):
                remove_partials(place)
        yield folder
    finally:
        if lock.lock_counter == 1:
            for name in (_HOLDER_NAME, _LOCK_NAME):
                with suppress(OSError):  # Windows keeps an open file; it is harmless
                    (folder / name).unlink(missing_ok=True)
        lock.release()


def require_writable(directory: str | PathLike[str]) -> Path:
    """Check that files can be written to a folder; create it if it does not exist.

    Raises:
        OutputError: the path is a file, or the folder cannot be written to.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder):
            pass
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written to ({error.strerror}); choose another folder") from error
    return folder


def read_holder(directory: str | PathLike[str]) -> str:
    """Read the text that tells who holds the lock of a folder, and since when; empty if nobody does."""
    try:
        return (Path(directory) / _HOLDER_NAME).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


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
    with suppress(OSError, OutputError):  # only the message of other processes lacks it then
        write_text(folder / _HOLDER_NAME, json.dumps(holder))


def _describe_holder(folder: Path) -> str:
    try:
        holder = parse_json(read_holder(folder))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
