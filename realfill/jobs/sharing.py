"""The check that another machine sees the folders of a batch as this one does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from realfill import __version__
from realfill.io.lock import read_holder


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFolder:
    """The output folder of a batch, as all machines that work on it must see it. It is sent to each worker.

    Attributes:
        path: absolute path of the folder.
        holder: the text by which the batch holds the folder's lock, which no other folder has.
        working_folder: the folder in which the batch was started; paths in its settings may be relative to it.
        host: the machine on which the batch was started.
        version: its version of realfill.
    """

    path: Path
    holder: str
    working_folder: Path
    host: str
    version: str

    @classmethod
    def of(cls, output: Path) -> Self:
        """Describe an output folder whose lock this process holds."""
        return cls(
            path=output.absolute(), holder=read_holder(output), working_folder=Path.cwd(), host=socket.gethostname(),
            version=__version__,
        )  # fmt: skip

    def problem(self, sources: Sequence[Path]) -> str | None:
        """Say why this machine cannot work on photos and scenes; ``None`` if it can.

        Args:
            sources: their absolute paths.
        """
        here = socket.gethostname()
        if __version__ != self.version:
            return f"{here} has realfill {__version__}, and {self.host} has {self.version}; install the same version"
        sharing = "all machines need one shared file system, mounted at the same path"
        if not self.path.is_dir() or read_holder(self.path) != self.holder:
            return f"{here} does not see the output folder {str(self.path)!r} of {self.host}; {sharing}"
        missing = [source for source in sources if not source.exists()]
        if missing:
            return f"{here} does not see {str(missing[0])!r} of {self.host}; {sharing}"
        if not os.access(self.path, os.W_OK):
            return f"{here} may not write to {str(self.path)!r}; its workers need the rights of the user on {self.host}"
        return None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Work in the folder in which the batch was started, if this machine has it."""
        previous = Path.cwd()
        with suppress(OSError):
            os.chdir(self.working_folder)
        try:
            yield
        finally:
            os.chdir(previous)
