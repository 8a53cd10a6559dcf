"""The jobs of a visit keep their results as files, which survive a restart, and say what became of them."""

import json
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from realfill import complete
from realfill.app.page import orders
from realfill.app.page import visits as module
from realfill.app.page.gallery import save_download
from realfill.errors import warn

pytestmark = pytest.mark.filterwarnings("ignore::realfill.errors.RealFillWarning")


def done(job):
    assert job.wait(60)
    return job


def image_of(result, place=0):
    record = json.loads((result.folder / "scores.json").read_text())["completions"][place]
    return np.asarray(Image.open(result.folder / record["file"]))


def test_the_quick_result_is_the_librarys_and_tells_the_coverage(scene_visit, scene):
    done(scene_visit.flow.quick("telea"))
    (result,) = scene_visit.flow.results
    expected = complete(scene, "telea", device="cpu", progress=False)
    assert np.array_equal(image_of(result), expected.best.image)
    (line,) = scene_visit.coverage
    assert line.startswith(f"The references show {100 * expected.evidence.coverage:.0f} % of the hole: ")
    assert result.title == "Quick result (telea)" and scene_visit.outcome == (
        "Quick result",
        "The quick result is below.",
    )
    assert {path.name for path in result.folder.iterdir()} >= {"before.png", "thumb-0.jpg", "scores.json"}


def test_a_fit_and_a_part_of_it_survive_a_restart(scene_visit, visits):
    job = done(scene_visit.flow.fit(samples_if_stopped=True))
    assert job.num_previews >= 1 and len(job.losses) == 3
    (first,) = scene_visit.flow.results
    part = cv2.circle(np.zeros((64, 80), np.uint8), (40, 30), 6, 1, -1) > 0
    again = visits._open(scene_visit.folder)
    job = done(again.flow.redo(again.flow.results[0], 1, part))
    assert job.state == "done", job.message
    second = again.flow.results[1]
    before, after = image_of(first, 1), image_of(second)
    assert np.array_equal(before[~part], after[~part]) and not np.array_equal(before[part], after[part])
    assert [result.title for result in visits._open(scene_visit.folder).flow.results] == [first.title, second.title]
    assert len(list((scene_visit.folder / "work").glob("*/scene"))) == 1  # the photos are the same, and so is the fit
    provenance = json.loads((second.folder / "scores.json").read_text())["provenance"]
    assert provenance["fit"]["num_steps"] == 3


def test_a_fit_that_is_stopped_completes_with_what_it_learnt(scene_visit):
    flow = scene_visit.flow
    follow, stopped = flow.on_change, []

    def stop():
        follow()
        if flow.job.losses and not stopped:
            stopped.append(True)
            flow.stop()

    flow.on_change = stop
    job = flow.fit(samples_if_stopped=True)
    done(job)
    (result,) = flow.results
    assert job.state == "done" and result.title.endswith(" steps, stopped") and result.count == 2


def test_a_fit_that_is_cancelled_leaves_no_result(scene_visit):
    flow = scene_visit.flow
    flow.on_change = lambda: flow.cancel() if flow.job.losses else None
    job = done(flow.fit(samples_if_stopped=True))
    assert (job.state, job.message) == ("stopped", "Cancelled.")
    assert (
        list(flow.results) == []
        and flow.results.adapter is None
        and not list(scene_visit.folder.glob("work/*/adapter"))
    )


def test_downloads_keep_the_known_pixels(scene_visit, scene):
    done(scene_visit.flow.quick("telea"))
    (result,) = scene_visit.flow.results
    for kind in ("png", "tif", "jpg", "ora"):
        path = save_download(result, 0, kind)
        difference = np.abs(opened(path).astype(int) - scene.target)[~scene.mask]
        assert difference.max() == 0 if kind != "jpg" else difference.mean() < 4
    assert not list(result.folder.glob("*.partial*"))


def opened(path):
    if path.suffix == ".ora":
        with zipfile.ZipFile(path) as layers, layers.open("mergedimage.png") as stream:
            return np.asarray(Image.open(stream).convert("RGB"))
    return np.asarray(Image.open(path).convert("RGB"))


def test_margins_make_a_larger_canvas_around_the_exact_target(scene_visit, scene):
    with scene_visit.scene_changed() as choice:
        choice.set_margins(left=0.25, bottom=0.125)
    done(scene_visit.flow.quick("smooth"))
    image = image_of(scene_visit.flow.results[0])
    assert image.shape[:2] == (72, 100)
    assert np.array_equal(image[:64, 20:][~scene.mask], scene.target[~scene.mask])


def test_warnings_and_failures_are_shown(scene_visit, monkeypatch):
    def fail(*_):
        warn("the mask looks inverted")
        raise KeyError("a bug")

    monkeypatch.setattr("realfill.app.flow.work.complete_quickly", fail)
    job = done(scene_visit.flow.quick("telea"))
    assert "the mask looks inverted" in scene_visit.notes
    assert job.state == "failed" and "a bug" not in job.message
    (log,) = (scene_visit.folder.parent.parent / "logs").iterdir()
    assert f"logs/{log.name}" in job.message and "KeyError: 'a bug'" in log.read_text()


def test_of_many_references_the_page_names_those_that_a_fit_learns_from(scene_visit, monkeypatch):
    monkeypatch.setattr("realfill.app.flow.work.MAX_FIT_REFERENCES", 1)
    monkeypatch.setattr("realfill.pipeline.references.MAX_FIT_REFERENCES", 1)
    done(scene_visit.flow.examine())
    assert scene_visit.coverage[1].startswith("The fit learns from 1 of 2 references")


def test_a_damaged_visit_starts_anew_with_its_results(scene_visit, visits):
    done(scene_visit.flow.quick("smooth"))
    (scene_visit.folder / "hole.npz").write_bytes(b"no hole")
    assert visits.resumable(1) == []
    visits._visits.clear()
    key = visits.new_key()
    scene_visit.folder.rename(visits.folder / module._name(key))
    again = visits.find(key)
    assert again.photos.target is None and [result.count for result in again.flow.results] == [1]
    assert len(list((again.folder / "photos").iterdir())) > 0


def test_a_job_takes_over_the_memory_of_idle_visits(scene_visit, visits, upload, scene):
    done(scene_visit.flow.quick("smooth"))
    assert scene_visit.flow.choice.current is not None
    other = visits.find(visits.new_key())
    upload(other, scene.target)
    with other.hole_changed() as hole:
        hole.add(scene.mask)
    other.engine = "smooth"
    orders.quick(visits, other)
    done(other.flow.job)
    assert scene_visit.flow.choice.current is None and other.flow.choice.current is not None


def test_the_number_of_steps_and_results_are_those_that_are_ordered(scene_visit, visits):
    orders.fit(visits, scene_visit, 2, 1)
    job = done(scene_visit.flow.job)
    assert job.state == "done", job.message
    assert scene_visit.flow.results[0].title.endswith(", 2 steps") and scene_visit.flow.results[0].count == 1
