"""The exceptions that this library raises.

::

    RealFillError
    ├── SceneError (ValueError)                 a photo, mask or folder that can't be used
    ├── AdapterError (ValueError)               an adapter or checkpoint that doesn't fit
    ├── BaseModelError                          a base model or matcher that can't be loaded
    ├── TrainingError                           a fit that diverged
    └── OutputError (FileExistsError)           output that would overwrite something

A bad value in a config is a plain ``ValueError``. What is legal but looks like a mistake is a
``RealFillWarning``.
"""


class RealFillError(Exception):
    """Base of every error that the library raises on purpose."""


class SceneError(RealFillError, ValueError):
    """A photo, mask or folder that can't be used."""


class AdapterError(RealFillError, ValueError):
    """An adapter or a checkpoint that is damaged or belongs to something else."""


class BaseModelError(RealFillError):
    """A base model or a matcher that can't be loaded."""


class TrainingError(RealFillError):
    """A fit that diverged: its loss is no longer a number."""


class OutputError(RealFillError, FileExistsError):
    """Output that would overwrite something."""


class RealFillWarning(UserWarning):
    """Something legal that looks like a mistake."""
