"""A benchmark's own files, damaged: the work is done again, or one error names the file."""

import json

import pytest
from helpers import save_case

from realfill.benchmark.cases import Case
from realfill.benchmark.methods.engines import EngineMethod
from realfill.benchmark.records import Results
from realfill.benchmark.runner import Arm, Benchmark
from realfill.config import RankConfig
from realfill.errors import OutputError, SceneError


@pytest.fixture
def bench(scene, tmp_path):
    save_case(scene, tmp_path / "scenes" / "one")
    benchmark = Benchmark(
        arms=[Arm(method=EngineMethod(name="smooth"))], num_samples=1, fit_seeds=1,
        missing_metrics={"score": "not measured here"},
        metrics={"mean": lambda image, *_: float(image.mean())}, matcher=None, ranking=RankConfig().resolve({}),
    )  # fmt: skip

    def run():
        return benchmark.run(tmp_path / "scenes", tmp_path / "out", progress=False)

    run()
    return run


@pytest.mark.parametrize(
    "change",
    [
        {"run": 5}, {"run": {}}, {"records": 5}, {"records": []}, {"records": [{}]}, {"identity": 5}, {"records": "x"},
        ["records", 0, "metrics", 5], ["records", 0, "metrics", {"mean": "x"}], ["records", 0, "seed", 7],
        ["records", 0, "seed", "0"], ["records", 0, "case", 5], ["records", 0, "score", "x"], ["run", "fit_s", "x"],
        ["run", "warnings", 5], ["run", "error", 5],
    ],
)  # fmt: skip
def test_a_damaged_record_is_measured_again(bench, tmp_path, change):
    path = tmp_path / "out" / "cases" / "one" / "smooth" / "fit0" / "run.json"
    values = json.loads(path.read_text())
    if isinstance(change, dict):
        values |= change
    else:
        *keys, value = change
        holder = values
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value
    path.write_text(json.dumps(values))
    results = bench()
    assert [r.error for r in results.runs] == [None]
    assert [(r.case, r.seed, set(r.metrics)) for r in results.records] == [("one", 0, {"mean"})]


@pytest.mark.parametrize("data", [b"\xff", b"", b"{}"])
def test_a_damaged_identity_is_another_benchmark(bench, tmp_path, data):
    (tmp_path / "out" / "benchmark.json").write_bytes(data)
    with pytest.raises(OutputError, match="contains a benchmark with another config"):
        bench()


@pytest.mark.parametrize("data", [b"\xff", b"[]", b'{"records": 5}', b'{"records": [], "runs": [{}]}', b"[" * 5000])
def test_damaged_results_are_one_error(tmp_path, data):
    (tmp_path / "results.json").write_bytes(data)
    with pytest.raises(OutputError, match=r"results\.json' holds no results of a benchmark"):
        Results.load(tmp_path / "results.json")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * 20_000])
def test_a_prompt_that_is_no_short_text_is_one_error(scene, tmp_path, data):
    folder = save_case(scene, tmp_path / "one")
    (folder / "prompt.txt").write_bytes(data)
    with pytest.raises(SceneError, match=r"prompt\.txt'"):
        Case.load(folder)
