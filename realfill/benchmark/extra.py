"""The packages of the extra ``bench``, imported in one place, so that a missing one is reported with its fix."""

from typing import Any, TypeAlias

from realfill.errors import MissingDependencyError

try:
    import jinja2
    import pandas  # noqa: ICN001 - pd is declared below
    from scipy import stats
except ImportError as error:
    raise MissingDependencyError(
        f"the benchmark's report needs a package that cannot be imported ({error}); pip install 'realfill[bench]'"
    ) from error

__all__ = ["DataFrame", "Series", "jinja2", "pd", "stats"]

pd: Any = pandas  # its own annotations are incomplete, and type checkers reject correct code
DataFrame: TypeAlias = Any
Series: TypeAlias = Any
