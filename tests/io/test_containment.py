import pytest

from realfill.errors import OutputError
from realfill.io.containment import is_plain_name, leads_outside, require_inside


@pytest.mark.parametrize("name", ["a.png", "00_seed0.png", "ü 1.jpg", "..a"])
def test_names_of_files(name):
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "/a", "a/b", "a\\b", "C:a", "a\nb", "a\0b", "a\x1b[2J", "\u202ea", 5, None, ["a"]]
)
def test_other_values(name):
    assert not is_plain_name(name)


def test_links_within_a_folder_are_inside_and_others_are_not(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    (folder / "in").symlink_to("file")
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to("loop")
    assert not leads_outside(folder / "in", folder)
    assert leads_outside(folder / "out", folder)
    assert leads_outside(folder / "loop", folder)
    with pytest.raises(OutputError, match="is a link that leads out of"):
        require_inside(folder / "out" / "new", folder)


def test_a_folder_that_is_itself_a_link_contains_its_files(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to("real")
    assert not leads_outside(tmp_path / "link" / "file", tmp_path / "link")
