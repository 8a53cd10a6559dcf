"""Worker processes: they end with their batch, however it ends, and an item under way ends after its step."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

BATCH = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from slow_job import steps
from realfill.jobs.workers import workers

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with workers(2) as pool:
        for done in [pool.submit(steps, folder / name) for name in "ab"]:
            done.result()
"""


@pytest.fixture
def batch(tmp_path):
    """A process whose two workers are at work on items without an end, and these workers."""
    script = tmp_path / "batch.py"
    script.write_text(BATCH.format(here=str(Path(__file__).parent)))
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not all((tmp_path / name).exists() and (tmp_path / name).stat().st_size for name in "ab"):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    yield process, [psutil.Process(int((tmp_path / name).read_text())) for name in "ab"]
    process.kill()
    process.communicate()


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait_for_the_end(processes, limit_s):
    deadline = time.monotonic() + limit_s
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(processes)


def test_workers_do_not_outlive_a_batch_that_is_killed(batch):
    process, workers = batch
    process.kill()
    assert wait_for_the_end(workers, limit_s=5)


def test_an_interrupted_batch_ends_its_items_after_their_step(batch, tmp_path):
    process, workers = batch
    for worker in workers:  # as Ctrl-C in a terminal, which every process of the group receives
        worker.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert len(alive(workers)) == 2, "a signal is for the batch"
    process.send_signal(signal.SIGINT)
    process.wait(timeout=5)
    assert wait_for_the_end(workers, limit_s=1)
    assert {(tmp_path / f"{name}.ended").read_text() for name in "ab"} == {"after a step"}
    assert process.returncode != 0, "the interruption goes on"
