"""The panel, driven without a browser: its controls do the whole job, and whatever goes wrong stays beside them."""

import datetime as dt
import json
import re
import subprocess
import sys

import ipywidgets as widgets
import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

import realfill.app
from realfill import RankConfig, SampleConfig
from realfill.app import panel
from realfill.errors import MissingDependencyError
from realfill.io.metadata import read_provenance
from realfill.io.writing import write_png
from realfill.segmentation.instances import Instance, Instances


@pytest.fixture
def make_panel(tiny_fit, tmp_path, monkeypatch):
    """Make panels whose fit has three steps; their log goes to the test's folder."""
    monkeypatch.chdir(tmp_path)
    sample = SampleConfig(num_samples=2, num_inference_steps=2)
    return lambda *args, **options: panel(
        *args, fit=tiny_fit, sample=sample, rank=RankConfig(matcher="sift"), device="cpu", **options
    )


@pytest.fixture
def p(make_panel, scene):
    """A panel that starts from the small scene."""
    return make_panel(scene)


def press(p, button):
    """Press a button and wait for the job that it starts."""
    before = p.flow.job
    button.click()
    if p.flow.job is not before:
        assert p.flow.job.wait(60)


def upload(control, name, content):
    now = dt.datetime.now(dt.UTC)
    control.value = (
        {"name": name, "type": "image/png", "size": len(content), "content": content, "last_modified": now},
    )  # fmt: skip


def png(image, path):
    write_png(path, image)
    return path.read_bytes()


def stroke(surface, tool, *points):
    surface.strokes.value = json.dumps([{"id": np.random.random(), "tool": tool, "points": points}])


def test_the_whole_job_from_uploads_to_a_downloaded_png(make_panel, tmp_path):
    p, photo = make_panel(), make_photo(64, 80)
    upload(p.photos.target_upload, "me.png", png(photo, tmp_path / "a.png"))
    upload(p.photos.references_upload, "other.png", png(make_photo(70, 90, 1), tmp_path / "b.png"))
    p.hole.across.value, p.hole.down.value = (30, 50), (20, 40)
    p.hole.add_box.click()
    assert p.hole.summary.text == "Missing: 7.8 % of the photo (1 box)."
    press(p, p.work.see)
    assert p.work.coverage.text.startswith("The references show 0 % of the hole: ")
    press(p, p.work.quick)
    assert len(p.completions) == 1 and p.adapter is None
    press(p, p.work.fit)
    assert p.work.status.text.startswith("2 results are below, the best first. Note: no keypoint in any filled region")
    assert "<svg" in p.work._curve.value
    assert len(p.completions) == 2 and len(p.adapter.losses) == 3
    titles = [text for text, _ in p.outcome.which.options]
    assert titles[0] == "1. Quick result (telea)" and titles[1].startswith("2. Fit of ")
    p.outcome.cells[1].click()
    p.outcome.link.click()
    link = re.search(r'download="(realfill-2-2.png)" href="data:image/png;base64,([^"]+)"', p.outcome._anchor.value)
    path = tmp_path / link[1]
    path.write_bytes(__import__("base64").b64decode(link[2]))
    saved = np.asarray(Image.open(path))
    assert (saved == photo)[~p.scene.mask].all()
    assert (saved == p.completions[1].image).all()
    assert read_provenance(path)["seed"] == p.completions[1].seed


def test_every_format_is_offered_and_everything_is_saved_once(p, tmp_path):
    press(p, p.work.quick)
    for _, suffix in p.outcome.suffix.options:
        p.outcome.suffix.value = suffix
        p.outcome.link.click()
        assert f"realfill-1-1{suffix}" in p.outcome._anchor.value
    p.outcome.save.click()
    assert p.outcome.save_note.text.startswith("No folder is named")
    p.outcome.folder.value = str(tmp_path / "out")
    p.outcome.save.click()
    assert p.outcome.save_note.text == f"1 result is in {tmp_path / 'out'}."
    assert (tmp_path / "out" / "scores.json").is_file()
    p.outcome.save.click()
    assert "wrong" in p.outcome.save_note.value and "already holds" in p.outcome.save_note.text


def test_strokes_of_the_browser_mark_rub_out_and_draw_boxes_once(make_panel):
    p = make_panel(target=make_photo(60, 80))
    stroke(p.hole.surface, "box", [0.25, 0.5], [0.5, 0.75])
    assert p.flow.choice.require_hole().reading().mask.sum() == 20 * 15
    p.hole.surface.strokes.value += " "  # the same strokes once more
    assert len(p.flow.choice.require_hole().boxes) == 1
    stroke(p.hole.surface, "rubber", [0.375, 0.625])
    assert not p.flow.choice.require_hole().reading().mask[37, 30]
    stroke(p.hole.surface, "brush", [0.9, 0.1])
    assert p.flow.choice.require_hole().reading().mask[6, 72]
    for nonsense in ("[", "{}", '[{"id": 1}]', '[{"id": 2, "tool": "brush", "points": [["a", 1]]}]', "null"):
        before = p.hole.summary.text
        p.hole.surface.strokes.value = nonsense
        assert p.hole.summary.text == before


def test_strokes_on_a_larger_canvas_lie_where_they_were_drawn(make_panel):
    p = make_panel(target=make_photo(60, 80))
    p.hole.sides["left"].value = 50
    stroke(p.hole.surface, "box", [0.5, 0.5], [0.75, 0.75])  # of a canvas that is 120 pixels wide
    mask = p.flow.choice.require_hole().reading().mask
    assert np.argwhere(mask).min(axis=0).tolist() == [30, 20]
    assert p.scene.target.shape == (60, 120, 3)
    assert "120 x 60" in p.hole.summary.text


def test_people_are_ticked_or_picked_and_everyone_but_them_can_go(make_panel, monkeypatch):
    mask = np.zeros((2, 60, 80), bool)
    mask[0, 10:40, 10:30], mask[1, 20:40, 50:60] = True, True
    people = [Instance.of_mask(m, name="person", score=1, detector="hand") for m in mask]
    found = Instances.ordered(people, size=(60, 80), detector="hand", threshold=0.5)
    monkeypatch.setattr("realfill.segmentation.detection.find_instances", lambda *_, **__: found)
    p = make_panel(target=make_photo(60, 80))
    press(p, p.hole.find)
    assert p.hole.people_note.text.startswith("Found 2 with hand.")
    assert [tick.description for tick in p.hole.ticks] == ["0: person", "1: person"]
    p.hole.ticks[1].value = True
    assert p.scene.mask[30, 55] and not p.scene.mask[20, 20]
    p.hole.rule.value = p.hole.rule.options[1]
    assert not p.scene.mask[30, 55] and p.scene.mask[20, 20]
    stroke(p.hole.surface, "pick", [0.25, 0.33])
    assert p.hole.ticks[0].value
    assert "everything that was found is kept" in p.hole.note.text.lower()


def test_wrong_files_and_values_are_sentences_beside_their_controls(make_panel, tmp_path):
    p = make_panel()
    p.work.fit.click()
    assert p.work.note.text == "There is no photo to complete; choose one first."
    upload(p.photos.target_upload, "notes.txt", b"hello")
    assert p.photos.target_note.text.startswith("Notes.txt: this is no image in a known format; legal: a photo as")
    p.photos.target_path.value = str(tmp_path / "missing.png")
    assert "there is no file" in p.photos.target_note.text.lower()
    upload(p.photos.target_upload, "me.png", png(make_photo(60, 80), tmp_path / "a.png"))
    assert p.photos.target_note.text == ""
    upload(p.hole.mask_upload, "mask.png", png(make_photo(60, 80, 5), tmp_path / "m.png"))
    assert "the mask looks like a photo" in p.hole.mask_note.text.lower()
    p.hole.across.value, p.hole.down.value = (10, 10), (0, 10)
    p.hole.add_box.click()
    assert "has no pixel in the photo" in p.hole.note.text
    p.work.see.click()
    assert p.work.note.text == "Nothing is marked as missing; mark it first."
    p.work.num_steps.value = -5
    assert p.work.num_steps.value == 0
    assert not list(tmp_path.glob("*.log"))


def test_stop_ends_the_fit_and_what_is_learnt_is_used(p):
    step = type(p.flow).on_change if hasattr(type(p.flow), "on_change") else p.flow.on_change

    def stop_soon():
        step()
        if p.flow.job.is_active and p.flow.job.losses:
            p.work.stop.click()

    p.flow.on_change = stop_soon
    press(p, p.work.fit)
    assert p.flow.job.state == "stopped"
    assert p.work.status.text.startswith("Stopped after step ")
    assert p.work.stop.disabled and not p.work.fit.disabled and not p.work.more.disabled
    p.flow.on_change = step
    press(p, p.work.more)
    assert len(p.completions) == 2


def test_a_part_is_redone_with_brush_or_box(p, scene):
    press(p, p.work.quick)
    before = p.completions.best.image
    p.outcome.redo.click()
    assert p.outcome.note.text.startswith("No part is marked")
    p.outcome.across.value, p.outcome.down.value = (30, 45), (25, 30)
    p.outcome.add_box.click()
    press(p, p.outcome.redo)
    part = np.zeros(scene.mask.shape, bool)
    part[25:30, 30:45] = True
    after = p.completions.best.image
    assert (after == before)[~(part & scene.mask)].all()
    assert (after != before)[part & scene.mask].any()


def test_an_unexpected_error_names_the_log_and_the_panel_goes_on(p, tmp_path, monkeypatch):
    monkeypatch.setattr("realfill.app.flow.work.complete_quickly", lambda *_: 1 / 0)
    press(p, p.work.quick)
    assert "ZeroDivisionError" in p.work.status.text
    (log,) = tmp_path.glob("realfill-error-*.log")
    assert str(log) in p.work.status.text
    assert "complete_quickly" in log.read_text()
    monkeypatch.undo()
    press(p, p.work.see)
    assert p.flow.job.state == "done"


def test_a_panel_goes_on_from_its_output_folder(make_panel, scene, tmp_path):
    press(first := make_panel(scene, output=tmp_path / "out"), first.work.quick)
    again = make_panel(output=tmp_path / "out")
    assert (again.scene.mask == scene.mask).all()
    assert (again.completions.best.image == first.completions.best.image).all()
    assert again.outcome.cells


def test_arguments_that_contradict_each_other_are_refused(scene):
    with pytest.raises(ValueError, match="scene and demo are given; legal: one of"):
        panel(scene, demo=True)


def test_every_picture_has_a_text_and_every_control_a_label(p):
    press(p, p.work.quick)

    def all_of(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from all_of(child)

    for widget in all_of(p):
        if isinstance(widget, widgets.HTML):
            assert all('alt="' in image for image in re.findall(r"<img [^>]*>", widget.value))
        elif isinstance(widget, widgets.ValueWidget) and widget is not p.hole.surface.strokes:
            hidden = widget.layout.display == "none"
            named = widget.description or isinstance(widget, widgets.ToggleButtons | widgets.FloatProgress)
            assert hidden or named, widget


def test_without_ipywidgets_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'realfill\[notebook\]'"):
        _ = realfill.app.panel


def test_importing_the_package_loads_neither_torch_nor_ipywidgets():
    code = "import sys, realfill.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ipywidgets", "cv2", "numpy"} & set(done.stdout.split())
