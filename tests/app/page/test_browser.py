"""The page in a real browser, on the demo's scene: pytest -m browser tests/app/page/test_browser.py.

Every request that leaves this machine fails the test that made it.
"""

import io
import re
import shutil
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
import skimage.data
from PIL import Image
from waiting import wait_for

pytest.importorskip("gradio", reason="the extra app is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from realfill.app.page.server import Page, PageOptions  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.filterwarnings("default"),
]
SLOW_MS = 180_000
CONTRAST = """(element) => {
  const linear = (v) => (v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => getComputedStyle(e).backgroundColor;
  let back = element;
  while (/, 0\\)$|transparent/.test(ground(back))) back = back.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(ground(back))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""
MARKED = """() => {
  const { pen, size } = document.querySelector("mask-editor");
  const pixels = pen.getImageData(0, 0, size.width, size.height).data;
  return pixels.filter((value, i) => i % 4 === 3 && value > 127).length;
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The running server."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))  # no engine has been downloaded
    page = Page(PageOptions(work=tmp_path_factory.mktemp("work"), device="cpu", preview_every_s=2.0))
    server = page.make_server(0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    page.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield page
    server.should_exit = True
    thread.join(20)
    patch.undo()


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visitors(chromium, page):
    """Makes visitors, each with cookies of its own; at the end, none may have asked another machine."""
    contexts, foreign, faults = [], [], []

    def make(**options):
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}} | options)
        context.set_default_timeout(SLOW_MS)
        context.on("request", lambda request: foreign.append(request.url) if is_foreign(request.url) else None)
        context.on("weberror", lambda error: faults.append(str(error.error)))
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert foreign == []
    assert faults == []


@pytest.fixture
def tab(visitors, page):
    """The page of a new visitor."""
    return opened(visitors(), page)


def is_foreign(url):
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.hostname not in ("127.0.0.1", "localhost")


def opened(context, page):
    tab = context.new_page()
    tab.goto(page.address)
    tab.locator("photo-drop input").first.wait_for()
    return tab


def with_example(tab):
    tab.get_by_role("button", name="Try the example").click()
    tab.locator("mask-editor canvas").wait_for()
    tab.get_by_text("Reference 0").wait_for()
    wait_for(lambda: state(tab)["mask"] > 0 and hole_of(tab).any())


def state(tab):
    return tab.evaluate("fetch('/visit/state').then((r) => r.json())")


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def file(image, name="photo.png"):
    return {"name": name, "mimeType": "image/png", "buffer": png(image)}


def hole_of(tab):
    """The hole as the server has it."""
    numbers = tab.evaluate("fetch('/visit/mask').then((r) => r.arrayBuffer()).then((b) => [...new Uint8Array(b)])")
    return np.asarray(Image.open(io.BytesIO(bytes(numbers)))) > 127


def drag(tab, canvas, start, end):
    """Drag on a canvas between two points, given as shares of its size."""
    box = canvas.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    tab.mouse.move(*at[0])
    tab.mouse.down()
    tab.mouse.move(*at[1], steps=6)
    tab.mouse.up()


def download(tab, kind):
    with tab.expect_download() as found:
        tab.locator(f".downloads a[data-kind={kind}]").click()
    return found.value


def pixels_of(found):
    return np.asarray(Image.open(found.path()))


def upload_and_mark(tab, left, right):
    """Upload both photos, mark a box, and take a part of it back with the eraser; returns the hole."""
    tab.locator("photo-drop input").first.set_input_files(file(left))
    canvas = tab.locator("mask-editor canvas")
    canvas.wait_for()
    tab.locator("photo-drop input").nth(1).set_input_files([file(right, "right.png")])
    tab.get_by_text("Reference 0").wait_for()
    canvas.scroll_into_view_if_needed()
    tab.get_by_label("Box", exact=True).check()
    drag(tab, canvas, (0.3, 0.4), (0.45, 0.6))
    wait_for(lambda: state(tab)["mask"] > 0)
    tab.get_by_label("Eraser").check()
    drag(tab, canvas, (0.3, 0.6), (0.45, 0.6))
    wait_for(lambda: hole_of(tab).mean() < 0.0295)
    hole = hole_of(tab)
    assert 0.01 < hole.mean() < 0.03 and hole.shape == left.shape[:2]
    return hole


def redo_a_part(tab):
    tab.get_by_role("button", name="Redo a part of the chosen result").click()
    part = tab.locator("part-editor canvas")
    part.wait_for()
    part.scroll_into_view_if_needed()
    with tab.expect_response(re.compile("/visit/part/")):
        drag(tab, part, (0.36, 0.48), (0.4, 0.52))
    tab.get_by_label("number input for Results to choose from").nth(1).fill("1")
    tab.get_by_role("button", name="Redo the marked part").click()
    tab.get_by_text("A part of result 2 again").wait_for()
    return pixels_of(download(tab, "png"))


def test_from_the_upload_to_a_download_whose_known_pixels_are_exact(tab):
    left, right, _ = skimage.data.stereo_motorcycle()
    hole = upload_and_mark(tab, left, right)

    tab.get_by_role("button", name="Coverage and quick result").click()
    tab.get_by_text(re.compile(r"The references show \d+ % of the hole")).wait_for()
    tab.locator("result-viewer").wait_for()
    assert tab.locator(".card").count() == 1
    quick = pixels_of(download(tab, "png"))
    assert np.array_equal(quick[~hole], left[~hole]) and not np.array_equal(quick[hole], left[hole])

    tab.get_by_label("Steps").fill("3")
    tab.get_by_label("number input for Results to choose from").first.fill("2")
    tab.get_by_role("button", name="Fit and complete").click()
    tab.locator("job-status", has_text="fitting").wait_for()
    tab.get_by_text("Fit of mini, 3 steps").wait_for()
    assert tab.locator(".card").count() == 3
    tab.locator(".card input").nth(1).check()
    fitted = download(tab, "png")
    assert re.fullmatch(r"realfill-\d+-2\.png", fitted.suggested_filename)
    result = pixels_of(fitted)
    assert np.array_equal(result[~hole], left[~hole])
    tab.locator("summary", has_text="Which pixels").click()
    assert tab.locator(".evidence img").evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 100
    assert download(tab, "ora").path().stat().st_size > 10_000

    again = redo_a_part(tab)
    changed = (again != result).any(axis=2)
    assert changed.any() and not (changed & ~hole).any() and changed.sum() < 0.8 * hole.sum()


def test_the_slider_uncovers_the_result(tab):
    with_example(tab)
    tab.get_by_role("button", name="Coverage and quick result").click()
    split = tab.get_by_label("before and after")
    split.focus()
    shown = "(img) => img.style.clipPath"
    after = tab.locator("before-after img").nth(1)
    assert after.evaluate(shown) == "inset(0px 0px 0px 50%)"
    split.press("Home")
    assert after.evaluate(shown) in ("inset(0px)", "inset(0px 0px 0px 0%)")
    tab.locator("before-after select").select_option("2")
    assert after.evaluate("(img) => img.clientWidth * devicePixelRatio") == pytest.approx(2 * 741, 0.01)


def test_what_is_missing_is_said_beside_the_button_in_a_colour_that_stands_out(tab):
    tab.get_by_role("button", name="Fit and complete").click()
    said = tab.get_by_role("alert").filter(has_text="There is no photo to complete; choose one first.").locator("p")
    said.wait_for()
    above = tab.get_by_role("button", name="Fit and complete").bounding_box()
    assert 0 < said.bounding_box()["y"] - above["y"] < 150
    assert said.evaluate("(e) => getComputedStyle(e).color") == "rgb(179, 38, 30)"


def test_the_engine_of_the_quick_result_is_chosen_and_those_that_cannot_run_are_disabled(tab):
    with_example(tab)
    menu = tab.get_by_label("Engine for what no reference shows")
    assert "its file is not on this machine" in menu.locator("option[value=lama]").inner_text()
    assert menu.locator("option[value=lama]").is_disabled() and menu.locator("option[value=completion]").is_enabled()
    with tab.expect_response(re.compile("/visit/engine")):
        menu.select_option("smooth")
    tab.get_by_role("button", name="Coverage and quick result").click()
    tab.get_by_text("Quick result (smooth)").wait_for()


def test_a_wrong_file_and_a_huge_file_are_refused_beside_the_field(tab):
    field = tab.locator("photo-drop").first
    field.locator("input").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"})
    field.get_by_role("alert").filter(has_text="notes.txt: This is no image in a known format").wait_for()
    huge = np.zeros((40, 40, 3), np.uint8)
    with tab.expect_response(re.compile("/visit/photos")) as found:
        tab.evaluate(
            """() => { const drop = document.querySelector("photo-drop");
            drop.send([new File([new Uint8Array(129e6)], "huge.png")]); }"""
        )
    assert found.value.status == 422
    field.get_by_role("alert").filter(has_text="huge.png: The file is too large; legal: up to 128 MB").wait_for()
    field.locator("input").set_input_files(file(huge))
    tab.locator("mask-editor").wait_for()
    assert field.get_by_role("alert").all_inner_texts() in ([], [""])


def test_a_second_visitor_sees_nothing_of_the_first(tab, visitors, page):
    with_example(tab)
    address = tab.locator(".thumbs img").first.get_attribute("src")
    other = opened(visitors(), page)
    assert other.locator(".thumbs").count() == 0 and other.locator("mask-editor").count() == 0
    status = "(path) => fetch(path).then((r) => r.status)"
    assert tab.evaluate(status, address) == 200 and other.evaluate(status, address) == 404


def test_a_reload_and_a_second_tab_show_the_running_fit_and_cancel_ends_it(tab, page):
    with_example(tab)
    tab.get_by_label("Steps").fill("5000")
    tab.get_by_role("button", name="Fit and complete").click()
    tab.locator("job-status", has_text="fitting").wait_for()
    tab.reload()
    tab.locator("job-status", has_text="fitting, step").wait_for()
    second = opened(tab.context, page)
    second.locator("job-status", has_text="fitting, step").wait_for()
    second.get_by_role("img", name="preview of the fit").wait_for()
    tab.get_by_role("button", name="Fit and complete").click()
    tab.get_by_text("A job of yours is running or waiting").wait_for()
    second.get_by_role("button", name="Cancel").click()
    wait_for(lambda: state(tab)["job"]["state"] == "stopped", 30)
    tab.locator("job-status", has_text="fitting").wait_for(state="detached")
    assert tab.locator(".card").count() == 0


def test_stop_keeps_what_there_is(tab):
    with_example(tab)
    tab.get_by_label("Steps").fill("5000")
    tab.get_by_label("number input for Results to choose from").first.fill("1")
    tab.get_by_role("button", name="Fit and complete").click()
    tab.locator("job-status", has_text="fitting, step").wait_for()
    tab.get_by_role("button", name="Stop and keep what there is").click()
    tab.get_by_text(re.compile(r"\d+ steps, stopped")).wait_for()
    assert tab.locator(".card").count() == 1


def test_people_are_numbered_and_everyone_but_one_goes(tab):
    tab.locator("photo-drop input").first.set_input_files(file(skimage.data.astronaut()))
    tab.locator("mask-editor canvas").wait_for()
    tab.get_by_role("button", name="Find people").click()
    people = tab.locator("fieldset.people")
    people.wait_for()
    assert people.get_by_label("Hide people in the references too").is_checked()
    people.get_by_role("button", name="Everyone").click()
    wait_for(lambda: hole_of(tab).mean() > 0.1)
    everyone = hole_of(tab)
    with tab.expect_response(re.compile("/visit/people")):
        tab.locator("[data-instance]").first.uncheck()
    assert not hole_of(tab)[everyone].all()
    assert tab.locator(".people img").evaluate("(img) => img.decode().then(() => img.naturalWidth)") == 512


def test_two_tabs_show_the_same_hole(tab, page):
    with_example(tab)
    second = opened(tab.context, page)
    second.locator("mask-editor canvas").wait_for()
    before = hole_of(tab).sum()
    canvas = tab.locator("mask-editor canvas")
    canvas.scroll_into_view_if_needed()
    drag(tab, canvas, (0.7, 0.7), (0.8, 0.8))
    wait_for(lambda: hole_of(second).sum() > before)
    wait_for(lambda: second.evaluate(MARKED) == hole_of(second).sum())


def test_a_hole_is_marked_with_the_keyboard_alone(tab):
    left = skimage.data.stereo_motorcycle()[0]
    tab.locator("photo-drop input").first.set_input_files(file(left))
    canvas = tab.locator("mask-editor canvas")
    canvas.wait_for()
    canvas.focus()
    for key in ("ArrowRight", "Shift+ArrowDown", "]", "Space"):
        canvas.press(key)
    wait_for(lambda: state(tab)["mask"] > 0)
    assert hole_of(tab).any()
    canvas.press("Control+z")
    wait_for(lambda: not hole_of(tab).any())


def test_the_canvas_grows_with_the_sliders(tab):
    with_example(tab)
    tab.locator("summary", has_text="Outpaint").click()
    slider = tab.get_by_label("grow left, percent of the photo")
    width = tab.locator("mask-editor canvas").evaluate("(c) => c.width / c.height")
    slider.fill("50")
    tab.locator("mask-editor canvas").wait_for()
    assert tab.locator("mask-editor canvas").evaluate("(c) => c.width / c.height") == pytest.approx(1.5 * width, 0.02)
    wait_for(lambda: "data-left" in tab.evaluate("fetch('/visit/parts/hole').then((r) => r.text())"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off_and_text_is_readable(visitors, page, scheme):
    tab = opened(visitors(viewport={"width": 390, "height": 844}, color_scheme=scheme), page)
    with_example(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    for text in (
        "photo-drop b",
        ".fine",
        ".thumbs span",
        "mask-editor .tools label",
        "mask-editor select",
        "[data-engine]",
        ".rf button",
    ):
        assert tab.locator(text).first.evaluate(CONTRAST) >= 4.5, text


def test_every_control_has_a_name_for_screen_readers(tab):
    with_example(tab)
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, progress, img")]
        .filter((e) => e.offsetParent && !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()
            || e.getAttribute("alt") !== null || e.title)).map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
