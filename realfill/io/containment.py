"""Containment: a folder from a stranger reads nothing outside of itself, by names with ``..`` or by links."""

from __future__ import annotations

from pathlib import Path

from realfill.errors import OutputError

_SEPARATORS = ("/", "\\", ":")


def is_plain_name(name: object) -> bool:
    """Tell whether a text from a file is the name of a file in a folder, and not a path out of it."""
    if not isinstance(name, str) or name in ("", ".", "..") or not name.isprintable():
        return False
    return not any(separator in name for separator in _SEPARATORS)


def leads_outside(path: Path, folder: Path) -> bool:
    """Tell whether a path in a folder leads out of it, because it or a folder on the way is a link."""
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        return True


def require_inside(path: Path, folder: Path) -> Path:
    """Check that writing to a path in an output folder stays in it.

    Raises:
        OutputError: the path leads out of the folder.
    """
    if leads_outside(path, folder):
        raise OutputError(
            f"{str(path)!r} is a link that leads out of {str(folder)!r}; remove the link, or choose another folder"
        )
    return path
