"""Command lines in forked processes: the imports, which take seconds, are done once.

A child can be disturbed at its n-th file operation: Python announces each one to an audit hook.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

_REMOVALS = frozenset({"os.remove", "os.rmdir", "shutil.rmtree"})
_WRITES = _REMOVALS | frozenset({"os.rename", "os.mkdir", "os.truncate", "shutil.copyfile"})
_POLL_S = 0.005

Disturbance: TypeAlias = Callable[[], object]


def preload() -> None:
    """Import what the commands need, so that children have it."""
    import accelerate  # noqa: F401, PLC0415
    import diffusers  # noqa: F401, PLC0415
    import matplotlib.backends.backend_agg  # noqa: F401, PLC0415
    import peft  # noqa: F401, PLC0415
    import torch  # noqa: PLC0415
    import transformers  # noqa: F401, PLC0415

    import realfill.app.cli  # noqa: PLC0415
    import realfill.benchmark.setup  # noqa: PLC0415
    import realfill.jobs.batch  # noqa: PLC0415
    import realfill.pipeline  # noqa: PLC0415
    import realfill.training.completion_training  # noqa: PLC0415
    import realfill.training.pretraining  # noqa: F401, PLC0415

    torch.set_num_threads(1)


@dataclass(slots=True, kw_only=True)
class FileOperations:
    """Counts the file operations below a folder that change something, and disturbs one of them.

    Attributes:
        folder: the folder.
        at: number of the operation to disturb, from 1; 0: none.
        disturb: what happens then; an exception makes the operation fail.
        lasting: disturb all later operations too.
        removals: also disturb operations that remove something.
        count: the operations so far.
    """

    folder: Path
    at: int = 0
    disturb: Disturbance | None = None
    lasting: bool = False
    removals: bool = True
    count: int = 0
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        self.prefix = str(self.folder)

    def install(self) -> None:
        """Start to count; that cannot be undone in this process."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            path, changes = (arguments[0] if arguments else None), event in _WRITES
        if not changes or not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(self.prefix):
            return
        self.count += 1
        is_due = self.count == self.at or (self.lasting and self.count > self.at > 0)
        if self.disturb is not None and is_due and (self.removals or event not in _REMOVALS):
            self.disturb()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a child ended.

    Attributes:
        status: its exit status, or minus the signal that killed it.
        time_s: seconds from its start.
        reaction_s: seconds from the signal that the parent sent; ``None``: it sent none, or the child had ended before.
        log: what it printed.
    """

    status: int
    time_s: float
    reaction_s: float | None
    log: str


def run_forked(
    words: Sequence[str],
    log: Path,
    *,
    send: signal.Signals | None = None,
    after_s: float = 0.0,
    prepare: Callable[[], object] | None = None,
    finish: Callable[[], object] | None = None,
    limit_s: float = 120.0,
) -> Ending:
    """Run a command line in a child with a process group of its own.

    Args:
        words: the command line.
        log: file for what it prints.
        send: a signal for the whole group.
        after_s: when to send it.
        prepare: called in the child before the command.
        finish: called in the child after the command.
        limit_s: seconds after which the group is killed.

    Returns:
        How it ended. Processes of the group that outlive it by two seconds are killed, and named in its log.
    """
    sys.stdout.flush()
    start, child = time.monotonic(), os.fork()
    if child == 0:
        _run_child(words, log, prepare, finish)
    with suppress(OSError):  # the child does the same; whichever comes first
        os.setpgid(child, child)
    sent_at: float | None = None
    while True:
        pid, code = os.waitpid(child, os.WNOHANG)
        now = time.monotonic()
        if pid:
            break
        if send is not None and sent_at is None and now - start >= after_s:
            with suppress(ProcessLookupError):
                os.killpg(child, send)
            sent_at = now
        if now - start > limit_s:
            os.killpg(child, signal.SIGKILL)
        time.sleep(_POLL_S)
    text = log.read_text(encoding="utf-8", errors="replace") + _end_orphans(child)
    return Ending(
        status=os.waitstatus_to_exitcode(code), time_s=now - start,
        reaction_s=None if sent_at is None else now - sent_at, log=text,
    )  # fmt: skip


def _run_child(
    words: Sequence[str], log: Path, prepare: Callable[[], object] | None, finish: Callable[[], object] | None
) -> None:
    status = 70
    try:
        os.setpgid(0, 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
        warnings.simplefilter("default")  # a test may have turned them into errors
        warnings.simplefilter("ignore", ResourceWarning)
        from realfill.app.cli import main  # noqa: PLC0415

        if prepare is not None:
            prepare()
        status = main(list(words))
        if finish is not None:
            finish()
        for thread in threading.enumerate():  # as at the end of an interpreter
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the child must end here, whatever happens
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _end_orphans(group: int) -> str:
    """Wait two seconds for the other processes of a group; kill and describe those that remain."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return ""
        time.sleep(_POLL_S)
    os.killpg(group, signal.SIGKILL)
    return "\nORPHANS: processes of the job outlived it by two seconds"
