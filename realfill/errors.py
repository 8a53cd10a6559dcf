"""The exceptions and the warning that this library raises.

::

    RealFillError
    ├── SceneError (ValueError)                 a photo, mask or folder cannot be used
    ├── AdapterError (ValueError)               an adapter or checkpoint does not fit
    ├── BaseModelError                          a base model, matcher or metric cannot be loaded
    ├── MissingDependencyError (ImportError)    a package of an extra cannot be imported
    ├── TrainingError                           a fit diverged
    ├── StoppedError                            a job was ended before anything was finished
    └── OutputError (OSError)                   output cannot be written

A bad argument or config value is a plain ``ValueError``. Legal input that looks like a mistake is a
``RealFillWarning``.
"""

import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class RealFillError(Exception):
    """Base class of every error that the library raises on purpose."""


class SceneError(RealFillError, ValueError):
    """A photo, mask or folder cannot be used."""


class AdapterError(RealFillError, ValueError):
    """An adapter or a checkpoint is damaged or belongs to another model."""


class BaseModelError(RealFillError):
    """A base model, a matcher or the network of a metric cannot be loaded."""


class MissingDependencyError(RealFillError, ImportError):
    """A package of an extra is missing or cannot be imported."""


class TrainingError(RealFillError):
    """A fit diverged: its loss is not a finite number."""


class StoppedError(RealFillError):
    """``on_step`` ended a job before anything was finished."""


class OutputError(RealFillError, OSError):
    """Output cannot be written: it would overwrite a result, or disk space or permission is missing."""


class RealFillWarning(UserWarning):
    """A warning about legal input that looks like a mistake."""


def warn(message: str) -> None:
    """Issue a ``RealFillWarning`` that points at the line outside of this package that led to it."""
    depth, frame = 1, sys._getframe()  # noqa: SLF001 - warnings.warn itself counts frames
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, RealFillWarning, stacklevel=depth)
