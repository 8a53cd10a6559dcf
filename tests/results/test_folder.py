"""Completions in a folder are replaced: a kill at any file operation leaves nothing that looks whole but is not."""

import json

import pytest
from forked import FileOperations

from realfill.results.folder import SCORES_NAME, replace_files, saved_files

OLD = {"00_seed0.png": "old", "01_seed1.png": "old", "contact_sheet.png": "old"}
NEW = {"00_seed1.png": "new", "01_seed0.png": "new", "02_seed2.png": "new", "contact_sheet.png": "new"}


class Killed(BaseException):
    """Raised at a file operation and at all later ones, so that nothing changes after it, as after a kill."""


def die():
    raise Killed


def write(folder, files, recipe):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    scores = {"recipe": recipe, "completions": [{"file": name} for name in files if "seed" in name]}
    (folder / SCORES_NAME).write_text(json.dumps(scores))


def content(folder):
    return {path.name: path.read_text() for path in saved_files(folder)}


@pytest.mark.parametrize("new_recipe", ["new", "old"])
def test_a_kill_at_any_operation_leaves_old_completions_or_new_ones_or_none(new_recipe, tmp_path):
    operations, at, is_whole = FileOperations(folder=tmp_path, disturb=die, lasting=True), 0, False
    operations.install()
    while not is_whole:
        at += 1
        operations.at = 0
        folder, partial = (tmp_path / f"{name} {at}" for name in ("out", "partial"))
        write(folder, OLD, "old")
        write(partial, NEW, new_recipe)
        whole = content(partial)
        operations.count, operations.at = 0, at
        try:
            replace_files(folder, partial)
        except Killed:
            pass
        else:
            is_whole = True
        operations.at = 0
        if (folder / SCORES_NAME).exists():
            scores = json.loads((folder / SCORES_NAME).read_text())
            listed = {(folder / record["file"]).read_text() for record in scores["completions"]}
            assert listed == {scores["recipe"]} or new_recipe == "old", f"operation {at}"
            assert all((folder / record["file"]).exists() for record in scores["completions"])
    assert content(folder) == whole
    assert at > 5
