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

from realfill.app.flow.engines import require_runnable
from realfill.app.flow.failures import ErrorLog
from realfill.app.page.drawing import decode_drawing, draw_hole, draw_people, encode_hole, keep_part
from realfill.app.page.fragments import Fragments, describe_job
from realfill.app.page.gallery import encode_jpeg, save_download
from realfill.app.page.guard import VISIT_COOKIE, cookie_of, make_cookie
from realfill.app.page.uploads import drop_reference, keep_photo, receive
from realfill.app.page.visit import RefusedError, Visit
from realfill.app.page.visits import Visits
from realfill.errors import RealFillError

DOWNLOADS = {"png": "image/png", "tif": "image/tiff", "jpg": "image/jpeg", "ora": "image/openraster"}
_MAX_DRAWING_BYTES = 8_000_000
_FOREVER = {"Cache-Control": "private, max-age=604800, immutable"}  # for files whose names never repeat

Answer = Callable[[Request, Visit], Awaitable[Response]]


class Routes:
    """The handlers of the routes."""

    def __init__(self, visits: Visits, fragments: Fragments, log: ErrorLog) -> None:
        """Serve visits."""
        self._visits, self._fragments, self._log = visits, fragments, log
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
            Route("/visit/results/{number:int}/{file}", self._with_visit(self._result)),
            Route("/visit/download/{number:int}/{place:int}/{kind}", self._with_visit(self._download)),
            Route("/visit/part/{number:int}/{place:int}", self._with_visit(self._choose_part), methods=["PUT"]),
            Route("/visit/people", self._with_visit(self._people), methods=["PUT"]),
            Route("/visit/people.jpg", self._with_visit(self._people_picture)),
            Route("/visit/engine", self._with_visit(self._engine), methods=["PUT"]),
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
                return JSONResponse({"error": self._log.describe(error, request.url.path)}, 500)

        return respond

    async def _state(self, _: Request, visit: Visit) -> Response:
        job = describe_job(visit.flow)
        return JSONResponse({"revision": visit.revision, "mask": visit.mask_version, "job": job})

    async def _part(self, request: Request, visit: Visit) -> Response:
        part = await run_in_threadpool(self._fragments.render, request.path_params["name"], visit)
        return HTMLResponse(part)

    async def _upload(self, request: Request, visit: Visit) -> Response:
        role = request.query_params.get("role")
        if role not in ("target", "reference"):
            raise RefusedError("the role of the photo is missing; reload the page")
        visit.require_idle()
        self._visits.require_room(visit)
        folder = visit.folder / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / secrets.token_hex(8)
        try:
            await receive(request.stream(), path, announced=_length(request))
            visit.require_idle()  # a job may have begun while the photo arrived
            name = request.query_params.get("name", "")
            await run_in_threadpool(keep_photo, visit, path, role, name)
        finally:
            path.unlink(missing_ok=True)
        return JSONResponse({"revision": visit.revision})

    async def _photo(self, request: Request, visit: Visit) -> Response:
        return _file(visit.photo_folder, request.path_params["file"], _FOREVER)

    async def _remove_photo(self, request: Request, visit: Visit) -> Response:
        visit.require_idle()
        await run_in_threadpool(drop_reference, visit, request.path_params["file"])
        return JSONResponse({"revision": visit.revision})

    async def _preview(self, _: Request, visit: Visit) -> Response:
        if visit.photos.target is None:
            raise RefusedError("choose the photo to complete first")
        return _file(visit.photo_folder, "preview.png", _FOREVER)

    async def _mask(self, _: Request, visit: Visit) -> Response:
        return Response(await run_in_threadpool(encode_hole, visit), media_type="image/png")

    async def _draw(self, request: Request, visit: Visit) -> Response:
        visit.require_idle()
        drawn = decode_drawing(await _body(request, _MAX_DRAWING_BYTES))
        await run_in_threadpool(draw_hole, visit, drawn)
        return JSONResponse({"mask": visit.mask_version})

    async def _click(self, request: Request, visit: Visit) -> Response:
        visit.require_idle()
        values = await _numbers(request, "x", "y")
        height, width = visit.flow.choice.target.size
        if not (0 <= values["x"] < 1 and 0 <= values["y"] < 1):
            raise RefusedError("the point lies outside of the photo")

        def click() -> str:
            with visit.hole_changed():
                return visit.flow.choice.toggle_at((values["x"] * width, values["y"] * height))

        said = await run_in_threadpool(click)
        return JSONResponse({"said": said, "mask": visit.mask_version})

    async def _margins(self, request: Request, visit: Visit) -> Response:
        visit.require_idle()
        shares = await _numbers(request, "left", "right", "top", "bottom")
        with visit.scene_changed() as choice:
            choice.set_margins(**shares)
        return JSONResponse({"revision": visit.revision})

    async def _result(self, request: Request, visit: Visit) -> Response:
        folder = visit.result(request.path_params["number"]).folder
        assert folder is not None
        return _file(folder, request.path_params["file"], _FOREVER)

    async def _download(self, request: Request, visit: Visit) -> Response:
        number, place, kind = (request.path_params[name] for name in ("number", "place", "kind"))
        if kind not in DOWNLOADS:
            raise RefusedError(f"the format is {kind!r}; legal: {', '.join(DOWNLOADS)}")
        path = await run_in_threadpool(save_download, visit.result(number, place), place, kind)
        return FileResponse(path, media_type=DOWNLOADS[kind], filename=f"realfill-{number}-{place + 1}.{kind}")

    async def _choose_part(self, request: Request, visit: Visit) -> Response:
        visit.require_idle()
        drawn = decode_drawing(await _body(request, _MAX_DRAWING_BYTES))
        number, place = request.path_params["number"], request.path_params["place"]
        await run_in_threadpool(keep_part, visit, number, place, drawn)
        return JSONResponse({})

    async def _people(self, request: Request, visit: Visit) -> Response:
        visit.require_idle()
        values = await _json(request)
        numbers, hides = values.get("numbers"), values.get("hides_strangers", True)
        if not isinstance(numbers, list) or not all(type(n) is int for n in numbers) or type(hides) is not bool:
            raise RefusedError("the request is damaged; reload the page")

        def choose() -> None:
            with visit.hole_changed() as hole:
                hole.choose(numbers)
                visit.flow.choice.hides_strangers = hides

        await run_in_threadpool(choose)
        return JSONResponse({"mask": visit.mask_version})

    async def _people_picture(self, _: Request, visit: Visit) -> Response:
        picture = await run_in_threadpool(draw_people, visit)
        return Response(encode_jpeg(picture), media_type="image/jpeg")

    async def _engine(self, request: Request, visit: Visit) -> Response:
        name = str((await _json(request)).get("name"))
        engine = await run_in_threadpool(require_runnable, name, visit.flow.settings)
        with visit.changed():
            visit.engine = engine
        return JSONResponse({})

    async def _forget(self, _: Request, visit: Visit) -> Response:
        visit.require_idle()
        await run_in_threadpool(self._visits.remove, visit)
        return JSONResponse({})

    async def _end_job(self, request: Request, visit: Visit) -> Response:
        how = request.path_params["how"]
        ways = {"stop": visit.flow.stop, "cancel": visit.flow.cancel, "forget": visit.flow.forget}
        if how not in ways:
            raise RefusedError(f"a job cannot be ended by {how!r}; legal: {', '.join(ways)}")
        ways[how]()
        return JSONResponse({})

    async def _job_preview(self, _: Request, visit: Visit) -> Response:
        preview = visit.flow.job.preview if visit.flow.job is not None else None
        if preview is None:
            return JSONResponse({"error": "there is no preview yet"}, 404)
        return Response(await run_in_threadpool(encode_jpeg, preview), media_type="image/jpeg")

    async def _resume(self, request: Request) -> Response:
        code = request.path_params["code"]
        if self._visits.is_busy(self.resume_codes.get(code, "")):
            return HTMLResponse("A job of this visit is running. Wait until it ends, and open the link again.", 409)
        name = self.resume_codes.pop(code, None)
        key = self._visits.rekey(name) if name is not None else None
        response = RedirectResponse("/", 303)
        if key is not None:
            response.headers["set-cookie"] = make_cookie(VISIT_COOKIE, key, days=self._visits.keep_days)
        return response


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
