"""What a batch on Ray needs, without Ray: legal settings, shared folders, and a clear line without the extra."""

import dataclasses
import sys
from pathlib import Path

import pytest
from helpers import make_photo
from PIL import Image
from recorder import Recorder

from realfill import RayCluster, run_batch
from realfill.app.cli import main
from realfill.errors import MissingDependencyError
from realfill.io.lock import locked
from realfill.jobs.sharing import SharedFolder


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(make_photo(40, 50, 0)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"address": "somewhere"},
            "the address of the Ray cluster is 'somewhere'; legal: 'local', 'auto', 'HOST:PORT'",
        ),
        ({"address": "host:99999"}, "legal: 'local'"),
        ({"num_cpus": 0}, "num_cpus is 0; legal: a number above 0"),
        ({"num_gpus": 1.5}, "num_gpus is 1.5; legal: a whole number, or a share from 0 to 1"),
        ({"num_gpus": -1}, "num_gpus is -1"),
        ({"retries": -1}, "retries is -1; legal: 0 or more"),
    ],
)
def test_illegal_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RayCluster(**options)


def test_legal_settings_are_taken():
    for address in ("local", "auto", "10.0.0.1:6379", "ray://head-node:10001", "[::1]:6379"):
        assert RayCluster(address=address, num_cpus=0.5, num_gpus=2).address == address


def test_without_the_extra_one_line_says_how_to_install_it(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'realfill\[ray\]'"):
        run_batch([photo], tmp_path / "out", photos=Recorder(), cluster=RayCluster(), progress=False)
    assert main(["batch", str(photo), "-o", str(tmp_path / "out"), "--ray", "local", "--fill-box", "1,1,9,9"]) == 1
    assert "pip install 'realfill[ray]'" in capsys.readouterr().err


def test_a_finished_batch_needs_no_cluster(photo, tmp_path, monkeypatch):
    run_batch([photo], tmp_path / "out", photos=Recorder(), progress=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    report = run_batch([photo], tmp_path / "out", photos=Recorder(), cluster=RayCluster(), progress=False)
    assert report.outcomes[0].earlier


def test_options_that_contradict_each_other_are_refused(photo, tmp_path, capsys):
    with pytest.raises(ValueError, match="processes is 2, and a cluster is given"):
        run_batch([photo], tmp_path / "out", processes=2, cluster=RayCluster())
    command = ["batch", str(photo), "-o", str(tmp_path / "out")]
    assert main([*command, "--ray", "local", "--processes", "2"]) == 2
    assert "--processes and --ray exclude each other" in capsys.readouterr().err
    assert main([*command, "--num-gpus", "1"]) == 2
    assert "--num-gpus needs --ray" in capsys.readouterr().err
    assert main([*command, "--ray", "nowhere"]) == 2
    assert "the address of the Ray cluster is 'nowhere'" in capsys.readouterr().err


def test_a_machine_must_see_the_folders_and_have_the_same_version(photo, tmp_path):
    out = tmp_path / "out"
    with locked(out):
        shared = SharedFolder.of(out)
        assert shared.problem([photo]) is None
        assert "does not see" in shared.problem([photo, tmp_path / "b.png"])
        assert "install the same version" in dataclasses.replace(shared, version="0.0.1").problem([photo])
        elsewhere = dataclasses.replace(shared, path=tmp_path / "elsewhere")
        assert "does not see the output folder" in elsewhere.problem([photo])
        with locked(tmp_path / "elsewhere"):  # a folder of that name, but another one
            (tmp_path / "elsewhere" / ".realfill.lock.json").write_text("{}")
            assert "one shared file system" in elsewhere.problem([photo])
    assert shared.problem([photo]) is not None  # the batch has ended


def test_a_worker_works_in_the_folder_in_which_the_batch_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with locked(tmp_path / "out"):
        shared = SharedFolder.of(Path("out"))
    monkeypatch.chdir("/")
    with shared.entered():
        assert Path.cwd() == tmp_path
    assert Path.cwd() == Path("/")
    with dataclasses.replace(shared, working_folder=tmp_path / "not here").entered():
        assert Path.cwd() == Path("/")
