"""The server answers only its own visitors, by its own names, on its own routes, and says why it refuses."""

import asyncio
import io
import re
import socket
import threading
import zlib

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image
from waiting import wait_for

pytest.importorskip("gradio", reason="the extra app is not installed")

from starlette.testclient import TestClient

from realfill.app.flow.failures import ErrorLog
from realfill.app.flow.job import Job
from realfill.app.flow.state import Flow
from realfill.app.page import uploads
from realfill.app.page.guard import TOKEN_COOKIE, VISIT_COOKIE
from realfill.app.page.server import Page, PageOptions

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::realfill.errors.RealFillWarning"),
]
HOME = "http://127.0.0.1:7860"
BOMB = b"\x89PNG\r\n\x1a\n" + b"".join(
    len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    for kind, data in ((b"IHDR", (30_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"), (b"IDAT", b""))
)  # 900 million pixels, it says


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page; whatever it asks of another machine, from its start to the last test, fails the last one."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        connect = socket.socket.connect

        def watched(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(("127.", "::1")):
                asked.append(address)
            return connect(self, address)

        patch.setattr(socket.socket, "connect", watched)
        patch.setattr(socket, "getaddrinfo", lambda host, *_, **__: asked.append(host) or [])
        page = Page(PageOptions(work=tmp_path_factory.mktemp("work"), device="cpu"))
        yield page
        page.queue.close()
    assert asked == []


@pytest.fixture
def visitor(page):
    """A browser that has opened the page."""
    client = TestClient(page.app, base_url=HOME)
    assert client.get("/").status_code == 200
    return client


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def upload(client, role="target", seed=0, size=(64, 80)):
    photo = png(make_photo(*size, seed))
    return client.post("/visit/photos", params={"role": role, "name": "a.png"}, content=photo)


def white_box(size=(64, 80)):
    mask = np.zeros(size, np.uint8)
    mask[20:40, 30:50] = 255
    return png(mask)


def order(client, name, *values):
    """Press a button of the page, as its own script does; returns what it says below the button."""
    config = client.get("/config").json()
    (target,) = (c["id"] for c in config["components"] if c["props"].get("value") == name and c["type"] == "button")
    (call,) = (d for d in config["dependencies"] if [target, "click"] in [list(t) for t in d["targets"]])
    body = {"data": list(values), "fn_index": call["id"], "session_hash": "test", "trigger_id": target}
    response = client.post("/gradio_api/run/predict", json=body)
    assert response.status_code == 200, response.text
    return response.json()["data"][0]


def idle(client):
    return (client.get("/visit/state").json()["job"] or {"state": "done"})["state"] not in ("waiting", "running")


def test_the_page_loads_nothing_from_elsewhere_and_allows_only_its_own_scripts(visitor):
    response = visitor.get("/")
    policy = response.headers["content-security-policy"]
    (nonce,) = re.findall(r"'nonce-([\w-]+)'", policy)
    scripts = re.findall(r"<script[^>]*>", response.text)
    assert scripts and all(f'nonce="{nonce}"' in script for script in scripts)
    assert "unsafe-eval" not in policy and "script-src 'self' 'nonce-" in policy and "default-src 'none'" in policy
    addresses = re.findall(r"(?:src|href|content|url)[=(]\s*[\"']?(https?:)?//[\w.-]+", response.text)
    assert addresses == []
    assert nonce not in visitor.get("/").headers["content-security-policy"]
    for header in ("x-content-type-options", "x-frame-options", "referrer-policy"):
        assert header in response.headers


def test_the_key_of_a_visit_is_out_of_reach_of_scripts_and_of_other_sites(page):
    cookie = TestClient(page.app, base_url=HOME).get("/").headers["set-cookie"]
    assert cookie.startswith(f"{VISIT_COOKIE}=") and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert f"Max-Age={7 * 86_400}" in cookie


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "10.0.0.5:7860", ""])
def test_a_foreign_name_that_points_here_gets_no_answer(page, host):
    client = TestClient(page.app, base_url=HOME)
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "localhost:1234", "[::1]:7860"])
def test_the_names_of_this_machine_are_answered(page, host):
    assert TestClient(page.app, base_url=HOME).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("other", ["a/b=1", 'state={"a": 1}', "k[1]=2", "x=ü"])
def test_cookies_of_other_programs_on_this_machine_do_not_disturb(page, visitor, other):
    cookie = f"{other}; {VISIT_COOKIE}={visitor.cookies[VISIT_COOKIE]}".encode("latin-1")
    assert TestClient(page.app, base_url=HOME).get("/visit/state", headers={"cookie": cookie}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_other_sites_cannot_send_anything(visitor, origin):
    response = visitor.post("/visit/job/cancel", headers={"origin": origin})
    assert response.status_code == 403
    assert visitor.post("/visit/job/cancel", headers={"origin": HOME}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_cannot_embed_a_file(visitor, site):
    upload(visitor)
    assert visitor.get("/visit/preview.png").status_code == 200
    assert visitor.get("/visit/preview.png", headers={"sec-fetch-site": site}).status_code == 403


def test_a_link_on_another_site_does_not_replace_the_visit(page):
    response = TestClient(page.app, base_url=HOME).get("/", headers={"sec-fetch-site": "cross-site"})
    assert response.status_code == 200 and 'http-equiv="refresh"' in response.text
    assert "set-cookie" not in response.headers


def test_a_visit_with_a_running_job_cannot_move_to_another_browser(page, visitor, monkeypatch):
    upload(visitor)
    name = page.visits.find(visitor.cookies[VISIT_COOKIE]).name
    page.routes.resume_codes["code"] = name
    monkeypatch.setattr(page.visits, "is_busy", lambda owner: owner == name)
    assert visitor.get("/resume/code").status_code == 409
    assert page.routes.resume_codes.pop("code") == name


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/file/etc/passwd", "/gradio_api/proxy=http://x",
        "/gradio_api/queue/join", "/gradio_api/vibe-edit", "/monitoring", "/gradio_api/info", "/svelte/x", "/docs",
        "/openapi.json", "/page/../server.py", "/page/%2e%2e/server.py", "/gradio_api/call/predict",
    ],
)  # fmt: skip
def test_of_gradios_routes_only_those_of_the_page_exist(visitor, path):
    assert visitor.get(path).status_code == 404
    assert visitor.post(path).status_code in (404, 405)


def test_a_visitor_cannot_see_the_files_of_another(page, visitor):
    upload(visitor)
    visit = page.visits.find(visitor.cookies[VISIT_COOKIE])
    file = visit.photos.target.source.name
    assert visitor.get(f"/visit/photos/{file}").status_code == 200
    other = TestClient(page.app, base_url=HOME)
    assert other.get(f"/visit/photos/{file}").status_code == 403
    other.get("/")
    assert other.get(f"/visit/photos/{file}").status_code == 404
    assert other.get("/visit/preview.png").status_code == 422
    ways = (f"../../{visit.name}/photos/{file}", f"..%2F..%2F{visit.name}%2Fvisit.json")
    for path in (f"/visit/photos/{way}" for way in ways):
        assert other.get(path).status_code in (403, 404, 422)


def test_photos_and_hole_arrive(page, visitor):
    assert upload(visitor).status_code == 200
    assert upload(visitor, "reference", 1).status_code == 200
    assert visitor.put("/visit/mask", content=white_box()).status_code == 200
    shown = np.asarray(Image.open(io.BytesIO(visitor.get("/visit/mask").content)))
    assert shown.shape == (64, 80) and (shown > 0).sum() == 400
    photos = visitor.get("/visit/parts/photos").text
    assert "Reference 0" in photos and "80 × 64" in photos


def test_names_of_files_are_shown_as_text(visitor):
    name = "<img src=x onerror=alert(1)>.png"
    photo = png(make_photo(64, 80, 0))
    assert visitor.post("/visit/photos", params={"role": "target", "name": name}, content=photo).status_code == 200
    assert "&lt;img src=x" in visitor.get("/visit/parts/photos").text
    assert "<img src=x" not in visitor.get("/visit/parts/photos").text


@pytest.mark.parametrize(
    ("content", "message"), [(b"no photo", "no image in a known format"), (b"", "the file is empty")]
)
def test_a_wrong_file_is_refused_in_a_sentence(page, visitor, content, message):
    response = visitor.post("/visit/photos", params={"role": "target", "name": "a.png"}, content=content)
    assert response.status_code == 422 and message in response.json()["error"]
    visit = page.visits.find(visitor.cookies[VISIT_COOKIE])
    assert visit.photos.target is None and list((visit.folder / "incoming").iterdir()) == []


def test_a_huge_file_is_cut_off(visitor, monkeypatch):
    monkeypatch.setattr(uploads.receive, "__kwdefaults__", {"limit": 1000})
    response = upload(visitor)
    assert response.status_code == 422 and "too large" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("PUT", "/visit/mask", b"x"),
        ("PUT", "/visit/mask", b"x" * 9_000_000),
        ("PUT", "/visit/margins", b'{"left": NaN, "right": 0, "top": 0, "bottom": 0}'),
        ("PUT", "/visit/margins", b"[]"),
        ("PUT", "/visit/margins", b"[" * 9_999),
        ("PUT", "/visit/margins", b'{"left": 1' + b"0" * 400 + b', "right": 0, "top": 0, "bottom": 0}'),
        ("PUT", "/visit/mask", BOMB),
        ("PUT", "/visit/people", b'{"numbers": ["1"]}'),
        ("PUT", "/visit/people", b'{"numbers": [], "hides_strangers": 1}'),
        ("PUT", "/visit/people", b'{"numbers": [3]}'),
        ("PUT", "/visit/engine", b'{"name": "no engine"}'),
        ("PUT", "/visit/engine", b'{"name": ["telea"]}'),
        ("POST", "/visit/click", b'{"x": 1e999, "y": 0}'),
        ("PUT", "/visit/part/99/0", b"x"),
        ("GET", "/visit/download/99/0/png", b""),
        ("GET", "/visit/parts/visit", b""),
        ("POST", "/visit/job/kill", b""),
    ],
)
def test_damaged_requests_get_a_sentence(visitor, method, path, content):
    upload(visitor)
    response = visitor.request(method, path, content=content)
    assert response.status_code == 422 and response.json()["error"]


def test_a_quick_result_from_the_button_to_the_download(page, visitor):
    upload(visitor)
    visitor.put("/visit/mask", content=white_box())
    assert order(visitor, "Coverage and quick result") == ""
    wait_for(lambda: idle(visitor))
    assert visitor.get("/visit/state").json()["job"]["state"] == "done"
    results = visitor.get("/visit/parts/results").text
    (number,) = re.findall(r'value="(\d+)/0"', results)
    response = visitor.get(f"/visit/download/{number}/0/png")
    assert f'filename="realfill-{number}-1.png"' in response.headers["content-disposition"]
    image, photo = np.asarray(Image.open(io.BytesIO(response.content))), make_photo(64, 80, 0)
    hole = np.asarray(Image.open(io.BytesIO(white_box()))) > 0
    assert np.array_equal(image[~hole], photo[~hole]) and not np.array_equal(image[hole], photo[hole])
    assert visitor.get(f"/visit/download/{number}/7/png").status_code == 422
    assert visitor.get(f"/visit/download/{number}/0/exe").status_code == 422


def test_whoever_waits_sees_how_many_jobs_are_before_and_can_cancel(page, visitor, tmp_path):
    gate = threading.Event()
    other = page.queue.submit(Job("of somebody else", lambda _: str(gate.wait(10)), log=ErrorLog(tmp_path)))
    upload(visitor)
    visitor.put("/visit/mask", content=white_box())
    assert order(visitor, "Coverage and quick result") == ""
    job = visitor.get("/visit/state").json()["job"]
    assert (job["state"], job["text"]) == ("waiting", "Quick result: waiting, 1 job before this one.")
    assert order(visitor, "Find people").startswith("A job of yours is running or waiting")
    assert upload(visitor).status_code == 422
    assert visitor.post("/visit/job/cancel").status_code == 200
    assert visitor.get("/visit/state").json()["job"]["state"] == "stopped"
    gate.set()
    assert other.wait(10) and other.message == "True"


def test_buttons_say_what_is_missing(visitor):
    assert order(visitor, "Coverage and quick result") == "There is no photo to complete; choose one first."
    assert order(visitor, "Find people") == "There is no photo to complete; choose one first."
    upload(visitor)
    assert order(visitor, "Coverage and quick result") == "Nothing is marked as missing; mark it first."
    visitor.put("/visit/mask", content=white_box())
    assert order(visitor, "Fit and complete", 3, 1).startswith("A fit learns from references")
    upload(visitor, "reference", 1)
    assert order(visitor, "Fit and complete", -3, 1).startswith("The number of steps is -3; legal:")
    assert order(visitor, "Redo the marked part", 1).startswith("Mark the part")


def test_engines_that_cannot_run_are_disabled_with_their_reason(page, visitor, monkeypatch):
    monkeypatch.setattr("realfill.models.feedforward.torchscript.is_present", lambda name: name == "migan")
    menu = visitor.get("/visit/parts/engines").text
    options = dict(re.findall(r'<option value="(\w+)"([^<]*)', menu))
    assert list(options) == ["auto", "lama", "migan", "completion", "telea", "smooth", "shiftmap", "base"]
    assert "selected" in options["auto"] and "(migan)" in options["auto"]
    assert [name for name, text in options.items() if "disabled" in text] == ["lama"]
    assert "realfill erase --engine lama downloads it, 196 MB" in options["lama"]
    refused = visitor.put("/visit/engine", json={"name": "lama"})
    assert refused.status_code == 422 and "its file is not on this machine" in refused.json()["error"]
    assert visitor.put("/visit/engine", json={"name": "smooth"}).status_code == 200
    assert page.visits.find(visitor.cookies[VISIT_COOKIE]).engine == "smooth"


def test_without_a_visit_nothing_can_be_ordered(page):
    client = TestClient(page.app, base_url=HOME)
    assert "visit has ended" in order(client, "Find people")
    assert client.get("/visit/state").status_code == 403
    assert client.post("/visit/photos", params={"role": "target"}, content=b"x").status_code == 403


def test_a_fault_of_the_server_names_a_log_and_tells_no_more(page, visitor, monkeypatch):
    monkeypatch.setattr(page.routes._fragments, "render", lambda *_: 1 / 0)
    response = visitor.get("/visit/parts/photos")
    (log,) = (page.options.work / "logs").iterdir()
    assert response.status_code == 500 and f"logs/{log.name}" in response.json()["error"]
    assert "ZeroDivisionError" in log.read_text() and "ZeroDivisionError" not in response.text
    log.unlink()


def test_everything_of_a_visit_can_be_removed_at_once(page, visitor):
    upload(visitor)
    folder = page.visits.find(visitor.cookies[VISIT_COOKIE]).folder
    assert folder.exists()
    assert "kept until" in visitor.get("/visit/parts/keeping").text
    assert visitor.delete("/visit/everything").status_code == 200
    assert not folder.exists()
    assert "To complete" not in visitor.get("/visit/parts/photos").text


def test_a_link_of_the_terminal_continues_a_visit_once(page, visitor):
    upload(visitor)
    name = page.visits.find(visitor.cookies[VISIT_COOKIE]).name
    lines = page.resume_links(HOME, limit=1000)
    code = next(code for code, owner in page.routes.resume_codes.items() if owner == name)
    assert any(line.endswith(code) for line in lines)
    other = TestClient(page.app, base_url=HOME, follow_redirects=False)
    response = other.get(f"/resume/{code}")
    assert response.status_code == 303
    other.cookies.set(VISIT_COOKIE, response.cookies[VISIT_COOKIE])
    assert "To complete" in other.get("/visit/parts/photos").text
    assert "To complete" not in visitor.get("/visit/parts/photos").text
    assert "set-cookie" not in other.get(f"/resume/{code}").headers


class TestToken:
    @pytest.fixture(scope="class")
    def open_page(self, tmp_path_factory):
        page = Page(PageOptions(work=tmp_path_factory.mktemp("open"), host="0.0.0.0", token="secret-token"))
        yield page
        page.queue.close()

    @pytest.fixture
    def stranger(self, open_page, monkeypatch):
        monkeypatch.setattr("realfill.app.page.guard._WRONG_TOKEN_S", 0.0)
        return TestClient(open_page.app, base_url="http://192.168.1.7:7860", follow_redirects=False)

    def test_others_are_asked_for_the_token(self, stranger):
        response = stranger.get("/")
        assert response.status_code == 401 and '<input id="token"' in response.text
        assert VISIT_COOKIE not in response.headers.get("set-cookie", "")
        for path in ("/visit/state", "/config", "/gradio_api/run/predict", "/page/page.js"):
            assert stranger.get(path).status_code == 401

    @pytest.mark.parametrize("token", ["wrong", "", "secret-toke", "secret-tokenn", "ü"])
    def test_a_wrong_token_is_refused(self, stranger, token):
        response = stranger.post("/token", data={"token": token})
        assert response.status_code == 401 and "set-cookie" not in response.headers

    def test_a_cookie_that_is_no_token_is_refused(self, stranger):
        assert stranger.get("/", headers={"cookie": f"{TOKEN_COOKIE}=ü".encode("latin-1")}).status_code == 401

    def test_a_stranger_cannot_fill_the_memory(self, open_page, stranger):
        received, sent = [], []

        async def receive():
            received.append(1)
            assert len(received) < 50
            return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/token", "query_string": b"",
                 "headers": [(b"host", b"192.168.1.7:7860")]}  # fmt: skip
        asyncio.run(open_page.app(scope, receive, send))
        assert sent[0]["status"] == 401

    @pytest.mark.parametrize("how", ["form", "link"])
    def test_the_token_opens_the_page(self, stranger, how):
        token = {"token": "secret-token"}
        asked = stranger.post("/token", data=token) if how == "form" else stranger.get("/", params=token)
        assert asked.status_code == 303 and "secret-token" not in asked.headers["set-cookie"]
        assert "HttpOnly" in asked.headers["set-cookie"]
        stranger.cookies.set(TOKEN_COOKIE, asked.cookies[TOKEN_COOKIE])
        assert stranger.get("/").status_code == 200

    def test_visitors_from_elsewhere_do_not_see_the_folder(self, open_page, stranger):
        asked = stranger.get("/?token=secret-token")
        stranger.cookies.set(TOKEN_COOKIE, asked.cookies[TOKEN_COOKIE])
        stranger.cookies.set(VISIT_COOKIE, stranger.get("/").cookies[VISIT_COOKIE])
        upload(stranger)
        assert "kept until" in stranger.get("/visit/parts/keeping").text
        assert str(open_page.options.work) not in stranger.get("/visit/parts/keeping").text

    def test_a_foreign_name_gets_no_answer_here_either(self, stranger):
        assert stranger.get("/", headers={"host": "evil.example"}).status_code == 421

    def test_without_a_token_only_this_machine_is_served(self, tmp_path):
        with pytest.raises(ValueError, match="legal: a token"):
            PageOptions(work=tmp_path, host="0.0.0.0")


def test_a_photo_that_arrives_after_a_job_has_begun_is_refused(page, visitor, monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(Flow, "is_busy", property(lambda _: next(answers)))
    response = upload(visitor)
    assert response.status_code == 422 and "a job is using these photos" in response.json()["error"]
    assert page.visits.find(visitor.cookies[VISIT_COOKIE]).photos.target is None
