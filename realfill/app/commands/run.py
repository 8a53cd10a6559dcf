"""``realfill run``: from a folder of photos to ranked completions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from realfill.app.commands.common import (
    MachineOptions,
    OutputOptions,
    SceneOptions,
    describe_first,
    load_scene,
)
from realfill.app.commands.fitting import choose_base, fit_and_save, remove_checkpoint, require_no_adapter
from realfill.app.commands.jobs import find_job, in_output, make_request
from realfill.app.commands.sampling import Sampling, check_output
from realfill.config import FitConfig, RankConfig, SampleConfig, WindowConfig

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Fit a scene, complete it and rank the results."""

    scene: Path
    """Folder with ref/*, target/target.png and target/mask.png (white = fill)."""
    output: Path
    """Folder for completions, scores.json, contact sheet and adapter. The same command resumes an interrupted job found
    there."""
    base: str | None = None
    """Base model: ``mini``, ``sd2``, ``sd15``, a hub id, or a directory in diffusers' layout. None: sd2, which needs a
    GPU."""
    fit: FitConfig = field(default_factory=FitConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    reading: Annotated[SceneOptions, tyro.conf.arg(name="scene")] = field(default_factory=SceneOptions)
    files: Annotated[OutputOptions, tyro.conf.arg(name="output")] = field(default_factory=OutputOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        from realfill.pipeline import check_ready

        config = choose_base(self.fit, self.base, self.machine)
        scene = load_scene(self.reading, self.machine, self.scene)
        start = time.monotonic()
        with in_output(self.output):
            request = make_request(
                "run", config.base, scene=scene, fit=config, sample=self.sample, window=self.window, ranking=self.rank,
                inputs={"files": self.files.formats},
            )  # fmt: skip
            state = find_job(self.output, request, results=("scores.json",), overwrite=self.files.overwrite)
            if state == "done":
                self.machine.say(f"{self.output} holds the finished result of this request; nothing to do")
                return
            check_output(self.output, scene, self.files, state)
            require_no_adapter(self.output / "adapter", self.output, overwrite=self.files.overwrite)
            check_ready(
                scene, config, self.sample, ranking=self.rank, progress=self.machine.progress, **self.machine.keywords
            )
            adapter = fit_and_save(
                scene, config, self.window, self.output, self.output / "adapter", self.machine,
                overwrite=self.files.overwrite,
            )  # fmt: skip
            if adapter is None:
                return
            sampling = Sampling(
                scene=scene, source=adapter, sample=self.sample, window=None, ranking=self.rank, output=self.output,
                files=self.files, machine=self.machine, request=request,
            )  # fmt: skip
            completions = sampling.run(resume=state == "unfinished")
            remove_checkpoint(self.output)
        self.machine.say(f"{describe_first(completions)}; written to {self.output} in {time.monotonic() - start:.0f} s")
