"""Output streams that survive a reader that is gone."""

from __future__ import annotations

import os
from typing import Any, TextIO


class UnbreakableStream:
    """A text stream that drops what cannot be written.

    Its reader may be gone, as in ``realfill models | head -1``, or it was closed before the start.
    """

    def __init__(self, stream: TextIO | None, ignored: type[OSError] = BrokenPipeError) -> None:
        """Wrap a stream.

        Args:
            stream: the stream; ``None`` if it was closed.
            ignored: the errors that do not matter. Others are raised, once.
        """
        self._stream: TextIO = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115, PTH123
        self._ignored = ignored

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        """Send what is still buffered, and all that follows, nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if not isinstance(error, self._ignored):
            raise error
