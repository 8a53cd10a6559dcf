"""The jobs give what the library gives, keep what there is when they are stopped, and survive a restart."""

import json
import shutil
import zipfile

import cv2
import numpy as np
import pytest
from helpers import TINY_FIT
from PIL import Image

from realfill import FitConfig, SampleConfig, complete, fit
from realfill.app.page.holes import set_margins
from realfill.app.page.jobs import CancelledError, Job
from realfill.app.page.records import RefusedError
from realfill.app.page.visits import Visits
from realfill.app.page.work import FitOptions, Workshop, save_download
from realfill.errors import SceneError

pytestmark = pytest.mark.filterwarnings("ignore::realfill.errors.RealFillWarning")


@pytest.fixture
def workshop():
    return Workshop(device="cpu", local_files_only=True)


def make_job(**values):
    return Job(owner="a", title="test", work=print, **values)


def image_of(visit, number, place=0):
    record = json.loads((visit.round_folder(number) / "scores.json").read_text())["completions"][place]
    return np.asarray(Image.open(visit.round_folder(number) / record["file"]))


def test_the_quick_result_is_the_librarys_and_tells_the_coverage(scene_visit, scene, workshop):
    workshop.quick(scene_visit, make_job(), "telea")
    (found,) = scene_visit.rounds
    expected = complete(scene, "telea", device="cpu", progress=False)
    assert np.array_equal(image_of(scene_visit, found.number), expected.best.image)
    assert scene_visit.coverage == f"The references show {100 * expected.evidence.coverage:.0f} % of the hole."
    assert (found.kind, found.size, scene_visit.selection) == ("quick", (64, 80), "")


def test_without_references_the_engine_fills_the_hole(scene_visit, workshop):
    with scene_visit.changed():
        scene_visit.references.clear()
    workshop.quick(scene_visit, make_job(), "telea")
    assert scene_visit.coverage == "" and len(scene_visit.rounds) == 1


@pytest.fixture(scope="module")
def base(tiny_sd, tmp_path_factory):
    """The tiny base model, whose card asks for a tiny fit, two steps of sampling, and a ranking without weights."""
    folder = tmp_path_factory.mktemp("page") / "base"
    shutil.copytree(tiny_sd, folder)
    card = json.loads((folder / "card.json").read_text()) if (folder / "card.json").is_file() else {}
    card |= {"fit": TINY_FIT, "sample": {"num_inference_steps": 2}, "rank": {"score_by": "warped_references"}}
    (folder / "card.json").write_text(json.dumps(card))
    return str(folder)


@pytest.fixture
def options(base):
    """A fit of three tiny steps, with a preview as soon as one is due."""
    return FitOptions(base=base, num_steps=None, num_samples=2, preview_every_s=0.0)


def test_a_fit_with_previews_ends_as_one_without(scene_visit, scene, workshop, options, base):
    job = make_job(can_stop=True)
    workshop.fit(scene_visit, job, options)
    adapter = fit(scene, FitConfig(base=base), device="cpu", progress=False)
    expected = complete(scene, adapter, SampleConfig(num_samples=2), device="cpu", progress=False)
    assert job.preview >= 1 and (scene_visit.folder / "preview.jpg").is_file()
    assert job.losses == list(adapter.losses)
    (found,) = scene_visit.rounds
    for place, completion in enumerate(expected):
        assert np.array_equal(image_of(scene_visit, found.number, place), completion.image)
    assert scene_visit.has_adapter


def test_a_fit_that_is_stopped_completes_with_what_it_learnt(scene_visit, workshop, options):
    stopping = StoppingJob(owner="a", title="fit", work=print, can_stop=True)
    workshop.fit(scene_visit, stopping, options)
    (found,) = scene_visit.rounds
    assert found.title.endswith("1 steps, stopped after 1 steps") and len(stopping.losses) == 1
    assert len(json.loads((scene_visit.round_folder(found.number) / "scores.json").read_text())["completions"]) == 2


class StoppingJob(Job):
    """Its visitor presses Stop after the first step of the fit."""

    def on_step(self, progress):
        if progress.phase == "fit" and progress.step == 1:
            self.stopping = True
        return super().on_step(progress)


class CancellingJob(Job):
    """Its visitor presses Cancel after the first step of the fit."""

    def on_step(self, progress):
        if progress.phase == "fit":
            self.cancelled = True
        return super().on_step(progress)


def test_a_fit_that_is_cancelled_leaves_no_result(scene_visit, workshop, options):
    with pytest.raises(CancelledError):
        workshop.fit(scene_visit, CancellingJob(owner="a", title="fit", work=print), options)
    assert scene_visit.rounds == [] and not scene_visit.has_adapter


def test_a_part_is_sampled_again_and_the_rest_stays(scene_visit, scene, workshop, options):
    workshop.fit(scene_visit, make_job(), options)
    (first,) = scene_visit.rounds
    part = cv2.circle(np.zeros((64, 80), np.uint8), (40, 30), 6, 1, -1) > 0
    workshop.redo(scene_visit, make_job(), (first.number, 1), part, base="unused", num_samples=1)
    second = scene_visit.rounds[1]
    before, after = image_of(scene_visit, first.number, 1), image_of(scene_visit, second.number)
    assert np.array_equal(before[~part], after[~part]) and not np.array_equal(before[part], after[part])
    again = Workshop(device="cpu")
    visit = Visits(scene_visit.folder.parent).resumable()[0]
    assert np.array_equal(again.results(visit, second.number).best.image, after)


def test_a_result_of_other_photos_is_not_redone(scene_visit, scene, workshop):
    workshop.quick(scene_visit, make_job(), "telea")
    with scene_visit.changed():
        scene_visit.scene_changed()
    with pytest.raises(RefusedError, match="have changed since"):
        workshop.redo(
            scene_visit, make_job(), (scene_visit.rounds[0].number, 0), scene.mask, base="mini", num_samples=1
        )


def test_downloads_keep_the_known_pixels(scene_visit, scene, workshop, tmp_path):
    workshop.quick(scene_visit, make_job(), "telea")
    results = Workshop(device="cpu").results(scene_visit, scene_visit.rounds[0].number)
    for kind in ("png", "tif", "jpg", "ora"):
        path = tmp_path / f"download.{kind}"
        save_download(results, 0, path)
        difference = np.abs(opened(path).astype(int) - scene.target)[~scene.mask]
        assert difference.max() == 0 if kind != "jpg" else difference.mean() < 4
    assert not list(tmp_path.glob("*.partial*"))


def opened(path):
    if path.suffix == ".ora":
        with zipfile.ZipFile(path) as layers, layers.open("mergedimage.png") as stream:
            return np.asarray(Image.open(stream).convert("RGB"))
    return np.asarray(Image.open(path).convert("RGB"))


def test_margins_make_a_larger_canvas_around_the_exact_target(scene_visit, scene, workshop):
    set_margins(scene_visit, {"left": 0.25, "right": 0, "top": 0, "bottom": 0.125})
    workshop.quick(scene_visit, make_job(), "smooth")
    (found,) = scene_visit.rounds
    image = image_of(scene_visit, found.number)
    assert found.size == image.shape[:2] == (72, 100)
    assert np.array_equal(image[:64, 20:][~scene.mask], scene.target[~scene.mask])


def test_warnings_of_the_library_are_shown(scene_visit, workshop, monkeypatch):
    from realfill.errors import warn

    def complete_with_warning(*_, **__):
        warn("the mask looks inverted")
        raise SceneError("no")

    monkeypatch.setattr("realfill.app.page.work.complete", complete_with_warning)
    with pytest.raises(SceneError):
        workshop.quick(scene_visit, make_job(), "telea")
    assert "the mask looks inverted" in scene_visit.notes


def test_of_many_references_the_page_names_those_that_a_fit_learns_from(scene_visit, workshop, monkeypatch):
    monkeypatch.setattr("realfill.app.page.work.MAX_FIT_REFERENCES", 1)
    monkeypatch.setattr("realfill.pipeline.references.MAX_FIT_REFERENCES", 1)
    workshop.examine(scene_visit, make_job())
    assert scene_visit.selection.startswith("the fit learns from 1 of 2 references")


def test_a_scene_whose_saving_was_interrupted_is_saved_again(scene_visit, scene, workshop, monkeypatch):
    from realfill import Scene

    save = Scene.save

    def interrupted(self, folder):
        save(self, folder)
        (folder / "target" / "mask.png").unlink()
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Scene, "save", interrupted)
        with pytest.raises(OSError, match="killed"):
            workshop.quick(scene_visit, make_job(), "telea")
    workshop.quick(scene_visit, make_job(), "telea")
    (found,) = scene_visit.rounds
    np.testing.assert_array_equal(workshop.results(scene_visit, found.number).scene.mask, scene.mask)
