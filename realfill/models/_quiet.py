"""Keeping the libraries' chatter and bars out of the way while a model loads."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Hold back diffusers' and transformers' messages below errors, and unless ``bars`` their bars; then restore."""
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415 - may be what is to be quiet

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
