"""The entry points: the command line, the demo and the notebook panel. They may use the whole library.

Nothing imports them, and importing this package loads nothing large.
"""

from typing import TYPE_CHECKING, Any

from realfill.errors import MissingDependencyError

if TYPE_CHECKING:
    from realfill.app.notebook.panel import panel

__all__ = ["panel"]


def __getattr__(name: str) -> Any:
    """Import ``panel`` when it is first used.

    Raises:
        MissingDependencyError: ipywidgets is not installed.
    """
    if name != "panel":
        raise AttributeError(f"module 'realfill.app' has no attribute {name!r}")
    try:
        import ipywidgets  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise MissingDependencyError(
            "the notebook panel needs ipywidgets; install it with: pip install 'realfill[notebook]'"
        ) from error
    from realfill.app.notebook.panel import panel  # noqa: PLC0415

    return panel
