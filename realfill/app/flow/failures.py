"""Failures for people: a sentence for every error, and the traceback of an unexpected one in a log."""

from __future__ import annotations

import datetime as dt
import tempfile
import traceback
from pathlib import Path
from types import TracebackType

import realfill
from realfill.errors import RealFillError

_PACKAGE = str(Path(realfill.__file__).parent)


def explain(error: BaseException, log: Path) -> str:
    """Describe an error in a sentence. An unexpected one is appended to a log file, which the sentence names.

    Args:
        error: the error. The library's own errors, and values that it refuses, are expected.
        log: the log file. If it cannot be written, the folder for temporary files receives it.
    """
    if isinstance(error, RealFillError) or (isinstance(error, ValueError) and _is_raised_here(error.__traceback__)):
        text = str(error)
        return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"
    place = _write(error, log)
    return f"Something unexpected went wrong ({type(error).__name__}: {error}). The details are in {place}."


def _is_raised_here(trace: TracebackType | None) -> bool:
    """Tell whether an error was raised by this package, not by a library that it calls."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def _write(error: BaseException, log: Path) -> Path:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    text = f"{now} realfill {realfill.__version__}\n{''.join(traceback.format_exception(error))}\n"
    for place in (log, Path(tempfile.gettempdir()) / log.name):
        try:
            with place.open("a", encoding="utf-8") as stream:
                stream.write(text)
        except OSError:
            continue
        return place
    return Path("no file, because none can be written")
