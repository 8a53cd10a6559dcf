"""The exceptions and the warning that this library raises.

::

    RealFillError
    ├── SceneError (ValueError)                 a photo, mask or folder cannot be used
    ├── NothingToRemoveError (SceneError)       a photo shows nothing that is to be removed
    ├── AdapterError (ValueError)               an adapter or checkpoint does not fit
    ├── BaseModelError                          a base model, matcher or metric cannot be loaded
    ├── MissingDependencyError (ImportError)    a package of an extra cannot be imported
    ├── TrainingError                           a fit diverged
    ├── ClusterError                            a Ray cluster cannot be reached or used
    ├── StoppedError                            a job was ended before anything was finished
    └── OutputError (OSError)                   output cannot be written

A bad argument or config value is a plain ``ValueError``. Legal input that looks like a mistake is a
``RealFillWarning``.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)
_MAX_LINE, _KEPT_END = 1200, 300
_listener: ContextVar[Callable[[str], object] | None] = ContextVar("listener", default=None)


class RealFillError(Exception):
    """Base class of every error that the library raises on purpose. Its text is one printable line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class SceneError(RealFillError, ValueError):
    """A photo, mask or folder cannot be used."""


class NothingToRemoveError(SceneError):
    """A detector finds none of the classes to remove, or everything that it finds stays."""


class AdapterError(RealFillError, ValueError):
    """An adapter or a checkpoint is damaged or belongs to another model."""


class BaseModelError(RealFillError):
    """A base model, a matcher or the network of a metric cannot be loaded."""


class MissingDependencyError(RealFillError, ImportError):
    """A package of an extra is missing or cannot be imported."""


class TrainingError(RealFillError):
    """A fit diverged: its loss is not a finite number."""


class ClusterError(RealFillError):
    """A Ray cluster cannot be reached, or its machines cannot do the work."""


class StoppedError(RealFillError):
    """``on_step`` ended a job before anything was finished."""


class OutputError(RealFillError, OSError):
    """Output cannot be written: it would overwrite a result, or disk space or permission is missing."""


class RealFillWarning(UserWarning):
    """A warning about legal input that looks like a mistake."""


def one_line(text: str) -> str:
    """Put a message into one printable line, since names and values in it may come from a stranger's file.

    Whitespace becomes single spaces, control characters are escaped, and a long text loses its middle.
    """
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    if len(line) <= _MAX_LINE:
        return line
    return f"{line[: _MAX_LINE - _KEPT_END]} ... {line[-_KEPT_END:]}"


@contextmanager
def warnings_to(listener: Callable[[str], object]) -> Iterator[None]:
    """Pass the texts of the warnings that this thread issues to a listener, instead of Python's own mechanism."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def warn(message: str) -> None:
    """Issue a ``RealFillWarning`` that points at the line outside of this package that led to it."""
    listener = _listener.get()
    if listener is not None:
        listener(message)
        return
    depth, frame = 1, sys._getframe()  # noqa: SLF001 - warnings.warn itself counts frames
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(one_line(message), RealFillWarning, stacklevel=depth)
