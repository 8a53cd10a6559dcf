"""Cases: scenes with their ground truth."""

import numpy as np
import pytest

from realfill.cases import Case, case_folders
from realfill.errors import SceneError
from realfill.io.writing import write_png


def save_case(scene, folder, *, truth=None):
    scene.save(folder)
    write_png(folder / "target" / "gt.png", scene.target if truth is None else truth)
    return folder


def test_the_truth_is_kept_from_the_scene(scene, tmp_path):
    case = Case.load(save_case(scene, tmp_path / "7"))
    assert case.name == "7" and case.prompt is None
    assert not case.scene.target[case.scene.mask].any()
    assert (case.truth == scene.target).all()
    assert (case.scene.target[~scene.mask] == scene.target[~scene.mask]).all()


def test_a_prompt_is_read_where_there_is_one(scene, tmp_path):
    folder = save_case(scene, tmp_path / "a")
    (folder / "prompt.txt").write_text(" a tree \n")
    assert Case.load(folder).prompt == "a tree"
    (folder / "prompt.txt").write_text("\n")
    assert Case.load(folder).prompt is None


def test_numbered_scenes_come_in_their_order(scene, tmp_path):
    for name in ("10", "2", "1"):
        save_case(scene, tmp_path / name)
    scene.save(tmp_path / "3")
    assert [f.name for f in case_folders(tmp_path)] == ["1", "2", "3", "10"]
    with pytest.raises(SceneError, match="no ground truth"):
        Case.load(tmp_path / "3")


def test_a_truth_of_another_size_is_refused(scene, tmp_path):
    with pytest.raises(SceneError, match="10 x 12 pixels"):
        Case.load(save_case(scene, tmp_path / "a", truth=np.zeros((12, 10, 3), np.uint8)))


def test_a_folder_without_scenes_is_refused(tmp_path):
    with pytest.raises(SceneError, match="no scenes"):
        case_folders(tmp_path)
