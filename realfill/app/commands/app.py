"""``realfill app``: the whole job on a page in the browser."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from realfill.errors import MissingDependencyError, OutputError

if TYPE_CHECKING:
    from realfill.app.page.server import Page

# The modules of the page need Gradio, an extra, and are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415

_BROWSER_AFTER_S = 1.5
_MAX_KEEP_DAYS = 36_500  # a hundred years


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Open a page on this machine: drop photos, mark what is missing, fill it, compare and download."""

    work: Path = Path("realfill-app")
    """Folder for photos and results of all visits, and for logs. The same folder continues them another day."""
    host: str = "127.0.0.1"
    """Address on which to listen. With any other than a loopback address, visitors need the token that is printed."""
    port: int = 7860
    """Port on which to listen; 0 takes a free one."""
    base: str = "mini"
    """Base model of fits: a name, hub id or folder, as for ``realfill fit``."""
    completion: Path | None = None
    """File or folder of weights for the completion network, which ``realfill train-completion`` wrote. None: the
    packaged ones."""
    keep_days: float = 7.0
    """Days after its last use after which a visit is removed."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1`` or ``mps``. None: the best available."""
    local_files_only: bool = False
    """Do not use the network for the base model; HF_HUB_OFFLINE=1 does the same."""
    no_browser: bool = False
    """Do not open a browser."""
    traceback: bool = False
    """Print the traceback of an error."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port is {self.port}; legal: from 0 to 65535")
        if not 0 < self.keep_days <= _MAX_KEEP_DAYS:
            raise ValueError(f"keep_days is {self.keep_days}; legal: above 0, up to {_MAX_KEEP_DAYS}")

    def __call__(self) -> None:
        """Run the command until it is interrupted.

        Raises:
            MissingDependencyError: Gradio is not installed.
            OutputError: the port is in use, or the folder cannot be written to.
        """
        from realfill.io.lock import locked, require_writable

        page = self._build()
        require_writable(self.work)
        port = self._free_port()
        name = f"[{self.host}]" if ":" in self.host else self.host
        address = f"http://{name}:{port}"
        with locked(self.work):
            for line in page.resume_links(address):
                print(line, flush=True)
            link = address if page.options.token is None else f"{address}/?token={page.options.token}"
            print(f"open {link} (Ctrl-C ends the server)", flush=True)
            if not self.no_browser:
                timer = threading.Timer(_BROWSER_AFTER_S, webbrowser.open, args=(link,))
                timer.daemon = True
                timer.start()
            page.make_server(port).run()

    def _build(self) -> Page:
        try:
            from realfill.app.page.server import Page, PageOptions, is_loopback
        except ImportError as error:
            raise MissingDependencyError(
                f"the page needs packages that are missing ({error}): pip install 'realfill[app]'"
            ) from error
        given = os.environ.get("REALFILL_TOKEN", "").strip()
        token = None if is_loopback(self.host) else given or secrets.token_urlsafe(16)
        return Page(
            PageOptions(
                work=self.work, host=self.host, base=self.base, device=self.device, token=token,
                local_files_only=self.local_files_only, completion=self.completion, keep_days=self.keep_days,
            )
        )  # fmt: skip

    def _free_port(self) -> int:
        """Return the port, or a free one for 0.

        Raises:
            OutputError: the port is in use, or this machine does not have the address.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise OutputError(
                    f"{self.host}:{self.port} cannot be used ({error.strerror}); choose another --port, or --port 0"
                ) from error
            return probe.getsockname()[1]
