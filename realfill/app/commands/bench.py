"""``realfill bench``: methods measured on scenes with ground truth."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path

from realfill.app.commands.common import MachineOptions
from realfill.app.commands.jobs import in_output
from realfill.benchmark.config import BenchConfig
from realfill.config import FitConfig, GeometryConfig, RankConfig, SampleConfig, WindowConfig
from realfill.errors import OutputError

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Measure methods on a folder of scenes with ground truth: results.json, a Markdown report, a page of pictures."""

    scenes: Path
    """Folder of scene folders in RealBench's layout, each with target/gt.png. Other folders are skipped and
    listed."""
    output: Path
    """Folder for results, reports and pictures. The same command resumes a benchmark found there."""
    base: str = "sd2"
    """Base model: ``mini``, ``sd2``, ``sd15``, a hub id, or a directory in diffusers' layout."""
    overwrite: bool = False
    """Replace the benchmark in the output folder."""
    bench: BenchConfig = field(default_factory=BenchConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        from realfill.benchmark.cases import case_folders
        from realfill.benchmark.page import html
        from realfill.benchmark.report import markdown
        from realfill.benchmark.runner import discard
        from realfill.benchmark.setup import set_up
        from realfill.benchmark.tables import build_tables
        from realfill.io.files import write_text

        case_folders(self.scenes)  # an error here comes before anything is loaded
        fit = dataclasses.replace(self.fit, base=self.base)
        benchmark = set_up(
            self.bench, fit=fit, sample=self.sample, window=self.window, ranking=self.rank, geometry=self.geometry,
            device=self.machine.device, progress=self.machine.progress,
        )  # fmt: skip
        with in_output(self.output):
            if self.overwrite:
                discard(self.output)
            results = benchmark.run(self.scenes, self.output, progress=self.machine.progress)
            tables = build_tables(results)
            report = markdown(results, tables=tables)
            write_text(self.output / "results.md", report)
            write_text(self.output / "index.html", html(results, self.output, tables=tables))
        self.machine.say(report)
        for run in results.runs:
            if run.error is not None:
                print(f"failed: {run.method} on {run.case}: {run.error}", file=sys.stderr)
        self.machine.say(f"see {self.output / 'index.html'}")
        if not results.records:
            raise OutputError(
                "nothing was measured, because every method failed on every case, or no case could be used; results.md "
                "in the output folder gives the reasons"
            )
