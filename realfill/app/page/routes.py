"""The routes of a visit: its state, its photos and results, and what the visitor draws. Each finds the visit by cookie.

What cannot be done is answered with a sentence, which the page shows beside the control.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from realfill.app.page.desk import Desk
from realfill.app.page.fragments import Fragments
from realfill.app.page.guard import VISIT_COOKIE, cookie_of, make_cookie
from realfill.app.page.holes import decode_drawing, draw_hole, hole_preview, keep_part, preview_path, set_margins
from realfill.app.page.jobs import JobQueue
from realfill.app.page.logs import ErrorLog
from realfill.app.page.records import RefusedError
from realfill.app.page.uploads import drop_reference, keep_photo, photo_folder, receive
from realfill.app.page.visits import Visit, Visits
from realfill.errors import RealFillError

DOWNLOADS = {"png": "image/png", "tif": "image/tiff", "jpg": "image/jpeg", "ora": "image/openraster"}
_MAX_DRAWING_BYTES = 8_000_000
_FOREVER = {"Cache-Control": "private, max-age=604800, immutable"}  # for files whose names never repeat

Answer = Callable[[Request, Visit], Awaitable[Response]]


class Routes:
    """The handlers of the routes."""

    def __init__(self, visits: Visits, queue: JobQueue, fragments: Fragments, desk: Desk, log: ErrorLog) -> None:
        """Serve visits."""
        self._visits, self._queue, self._fragments, self._desk, self._log = visits, queue, fragments, desk, log
        self.resume_codes: dict[str, str] = {}  # for one use each, to the name of a visit

    def build(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/visit/state", self._with_visit(self._state)),
            Route("/visit/parts/{name}", self._with_visit(self._part)),
            Route("/visit/photos", self._with_visit(self._upload), methods=["POST"]),
            Route("/visit/photos/{file}", self._with_visit(self._photo), methods=["GET"]),
            Route("/visit/photos/{file}", self._with_visit(self._remove_photo), methods=["DELETE"]),
            Route("/visit/preview.png", self._with_visit(self._preview)),
            Route("/visit/mask", self._with_visit(self._mask), methods=["GET"]),
            Route("/visit/mask", self._with_visit(self._draw), methods=["PUT"]),
            Route("/visit/click", self._with_visit(self._click), methods=["POST"]),
            Route("/visit/margins", self._with_visit(self._margins), methods=["PUT"]),
            Route("/visit/rounds/{number:int}/{file}", self._with_visit(self._result)),
            Route("/visit/download/{number:int}/{place:int}/{kind}", self._with_visit(self._download)),
            Route("/visit/part/{number:int}/{place:int}", self._with_visit(self._choose_part), methods=["PUT"]),
            Route("/visit/people", self._with_visit(self._people), methods=["PUT"]),
            Route("/visit/everything", self._with_visit(self._forget), methods=["DELETE"]),
            Route("/visit/job.jpg", self._with_visit(self._job_preview)),
            Route("/visit/job/{how}", self._with_visit(self._end_job), methods=["POST"]),
            Route("/resume/{code}", self._resume),
        ]

    def _with_visit(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """Find the visit of a request, and turn refusals into sentences."""

        async def respond(request: Request) -> Response:
            visit = self._visits.find(cookie_of(request, VISIT_COOKIE))
            if visit is None:
                return JSONResponse({"error": "this visit has ended; reload the page"}, 403)
            try:
                return await answer(request, visit)
            except (RealFillError, ValueError) as error:
                return JSONResponse({"error": f"{error}"}, 422)
            except ClientDisconnect:
                return Response(status_code=400)
            except Exception as error:  # noqa: BLE001 - visitors get a sentence instead of a traceback
                return JSONResponse({"error": self._log.write(request.url.path, error)}, 500)

        return respond

    async def _state(self, _: Request, visit: Visit) -> Response:
        found = self._queue.find(visit.name)
        job = found[0].describe(found[1]) if found is not None else None
        return JSONResponse({"revision": visit.revision, "mask": visit.mask_version, "job": job})

    async def _part(self, request: Request, visit: Visit) -> Response:
        part = await run_in_threadpool(self._fragments.render, request.path_params["name"], visit)
        return HTMLResponse(part)

    async def _upload(self, request: Request, visit: Visit) -> Response:
        role = request.query_params.get("role")
        if role not in ("target", "reference"):
            raise RefusedError("the role of the photo is missing; reload the page")
        self._require_idle(visit)
        self._visits.require_room(visit)
        folder = visit.folder / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / secrets.token_hex(8)
        try:
            await receive(request.stream(), path, announced=_length(request))
            self._require_idle(visit)  # a job may have begun while the photo arrived
            name = request.query_params.get("name", "")
            await run_in_threadpool(keep_photo, visit, path, role, name)
        finally:
            path.unlink(missing_ok=True)
        return JSONResponse({"revision": visit.revision})

    async def _photo(self, request: Request, visit: Visit) -> Response:
        return _file(photo_folder(visit), request.path_params["file"], _FOREVER)

    async def _remove_photo(self, request: Request, visit: Visit) -> Response:
        self._require_idle(visit)
        await run_in_threadpool(drop_reference, visit, request.path_params["file"])
        return JSONResponse({"revision": visit.revision})

    async def _preview(self, _: Request, visit: Visit) -> Response:
        path = preview_path(visit)
        if visit.target is None or not path.is_file():
            raise RefusedError("choose the photo to complete first")
        return FileResponse(path, headers=_FOREVER)

    async def _mask(self, _: Request, visit: Visit) -> Response:
        return Response(await run_in_threadpool(hole_preview, visit), media_type="image/png")

    async def _draw(self, request: Request, visit: Visit) -> Response:
        self._require_idle(visit)
        drawn = decode_drawing(await _body(request, _MAX_DRAWING_BYTES))
        await run_in_threadpool(draw_hole, visit, drawn)
        return JSONResponse({"mask": visit.mask_version})

    async def _click(self, request: Request, visit: Visit) -> Response:
        from realfill.app.page.people import outline_at  # noqa: PLC0415 - loads the detectors

        self._require_idle(visit)
        values = await _numbers(request, "x", "y")
        said = await run_in_threadpool(outline_at, visit, values["x"], values["y"])
        return JSONResponse({"said": said, "mask": visit.mask_version})

    async def _margins(self, request: Request, visit: Visit) -> Response:
        self._require_idle(visit)
        set_margins(visit, await _numbers(request, "left", "right", "top", "bottom"))
        return JSONResponse({"revision": visit.revision})

    async def _result(self, request: Request, visit: Visit) -> Response:
        number = visit.round(request.path_params["number"]).number
        return _file(visit.round_folder(number), request.path_params["file"], _FOREVER)

    async def _download(self, request: Request, visit: Visit) -> Response:
        number, place, kind = (request.path_params[name] for name in ("number", "place", "kind"))
        if kind not in DOWNLOADS:
            raise RefusedError(f"the format is {kind!r}; legal: {', '.join(DOWNLOADS)}")
        path = await run_in_threadpool(self._desk.download, visit, number, place, kind)
        return FileResponse(path, media_type=DOWNLOADS[kind], filename=f"realfill-{number}-{place + 1}.{kind}")

    async def _choose_part(self, request: Request, visit: Visit) -> Response:
        self._require_idle(visit)
        drawn = decode_drawing(await _body(request, _MAX_DRAWING_BYTES))
        number, place = request.path_params["number"], request.path_params["place"]
        await run_in_threadpool(keep_part, visit, number, place, drawn)
        return JSONResponse({})

    async def _people(self, request: Request, visit: Visit) -> Response:
        from realfill.app.page.people import choose  # noqa: PLC0415 - loads the detectors

        self._require_idle(visit)
        numbers = (await _json(request)).get("numbers")
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise RefusedError("the request is damaged; reload the page")
        await run_in_threadpool(choose, visit, numbers)
        return JSONResponse({"mask": visit.mask_version})

    async def _forget(self, _: Request, visit: Visit) -> Response:
        self._require_idle(visit)
        self._queue.forget(visit.name)
        await run_in_threadpool(self._visits.remove, visit)
        return JSONResponse({})

    async def _end_job(self, request: Request, visit: Visit) -> Response:
        how = request.path_params["how"]
        ways = {"stop": self._queue.stop, "cancel": self._queue.cancel, "forget": self._queue.forget}
        if how not in ways:
            raise RefusedError(f"a job cannot be ended by {how!r}; legal: {', '.join(ways)}")
        ways[how](visit.name)
        return JSONResponse({})

    async def _job_preview(self, _: Request, visit: Visit) -> Response:
        return _file(visit.folder, "preview.jpg", {})

    async def _resume(self, request: Request) -> Response:
        code = request.path_params["code"]
        if self._queue.is_busy(self.resume_codes.get(code, "")):
            return HTMLResponse("A job of this visit is running. Wait until it ends, and open the link again.", 409)
        name = self.resume_codes.pop(code, None)
        key = self._visits.rekey(name) if name is not None else None
        response = RedirectResponse("/", 303)
        if key is not None:
            response.headers["set-cookie"] = make_cookie(VISIT_COOKIE, key, days=self._visits.keep_days)
        return response

    def _require_idle(self, visit: Visit) -> None:
        if self._queue.is_busy(visit.name):
            raise RefusedError("a job is using these photos; wait until it ends, or cancel it")


def _file(folder: Path, name: str, headers: dict[str, str]) -> Response:
    """Serve a file of a visit's folder; names with a path in them are no names."""
    path = folder / name
    if Path(name).name != name or not path.is_file():
        return JSONResponse({"error": "this file is gone; reload the page"}, 404)
    return FileResponse(path, headers=headers)


def _length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdigit() else None


async def _body(request: Request, limit: int) -> bytes:
    """Read a request's body up to a limit."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise RefusedError("the drawing is too large; reload the page")
    return body


async def _json(request: Request) -> dict[str, Any]:
    """Read a small JSON object."""
    try:
        values = json.loads(await _body(request, 10_000))
    except (ValueError, RecursionError) as error:
        raise RefusedError("the request is damaged; reload the page") from error
    if not isinstance(values, dict):
        raise RefusedError("the request is damaged; reload the page")
    return values


async def _numbers(request: Request, *names: str) -> dict[str, float]:
    """Read finite numbers from a JSON object."""
    values = await _json(request)
    try:
        numbers = {name: float(values[name]) for name in names}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise RefusedError("the request is damaged; reload the page") from error
    if not all(map(math.isfinite, numbers.values())):
        raise RefusedError("the request is damaged; reload the page")
    return numbers
