"""A batch: what fails does not stop the rest, what is done is not done again, and a table says what became of each."""

from pathlib import Path

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image
from recorder import Recorder

from realfill import Scene, run_batch
from realfill.config import RankConfig, SampleConfig
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.errors import OutputError, SceneError
from realfill.jobs.sources import find_items
from realfill.jobs.work import PhotoJob, SceneJob


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
    assert "2 done, 1 failed, 0 left" in table and "made of b2.png" in table


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


def test_the_trust_in_weights_does_not_make_another_batch():
    assert PhotoJob(erase=EraseConfig(trust_weights=True)).request == PhotoJob().request
