"""Scene folders and completions from a stranger are read and written within their folder."""

import io
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import make_photo

from realfill import Completions, Scene, run_batch
from realfill.app.cli import main
from realfill.errors import OutputError, RealFillWarning, SceneError
from realfill.io.lock import locked
from realfill.io.writing import write_png
from realfill.jobs.batch import BATCH_NAME
from realfill.results.completion import Completion
from realfill.results.evidence import Evidence


@pytest.fixture
def folder(scene, tmp_path):
    scene.save(tmp_path / "scene")
    return tmp_path / "scene"


@pytest.fixture
def secret(tmp_path):
    write_png(tmp_path / "secret.png", make_photo(64, 80, 9))
    return tmp_path / "secret.png"


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    """Completions of the scene of the fixture ``scene``, written once, because drawing the sheet takes a second."""
    mask = cv2.ellipse(np.zeros((64, 80), np.uint8), (40, 30), (16, 12), 0, 0, 360, 1, -1) > 0
    scene = Scene([], make_photo(64, 80, 0), mask)
    evidence, filled = Evidence.of_invention(mask), scene.original.pixels[mask]
    items = tuple(Completion(scene=scene, filled=filled, seed=seed, evidence=evidence) for seed in (0, 1))
    folder = tmp_path_factory.mktemp("strangers") / "completions"
    Completions(items=items, scene=scene, recipe={"base": "x"}).save(folder)
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    return Path(shutil.copytree(saved_once, tmp_path / "completions"))


def link(path, target):
    path.unlink()
    path.symlink_to(target)


def change(saved, place=0, **values):
    scores = json.loads((saved / "scores.json").read_text())
    scores["completions"][place] |= values
    (saved / "scores.json").write_text(json.dumps(scores))


# Scenes


def test_a_target_that_is_a_link_out_of_the_scene_is_refused(folder, secret):
    link(folder / "target" / "target.png", secret)
    with pytest.raises(SceneError, match=r"no target that can be read: target\.png .a link to a place"):
        Scene.load(folder)


def test_a_reference_that_is_a_link_out_of_the_scene_is_left_out(folder, secret):
    link(folder / "ref" / "0.png", secret)
    with pytest.warns(RealFillWarning, match="are left out: 0.png .a link to a place outside"):
        assert len(Scene.load(folder).references) == 1


def test_references_in_a_linked_folder_are_left_out(folder, tmp_path):
    shutil.move(folder / "ref", tmp_path / "elsewhere")
    (folder / "ref").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(RealFillWarning, match="a link to a place outside"):
        assert len(Scene.load(folder).references) == 0


def test_links_within_a_scene_and_a_link_to_a_scene_are_followed(folder, tmp_path):
    (folder / "ref" / "0.png").rename(folder / "photo.png")
    (folder / "ref" / "0.png").symlink_to("../photo.png")
    (tmp_path / "link").symlink_to(folder)
    assert len(Scene.load(tmp_path / "link").references) == 2


def test_a_pipe_in_a_scene_is_not_waited_for(folder):
    (folder / "ref" / "0.png").unlink()
    os.mkfifo(folder / "ref" / "0.png")
    with pytest.warns(RealFillWarning, match=r"0.png .no file"):
        Scene.load(folder)


def test_names_that_control_the_terminal_are_shown_escaped(folder, tmp_path, capsys):
    (folder / "ref" / "a\n\x1b[2Jb.jpg").write_bytes(b"no image")
    assert main(["complete", str(folder), "--base", "smooth", "--output", str(tmp_path / "out"), "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "\x1b" not in err and r"\x1b[2Jb.jpg" in err and len(err.splitlines()) == 1


# Completions


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "..", "", "a\nb.png", "sub/a.png", 5, None, ["x"]])
def test_a_record_names_a_file_of_its_folder(saved, scene, secret, name):
    change(saved, file=name)
    with pytest.raises(SceneError, match="legal: the name of a file in the same folder"):
        Completions.load(saved, scene)


def test_an_image_that_is_a_link_out_of_the_folder_is_refused(saved, scene, tmp_path):
    shutil.move(saved / "00_seed0.png", tmp_path / "outside.png")
    (saved / "00_seed0.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(SceneError, match="is a link out of its folder"):
        Completions.load(saved, scene)


def test_writing_replaces_links_and_does_not_follow_them(saved, scene, tmp_path):
    completions = Completions.load(saved, scene)
    for name in ("scores.json", "contact_sheet.png", ".realfill.lock", ".realfill.lock.json"):
        (tmp_path / name).write_text("precious")
        (saved / name).unlink(missing_ok=True)
        (saved / name).symlink_to(tmp_path / name)
    try:
        completions.save(saved, overwrite=True)
    except OutputError:  # a lock that is a link cannot be taken
        for name in (".realfill.lock", ".realfill.lock.json"):
            (saved / name).unlink(missing_ok=True)
        completions.save(saved, overwrite=True)
    names = ("scores.json", "contact_sheet.png", ".realfill.lock", ".realfill.lock.json")
    assert [(tmp_path / name).read_text() for name in names] == ["precious"] * 4
    assert not (saved / "scores.json").is_symlink()


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1}, {"seed": True}, {"seed": "0"}, {"seed": 2**63}, {"score": "x"}, {"score": True},
        {"num_matches": 1.5},
        {"scores_per_reference": ["x"]}, {"num_matches_per_reference": [None]}, {"verdict": {"kind": "true"}},
        {"verdict": {"kind": [], "reason": "", "expected_error": 1, "coverage": 1, "contradicted": 1, "invented": 1}},
        {"seed": 1}, {"file": "01_seed1.png"},
    ],
)  # fmt: skip
def test_other_values_in_scores_are_one_error(saved, scene, values):
    change(saved, **values)
    with pytest.raises(SceneError, match=r"scores.json' is damaged"):
        Completions.load(saved, scene)


@pytest.mark.parametrize("key", ["ranking", "completions", "provenance", "recipe", "references"])
@pytest.mark.parametrize("value", [5, [5], {"score_by": "x"}, [[[]]]])
def test_other_parts_of_scores_are_one_error_or_have_no_influence(saved, scene, key, value):
    scores = json.loads((saved / "scores.json").read_text())
    (saved / "scores.json").write_text(json.dumps({**scores, key: value}))
    reason = ""
    try:
        count = len(Completions.load(saved, scene))
    except SceneError as error:
        count, reason = 2, str(error)
    assert count == 2
    assert not reason or "scores.json' is damaged" in reason


def archive_of(header: bytes, data: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, dtype in (("kind", b"|u1"), ("source", b"<i2"), ("confidence", b"|u1")):
            head = header.replace(b"TYPE", dtype)
            archive.writestr(f"{name}.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + data)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        archive_of(b"[" * 5000), archive_of(b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}\n"),
        archive_of(b"{'descr': '|u1', 'fortran_order': False, 'shape': ()}\n"), b"PK", b"", b"\x80\x04cos\nsystem\n.",
    ],
)  # fmt: skip
def test_evidence_that_holds_something_else_is_one_error(saved, scene, data):
    (saved / "evidence.npz").write_bytes(data)
    with pytest.raises(SceneError, match=r"evidence\.npz' is damaged"):
        Completions.load(saved, scene)


@pytest.mark.parametrize("kind", [0, 4, 200])
def test_evidence_of_an_unknown_kind_is_refused(saved, scene, kind):
    count = int(scene.mask.sum())
    values = {"source": np.full(count, -1, np.int16), "confidence": np.zeros(count, np.uint8)}
    np.savez_compressed(saved / "evidence.npz", kind=np.full(count, kind, np.uint8), **values)
    with pytest.raises(SceneError, match="values that are not from 1 to 3"):
        Completions.load(saved, scene)


def test_evidence_that_unpacks_to_a_terabyte_is_not_unpacked(saved, scene):
    header = b"{'descr': 'TYPE', 'fortran_order': False, 'shape': (1000000000000,)}\n"
    (saved / "evidence.npz").write_bytes(archive_of(header, bytes(3_000_000)))
    assert Completions.load(saved, scene).evidence is None


# Output folders


def test_a_batch_does_not_write_through_a_linked_folder(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scene").symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError, match="is a link that leads out of"):
        run_batch([folder], tmp_path / "out", progress=False)
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("name", ["adapter", "checkpoint"])
def test_a_command_does_not_write_through_a_linked_folder(folder, tmp_path, capsys, name):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "outside")
    assert main(["complete", str(folder), "--base", "smooth", "--output", str(tmp_path / "out"), "--quiet"]) == 1
    assert "is a link that leads out of" in capsys.readouterr().err
    assert not list((tmp_path / "outside").iterdir())


def test_partial_files_of_dead_processes_are_not_removed_through_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "outside")
    precious = tmp_path / "outside" / "a.00000000-1-00000000.partial"
    precious.touch()
    os.utime(precious, (0, 0))
    with locked(tmp_path / "out"):
        assert precious.exists()


@pytest.mark.parametrize("items", [5, [], {"a.png": 5}, {"a.png": {"state": "done", "time_s": "x"}}, None])
def test_a_damaged_record_of_a_batch_means_that_the_work_is_done_again(tmp_path, items):
    from recorder import Recorder

    (tmp_path / "photos").mkdir()
    write_png(tmp_path / "photos" / "a.png", make_photo(32, 32))
    (tmp_path / "out").mkdir()
    values = {"request": {"photo": dict(Recorder().request)}, "items": items}
    (tmp_path / "out" / BATCH_NAME).write_text(json.dumps(values))
    report = run_batch([tmp_path / "photos"], tmp_path / "out", photos=Recorder(), progress=False)
    assert len(report.of("done")) == 1
