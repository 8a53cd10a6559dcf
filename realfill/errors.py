"""The exceptions that this library raises.

::

    RealFillError
    ├── SceneError (ValueError)                 a photo, mask or folder that can't be used
    ├── AdapterError (ValueError)               an adapter or checkpoint that doesn't fit
    ├── BaseModelError                          a base model, matcher or metric that can't be loaded
    ├── MissingDependencyError (ImportError)    a package of an extra that can't be imported
    ├── TrainingError                           a fit that diverged
    └── OutputError (FileExistsError)           output that would overwrite something

A bad argument or config value is a plain ``ValueError``. What is legal but looks like a mistake is a
``RealFillWarning``.
"""


class RealFillError(Exception):
    """Base of every error that the library raises on purpose."""


class SceneError(RealFillError, ValueError):
    """A photo, mask or folder that can't be used."""


class AdapterError(RealFillError, ValueError):
    """An adapter or a checkpoint that is damaged or belongs to something else."""


class BaseModelError(RealFillError):
    """A base model, a matcher or a metric's network that can't be loaded."""


class MissingDependencyError(RealFillError, ImportError):
    """A package of an extra that isn't there or can't be imported."""


class TrainingError(RealFillError):
    """A fit that diverged: its loss is no longer a number."""


class OutputError(RealFillError, FileExistsError):
    """Output that would overwrite something."""


class RealFillWarning(UserWarning):
    """Something legal that looks like a mistake."""
