"""The lock of an output folder: one writer at a time, reentrant, and never held by a dead process."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from realfill.errors import OutputError
from realfill.io.files import partial_folder
from realfill.io.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from realfill.io.files import partial_folder, whole_file
from realfill.io.lock import locked
adapter = Path(sys.argv[1], "adapter")
adapter.mkdir(exist_ok=True)
with locked(sys.argv[1]) as folder, partial_folder(folder) as partial, whole_file(adapter / "a"):
    (partial / "half.png").write_bytes(b"half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``tmp_path`` and is writing files there."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_error_names_the_process_that_holds_the_lock(holder, tmp_path):
    message = rf"in use by process {holder.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d.*choose another folder"
    start = time.monotonic()
    with pytest.raises(OutputError, match=message), locked(tmp_path):
        pass
    assert time.monotonic() - start < 2
    assert len(list(tmp_path.glob(".*.partial/half.png"))) == 1, "the files of a living process stay"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_dead_process_holds_no_lock_and_its_partial_files_are_removed(holder, tmp_path, end):
    holder.send_signal(end)
    holder.wait()
    with locked(tmp_path):
        assert not list(tmp_path.rglob("*.partial"))
    assert [p.name for p in tmp_path.rglob("*")] == ["adapter"]


def test_the_lock_is_reentrant_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "new" / "folder"
    with locked(folder) as outer:
        assert outer == folder and folder.is_dir()
        with locked(folder):
            pass
        with partial_folder(folder) as partial:
            (partial / "half").touch()
            with locked(folder):
                assert (partial / "half").exists(), "an inner lock does not remove the partial folder in use"
        with pytest.raises(OutputError, match=rf"process {os.getpid()}"), ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: locked(folder).__enter__()).result()
    assert not list(folder.iterdir())
    with locked(folder):
        pass


def test_an_error_releases_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path), partial_folder(tmp_path):
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())
    with locked(tmp_path):
        pass


def count_up(folder, times):
    for _ in range(times):
        while True:
            try:
                with locked(folder):
                    path = folder.parent / "count"
                    number = int(path.read_text())
                    time.sleep(0.001)
                    path.write_text(str(number + 1))
                break
            except OutputError:
                continue


def test_many_processes_take_turns(tmp_path):
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=count_up, args=(tmp_path / "out", 20)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "count").read_text() == "80"


def test_processes_of_one_distributed_job_share_the_lock(holder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with locked(tmp_path) as folder:
        assert folder == tmp_path


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=re.escape("file' cannot be written to")), locked(tmp_path / "file"):
        pass
