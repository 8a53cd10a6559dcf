"""Commands that measure and tell: ``bench``, ``bench-speed``, ``models``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from realfill.benchmark.config import BenchConfig, SpeedConfig
from realfill.commands.common import Common, FitOptions, OutputDir
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.errors import OutputError, RealFillError

# Heavy rooms are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, kw_only=True)
class Bench(Common):
    """Measure methods on a folder of scenes with ground truth: results.json, a Markdown report, a page of pictures."""

    scenes: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENES")]
    """Folder of scene folders in RealBench's layout, target/gt.png among them. Others are skipped and named."""
    output: OutputDir
    """Folder for everything. A benchmark with the same config that is there is gone on with."""
    bench: Annotated[BenchConfig, tyro.conf.arg(name="")] = field(default_factory=BenchConfig)
    fit: FitOptions = field(default_factory=FitConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)

    def __call__(self) -> None:
        """Do it."""
        from realfill.benchmark.page import html
        from realfill.benchmark.report import markdown
        from realfill.benchmark.runner import discard
        from realfill.benchmark.setup import set_up
        from realfill.benchmark.tables import build_tables
        from realfill.cases import case_folders

        case_folders(self.scenes)  # before anything is loaded
        benchmark = set_up(self.bench, fit=self.fit, sample=self.sample, ranking=self.rank, device=self.device)
        if self.overwrite:
            discard(self.output)
        results = benchmark.run(self.scenes, self.output, progress=not self.quiet)
        tables = build_tables(results)
        report = markdown(results, tables=tables)
        (self.output / "results.md").write_text(report, encoding="utf-8")
        (self.output / "index.html").write_text(html(results, self.output, tables=tables), encoding="utf-8")
        self.say(report)
        for run in results.runs:
            if run.error is not None:
                print(f"failed: {run.method} on {run.case}: {run.error}", file=sys.stderr)
        self.say(f"look at {self.output / 'index.html'}")
        if not results.records:
            raise OutputError("nothing was measured: every method failed on every case, or no case could be used")


@dataclass(frozen=True, kw_only=True)
class BenchSpeed:
    """Measure speed and memory of fit, sampling and ranking on a synthetic scene: tables, and JSON on request."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
    """Also write everything there as JSON."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``; None: the best there is."""
    traceback: bool = False
    """On an error, print where it came from."""
    speed: Annotated[SpeedConfig, tyro.conf.arg(name="")] = field(default_factory=SpeedConfig)
    fit: FitOptions = field(default_factory=lambda: FitConfig(base="scaled-sd"))
    """Its base may also be ``scaled-sd``, Stable Diffusion 2 scaled down, or ``random-sd2``, that of its own size, both
    with random weights."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)

    def __call__(self) -> None:
        """Do it."""
        from realfill.benchmark.speed.report import measure_speed

        if self.output is not None and not self.output.parent.is_dir():
            raise OutputError(f"there is no folder {str(self.output.parent)!r} to write {self.output.name!r} into")
        report = measure_speed(self.speed, self.fit, self.sample, self.rank, device=self.device)
        print(report.markdown())
        if self.output is not None:
            self.output.write_text(report.to_json(), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the base models by name: where they come from, whether they are on this machine, their size."""

    recipes: bool = False
    """Print what config fields that are left None come to: by the card of a base that is present, else by the paper."""

    def __call__(self) -> None:
        """Do it."""
        from realfill.models.bases import BASES, Card, is_present, locate

        for name, source in BASES.items():
            try:
                directory = locate(name, local_files_only=True)
                megabytes = sum(f.stat().st_size for f in directory.rglob("*") if f.is_file()) / 1e6
                state = f"present, {megabytes:,.0f} MB"
            except RealFillError:
                state = f"not on this machine, about {source.download_gb:g} GB to download"
            print(f"{name:6} {source.about}\n       {state}")
            for repository in source.repositories:
                print(f"       {repository}")
            if self.recipes:
                card = Card.load(locate(name, local_files_only=True)) if is_present(name) else Card()
                print(f"       {FitConfig().resolve(card.fit)}")
                print(f"       {SampleConfig().resolve(card.sample)}")
                print(f"       {RankConfig().resolve(card.rank)}")
