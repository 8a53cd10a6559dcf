"""Take docs/panel.jpg: run the panel on the demo's scene in JupyterLab, in a browser without a window.

It needs ``pip install jupyterlab ipywidgets playwright`` and Debian's chromium::

    python examples/panel_picture.py docs/panel.jpg
"""

import argparse
import io
import json
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

CODE = """from realfill import FitConfig, SampleConfig
from realfill.app import panel

p = panel(demo=True, fit=FitConfig(base="mini", num_steps=20, batch_size=4), sample=SampleConfig(num_samples=3))
p"""
WIDTH_PX, HEIGHT_PX, SHOWN_PX = 1000, 2900, 700
PORT = 8898
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def start_lab(folder: Path, token: str) -> subprocess.Popen:
    """Start JupyterLab on a notebook with one cell."""
    cell = {"cell_type": "code", "execution_count": None, "id": "0", "metadata": {}, "outputs": [], "source": CODE}
    notebook = {"cells": [cell], "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "panel.ipynb").write_text(json.dumps(notebook))
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={PORT}"]
    command += [f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own words


def wait_for_lab(token: str) -> None:
    """Wait until the server answers."""
    for _ in range(120):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api?token={token}").close()
        except urllib.error.URLError:
            time.sleep(1)
        else:
            return
    raise TimeoutError("JupyterLab did not start")


def run_panel(page: Page, token: str) -> bytes:
    """Run the cell, fit, and take a picture of the panel."""
    page.set_default_timeout(600_000)
    page.goto(f"http://127.0.0.1:{PORT}/lab/tree/panel.ipynb?token={token}&reset")
    page.wait_for_selector(".jp-Notebook .cm-content")
    page.get_by_text("| Idle").wait_for()
    if page.is_visible(".jp-FileBrowser"):
        page.keyboard.press("Control+b")
    page.click(".jp-Notebook .cm-content")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".realfill-panel .realfill-surface")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.wait_for_selector(".realfill-panel .realfill-pair")
    time.sleep(3)
    box = page.locator(".realfill-panel").bounding_box()
    assert box is not None
    size = {
        "x": box["x"],
        "y": box["y"],
        "width": box["width"],
        "height": min(box["height"], HEIGHT_PX - box["y"] - 40),
    }
    return page.screenshot(clip=size)


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the picture, a JPEG")
    output, token = parser.parse_args().output, secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as folder:
        lab = start_lab(Path(folder), token)
        try:
            wait_for_lab(token)
            with sync_playwright() as playwright:
                options = {"executable_path": "/usr/bin/chromium", "args": ["--no-sandbox"]}
                browser = playwright.chromium.launch(**options)
                taken = run_panel(browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX}), token)
                browser.close()
        finally:
            lab.terminate()
            lab.wait()
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    picture = picture.resize((SHOWN_PX, round(picture.height * SHOWN_PX / picture.width)), Image.Resampling.LANCZOS)
    picture.save(output, quality=70, optimize=True)


if __name__ == "__main__":
    main()
