"""What every request passes: host, origin, token, visit, the routes that exist, and the headers of every answer.

The page answers only to the names of this machine, so that a foreign site cannot reach it through a name of its own
that points here (DNS rebinding). Of Gradio's routes only those exist that the page uses: nothing is uploaded through
Gradio, and none of its files are served.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realfill.app.page.visits import Visits

VISIT_COOKIE = "realfill_visit"
TOKEN_COOKIE = "realfill_token"  # noqa: S105 - the name of a cookie
_WRONG_TOKEN_S = 1.0
_TOKEN_BODY_BYTES = 1000
_OPEN = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|page)/[\w./ -]+|/visit(/[\w./-]*)?|/token"
    r"|/resume/[\w-]+|/gradio_api/(run/predict|startup-events|theme\.css)/?"
)
_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_DOOR = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>realfill: token</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>body{{font-family:system-ui,sans-serif;max-width:28rem;margin:4rem auto;padding:0 1rem}}
input,button{{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin-top:.5rem}}</style></head>
<body><h1>realfill</h1><form method="post" action="/token"><label for="token">Token, which the server printed when it
started</label><input id="token" name="token" type="password" autocomplete="off" autofocus required>
<p role="alert">{message}</p><button>Open the page</button></form></body></html>"""

_AGAIN = '<!doctype html><html lang="en"><title>realfill</title><meta http-equiv="refresh" content="0"></html>'
# A link on another site brings no cookie, so the page asks for itself again, which does.


class Guard:
    """ASGI middleware with the rules at the top of this module."""

    def __init__(self, app: ASGIApp, *, visits: Visits, host: str, token: str | None) -> None:
        """Guard an application.

        Args:
            app: the application.
            visits: gives visitors their keys.
            host: the address on which the server listens.
            token: what visitors must know; ``None``: nothing.
        """
        self._app, self._visits, self._token = app, visits, token
        self._is_local = is_loopback(host)
        self._names = frozenset(name.lower() for name in ("localhost", host, *(() if self._is_local else _own_names())))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no web sockets
            return
        request = Request(scope, receive)
        refusal = self._refuse(request) or await self._ask_for_token(request)
        nonce = secrets.token_urlsafe(16)
        scope["state"] = {**scope.get("state", {}), "nonce": nonce}
        cookie = None
        if refusal is None and request.url.path == "/" and self._visits.find(cookie_of(request, VISIT_COOKIE)) is None:
            cookie = make_cookie(VISIT_COOKIE, self._visits.new_key(), days=self._visits.keep_days)
        answer = self._app if refusal is None else refusal
        await answer(scope, receive, _Answer(send, nonce, cookie, is_page=request.url.path == "/"))

    def _refuse(self, request: Request) -> Response | None:
        name = _host_name(request.headers.get("host", ""))
        if name is None or not self._is_known(name):
            return PlainTextResponse("this server does not answer to that name", 421)
        origin = request.headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc.lower() != request.headers["host"].lower()
        is_elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")  # same-site: another port
        if is_elsewhere and request.url.path == "/" and request.method == "GET":
            return HTMLResponse(_AGAIN)
        if is_elsewhere or (is_foreign and request.method not in ("GET", "HEAD")):
            return PlainTextResponse("requests from other sites are refused", 403)
        if not _OPEN.fullmatch(request.url.path) or ".." in request.url.path:
            return PlainTextResponse("not found", 404)
        return None

    def _is_known(self, name: str) -> bool:
        """Tell whether a name is one of this machine; foreign names cannot be IP addresses."""
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._is_local

    async def _ask_for_token(self, request: Request) -> Response | None:
        """Let those pass who know the token; ask others for it."""
        if self._token is None or request.url.path.startswith("/resume/"):
            return None
        known = _fingerprint(self._token)
        if hmac.compare_digest((cookie_of(request, TOKEN_COOKIE) or "").encode(), known.encode()):
            return None
        given = request.query_params.get("token")
        if request.method == "POST" and request.url.path == "/token":
            given = parse_qs(await _start_of_body(request)).get("token", [""])[0]
        if given is None:
            if request.url.path != "/":
                return PlainTextResponse("the token is missing; open the page", 401)
            return HTMLResponse(_DOOR.format(message=""), 401)
        if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token.encode()):
            await asyncio.sleep(_WRONG_TOKEN_S)
            return HTMLResponse(_DOOR.format(message=html.escape("This is not the token.")), 401)
        response = RedirectResponse("/", 303)
        response.headers["set-cookie"] = make_cookie(TOKEN_COOKIE, known, days=self._visits.keep_days)
        return response


class _Answer:
    """Adds headers to an answer, and to the page itself the nonce of its scripts."""

    def __init__(self, send: Send, nonce: str, cookie: str | None, *, is_page: bool) -> None:
        self._send, self._nonce, self._cookie, self._is_page = send, nonce, cookie, is_page
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers["Content-Security-Policy"] = _POLICY.format(nonce=self._nonce)
            if "cache-control" not in headers:
                headers["Cache-Control"] = "no-store"
            if self._cookie is not None:
                headers.append("set-cookie", self._cookie)
            self._is_page = self._is_page and headers.get("content-type", "").startswith("text/html")
            if self._is_page:
                self._start = message
                return
        if not self._is_page or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = _with_nonce(self._body, self._nonce)
        assert self._start is not None
        MutableHeaders(scope=self._start)["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})


def is_loopback(host: str) -> bool:
    """Tell whether an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def cookie_of(request: Request, name: str) -> str | None:
    """Return a cookie of a request, whatever other cookies programs on this machine have set for its name."""
    return request.cookies.get(name)


def make_cookie(name: str, value: str, *, days: float) -> str:
    """Make a cookie that scripts cannot read, and that requests from other sites do not carry."""
    return f"{name}={value}; Path=/; Max-Age={round(days * 86_400)}; HttpOnly; SameSite=Strict"


def _with_nonce(body: bytes, nonce: str) -> bytes:
    """Name the page's own scripts, and leave out what Gradio's template says about other sites."""
    text = body.decode("utf-8")
    text = re.sub(r"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>", "", text)
    return re.sub(r"<script(?=[\s>])", f'<script nonce="{nonce}"', text).encode("utf-8")


async def _start_of_body(request: Request) -> str:
    """Read a body as far as a token can reach; whoever does not know the token sends no more into memory."""
    body = b""
    async for chunk in request.stream():
        body += chunk[:_TOKEN_BODY_BYTES]
        if len(body) >= _TOKEN_BODY_BYTES:
            break
    return body.decode("utf-8", "replace")


def _fingerprint(token: str) -> str:
    return hashlib.sha256(f"realfill {token}".encode()).hexdigest()


def _host_name(header: str) -> str | None:
    """Return the name in a Host header, without the port and the brackets of IPv6."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower() or None
    except ValueError:
        return None


def _own_names() -> Iterable[str]:
    return {socket.gethostname(), socket.getfqdn()}
