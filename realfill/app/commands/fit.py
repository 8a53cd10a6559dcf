"""``realfill fit``: from a folder of photos to an adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from realfill.app.commands.common import MachineOptions, SceneOptions, load_scene
from realfill.app.commands.fitting import choose_base, fit_and_save, require_no_adapter
from realfill.app.commands.jobs import find_job, in_output, make_request, record_job, remove_checkpoint
from realfill.config import FitConfig, GeometryConfig, WindowConfig

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Fit a base model to a scene and save the adapter."""

    scene: Path
    """Folder with ref/*, target/target.png and target/mask.png (white = fill)."""
    output: Path
    """Folder for the adapter. The same command resumes an interrupted fit found there."""
    base: str | None = None
    """Base model: ``mini``, ``sd2``, ``sd15``, a hub id, or a directory in diffusers' layout. None: sd2, which needs a
    GPU."""
    overwrite: bool = False
    """Replace the adapter in the output folder."""
    fit: FitConfig = field(default_factory=FitConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    reading: Annotated[SceneOptions, tyro.conf.arg(name="scene")] = field(default_factory=SceneOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        from realfill.models.diffusion.adapter import MANIFEST_NAME, WEIGHTS_NAME

        config = choose_base(self.fit, self.base, self.machine)
        scene = load_scene(self.reading, self.machine, self.scene)
        with in_output(self.output):
            request = make_request(
                "fit", config.base, scene=scene, fit=config, window=self.window, geometry=self.geometry
            )
            files = (MANIFEST_NAME, WEIGHTS_NAME)
            if find_job(self.output, request, results=files, overwrite=self.overwrite) == "done":
                remove_checkpoint(self.output)
                self.machine.say(f"{self.output} holds the finished adapter of this request; nothing to do")
                return
            require_no_adapter(self.output, self.output, overwrite=self.overwrite)
            adapter = fit_and_save(
                scene, config, self.window, self.geometry, self.output, self.output, self.machine,
                overwrite=self.overwrite,
            )  # fmt: skip
            if adapter is None:
                return
            record_job(self.output, request, done=True)
            remove_checkpoint(self.output)
        self.machine.say(f"{adapter!r} written to {self.output}")
