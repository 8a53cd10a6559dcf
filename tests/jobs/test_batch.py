"""A batch: what fails does not stop the rest, what is done is not done again, and a table says what became of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import make_photo
from PIL import ExifTags, Image
from recorder import Recorder

from realfill import Scene, run_batch
from realfill.config import RankConfig, SampleConfig
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.errors import OutputError, SceneError
from realfill.jobs.sources import find_items
from realfill.jobs.work import PhotoJob, SceneJob
from realfill.segmentation.instances import Instance


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("b10.png", "b2.png", "bad.png"):
        Image.fromarray(make_photo(40, 50, 0)).save(tmp_path / "in" / name)
    return tmp_path / "in"


def calls(output):
    return (output / "calls.txt").read_text().split()


def run(folder, output, **options):
    return run_batch([folder], output, photos=options.pop("photos", Recorder()), progress=False, **options)


def test_what_fails_does_not_stop_the_rest(folder, tmp_path):
    report = run(folder, tmp_path / "out")
    assert [(o.name, o.state) for o in report.outcomes] == [
        ("b2.png", "done"),
        ("b10.png", "done"),
        ("bad.png", "failed"),
    ]
    assert report.of("failed")[0].line == "this one is bad"
    table = report.table()
    assert "2 done, 0 unchanged, 1 failed, 0 left" in table and "made of b2.png" in table


def test_the_same_call_does_only_what_is_not_done(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out)
    Image.fromarray(make_photo(40, 50, 1)).save(folder / "b2.png")  # changed
    (folder / "bad.png").rename(folder / "good.png")
    report = run(folder, out)
    assert calls(out) == ["b2.png", "b10.png", "b2.png", "good.png"]
    assert [o.earlier for o in report.outcomes] == [False, True, False]
    (out / "b10.png").unlink()
    run(folder, out)
    assert calls(out)[-1] == "b10.png"
    run(folder, out, overwrite=True)
    assert len(calls(out)) == 8


def test_other_settings_need_another_folder(folder, tmp_path):
    run(folder, tmp_path / "out")
    with pytest.raises(OutputError, match="holds a batch with other settings for each photo"):
        run(folder, tmp_path / "out", photos=Recorder(mark="y"))
    assert run(folder, tmp_path / "out", photos=Recorder(mark="y"), overwrite=True).of("done")


def test_a_batch_that_is_ended_leaves_the_rest_and_resumes(folder, tmp_path):
    (folder / "bad.png").rename(folder / "a_stop.png")
    report = run(folder, tmp_path / "out")
    assert [o.state for o in report.outcomes] == ["left", "left", "left"]
    (folder / "a_stop.png").rename(folder / "c.png")
    assert len(run(folder, tmp_path / "out").of("done")) == 3


def test_several_processes_survive_one_that_is_killed(folder, tmp_path):
    (folder / "bad.png").rename(folder / "kill.png")
    report = run(folder, tmp_path / "out", processes=2)
    states = {o.name: o.state for o in report.outcomes}
    assert states == {"b2.png": "done", "b10.png": "done", "kill.png": "failed"}
    assert "its process was killed" in report.of("failed")[0].line


def test_items_are_photos_scenes_and_folders_of_them(folder, tmp_path, scene):
    scene.save(tmp_path / "scenes" / "one")
    (folder / "notes.txt").write_text("x")
    with pytest.warns(match="notes.txt"):
        items = find_items([tmp_path / "scenes", folder, folder / "bad.png"], tmp_path / "out", file_format="jpeg")
    assert [(i.kind, i.name) for i in items] == [
        ("scene", "one"), ("photo", "b2.jpg"), ("photo", "b10.jpg"), ("photo", "bad.jpg"),
    ]  # fmt: skip
    Image.fromarray(make_photo(40, 50, 0)).save(folder / "b2.jpg")
    with pytest.warns(match="notes.txt"):
        names = [i.name for i in find_items([folder], tmp_path / "out")]
    assert sorted(names) == ["b10.png", "b2.jpg.png", "b2.png.png", "bad.png"]


def test_bad_arguments_are_refused(folder, tmp_path):
    with pytest.raises(SceneError, match="there is no file and no folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match="there is no photo and no scene"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match="processes is 0"):
        run(folder, tmp_path / "out", processes=0)


def test_photos_are_erased_and_scenes_completed(folder, tmp_path, scene, tiny_fit):
    scene.save(tmp_path / "scenes" / "one")
    with pytest.warns(match="no keypoint in any filled region"):
        report = run_batch(
            [folder / "b2.png", tmp_path / "scenes"], tmp_path / "out", progress=False,
            photos=PhotoJob(selection=SelectionConfig(fill_box=("10,10,30,30",)), erase=EraseConfig(engine="smooth")),
            scenes=SceneJob(
                fit=tiny_fit, sample=SampleConfig(num_samples=1, num_inference_steps=2),
                rank=RankConfig(matcher="sift"), device="cpu",
            ),
        )  # fmt: skip
    assert [o.state for o in report.outcomes] == ["done", "done"], report.table()
    erased, photo = (np.asarray(Image.open(p)) for p in (tmp_path / "out" / "b2.png", folder / "b2.png"))
    assert (erased[:10] == photo[:10]).all() and (erased[10:30, 10:30] != photo[10:30, 10:30]).any()
    assert (tmp_path / "out" / "one" / "scores.json").is_file()
    assert not list((tmp_path / "out" / "one").glob("*checkpoint*"))
    assert Scene.load(Path(tmp_path / "scenes" / "one")).references


def test_doing_everything_again_replaces_the_checkpoint_of_another_fit(tmp_path, scene, monkeypatch):
    asked = []

    def fit(_scene, _config, *, overwrite, **_options):
        asked.append(overwrite)
        raise ValueError("enough")

    monkeypatch.setattr("realfill.pipeline.fit", fit)
    scene.save(tmp_path / "scenes" / "one")
    for overwrite in (False, True):
        run_batch([tmp_path / "scenes"], tmp_path / "out", overwrite=overwrite, progress=False)
    assert asked == [False, True]
    assert SceneJob(overwrite=True).request == SceneJob().request


@dataclass(frozen=True)
class Finder:
    """A detector that finds one person, or nobody."""

    finds: bool
    name: str = "test"
    side_px: int = 0
    segments: bool = False
    classes: tuple[str, ...] = ("person",)

    def find(self, image, *, lowest):
        mask = np.zeros(image.shape[:2], bool)
        mask[10:30, 10:30] = True
        return [Instance.of_mask(mask, name="person", score=1, detector="test")] if self.finds else []


def erased(folder, output, monkeypatch, *, finds=False, selection=None, erase=None, **options):
    monkeypatch.setattr("realfill.jobs.work._detector", lambda *_: Finder(finds))
    job = PhotoJob(
        selection=selection or SelectionConfig(), erase=erase or EraseConfig(engine="smooth", second_pass=False)
    )
    return run_batch([folder], output, photos=job, progress=False, **options)


@pytest.fixture
def photo(tmp_path):
    """A JPEG that states a place."""
    path, exif = tmp_path / "in" / "sea.jpg", Image.Exif()
    path.parent.mkdir()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (1.0, 2.0, 3.0)}
    Image.fromarray(make_photo(40, 50, 0)).save(path, exif=exif)
    return path


def test_a_photo_that_shows_nothing_to_remove_is_copied_and_not_tried_again(photo, tmp_path, monkeypatch):
    report = erased(photo.parent, tmp_path / "out", monkeypatch)
    (outcome,) = report.of("unchanged")
    assert (outcome.source, outcome.name) == ("sea.jpg", "sea.jpg")
    assert "nothing to remove: test finds no person" in outcome.line
    assert (tmp_path / "out" / "sea.jpg").read_bytes() == photo.read_bytes()
    assert "0 done, 1 unchanged, 0 failed, 0 left" in report.table()
    again = erased(photo.parent, tmp_path / "out", monkeypatch, finds=True).outcomes[0]
    assert (again.state, again.earlier) == ("unchanged", True)
    (tmp_path / "out" / "sea.jpg").unlink()
    assert not erased(photo.parent, tmp_path / "out", monkeypatch).outcomes[0].earlier


def test_a_photo_whose_only_person_stays_is_copied(photo, tmp_path, monkeypatch):
    report = erased(
        photo.parent, tmp_path / "out", monkeypatch, finds=True, selection=SelectionConfig(keep_largest=True)
    )
    assert "everything that was found is kept" in report.of("unchanged")[0].line


def test_the_output_folder_holds_the_copy_or_the_erased_photo(photo, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for finds, name in ((False, "sea.jpg"), (True, "sea.png"), (False, "sea.jpg")):
        (outcome,) = erased(photo.parent, out, monkeypatch, finds=finds, overwrite=True).outcomes
        assert outcome.name == name and outcome.source == "sea.jpg"
        assert [path.name for path in out.glob("sea.*")] == [name]


def test_an_unchanged_photo_loses_its_place_if_places_are_stripped(photo, tmp_path, monkeypatch):
    stripped = EraseConfig(engine="smooth", strip_location=True)
    (outcome,) = erased(photo.parent, tmp_path / "out", monkeypatch, erase=stripped).outcomes
    assert (outcome.state, outcome.name) == ("unchanged", "sea.png")
    with Image.open(tmp_path / "out" / "sea.png") as written, Image.open(photo) as source:
        assert written.getexif()[ExifTags.Base.Make] == "Maker"
        assert not written.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        assert (np.asarray(written) == np.asarray(source)).all()


@pytest.mark.parametrize(
    "selection", [SelectionConfig(only=(0,)), SelectionConfig(keep_at=("5,5",)), SelectionConfig(box=("60,60,70,70",))]
)
def test_a_number_a_point_or_a_box_that_marks_nothing_fails(photo, tmp_path, monkeypatch, selection):
    (outcome,) = erased(photo.parent, tmp_path / "out", monkeypatch, selection=selection).outcomes
    assert outcome.state == "failed", outcome
    assert not list((tmp_path / "out").glob("sea.*"))


def test_the_table_names_the_sources(folder, tmp_path):
    (tmp_path / "more").mkdir()
    for path in (tmp_path / "more" / "b2.png", folder / "c.jpg"):
        Image.fromarray(make_photo(40, 50, 0)).save(path)
    report = run_batch([folder, tmp_path / "more"], tmp_path / "out", photos=Recorder(), progress=False)
    assert [(o.source, o.name) for o in report.of("done")] == [
        (str(folder / "b2.png"), "b2.png.png"),
        ("b10.png", "b10.png"),
        ("c.jpg", "c.png"),
        (str(tmp_path / "more" / "b2.png"), "b2_2.png"),
    ]
    assert all(o.source in report.table() for o in report.outcomes)


def test_the_output_folder_is_not_that_of_the_photos(folder):
    with pytest.raises(SceneError, match="lies in the output folder, where it would be replaced"):
        run(folder, folder)


def test_the_trust_in_weights_does_not_make_another_batch():
    assert PhotoJob(erase=EraseConfig(trust_weights=True)).request == PhotoJob().request
