"""Files are written whole or not at all, and a full disk is reported as such."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from realfill.errors import OutputError
from realfill.io import files, writing
from realfill.io.files import partial_folder, remove_partials, require_space, whole_file, write_text
from realfill.io.layers import Layer, write_layers
from realfill.io.metadata import Credit
from realfill.io.photos import Photo
from realfill.io.writing import write_photo

PHOTO = Photo(pixels=np.zeros((40, 50, 3), np.uint8))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fail_after(data, error, path):
    with whole_file(path) as partial:
        partial.write_bytes(data)
        raise error


def fail_among(finished, error, folder):
    with partial_folder(folder) as partial:
        for i, data in enumerate(finished):
            (partial / f"{i}").write_bytes(data)
        fail_after(b"half", error, partial / "a")


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o640
    os.umask(before)


def test_a_file_is_replaced_only_once_it_is_complete(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with whole_file(tmp_path / "a.json") as partial:
        partial.write_text("new")
        assert (tmp_path / "a.json").read_text() == "old" and partial.parent == tmp_path
    assert contents(tmp_path) == {"a.json": b"new"}


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")])
def test_after_an_error_the_old_file_remains_and_no_partial_file(error, tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(type(error)) as caught:
        fail_after(b"half", error, tmp_path / "a.json")
    assert caught.value is error and contents(tmp_path) == {"a.json": b"old"}


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    with whole_file(tmp_path / "a") as first, whole_file(tmp_path / "a") as second:
        assert first != second and str(os.getpid()) in first.name
        first.write_text("first")
        second.write_text("second")
    assert contents(tmp_path) == {"a": b"first"}


def test_permissions_follow_the_umask_whatever_the_library_chose(tmp_path, umask):
    with whole_file(tmp_path / "a.safetensors") as partial:
        save_file({"a": torch.zeros(3)}, partial)
        partial.chmod(0o600)
    write_photo(tmp_path / "a.png", PHOTO)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {umask}


def test_a_long_name_and_a_name_that_is_no_utf8_can_be_written(tmp_path):
    names = [os.fsencode("é" * 125 + ".png"), b"\xff\xfe.png"]
    for name in names:
        write_photo(tmp_path / os.fsdecode(name), PHOTO)
    assert sorted(os.fsencode(path.name) for path in tmp_path.iterdir()) == sorted(names)


def test_a_text_is_written_in_utf8(tmp_path):
    write_text(tmp_path / "a", "é")
    assert contents(tmp_path) == {"a": "é".encode()}


def test_files_that_belong_together_are_moved_together(tmp_path):
    with partial_folder(tmp_path) as partial:
        (partial / "a").write_text("a")
        assert partial.parent == tmp_path and partial.name.startswith(".")
        (partial / "a").replace(tmp_path / "a")
    assert contents(tmp_path) == {"a": b"a"}


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_a_failure_leaves_no_partial_folder(error, tmp_path):
    with pytest.raises(type(error)):
        fail_among([], error, tmp_path)
    assert contents(tmp_path) == {}


def test_a_disk_that_is_full_within_a_partial_folder_is_named_by_the_destination(tmp_path):
    with pytest.raises(OutputError, match=rf"no space left for '{tmp_path}': it needs more than 2 kB, and"):
        fail_among([bytes(2000)], OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), tmp_path)
    assert contents(tmp_path) == {}


def test_a_partial_folder_in_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="nowhere' cannot be written to"), partial_folder(tmp_path / "nowhere"):
        pass


@pytest.mark.parametrize("write", [whole_file, partial_folder])
def test_a_folder_that_vanishes_is_named(write, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    place = folder if write is partial_folder else folder / "a.png"

    def fail():
        with write(place) as partial:
            shutil.rmtree(folder)
            partial.stat()

    with pytest.raises(OutputError, match=r"out' has vanished while files were being written to it"):
        fail()
    assert contents(tmp_path) == {}


KILLED = """
import os, signal, sys
from realfill.io.files import partial_folder, whole_file
with whole_file(sys.argv[1] + "/a.json") as file, partial_folder(sys.argv[1]) as folder:
    file.write_text("half")
    (folder / "b").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path):
    """A folder with the partial file and the partial folder of a killed process."""
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    return tmp_path


@pytest.mark.parametrize("start", ["another file", "a folder", "a question for space"])
def test_partial_files_of_a_killed_process_are_removed_before_the_next_write(killed, start):
    (killed / "mine.partial").write_text("mine")
    if start == "another file":
        write_text(killed / "c", "")
        (killed / "c").unlink()
    elif start == "a folder":
        with partial_folder(killed):
            pass
    else:
        require_space(killed / "c", 10)
    assert contents(killed) == {"mine.partial": b"mine"}


def test_partial_files_of_living_processes_stay(tmp_path):
    with whole_file(tmp_path / "a"), partial_folder(tmp_path):
        remove_partials(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2


def test_a_partial_file_older_than_the_process_of_its_id_was_of_another_one(tmp_path):
    with whole_file(tmp_path / "a") as partial:
        os.utime(partial, (1, 1))
        remove_partials(tmp_path)
        assert not partial.exists()
        partial.touch()


@pytest.mark.parametrize(("age_s", "stays"), [(3600, True), (90_000, False)])
def test_partial_files_of_another_host_are_removed_after_a_day(killed, monkeypatch, age_s, stays):
    for path in killed.iterdir():
        os.utime(path, (time.time() - age_s,) * 2)
    monkeypatch.setattr(files, "_HOST", "00000000")
    remove_partials(killed)
    assert bool(list(killed.iterdir())) == stays


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_path_and_the_partial_file_is_removed(number, tmp_path):
    (tmp_path / "a.pt").write_text("old")
    message = r"no space left for '.*a\.pt': it needs more than 2 kB, and the disk has .* free; free"
    with pytest.raises(OutputError, match=message):
        fail_after(bytes(2000), OSError(number, os.strerror(number)), tmp_path / "a.pt")
    assert contents(tmp_path) == {"a.pt": b"old"}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["torch", "safetensors"],
)
def test_a_full_disk_is_recognised_behind_the_errors_of_libraries(error, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(OutputError, match=r"no space left .* the disk has 0 bytes free"), whole_file(tmp_path / "a.pt"):
        raise error
    assert contents(tmp_path) == {}


def test_an_error_of_torch_on_a_disk_with_space_is_not_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), whole_file(tmp_path / "a.pt"):
        raise RuntimeError("a bug")


def test_a_known_size_is_checked_before_anything_is_written(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with (
        pytest.raises(OutputError, match=r"no space left for '.*a': it needs .* TB, and"),
        whole_file(tmp_path / "a", num_bytes=free + 10**13),
    ):
        raise AssertionError("nothing must be written")
    with pytest.raises(OutputError, match=r"no space left for '.*new/b'"):
        require_space(tmp_path / "new" / "b", free + 10**13)
    require_space(tmp_path / "new" / "b", 1000)
    assert contents(tmp_path) == {}


def test_a_missing_folder_is_named_by_the_path_that_was_asked_for(tmp_path):
    with pytest.raises(OutputError, match=r"'.*nowhere/a\.png' cannot be written \(No such file or directory\); legal"):
        write_photo(tmp_path / "nowhere" / "a.png", PHOTO)


def full_disk(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.ora"])
def test_every_writer_reports_a_full_disk(name, tmp_path, monkeypatch):
    real_open = Path.open

    def open_full(self, *args, **options):
        stream = real_open(self, *args, **options)
        stream.close()
        return full_disk()

    def write(path):
        if path.suffix == ".ora":
            write_layers(path, [Layer(name="a", photo=PHOTO)], PHOTO, Credit(software="", description=""))
        else:
            write_photo(path, PHOTO)

    monkeypatch.setattr(Path, "open", open_full)
    monkeypatch.setattr(writing, "_chunk", full_disk)
    with pytest.raises(OutputError, match=f"no space left for '.*{name}'"):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "batch.json").mkdir()
    with pytest.raises(OutputError, match=r"batch.json' is a folder; remove it"):
        write_text(tmp_path / "batch.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["batch.json"]
