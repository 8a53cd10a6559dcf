"""Planted scenes: made from held-out photos, readable as cases, and equal in each run."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import make_photo

from realfill.benchmark.cases import Case, case_folders
from realfill.io.writing import write_png

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def planted_scenes(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("planted_scenes", EXAMPLES / "planted_scenes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(tmp_path, planted_scenes, monkeypatch):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("a.png", "more/b.png", "trained_on.png")):
        write_png(folder / name, make_photo(100, 140, i))
    (tmp_path / "holdout.txt").write_text("# a comment\nb.png\na.png\nmissing.png\n")
    monkeypatch.setattr(sys.modules["holdout"], "HOLDOUT", tmp_path / "holdout.txt")
    return folder


def test_scenes_are_planted_in_held_out_photos_alone(planted_scenes, photos, tmp_path):
    for name in ("first", "second"):
        planted_scenes.main(photos, tmp_path / name, num_references=2, least_structure=0)
    folders = case_folders(tmp_path / "first")
    assert [folder.name for folder in folders] == ["00", "01"]
    for folder, photo in zip(folders, (make_photo(100, 140, 1), make_photo(100, 140, 0)), strict=True):
        case, again = Case.load(folder), Case.load(tmp_path / "second" / folder.name)
        assert (case.truth == photo[7:92, 10:129]).all()
        assert len(case.scene.references) == 2 and case.scene.mask.any() and not case.scene.mask.all()
        assert all(np.array_equal(a, b) for a, b in zip(case.scene.references, again.scene.references, strict=True))


def test_a_folder_without_held_out_photos_is_refused(planted_scenes, photos, tmp_path):
    with pytest.raises(FileNotFoundError, match="none of the 3 photos"):
        planted_scenes.main(photos / "more" / "none", tmp_path / "out")


def test_the_committed_list_names_sixty_photos():
    lines = (EXAMPLES / "holdout.txt").read_text().splitlines()
    assert lines[0].startswith("#") and len(set(lines[1:])) == len(lines[1:]) == 60
