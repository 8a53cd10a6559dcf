"""Failures for people: a sentence for every error, and the traceback of an unexpected one in a file of its own."""

from __future__ import annotations

import logging
import secrets
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import realfill
from realfill.errors import RealFillError
from realfill.io.files import write_text

_PACKAGE = str(Path(realfill.__file__).parent)
_LOGGER = logging.getLogger("realfill.app")


@dataclass(frozen=True, slots=True)
class ErrorLog:
    """Describes errors, and writes reports of the unexpected ones.

    Attributes:
        folder: for the reports. If they cannot be written there, the folder for temporary files receives them.
        is_private: the sentences name neither the error nor the path of the folder, because strangers read them.
    """

    folder: Path
    is_private: bool = False

    def describe(self, error: BaseException, title: str = "a job") -> str:
        """Describe an error in a sentence. A report of an unexpected one is written, and the sentence names its file.

        Args:
            error: the error. The library's own errors, and values that it refuses, are expected.
            title: what was being done.
        """
        if isinstance(error, RealFillError) or (isinstance(error, ValueError) and _is_raised_here(error.__traceback__)):
            return as_sentence(str(error))
        path = self._write(error, title)
        if not self.is_private:
            return f"Something unexpected went wrong ({type(error).__name__}: {error}). The details are in {path}."
        if path is None:
            return "The server failed, and could not write a report; its terminal shows the reason."
        return f"The server failed; the file {path.parent.name}/{path.name} in its folder holds the details."

    def _write(self, error: BaseException, title: str) -> Path | None:
        """Write a report; ``None`` if no folder takes it."""
        name = f"realfill-error-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}.log"
        text = f"realfill {realfill.__version__}: {title}\n{''.join(traceback.format_exception(error))}"
        for folder in (self.folder, Path(tempfile.gettempdir())):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_text(folder / name, text)
            except OSError:  # a full disk, perhaps the cause itself
                continue
            _LOGGER.error("%s failed; see %s", title, folder / name)
            return folder / name
        _LOGGER.error("the report cannot be written:\n%s", text)
        return None


def as_sentence(text: str) -> str:
    """Begin a text with a capital, and end it with a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def _is_raised_here(trace: TracebackType | None) -> bool:
    """Tell whether an error was raised by this package, not by a library that it calls."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE)
