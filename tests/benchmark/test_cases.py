"""Cases: scenes with their ground truth."""

import numpy as np
import pytest
from helpers import save_case

from realfill.benchmark.cases import Case, case_folders
from realfill.errors import SceneError


def test_the_scene_does_not_contain_the_truth(scene, tmp_path):
    case = Case.load(save_case(scene, tmp_path / "7"))
    assert case.name == "7" and case.prompt is None
    assert not case.scene.target[case.scene.mask].any()
    assert (case.truth == scene.target).all()
    assert (case.scene.target[~scene.mask] == scene.target[~scene.mask]).all()


def test_the_prompt_is_optional(scene, tmp_path):
    folder = save_case(scene, tmp_path / "a")
    (folder / "prompt.txt").write_text(" a tree \n")
    assert Case.load(folder).prompt == "a tree"
    (folder / "prompt.txt").write_text("\n")
    assert Case.load(folder).prompt is None


def test_scenes_are_in_natural_order(scene, tmp_path):
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
