"""Silence for the messages and progress bars of diffusers and transformers while a model loads."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Show only errors of diffusers and transformers within a ``with`` block, and no progress bars.

    Args:
        bars: keep the progress bars.
    """
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415 - importing this module stays quick
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    libraries = (transformers_logging, diffusers_logging)
    levels = [library.get_verbosity() for library in libraries]
    hidden = not bars and transformers_logging.is_progress_bar_enabled()
    for library in libraries:
        library.set_verbosity_error()
        if hidden:
            library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
        for library in libraries if hidden else ():
            library.enable_progress_bar()
