"""``realfill complete``: completions of a scene from an adapter or from a bare base model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from realfill.app.commands.common import (
    MachineOptions,
    ResultOptions,
    SceneOptions,
    load_scene,
    say_result,
)
from realfill.app.commands.jobs import find_job, hash_file, in_output, make_request, read_request
from realfill.app.commands.pictures import write_pictures
from realfill.app.commands.sampling import Sampling, check_output, leave_finished
from realfill.config import GeometryConfig, RankConfig, SampleConfig, WindowConfig

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.scene.scene import Scene

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Complete a scene with an adapter, or with a bare base model, and rank the results."""

    scene: Path
    """Folder with target/target.png, target/mask.png (white = fill) and, to rank by, ref/*."""
    output: Path
    """Folder for completions, scores.json and contact sheet. The same command resumes an interrupted job found
    there."""
    adapter: Path | None = None
    """Folder of an adapter that realfill fit, realfill run or realfill adapt wrote."""
    base: str | None = None
    """Base model to complete with directly, without an adapter; or ``telea``, ``smooth``, ``shiftmap`` or
    ``completion``, which fill what the references do not show without a diffusion model."""
    extend: bool = False
    """Add seeds to the completions in the output folder: --num-samples more, counted up from the last seed there."""
    redo: Path | None = None
    """File of an earlier completion of this scene. Keep it except for a part of its hole."""
    redo_mask: Path | None = None
    """Image of that part, of the target's size; white = sample again."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    reading: Annotated[SceneOptions, tyro.conf.arg(name="scene")] = field(default_factory=SceneOptions)
    files: Annotated[ResultOptions, tyro.conf.arg(name="output")] = field(default_factory=ResultOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __post_init__(self) -> None:
        if (self.adapter is None) == (self.base is None):
            raise ValueError("give either --adapter DIR or --base NAME")
        if (self.redo is None) != (self.redo_mask is None):
            raise ValueError("give both --redo FILE and --redo-mask FILE, or neither")
        if self.extend and self.files.overwrite:
            raise ValueError("give either --extend or --overwrite")

    def __call__(self) -> None:
        """Run the command."""
        from realfill.models.diffusion.hub import refuse_adapter

        if self.base is not None:
            refuse_adapter(self.base)
        scene = self._load_scene()
        source = _load_adapter(self.adapter) if self.adapter is not None else str(self.base)
        with in_output(self.output):
            sampling = self._sampling(scene, source)
            ignoring = ("sample seed", "sample num_samples") if self.extend else ()
            state = find_job(
                self.output,
                sampling.request,
                results=("scores.json",),
                overwrite=self.files.overwrite,
                ignoring=ignoring,
            )
            holds_completions = (self.output / "scores.json").is_file()
            if state == "done" and not self.extend:
                leave_finished(self.output, scene, self.files, self.machine)
                return
            if self.extend and holds_completions:
                check_output(self.output, scene, self.files, "unfinished")
                completions = sampling.extend(read_request(self.output) or sampling.request)
            else:
                check_output(self.output, scene, self.files, state)
                completions = sampling.run()
            say_result(self.machine, completions, str(self.output))
            if self.files.pictures:
                write_pictures(scene, self.output, self.machine)

    def _load_scene(self) -> Scene:
        from realfill.results.completion import Completion

        scene = load_scene(self.reading, self.machine, self.scene)
        if self.redo is None or self.redo_mask is None:
            return scene
        return Completion.load(self.redo, scene).redo(str(self.redo_mask))

    def _sampling(self, scene: Scene, source: Adapter | str) -> Sampling:
        is_base = isinstance(source, str)
        redo = None if self.redo is None else hash_file(self.redo)
        request = make_request(
            "complete", source if is_base else source.base, scene=scene, adapter=None if is_base else source,
            sample=self.sample, window=self.window, geometry=self.geometry, ranking=self.rank,
            inputs={"files": self.files.formats, "redo": redo},
        )  # fmt: skip
        return Sampling(
            scene=scene, source=source, sample=self.sample, window=self.window, geometry=self.geometry,
            ranking=self.rank, output=self.output, files=self.files, machine=self.machine, request=request,
        )  # fmt: skip


def _load_adapter(folder: Path) -> Adapter:
    """Load the adapter in a folder; the folder of ``realfill run`` has it in ``adapter``."""
    from realfill.models.diffusion.adapter import MANIFEST_NAME, Adapter

    inner = folder / "adapter"
    is_run = (inner / MANIFEST_NAME).is_file() and not (folder / MANIFEST_NAME).is_file()
    return Adapter.load(inner if is_run else folder)
