"""Commands that complete photos: ``run``, ``fit``, ``complete``, ``rank``, ``demo``."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from realfill.commands.common import Common, FitOptions, OutputDir, OutputOptions, SceneDir, SceneOptions, WithBase
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.errors import OutputError

if TYPE_CHECKING:
    from realfill.models.adapter import Adapter
    from realfill.results import Completions
    from realfill.scene import Scene

# Heavy rooms are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


_CHECKPOINTS = "checkpoint"  # folder within the output


@dataclass(frozen=True, kw_only=True)
class Run(WithBase, SceneOptions, OutputOptions):
    """Fit, complete and rank: from a folder of photos to ranked completions."""

    scene: SceneDir
    """Folder: ref/*, target/target.png, target/mask.png (white = fill)."""
    output: OutputDir
    """Folder for completions, scores.json, contact sheet and adapter. An interrupted fit there is gone on with."""
    fit: FitOptions = field(default_factory=FitConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)

    def __call__(self) -> None:
        """Do it."""
        from realfill.pipeline import check_ready, complete

        scene = self.load_scene(self.scene)
        self.check_output(self.output, scene, overwrite=self.overwrite)
        checkpoints = self.output / _CHECKPOINTS
        _require_no_adapter(self.output / "adapter", checkpoints, overwrite=self.overwrite)
        check_ready(scene, self.fit, self.sample, ranking=self.rank, progress=not self.quiet, **self.machine)
        start = time.monotonic()
        adapter = _fit_and_save(self, scene, self.output / "adapter", checkpoints)
        if adapter is None:
            return
        completions = complete(scene, adapter, self.sample, ranking=self.rank, progress=not self.quiet, **self.machine)
        self.write(completions, self.output, overwrite=self.overwrite)
        _remove_checkpoints(checkpoints)
        self.say(f"{_first(completions)}; written to {self.output} in {time.monotonic() - start:.0f} s")


@dataclass(frozen=True, kw_only=True)
class Fit(WithBase, SceneOptions):
    """Teach a base model a scene, and keep the adapter."""

    scene: SceneDir
    """Folder: ref/*, target/target.png, target/mask.png (white = fill)."""
    output: OutputDir
    """Folder for the adapter. An interrupted fit there is gone on with."""
    fit: FitOptions = field(default_factory=FitConfig)

    def __call__(self) -> None:
        """Do it."""
        scene = self.load_scene(self.scene)
        checkpoints = self.output / _CHECKPOINTS
        _require_no_adapter(self.output, checkpoints, overwrite=self.overwrite)
        adapter = _fit_and_save(self, scene, self.output, checkpoints)
        if adapter is None:
            return
        _remove_checkpoints(checkpoints)
        self.say(f"{adapter!r} written to {self.output}")


@dataclass(frozen=True, kw_only=True)
class Complete(WithBase, SceneOptions, OutputOptions):
    """Complete a scene with a fitted adapter, or with a bare base."""

    scene: SceneDir
    """Folder: ref/*, target/target.png, target/mask.png (white = fill). Without ref, nothing is ranked."""
    output: OutputDir
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

        scene = self._prepared()
        self.check_output(self.output, scene, overwrite=self.overwrite)
        source = Adapter.load(self.adapter) if self.adapter is not None else str(self.base)
        completions = complete(scene, source, self.sample, ranking=self.rank, progress=not self.quiet, **self.machine)
        self.write(completions, self.output, overwrite=self.overwrite)
        self.say(f"{_first(completions)}; written to {self.output}")

    def _prepared(self) -> Scene:
        from realfill.completion import Completion

        scene = self.load_scene(self.scene)
        if self.redo is None or self.redo_mask is None:
            return scene
        return Completion.load(self.redo, scene).redo(str(self.redo_mask))


@dataclass(frozen=True, kw_only=True)
class Rank(Common, SceneOptions, OutputOptions):
    """Rank completions that were written earlier, anew or by another matcher."""

    scene: SceneDir
    """Folder of the scene, with the references to rank by."""
    completions: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="COMPLETIONS")]
    """Folder that ``realfill run`` or ``realfill complete`` wrote."""
    output: OutputDir
    """Folder for the ranked completions."""
    rank: RankConfig = field(default_factory=RankConfig)

    def __call__(self) -> None:
        """Do it."""
        from realfill.ranking import rank
        from realfill.results import Completions

        scene = self.load_scene(self.scene)
        self.check_output(self.output, scene, overwrite=self.overwrite)
        completions = Completions.load(self.completions, scene)
        ranked = rank(completions, config=self.rank, device=self.device, progress=not self.quiet)
        self.write(ranked, self.output, overwrite=self.overwrite)
        for place, completion in enumerate(ranked, 1):
            matches, score = completion.num_matches, completion.score
            closeness = "nothing to compare with" if score is None else f"{score:.2f} dB"
            self.say(f"{place:3d}. seed {completion.seed}: {closeness if matches is None else f'{matches} matches'}")


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """Run the whole job on a real photo with the packaged base; no network, a few minutes on two cores."""

    output: OutputDir = Path("realfill-demo")
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


def _fit_and_save(command: Run | Fit, scene: Scene, folder: Path, checkpoints: Path) -> Adapter | None:
    """Fit as a command says and write the adapter; ``None`` in a process that only helps the one that writes."""
    from realfill.devices import is_main_process
    from realfill.pipeline import fit

    adapter = fit(
        scene, command.fit, checkpoint_dir=checkpoints, overwrite=command.overwrite, progress=not command.quiet,
        **command.machine,
    )  # fmt: skip
    if not is_main_process():
        return None
    adapter.save(folder, overwrite=True)
    return adapter


def _require_no_adapter(folder: Path, checkpoints: Path, *, overwrite: bool) -> None:
    """Make sure that no adapter would be replaced unasked; one beside a checkpoint was about to be written."""
    from realfill.models.adapter import MANIFEST_NAME, WEIGHTS_NAME

    there = any((folder / name).exists() for name in (MANIFEST_NAME, WEIGHTS_NAME))
    if there and not (overwrite or checkpoints.exists()):
        raise OutputError(f"{str(folder)!r} already holds an adapter; choose another folder, or --overwrite it")


def _remove_checkpoints(folder: Path) -> None:
    from realfill.fitting.training import CHECKPOINT_NAME

    (folder / CHECKPOINT_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # not there, or somebody else keeps files in it
        folder.rmdir()


def _first(completions: Completions) -> str:
    return f"{'best' if completions.ranked else 'first, not ranked'}: {completions.best!r}"
