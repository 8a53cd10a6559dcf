"""Take the pictures of the guide to the web page, from the real page on the demo's scene, by Debian's chromium.

    OMP_NUM_THREADS=1 python examples/app_screenshots.py docs/guides

It needs `pip install realfill[app] playwright` and a chromium on the path, and takes two minutes on two CPU cores. The
fit has few steps, because the pictures show the page and not what a fit can do.
"""

import argparse
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from realfill.app.page.server import Page, PageOptions

SIZE = {"width": 1000, "height": 1000}
PHONE = {"width": 390, "height": 760}
WAIT_MS = 300_000
COLOURS = 160


def main() -> None:
    """Serve the page, walk through it, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", type=Path, help="folder for app_mark.png, app_fit.png, app_results.png, app_phone.png"
    )
    parser.add_argument("--num-steps", type=int, default=40, help="optimizer steps of the fit (default: 40)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        page = Page(PageOptions(work=Path(work), preview_every_s=5.0))
        server = page.make_server(0)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.1)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            context = browser.new_context(viewport=SIZE, color_scheme="light")
            context.set_default_timeout(WAIT_MS)
            tab = context.new_page()
            walk(tab, address, arguments.folder, arguments.num_steps)
            key = context.cookies()
            phone = browser.new_context(viewport=PHONE, color_scheme="dark", device_scale_factor=1.5)
            phone.add_cookies(key)
            shot_on_phone(phone.new_page(), address, arguments.folder)
        finally:
            browser.close()
            server.should_exit = True
            thread.join()


def walk(tab: Tab, address: str, folder: Path, num_steps: int) -> None:
    """Take the example, fill it quickly, fit it, and show the results."""
    tab.goto(address)
    tab.get_by_role("button", name="Try the example").click()
    tab.locator("mask-editor canvas").wait_for()
    tab.locator("job-status:empty").wait_for(state="attached")
    time.sleep(1)
    shoot(tab, "visit-part[name=photos]", folder / "app_mark.png")
    tab.get_by_role("button", name="Coverage and quick result").click()
    tab.locator("result-viewer").wait_for()
    tab.get_by_label("Steps").fill(str(num_steps))
    tab.get_by_role("button", name="Fit and complete").click()
    tab.get_by_role("img", name="preview of the fit").wait_for()
    tab.locator("job-status", has_text=re.compile(r"step ([89]|\d\d) of")).wait_for()
    time.sleep(1.5)
    shoot(tab, ".rf-fill", folder / "app_fit.png")
    tab.get_by_text(f"Fit of mini, {num_steps} steps").wait_for()
    time.sleep(1.5)
    shoot(tab, "visit-part[name=results]", folder / "app_results.png")


def shot_on_phone(tab: Tab, address: str, folder: Path) -> None:
    """Show the results on a phone in the dark."""
    tab.goto(address)
    tab.locator("before-after").wait_for(timeout=WAIT_MS)
    time.sleep(2)
    shoot(tab, "visit-part[name=results]", folder / "app_phone.png")


def shoot(tab: Tab, selector: str, path: Path) -> None:
    """Take a picture of the window with an element at its top, in few colours, so that the file is small."""
    tab.locator(selector).first.evaluate("(e) => { e.scrollIntoView(); window.scrollBy(0, -60); }")
    time.sleep(0.5)
    tab.screenshot(path=path)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
