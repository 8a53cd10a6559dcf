"""``--pictures``: the pictures of the composite beside the completions, on request alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from composites import make_composite

from realfill import Scene
from realfill.app.cli import main
from realfill.app.commands.common import MachineOptions
from realfill.app.commands.pictures import remove_pictures, write_pictures
from realfill.io.images import read_image

pytestmark = pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")

NAMES = ["confidence.png", "matches_0.png", "matches_1.png", "sources.png"]  # of a composite without layers and cameras


@pytest.fixture
def found(folder, with_composites, monkeypatch):
    """A composite of the small scene that is found at once, with a match of each reference."""
    del with_composites
    pairs = {(0, n): np.full((1, 4), 5.0) for n in (1, 2)}
    result = replace(make_composite(Scene.load(folder)), pairs=pairs)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: result)
    return result


@pytest.fixture
def no_sampling(monkeypatch):
    """Make a function after whose call nothing may be completed any more."""
    return lambda: monkeypatch.setattr("realfill.pipeline.complete", lambda *_, **__: pytest.fail("completed"))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("command", ["run", "complete"])
def test_pictures_are_written_on_request_alone(command, folder, found, tmp_path, capsys):
    out = tmp_path / "out"
    words = [command, str(folder), "-o", str(out), "--base", "telea"]
    assert main(words) == 0
    without = names_in(out)
    assert "composite" not in without
    assert "pictures of the composite" not in capsys.readouterr().out
    assert main([*words, "--pictures", "--overwrite"]) == 0
    assert names_in(out) == sorted([*without, "composite"]) and names_in(out / "composite") == NAMES
    assert capsys.readouterr().out.endswith(f"4 pictures of the composite written to {out / 'composite'}\n")
    mask = Scene.load(folder).mask
    sources, confidence = (read_image(out / "composite" / f"{name}.png")[0] for name in ("sources", "confidence"))
    assert sources.shape == confidence.shape == (64, 80, 3)
    assert (sources[mask].any(axis=1) == (found.source >= 0)[mask]).all()
    assert (
        confidence[mask & (found.confidence > 0.5)].sum(axis=1).min() > confidence[found.confidence == 0].sum(1).max()
    )
    assert read_image(out / "composite" / "matches_0.png")[0].shape == (70, 170, 3)


def test_a_finished_result_gets_its_pictures_without_any_other_work(
    folder, found, tiny_sd, sample_words, no_sampling, tmp_path, capsys
):
    out = tmp_path / "out"
    words = ["complete", str(folder), "-o", str(out), "--base", tiny_sd, *sample_words]
    assert main(words) == 0
    kept = {path: path.read_bytes() for path in out.iterdir()}
    no_sampling()
    capsys.readouterr()
    assert main([*words, "--pictures"]) == 0
    assert "only the pictures of its composite are missing" in capsys.readouterr().out
    assert names_in(out / "composite") == NAMES
    assert all(path.read_bytes() == content for path, content in kept.items())
    changed = (out / "composite" / "sources.png").stat().st_mtime_ns
    assert main([*words, "--pictures"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (out / "composite" / "sources.png").stat().st_mtime_ns == changed
    (out / "composite" / "confidence.png").unlink()  # as if the first command had been killed while it wrote
    assert main([*words, "--pictures"]) == 0
    assert names_in(out / "composite") == NAMES
    del found


def test_pictures_of_an_earlier_result_do_not_outlive_it(folder, found, tmp_path):
    out = tmp_path / "out"
    words = ["complete", str(folder), "-o", str(out), "--base", "telea"]
    assert main([*words, "--pictures"]) == 0
    (out / "composite" / "notes.txt").touch()
    assert main([*words, "--overwrite"]) == 0
    assert names_in(out / "composite") == ["notes.txt"]
    (out / "composite" / "notes.txt").unlink()
    assert main([*words, "--overwrite", "--pictures"]) == 0
    assert main([*words, "--overwrite", "--geometry", "False", "--pictures"]) == 0
    assert not (out / "composite").exists()
    remove_pictures(out)
    del found


def test_added_seeds_leave_the_pictures(folder, found, tiny_sd, sample_words, tmp_path):
    out = tmp_path / "out"
    words = ["complete", str(folder), "-o", str(out), "--base", tiny_sd, *sample_words]
    assert main([*words, "--pictures"]) == 0
    assert main([*words, "--extend"]) == 0
    assert len(json.loads((out / "scores.json").read_text())["completions"]) == 4
    assert names_in(out / "composite") == NAMES
    del found


@pytest.mark.parametrize("case", ["geometry off", "paper", "no references"])
def test_where_there_is_no_composite_a_line_says_so(case, folder, found, tiny_sd, sample_words, tmp_path, capsys):
    out = tmp_path / "out"
    words = {"geometry off": ["--geometry", "False"], "paper": ["--sample-preset", "paper"]}.get(case, [])
    if case == "no references":
        Scene([], found.image, Scene.load(folder).mask).save(folder := tmp_path / "alone")
    words = ["complete", str(folder), "-o", str(out), "--base", tiny_sd, *sample_words, *words, "--pictures"]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    line = "there is no composite to draw; it needs references, known pixels and --geometry True"
    assert printed.count(line) == 1 and not (out / "composite").exists()
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_the_pictures_are_of_the_settings_that_the_result_was_made_with(folder, found, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("realfill.pipeline.draw_composite", lambda _, geometry, **__: seen.append(geometry) or {})
    words = ["run", str(folder), "-o", str(tmp_path / "out"), "--base", "telea", "--photographed-confidence", "0.6"]
    assert main([*words, "--pictures"]) == 0
    assert main([*words, "--pictures"]) == 0
    assert [geometry.photographed_confidence for geometry in seen] == [0.6, 0.6]
    assert [geometry.enabled for geometry in seen] == [True, True]
    del found


def test_only_the_first_of_several_processes_writes(folder, found, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert main(["complete", str(folder), "-o", str(out), "--base", "telea"]) == 0
    scene = Scene.load(folder)
    for rank, names in (("1", []), ("0", NAMES)):
        monkeypatch.setenv("RANK", rank)
        write_pictures(scene, out, MachineOptions())
        assert [path.name for path in sorted(out.glob("composite/*"))] == names
    del found


def test_a_damaged_record_is_an_error_in_one_line(folder, found, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["complete", str(folder), "-o", str(out), "--base", "telea"]
    assert main(words) == 0
    values = json.loads((out / "scores.json").read_text())
    values["provenance"]["geometry"] = {"enabled": "perhaps"}
    (out / "scores.json").write_text(json.dumps(values))
    capsys.readouterr()
    assert main([*words, "--pictures"]) == 1
    error = capsys.readouterr().err
    assert "scores.json' is damaged: " in error and error.count("\n") == 1
    del found


def test_a_folder_of_pictures_that_leads_elsewhere_is_not_written_to(folder, found, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "other").mkdir()
    (out / "composite").symlink_to(tmp_path / "other")
    assert main(["complete", str(folder), "-o", str(out), "--base", "telea", "--pictures"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not any((tmp_path / "other").iterdir())
    del found


@pytest.mark.parametrize("option", ["--help", "--help-all"])
def test_the_help_shows_the_option_beside_layers_where_scenes_are_completed(option, capsys):
    for command in ("run", "complete"):
        main([command, option])
        text = capsys.readouterr().out
        assert text.index("output options") < text.index("--layers") < text.index("--pictures")
        assert "--no-pictures" not in text
    main(["rank", option])
    text = capsys.readouterr().out
    assert "--layers" in text and "--pictures" not in text
    assert main(["rank", "scene", "out", "-o", "ranked", "--pictures"]) == 2


def test_the_folder_holds_what_draw_composite_returns(folder, found, tmp_path):
    from realfill import draw_composite

    assert main(["complete", str(folder), "-o", str(tmp_path / "out"), "--base", "telea", "--pictures"]) == 0
    for name, picture in draw_composite(Scene.load(folder), progress=False).items():
        assert np.array_equal(read_image(tmp_path / "out" / "composite" / f"{name}.png")[0], picture)
    del found
