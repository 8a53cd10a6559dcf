"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from realfill.errors import OutputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL_TEXT = re.compile(r"No space left|Disk quota exceeded|os error (28|122)\b")
_FULL_BYTES = 1 << 20  # free space below which a library's unexplained error is taken for a full disk
_MAX_NAME_BYTES = 200  # leaves room for the suffix of the partial file: file systems allow 255


@contextmanager
def whole_file(path: str | PathLike[str], *, num_bytes: int | None = None) -> Iterator[Path]:
    """Write a file whole or not at all.

    The body of the ``with`` statement writes a partial file beside the target. If the body succeeds, the partial file
    replaces the target, with the permissions that the user's umask gives to new files, whatever the writing library
    chose. If it fails, the partial file is removed, and an earlier target stays. The name of the partial file holds the
    process id and is unique, so that two writers do not disturb each other::

        with whole_file("adapter.safetensors") as partial:
            save_file(weights, partial)

    Args:
        path: the target. Its folder must exist.
        num_bytes: the size of the file, if it is known. Less free space is an error before anything is written.

    Yields:
        The path of an empty partial file. Its name ends in ``.partial``: a library that chooses the format by the
        suffix has to be told the format.

    Raises:
        OutputError: the disk or the quota is full, or the folder is missing or not writable.
    """
    target = Path(path)
    if num_bytes is not None:
        require_space(target, num_bytes)
    stem = os.fsdecode(os.fsencode(target.name)[:_MAX_NAME_BYTES])
    partial = target.with_name(f"{stem}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    mode = _create(partial, target)
    try:
        yield partial
        if partial.stat().st_mode != mode:
            partial.chmod(mode)
        partial.replace(target)
    except OutputError:
        raise
    except Exception as error:
        if _is_disk_full(error, partial):
            raise _no_space(target, num_bytes, partial) from error
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def require_space(path: str | PathLike[str], num_bytes: int) -> None:
    """Check that the disk has room for a file of a known size before the work that produces it.

    Args:
        path: the file. Its folder need not exist yet.
        num_bytes: the size of the file.

    Raises:
        OutputError: there is less free space.
    """
    target = Path(path)
    if _free_bytes(target) < num_bytes:
        raise _no_space(target, num_bytes, target)


def _create(partial: Path, target: Path) -> int:
    """Create the empty partial file and return its mode, which follows the umask."""
    try:
        partial.touch(exist_ok=False)
        return partial.stat().st_mode
    except OSError as error:
        if _is_disk_full(error, partial):
            raise _no_space(target, None, partial) from error
        raise OutputError(
            f"{str(target)!r} cannot be written ({error.strerror}); legal: a file in an existing folder in which you "
            "may write"
        ) from error


def _is_disk_full(error: BaseException, partial: Path) -> bool:
    """Tell whether an error, or one that led to it, means a full disk; torch and safetensors hide the reason."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in _DISK_FULL or _DISK_FULL_TEXT.search(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return isinstance(error, RuntimeError) and _free_bytes(partial) < _FULL_BYTES


def _no_space(target: Path, num_bytes: int | None, partial: Path) -> OutputError:
    written = partial.stat().st_size if partial.exists() else 0
    size = f"it needs {_describe(num_bytes)}" if num_bytes is not None else f"it needs more than {_describe(written)}"
    known = f"{size}, and " if num_bytes is not None or written else ""
    return OutputError(
        f"no space left for {str(target)!r}: {known}{_describe(_free_bytes(target))} is free; free some space or "
        "choose a folder on another disk"
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
