"""Files that are written whole or not at all, and the removal of what a killed process left half-written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

import psutil

from realfill.errors import OutputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL_TEXT = re.compile(r"No space left|Disk quota exceeded|os error (28|122)\b")
_FULL_BYTES = 1 << 20  # free space below which a library's unexplained error is taken for a full disk
_MAX_NAME_BYTES = 200  # leaves room for the suffix of the partial file: file systems allow 255
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_PARTIAL = re.compile(r".*\.([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{8}\.partial", re.DOTALL)  # host, process id
_CLOCK_S, _DAY_S = 2.0, 86_400.0  # inaccuracy of a process's start, and age at which another host's files are removed


@contextmanager
def whole_file(path: str | PathLike[str], *, num_bytes: int | None = None) -> Iterator[Path]:
    """Write a file whole or not at all.

    The body of the ``with`` statement writes a partial file beside the target. If the body succeeds, the partial file
    replaces the target, with the permissions that the user's umask gives to new files, whatever the writing library
    chose. If it fails, the partial file is removed, and an earlier target stays. The name of the partial file holds the
    process id and is unique, so that two writers do not disturb each other; those of killed processes are removed::

        with whole_file("adapter.safetensors") as partial:
            save_file(weights, partial)

    Args:
        path: the target. Its folder must exist.
        num_bytes: the size of the file, if it is known. Less free space is an error before anything is written.

    Yields:
        The path of an empty partial file. Its name ends in ``.partial``: a library that chooses the format by the
        suffix has to be told the format.

    Raises:
        OutputError: the disk or the quota is full, or the folder is missing, not writable or has vanished meanwhile.
    """
    target = Path(path)
    require_space(target, num_bytes or 0)
    stem = os.fsdecode(os.fsencode(target.name)[:_MAX_NAME_BYTES])
    partial = target.with_name(stem + _unique_ending())
    mode = _create(partial, target)
    try:
        yield partial
        if partial.stat().st_mode != mode:
            partial.chmod(mode)
        partial.replace(target)
    except IsADirectoryError as error:
        raise OutputError(f"{str(target)!r} is a folder; remove it, or choose another place") from error
    except OutputError:
        raise
    except Exception as error:
        if _is_disk_full(error, partial):
            raise _outgrown(target, partial, num_bytes or 0) from error
        _require_folder(target.parent, error)
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    Raises:
        OutputError: as for ``whole_file``.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def partial_folder(folder: str | PathLike[str]) -> Iterator[Path]:
    """Create a folder for files that belong together, within their destination; it is removed at the end.

    The body of the ``with`` statement writes files, and moves them to the destination once all are complete.

    Args:
        folder: the destination, which must exist.

    Yields:
        The path of an empty, hidden folder.

    Raises:
        OutputError: the disk or the quota is full, or the folder is missing, not writable or has vanished meanwhile.
    """
    destination = Path(folder)
    remove_partials(destination)
    partial = destination / _unique_ending()
    try:
        _create_folder(partial)
        yield partial
    except Exception as error:
        if _is_disk_full(error, partial):
            raise _outgrown(destination, partial) from error
        _require_folder(destination, error)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_partials(folder: Path) -> None:
    """Remove the partial files and folders that processes left in a folder when they were killed."""
    for path in folder.glob("*.partial"):
        name = _PARTIAL.fullmatch(path.name)
        if name is None or not _is_abandoned(path, name[1], int(name[2])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def require_space(path: str | PathLike[str], num_bytes: int) -> None:
    """Check that the disk has room for a file of a known size before the work that produces it.

    Args:
        path: the file. Its folder need not exist yet.
        num_bytes: the size of the file.

    Raises:
        OutputError: there is less free space.
    """
    target = Path(path)
    remove_partials(target.parent)
    if num_bytes and _free_bytes(target) < num_bytes:
        raise _no_space(target, f"it needs {_describe(num_bytes)}, and ")


def _unique_ending() -> str:
    return f".{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"


def _is_abandoned(path: Path, host: str, process_id: int) -> bool:
    """Tell whether the process that was writing has ended; on another host, only its silence tells."""
    try:
        changed = path.stat().st_mtime
        if host != _HOST:
            return time.time() - changed > _DAY_S
        return psutil.Process(process_id).create_time() > changed + _CLOCK_S  # then the id was given away again
    except psutil.NoSuchProcess:
        return True
    except (OSError, psutil.Error):
        return False


def _create(partial: Path, target: Path) -> int:
    """Create the empty partial file and return its mode, which follows the umask."""
    try:
        partial.touch(exist_ok=False)
        return partial.stat().st_mode
    except OSError as error:
        if _is_disk_full(error, partial):
            raise _outgrown(target, partial) from error
        raise OutputError(
            f"{str(target)!r} cannot be written ({error.strerror}); legal: a file in an existing folder in which you "
            "may write"
        ) from error


def _create_folder(partial: Path) -> None:
    try:
        partial.mkdir()
    except OSError as error:
        raise OutputError(
            f"{str(partial.parent)!r} cannot be written to ({error.strerror}); choose another folder"
        ) from error


def _require_folder(folder: Path, error: Exception) -> None:
    """Name the folder if it has vanished, which explains an error of writing there."""
    if not folder.is_dir() and not isinstance(error, OutputError):
        raise OutputError(
            f"{str(folder)!r} has vanished while files were being written to it; give the command again"
        ) from error


def _is_disk_full(error: BaseException, partial: Path) -> bool:
    """Tell whether an error, or one that led to it, means a full disk; torch and safetensors hide the reason."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in _DISK_FULL or _DISK_FULL_TEXT.search(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return isinstance(error, RuntimeError) and _free_bytes(partial) < _FULL_BYTES


def _outgrown(target: Path, partial: Path, num_bytes: int = 0) -> OutputError:
    """Make the error for a disk that became full while a file, or a folder of files, was written."""
    written = sum(path.stat().st_size for path in (partial, *partial.rglob("*")) if path.is_file())
    needed = max(num_bytes, written)
    return _no_space(target, f"it needs more than {_describe(needed)}, and " if needed else "")


def _no_space(target: Path, needed: str) -> OutputError:
    return OutputError(
        f"no space left for {str(target)!r}: {needed}the disk has {_describe(_free_bytes(target))} free; free some "
        "space or choose a folder on another disk"
    )


def _free_bytes(path: Path) -> int:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _describe(num_bytes: int) -> str:
    value, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
