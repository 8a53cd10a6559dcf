"""Reports of a benchmark: they name everything, gaps included; the page is well-formed and self-contained."""

import dataclasses
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from helpers import make_photo

from realfill.benchmark.page import html
from realfill.benchmark.records import Record, Results, Run
from realfill.benchmark.report import markdown
from realfill.benchmark.tables import build_tables
from realfill.benchmark.thumbnails import difference_map, marked_hole, thumbnail
from realfill.io.writing import write_png

NASTY = "<script>alert(1)</script>|*x*"
VOID = {"meta", "img", "br"}


def make_benchmark(*, cases=("bench", "2 doors"), methods=("telea", "realfill"), samples=3, about=None):
    """Make results: realfill is 5 dB better and its score follows PSNR; telea has one completion and a failed case."""
    records, runs = [], []
    for c, case in enumerate(cases):
        for method in methods:
            failed = method == "telea" and c == 0
            error = "RuntimeError: out of <memory> | luck" if failed else None
            runs.append(
                Run(case=case, method=method, fit_seed=0, fit_s=2.0, sample_s=1.5, rank_s=0.5, peak_memory_mb=700.4,
                    error=error)
            )  # fmt: skip
            for seed in range(0 if failed else 1 if method == "telea" else samples):
                psnr = 10.0 + c + seed + (0 if method == "telea" else 5)
                records.append(
                    Record(case=case, method=method, fit_seed=0, seed=seed, score=float(seed) * 7,
                           metrics={"psnr": psnr, "detail": 0.5 + 0.1 * seed},
                           image=f"cases/{case}/{method}/fit0/seed{seed}.png")
                )  # fmt: skip
    return Results(
        records=tuple(records), runs=tuple(runs), skipped={"dark": "has no ground truth"},
        missing_metrics={"lpips": "weights are unavailable offline"}, about=about or {"command": "realfill bench `x`"},
    )  # fmt: skip


def write_pictures(results, folder):
    mask = np.zeros((40, 60, 3), np.uint8)
    mask[10:30, 20:50] = 255
    for case in {run.case for run in results.runs}:
        inputs = folder / "cases" / case / "input"
        inputs.mkdir(parents=True)
        pictures = {f"reference_{i}": make_photo(50, 30, i) for i in (0, 1, 10)}
        pictures |= {"target": make_photo(40, 60, 4), "truth": make_photo(40, 60, 4), "mask": mask}
        for name, picture in pictures.items():
            write_png(inputs / f"{name}.png", picture)
    for i, record in enumerate(results.records):
        path = folder / record.image
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, make_photo(40, 60, i))


class Page(HTMLParser):
    """Checks nesting and collects tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def rows_of(results, title):
    table = next(table for table in build_tables(results) if table.title == title)
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_the_main_table_has_means_and_the_coverage_of_each_method():
    rows = rows_of(make_benchmark(), "Means")
    assert [(r["method"], r["scenes"], r["completions"]) for r in rows] == [
        ("telea", "1 of 2", "1"), ("realfill", "2 of 2", "6")
    ]  # fmt: skip
    assert rows[0]["psnr ↑ (dB)"] == "11.00" and rows[1]["psnr ↑ (dB)"].startswith("16.50 [")
    assert rows[1]["detail → 1"].startswith("0.600 [")


def test_the_report_has_every_table():
    titles = [table.title for table in build_tables(make_benchmark())]
    assert titles == [
        "Means", "Top-ranked completions", "Best completions", "What ranking finds",
        "Paired differences, all completions", "Paired differences, top-ranked completions", "Filtering by score",
        "Rank correlation", "Metrics", "Time and memory", "Scenes", "What is missing",
    ]  # fmt: skip


def test_the_studies_recover_planted_relations():
    results = make_benchmark()
    assert rows_of(results, "What ranking finds")[0]["psnr"] == "1.00 [1.00, 1.00] (2 runs)"
    assert rows_of(results, "Rank correlation")[0]["psnr"] == "1.00 [1.00, 1.00] (2 runs)"
    assert [r["dropped"] for r in rows_of(results, "Filtering by score")] == ["0 %", "25 %", "50 %", "75 %"]
    paired = rows_of(results, "Paired differences, all completions")
    assert [row[""] for row in paired] == ["realfill against telea"]
    assert paired[0]["psnr"].startswith("+6.00 [") and paired[0]["psnr"].endswith("better in 1 of 1")
    assert rows_of(results, "Time and memory")[0] == {
        "method": "telea", "runs": "2", "failed": "1", "fit (s)": "2.0", "sample (s)": "1.5", "rank (s)": "0.5",
        "peak (MB)": "700", "highest peak (MB)": "700",
    }  # fmt: skip
    scenes = rows_of(results, "Scenes")
    assert (scenes[0]["psnr ↑ (dB)"], scenes[0]["failed runs"]) == ("–", "1 of 1")
    assert (scenes[3]["psnr ↑ (dB)"], scenes[3]["time (s)"], scenes[3]["peak (MB)"]) == ("17.00", "4.0", "700")


def test_more_references_are_compared_over_the_same_scenes():
    plain = make_benchmark(cases=("a", "b"), methods=("realfill",))
    more = [dataclasses.replace(r, method="realfill-3ref", metrics={"psnr": 20.0}) for r in plain.records]
    fewer = [dataclasses.replace(r, method="realfill-1ref") for r in plain.records if r.case == "a"]
    results = dataclasses.replace(plain, records=(*more, *fewer), runs=())
    rows = rows_of(results, "Number of references")
    assert [(r["method"], r["references"], r["scenes"]) for r in rows] == [
        ("realfill", "1", "1"),
        ("realfill", "3", "1"),
    ]
    assert [r["psnr ↑ (dB)"][:5] for r in rows] == ["16.00", "20.00"]
    paired = rows_of(results, "Paired differences, all completions")
    assert [row[""] for row in paired] == ["realfill-3ref against realfill-1ref"]
    elsewhere = [dataclasses.replace(r, case="c") for r in fewer]
    without = dataclasses.replace(results, records=(*more, *elsewhere))
    assert "Number of references" not in [table.title for table in build_tables(without)]


def test_another_baseline_can_be_chosen(tmp_path):
    results = make_benchmark()
    table = next(t for t in build_tables(results, baseline="telea") if t.title.startswith("Paired"))
    assert table.rows[0][0] == "telea against realfill" and table.rows[0][1].startswith("-6.00")
    for text in (markdown(results, tables=[table]), html(results, tmp_path, tables=[table])):
        assert "telea against realfill" in text and "Rank correlation" not in text


def test_gaps_are_named_with_their_reasons_in_both_reports(tmp_path):
    results = make_benchmark()
    page = " ".join(Page(html(results, tmp_path)).text.split())
    for text in (markdown(results).replace("\\", ""), page):
        assert "Not measured: lpips (weights are unavailable offline)." in text
        assert "has no ground truth" in text and "telea on bench, fit seed 0" in text
        assert "RuntimeError: out of <memory> | luck" in text
        assert "The methods cover different scenes" in text
    assert "fit seed 0 failed: RuntimeError" in page


def test_partly_measured_metrics_and_exact_completions_are_noted():
    results = make_benchmark()
    perfect = Record(
        case="bench", method="realfill", fit_seed=0, seed=9, score=1.0, metrics={"psnr": math.inf}, image=""
    )
    text = markdown(Results(records=(*results.records, perfect), runs=results.runs))
    assert "(6 of 7)" in text and "7 of 8 completions" in text
    assert "Completions equal to the truth: 1; their PSNR counts as 100 dB." in text


def test_markdown_tables_keep_their_columns_for_any_names():
    text = markdown(make_benchmark(cases=(NASTY, "b"), methods=(NASTY + "m", "[x](y)")))
    assert "<script>" not in text.replace("\\<", "")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_markdown_ends_with_the_conditions_fenced_beyond_any_backticks():
    text = markdown(make_benchmark(about={"command": "echo ```` x", "versions": {"torch": "2.6"}}))
    assert text.endswith('"torch": "2.6"\n  }\n}\n`````\n') and "`````json" in text


def test_the_page_shows_every_picture_and_loads_nothing(tmp_path):
    results = make_benchmark()
    write_pictures(results, tmp_path)
    text = html(results, tmp_path)
    page = Page(text)
    assert not re.search(r"https?://", text) and not page.all("script") and not page.all("link")
    images = page.all("img")
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in images)
    for link in page.all("a"):
        assert (tmp_path / unquote(link["href"])).is_file()
    alts = [image["alt"] for image in images]
    assert [a for a in alts if a.startswith("bench, reference")] == [f"bench, reference {i}" for i in range(3)]
    for expected in (
        "bench, target, hole striped", "bench, ground truth", "bench, realfill, seed 2",
        "bench, realfill, seed 2, difference from the ground truth", "bench, realfill, fit seed 0, seed 0",
        "2 doors, telea, seed 0",
    ):  # fmt: skip
        assert alts.count(expected) == 1
    assert "no picture" not in text
    assert "seed 2, highest score, score 14" in page.text and "means: psnr 16.00, detail 0.600" in page.text
    assert "128 of 255" in page.text and "prefers-color-scheme: dark" in text


def test_the_page_names_missing_pictures(tmp_path):
    results = make_benchmark()
    write_pictures(results, tmp_path)
    (tmp_path / results.records[2].image).unlink()
    (tmp_path / "cases" / "bench" / "input" / "mask.png").write_bytes(b"no picture")
    text = Page(html(results, tmp_path)).text
    assert f"no picture: {results.records[2].image}" in text
    assert "no picture: cases/bench/input/target.png" in text
    assert "no picture: bench, realfill, seed 2, difference from the ground truth" in text


def test_the_page_escapes_names(tmp_path):
    results = make_benchmark(
        cases=("<script>\"&'x", "b"), methods=("<b>$title", "realfill"), about={"<script>": "</pre>"}
    )
    write_pictures(results, tmp_path)
    text = html(results, tmp_path)
    page = Page(text)
    assert not page.all("script") and not page.all("b") and "<b>$title" in page.text
    assert all((tmp_path / unquote(link["href"])).is_file() for link in page.all("a"))


@pytest.mark.parametrize(
    "results",
    [
        Results(records=(), runs=()),
        Results(records=(), runs=(Run(case="a", method="m", fit_seed=0, error="e"),)),
        make_benchmark(cases=("one",), methods=("realfill",), samples=1),
    ],
)
def test_reports_of_few_or_no_results(results, tmp_path):
    assert markdown(results).startswith("# RealFill benchmark\n")
    Page(html(results, tmp_path))


def decoded(uri):
    from urllib.request import urlopen

    from PIL import Image

    with urlopen(uri) as file:
        return np.asarray(Image.open(file).convert("RGB")).astype(int)


def test_the_difference_map_is_dark_for_equal_and_bright_for_different_pixels(tmp_path):
    truth = np.full((64, 64, 3), 90, np.uint8)
    image, mask = truth.copy(), np.zeros_like(truth)
    mask[16:48, 16:48] = 255
    image[16:48, 32:] = 255
    for name, picture in {"image": image, "truth": truth, "mask": mask}.items():
        write_png(tmp_path / f"{name}.png", picture)
    paths = [tmp_path / f"{name}.png" for name in ("image", "truth", "mask")]
    drawn = decoded(difference_map(*paths))
    assert drawn[20:44, 20:28].max() < 15 and drawn[20:44, 36:44].mean() > 180
    assert abs(drawn[4:10] - 30).max() < 8  # outside the hole: the truth, darkened
    write_png(tmp_path / "image.png", image[:50])
    assert difference_map(*paths) is None


def test_the_hole_is_striped_and_the_rest_of_the_target_unchanged(tmp_path):
    target = np.full((64, 96, 3), 120, np.uint8)
    mask = np.zeros_like(target)
    mask[16:48, 32:64] = 255
    write_png(tmp_path / "t.png", target)
    write_png(tmp_path / "m.png", mask)
    drawn = decoded(marked_hole(tmp_path / "t.png", tmp_path / "m.png"))
    assert abs(drawn[:8] - 120).max() < 8
    assert np.ptp(drawn[20:44, 36:60, 1]) > 100


def test_thumbnails_keep_their_aspect_ratio(tmp_path):
    write_png(tmp_path / "large.png", make_photo(400, 800, 0))
    assert decoded(thumbnail(tmp_path / "large.png")).shape == (160, 320, 3)
    assert thumbnail(tmp_path / "none.png") is None


def test_a_missing_package_of_the_extra_is_reported_with_the_fix():
    code = "import sys; sys.modules['pandas'] = None; import realfill.benchmark.statistics"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingDependencyError" in process.stderr and "pip install 'realfill[bench]'" in process.stderr
