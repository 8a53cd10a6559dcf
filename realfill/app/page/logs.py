"""Reports of errors that are no visitor's fault: each in a file of its own, whose name the page shows."""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from realfill.io.files import write_text

_LOGGER = logging.getLogger("realfill.page")


@dataclass(frozen=True, slots=True)
class ErrorLog:
    """Writes reports into a folder, which is created with the first."""

    folder: Path

    def write(self, title: str, error: BaseException) -> str:
        """Write an error with its traceback.

        Args:
            title: what was being done.
            error: what went wrong.

        Returns:
            A sentence for the visitor, which names the file.
        """
        name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}.log"
        text = f"{title}\n{''.join(traceback.format_exception(error))}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / name, text)
        except OSError:  # a full disk, perhaps the cause itself
            _LOGGER.exception("the report cannot be written:\n%s", text)
            return "the server failed, and could not write a report; its terminal shows the reason"
        _LOGGER.error("%s failed; see %s", title, self.folder / name)
        return f"the server failed; the file logs/{name} in its folder holds the details"
