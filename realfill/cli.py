"""The command line: ``realfill run|fit|complete|rank|demo|bench|bench-speed|models``, made from the config classes."""

from __future__ import annotations

import dataclasses
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import tyro

from realfill.config import BenchConfig, FitConfig, RankConfig, SampleConfig, SpeedConfig
from realfill.errors import OutputError, RealFillError
from realfill.options import OutputOptions, SceneOptions

if TYPE_CHECKING:
    from realfill.scene import Scene

# Heavy rooms are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415

_Fit: TypeAlias = Annotated[FitConfig, tyro.conf.arg(name="")]
_SceneDir: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
_Output: TypeAlias = Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="DIR")]


@dataclass(frozen=True, kw_only=True)
class _Common:
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``; None: the best there is."""
    quiet: bool = False
    """No progress bars, no reports."""
    overwrite: bool = False
    """Replace what the output folder holds."""
    traceback: bool = False
    """On an error, print where it came from."""

    def say(self, line: str) -> None:
        """Report to the person in front."""
        if not self.quiet:
            print(line, flush=True)


@dataclass(frozen=True, kw_only=True)
class _WithBase(_Common):
    local_files_only: bool = False
    """Don't touch the network for the base model; HF_HUB_OFFLINE=1 does the same."""

    @property
    def machine(self) -> dict[str, Any]:
        """What the library takes as keywords about where it runs."""
        return {"device": self.device, "local_files_only": self.local_files_only}


@dataclass(frozen=True, kw_only=True)
class Run(_WithBase, SceneOptions, OutputOptions):
    """Fit, complete and rank: from a folder of photos to ranked completions."""

    scene: _SceneDir
    """Folder: ref/*, target/target.png, target/mask.png (white = fill)."""
    output: _Output
    """Folder for completions, scores.json, contact sheet and adapter. An interrupted fit there is gone on with."""
    fit: _Fit = field(default_factory=FitConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)

    def __call__(self) -> None:
        """Do it."""
        from realfill.devices import is_main_process
        from realfill.pipeline import check_ready, complete, fit
        from realfill.results import check_output

        scene = self.load_scene(self.scene)
        check_output(self.output, overwrite=self.overwrite)
        checkpoints = _checkpoints(self.output, overwrite=self.overwrite)
        if (self.output / "adapter").exists() and not (self.overwrite or checkpoints.exists()):
            raise OutputError(f"{str(self.output / 'adapter')!r} exists; choose another folder, or --overwrite it")
        check_ready(scene, self.fit, self.sample, ranking=self.rank, progress=not self.quiet, **self.machine)
        start = time.monotonic()
        adapter = fit(scene, self.fit, checkpoint_dir=checkpoints, progress=not self.quiet, **self.machine)
        if not is_main_process():
            return
        adapter.save(self.output / "adapter", overwrite=True)
        completions = complete(scene, adapter, self.sample, ranking=self.rank, progress=not self.quiet, **self.machine)
        self.write(completions, self.output, overwrite=self.overwrite)
        _remove_checkpoints(checkpoints)
        self.say(f"best: {completions.best!r}; written to {self.output} in {time.monotonic() - start:.0f} s")


@dataclass(frozen=True, kw_only=True)
class Fit(_WithBase, SceneOptions):
    """Teach a base model a scene, and keep the adapter."""

    scene: _SceneDir
    """Folder: ref/*, target/target.png, target/mask.png (white = fill)."""
    output: _Output
    """Folder for the adapter. An interrupted fit there is gone on with."""
    fit: _Fit = field(default_factory=FitConfig)

    def __call__(self) -> None:
        """Do it."""
        from realfill.devices import is_main_process
        from realfill.models.adapter import MANIFEST_NAME
        from realfill.pipeline import fit

        scene = self.load_scene(self.scene)
        if (self.output / MANIFEST_NAME).exists() and not self.overwrite:
            raise OutputError(
                f"{str(self.output)!r} already holds an adapter; choose another folder, or --overwrite it"
            )
        checkpoints = _checkpoints(self.output, overwrite=self.overwrite)
        adapter = fit(scene, self.fit, checkpoint_dir=checkpoints, progress=not self.quiet, **self.machine)
        if not is_main_process():
            return
        adapter.save(self.output, overwrite=self.overwrite)
        _remove_checkpoints(checkpoints)
        self.say(f"{adapter!r} written to {self.output}")


@dataclass(frozen=True, kw_only=True)
class Complete(_WithBase, SceneOptions, OutputOptions):
    """Complete a scene with a fitted adapter, or with a bare base."""

    scene: _SceneDir
    """Folder: ref/*, target/target.png, target/mask.png (white = fill). Without ref, nothing is ranked."""
    output: _Output
    """Folder for completions, scores.json and contact sheet."""
    adapter: Path | None = None
    """Folder of an adapter that ``realfill fit`` wrote."""
    base: str | None = None
    """In place of an adapter: the name of a bare base."""
    redo: Path | None = None
    """A completion of this scene that was written earlier, to be kept but for a part of its hole."""
    redo_mask: Path | None = None
    """That part: an image of the target's size, white = sample again."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)

    def __post_init__(self) -> None:
        if (self.adapter is None) == (self.base is None):
            raise ValueError("give either --adapter DIR or --base NAME")
        if (self.redo is None) != (self.redo_mask is None):
            raise ValueError("give both --redo FILE and --redo-mask FILE, or neither")
        OutputOptions.__post_init__(self)

    def __call__(self) -> None:
        """Do it."""
        from realfill.models.adapter import Adapter
        from realfill.pipeline import complete
        from realfill.results import check_output

        scene = self._prepared()
        check_output(self.output, overwrite=self.overwrite)
        source = Adapter.load(self.adapter) if self.adapter is not None else str(self.base)
        completions = complete(scene, source, self.sample, ranking=self.rank, progress=not self.quiet, **self.machine)
        self.write(completions, self.output, overwrite=self.overwrite)
        self.say(f"{'best' if completions.ranked else 'first'}: {completions.best!r}; written to {self.output}")

    def _prepared(self) -> Scene:
        from realfill.completion import Completion

        scene = self.load_scene(self.scene)
        if self.redo is None or self.redo_mask is None:
            return scene
        return Completion.load(self.redo, scene).redo(str(self.redo_mask))


@dataclass(frozen=True, kw_only=True)
class Rank(_Common, SceneOptions, OutputOptions):
    """Rank completions that were written earlier, anew or by another matcher."""

    scene: _SceneDir
    """Folder of the scene, with the references to rank by."""
    completions: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="COMPLETIONS")]
    """Folder that ``realfill run`` or ``realfill complete`` wrote."""
    output: _Output
    """Folder for the ranked completions."""
    rank: RankConfig = field(default_factory=RankConfig)

    def __call__(self) -> None:
        """Do it."""
        from realfill.ranking import rank
        from realfill.results import Completions, check_output

        check_output(self.output, overwrite=self.overwrite)
        completions = Completions.load(self.completions, self.load_scene(self.scene))
        ranked = rank(completions, config=self.rank, device=self.device, progress=not self.quiet)
        self.write(ranked, self.output, overwrite=self.overwrite)
        for place, completion in enumerate(ranked, 1):
            matches, score = completion.num_matches, completion.score
            closeness = "nothing to compare with" if score is None else f"{score:.2f} dB"
            self.say(f"{place:3d}. seed {completion.seed}: {closeness if matches is None else f'{matches} matches'}")


@dataclass(frozen=True, kw_only=True)
class Demo(_Common):
    """Run the whole job on a real photo with the packaged base; no network, a few minutes on two cores."""

    output: _Output = Path("realfill-demo")
    """Folder for everything."""
    num_steps: int | None = None
    """Steps of the fit; None: the packaged base's own default."""

    def __call__(self) -> None:
        """Do it."""
        from realfill.demo import run_demo

        start = time.monotonic()
        config = FitConfig(base="mini", num_steps=self.num_steps)  # type: ignore[arg-type]
        run_demo(
            self.output, config, overwrite=self.overwrite, device=self.device, progress=not self.quiet, say=self.say
        )
        self.say(f"look at {self.output / 'contact_sheet.png'}; done in {time.monotonic() - start:.0f} s")


@dataclass(frozen=True, kw_only=True)
class Bench(_Common):
    """Measure methods on a folder of scenes with ground truth: results.json, a Markdown report, a page of pictures."""

    scenes: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENES")]
    """Folder of scene folders in RealBench's layout, target/gt.png among them. Others are skipped and named."""
    output: _Output
    """Folder for everything. A benchmark with the same config that is there is gone on with."""
    bench: Annotated[BenchConfig, tyro.conf.arg(name="")] = field(default_factory=BenchConfig)
    num_samples: int | None = None
    """Completions of each method, case and fit seed; None: the base's own default, else 64 (paper)."""
    fit: _Fit = field(default_factory=FitConfig)
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
        if self.overwrite:
            discard(self.output)
        sample = self.sample
        if self.num_samples is not None:
            sample = dataclasses.replace(sample, num_samples=self.num_samples)
        benchmark = set_up(self.bench, fit=self.fit, sample=sample, ranking=self.rank, device=self.device)
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
    fit: _Fit = field(default_factory=lambda: FitConfig(base="scaled-sd"))
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


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 an error, 2 bad usage, 130 interrupted."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(args)


def _run(args: Sequence[str] | None) -> int:
    try:
        command: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
            {
                "run": Run, "fit": Fit, "complete": Complete, "rank": Rank, "demo": Demo, "bench": Bench,
                "bench-speed": BenchSpeed, "models": Models,
            },
            prog="realfill", args=args,
            description="Fill a hole in a photo with what other photos of the moment show there.",
        )  # fmt: skip
    except ValueError as error:  # an illegal value in a config
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        command()
    except KeyboardInterrupt:
        print("stopped; if a fit was under way, the same command goes on where it stood", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - whatever it is, a line tells it better than a trace
        if getattr(command, "traceback", False):
            traceback.print_exc()
        expected = isinstance(error, RealFillError | ValueError | OSError)
        kind = "" if expected else f"{type(error).__name__}: "
        memory = "memory" in str(error).lower() and not expected
        hint = "; more --gradient-accumulation-steps, --gradient-checkpointing True or a smaller --batch-size may help"
        print(f"error: {kind}{error}{hint if memory else ''}", file=sys.stderr)
        return 1
    return 0


def _checkpoints(output: Path, *, overwrite: bool) -> Path:
    """Find the folder for a fit's checkpoint; on ``overwrite`` an older fit's is dropped."""
    folder = output / "checkpoint"
    if overwrite:
        _remove_checkpoints(folder)
    return folder


def _remove_checkpoints(folder: Path) -> None:
    from realfill.fitting.training import CHECKPOINT_NAME

    (folder / CHECKPOINT_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # not there, or somebody else keeps files in it
        folder.rmdir()


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
