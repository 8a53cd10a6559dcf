"""A batch on a real Ray cluster of two workers: equal results, deaths, cancelling, and errors in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import TINY_FIT, make_photo
from PIL import Image
from ray_jobs import KilledOnce, Waiter
from recorder import Recorder

from realfill import RayCluster, Scene, run_batch
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.errors import ClusterError, RealFillWarning
from realfill.jobs.work import SceneJob

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def environment():
    """Let workers import the tests' modules, and compute with one thread, as this process does."""
    before = dict(os.environ)
    path = [str(Path(__file__).parent), str(ROOT), str(ROOT / "tests"), *filter(None, [before.get("PYTHONPATH")])]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    yield
    os.environ.clear()
    os.environ |= before


@pytest.fixture(scope="module")
def address(environment):
    """Address of a cluster of two machines, with one processor each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(make_photo(40, 50, 0)).save(tmp_path / "in" / name)
    return tmp_path / "in"


def on(address, **options):
    return RayCluster(address=address, **options)


def results(folder):
    """Read the completions in a folder, and their scores."""
    pictures = {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    scores = json.loads((folder / "scores.json").read_text())
    return pictures, [(c["file"], c["seed"], c["score"]) for c in scores["completions"]]


@pytest.mark.filterwarnings("ignore::realfill.errors.RealFillWarning")
def test_results_equal_those_of_one_process_though_a_worker_is_killed(address, tmp_path, tiny_sd, scene):
    for seed, name in enumerate("abc"):
        Scene(scene.references, make_photo(64, 80, seed), scene.mask).save(tmp_path / "scenes" / name)
    job = SceneJob(
        fit=FitConfig(base=tiny_sd, **TINY_FIT | {"num_steps": 9}, checkpoint_every=4, preset="paper"),
        sample=SampleConfig(num_samples=2, num_inference_steps=2), rank=RankConfig(matcher="sift"), device="cpu",
    )  # fmt: skip
    run_batch([tmp_path / "scenes"], tmp_path / "plain", scenes=job, progress=False)
    killed = KilledOnce(name="b", after_step=6, job=job)
    report = run_batch([tmp_path / "scenes"], tmp_path / "ray", scenes=killed, cluster=on(address), progress=False)
    assert len(report.of("done")) == 3, report.table()
    steps = {name: [int(s) for s in (tmp_path / "ray" / f"{name}.steps").read_text().split()] for name in "abc"}
    assert steps == {"a": [*range(1, 10)], "b": [1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9], "c": [*range(1, 10)]}
    for name in "abc":
        assert results(tmp_path / "ray" / name) == results(tmp_path / "plain" / name)
        assert len(results(tmp_path / "ray" / name)[0]) > 2


def test_on_step_ends_the_batch_within_two_seconds_and_the_same_call_resumes(address, photos, tmp_path):
    out, go, ended_at, seen = tmp_path / "out", tmp_path / "go", [], []

    def end_once_two_run(progress):
        seen.append(progress)
        if len(list(out.glob("*.started"))) == 2:
            ended_at.append(time.monotonic())
            return False
        return None

    job = Waiter(starts_at=go)
    report = run_batch([photos], out, photos=job, cluster=on(address), on_step=end_once_two_run, progress=False)
    assert time.monotonic() - ended_at[0] < 2
    assert len(report.of("left")) == 3
    assert len(list(out.glob("*.ended"))) == 2  # running jobs were told, and could write their checkpoints
    assert {(p.phase, p.step, p.num_steps) for p in seen} == {("batch", 0, 3)}
    go.touch()
    (photos / "b.png").rename(photos / "odd.png")
    with pytest.warns(RealFillWarning, match="odd.png: this one is odd"):
        report = run_batch([photos], out, photos=job, cluster=on(address), progress=False)
    assert [(o.name, o.state, o.line) for o in report.outcomes] == [
        ("a.png", "done", "0"), ("c.png", "done", "0"), ("odd.png", "done", "0"),
    ]  # fmt: skip


def test_an_item_whose_worker_always_dies_fails_alone(address, photos, tmp_path):
    (photos / "b.png").rename(photos / "kill.png")
    (photos / "c.png").rename(photos / "bad.png")
    with pytest.warns(RealFillWarning, match=r"kill.png: its worker died, because .*tried again \(1 of 1\)"):
        report = run_batch(
            [photos], tmp_path / "out", photos=Recorder(), cluster=on(address, retries=1), progress=False
        )  # fmt: skip
    lines = {o.name: (o.state, o.line) for o in report.outcomes}
    assert lines["a.png"] == ("done", "made of a.png")
    assert lines["bad.png"] == ("failed", "this one is bad")
    assert lines["kill.png"][0] == "failed" and lines["kill.png"][1].startswith(
        "its worker died twice, because its process"
    )
    assert json.loads((tmp_path / "out" / "batch.json").read_text())["items"]["kill.png"]["state"] == "failed"


def test_a_cluster_that_does_not_see_the_folder_is_refused_before_any_work(address, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("realfill.jobs.sharing.read_holder", lambda _: "another folder of that name")
    with pytest.raises(ClusterError, match=r"does not see the output folder .* need one shared file system"):
        run_batch([photos], tmp_path / "out", photos=Recorder(), cluster=on(address), progress=False)
    assert not (tmp_path / "out" / "calls.txt").exists()


def test_a_cluster_that_cannot_be_reached_is_an_error_at_once(photos, tmp_path):
    pytest.importorskip("ray")
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"Ray cannot be reached at '127.0.0.1:9' .*legal: 'local'"):
        run_batch([photos], tmp_path / "out", photos=Recorder(), cluster=on("127.0.0.1:9"), progress=False)
    assert time.monotonic() - start < 10


def test_the_command_starts_ray_on_this_machine_and_ctrl_c_ends_it(tmp_path, tiny_sd, scene):
    pytest.importorskip("ray")
    scene.save(tmp_path / "scenes" / "a")
    command = [
        sys.executable, "-m", "realfill", "batch", "scenes", "-o", "out", "--ray", "local", "--base", tiny_sd,
        "--device", "cpu", "--preset", "paper", "--num-steps", "100000", "--checkpoint-every", "100000",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    checkpoint = tmp_path / "out" / "a" / "checkpoint.safetensors"
    try:
        wait_for(lambda: checkpoint.exists() or process.poll() is not None)
        others = psutil.Process(process.pid).children(recursive=True)
        start = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: Ray's processes get it too
        _, text = process.communicate(timeout=30)
        time_s = time.monotonic() - start
    finally:
        process.kill()
    assert process.returncode == 130, text
    assert time_s < 5, "two seconds, and the patience that a busy machine needs"
    assert len(others) > 3 and not any(map(is_alive, others)), "no process outlives the command"
    assert "1 of 1 photos and scenes are left; the same command" in text


def is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
