"""The server: the guard, the routes of a visit, and Gradio's page, in one application."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.update(
    GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
)  # before Gradio is imported: nothing calls home

import fastapi
import gradio as gr
import uvicorn
from starlette.staticfiles import StaticFiles

from realfill.app.flow.failures import ErrorLog
from realfill.app.flow.job import JobQueue
from realfill.app.flow.settings import Settings
from realfill.app.page.fragments import Fragments
from realfill.app.page.guard import Guard, is_loopback
from realfill.app.page.layout import HEAD, build_page, make_theme
from realfill.app.page.routes import Routes
from realfill.app.page.visits import KEEP_DAYS, Visits
from realfill.config import FitConfig

_SWEEP_EVERY_S = 600.0
_STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """How the page is served.

    Attributes:
        work: folder for the visits and the logs.
        host: address on which to listen.
        base: the base model of fits.
        device: where to compute; ``None``: the best available.
        local_files_only: do not use the network for base models.
        completion: weights that ``realfill train-completion`` wrote, for the engine ``completion``; ``None``: the
            packaged ones.
        keep_days: days after its last use after which a visit is removed.
        preview_every_s: least seconds of training between two previews.
        token: what visitors must know; ``None``: nothing, which is only legal on a loopback address.
    """

    work: Path
    host: str = "127.0.0.1"
    base: str = "mini"
    device: str | None = None
    local_files_only: bool = False
    completion: Path | None = None
    keep_days: float = KEEP_DAYS
    preview_every_s: float = 20.0
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"host is {self.host!r}, which others can reach, and there is no token; legal: a token")


class Page:
    """The application and what belongs to it."""

    def __init__(self, options: PageOptions) -> None:
        """Build the application; it does not listen yet."""
        self.options = options
        settings = Settings(
            fit=FitConfig(base=options.base), device=options.device, local_files_only=options.local_files_only,
            completion=options.completion,
        )  # fmt: skip
        log, self.queue = ErrorLog(options.work / "logs", is_private=True), JobQueue()
        self.visits = Visits(
            options.work / "visits", settings=settings, queue=self.queue, log=log, keep_days=options.keep_days,
            preview_every_s=options.preview_every_s,
        )  # fmt: skip
        place = str(self.visits.folder.resolve()) if is_loopback(options.host) else None
        fragments = Fragments(keep_days=options.keep_days, place=place)
        self.routes = Routes(self.visits, fragments, log)
        with ThreadPoolExecutor(1) as pool:  # the caller's thread may have an event loop already
            self.app = pool.submit(lambda: asyncio.run(self._build(log))).result()

    async def _build(self, log: ErrorLog) -> Guard:
        """Put the application together; without a running event loop, Gradio would make some that it never closes."""
        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._life)
        app.router.routes.extend(self.routes.build())
        app.mount("/page", StaticFiles(directory=_STATIC))
        app = gr.mount_gradio_app(
            app, build_page(self.visits, log), path="/", server_name=self.options.host, footer_links=[],
            run_history=False, ssr_mode=False, mcp_server=False, enable_monitoring=False, pwa=False,
            show_error=False, max_file_size=1, theme=make_theme(), head=HEAD,
        )  # fmt: skip
        return Guard(app, visits=self.visits, host=self.options.host, token=self.options.token)

    @contextlib.asynccontextmanager
    async def _life(self, _: fastapi.FastAPI) -> AsyncIterator[None]:
        """Remove old visits from time to time; cancel what runs at the end."""
        closed = threading.Event()
        threading.Thread(target=self._sweep, args=(closed,), name="realfill-sweep", daemon=True).start()
        threading.Thread(target=_load, name="realfill-load", daemon=True).start()  # the first job is faster
        try:
            yield
        finally:
            closed.set()
            self.queue.close()

    def _sweep(self, closed: threading.Event) -> None:
        while True:
            self.visits.sweep()
            if closed.wait(_SWEEP_EVERY_S):
                return

    def resume_links(self, address: str, limit: int = 5) -> list[str]:
        """Return a line for each recent visit, with a link that continues it in any browser, once."""
        lines = []
        for visit in self.visits.resumable(limit):
            code = secrets.token_urlsafe(16)
            self.routes.resume_codes[code] = visit.name
            day = time.strftime("%d %B %Y, %H:%M", time.localtime(visit.used))
            title = visit.photos.target.name if visit.photos.target is not None else "no photo yet"
            lines.append(f"continue {title!r} of {day}: {address}/resume/{code}")
        return lines

    def make_server(self, port: int) -> uvicorn.Server:
        """Make a server that listens on a port once it is run, until its ``should_exit`` is set."""
        return uvicorn.Server(
            uvicorn.Config(
                self.app, host=self.options.host, port=port, log_level="warning", server_header=False,
                timeout_graceful_shutdown=2, ws="none", proxy_headers=False,
            )
        )  # fmt: skip


def _load() -> None:
    """Load what the jobs need."""
    importlib.import_module("realfill.pipeline")
