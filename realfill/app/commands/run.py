"""``realfill run``: from a folder of photos to ranked completions."""

from __future__ import annotations

import time
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
from realfill.app.commands.fitting import (
    choose_base,
    choose_unfitted_base,
    fit_and_save,
    require_no_adapter,
)
from realfill.app.commands.jobs import find_job, in_output, make_request
from realfill.app.commands.pictures import write_pictures
from realfill.app.commands.sampling import Sampling, check_output, leave_finished
from realfill.config import FitConfig, GeometryConfig, RankConfig, SampleConfig, WindowConfig

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.scene.scene import Scene

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Fit a scene, complete it and rank the results."""

    scene: Path
    """Folder with ref/*, target/target.png and target/mask.png (white = fill)."""
    output: Path
    """Folder for completions, scores.json, pictures and adapter. The same command resumes an interrupted
    job found there."""
    base: str | None = None
    """Base model: ``mini``, ``sd2``, ``sd15``, a hub id, or a directory in diffusers' layout. None: sd2; without a GPU,
    where its fit takes days, the result without a fit."""
    no_fit: bool = False
    """Do not fit: take what the references show, and fill the rest by the bare base model. The base can then also be a
    plain inpainter: ``telea``, ``smooth``, ``shiftmap`` or ``completion``."""
    fit: FitConfig = field(default_factory=FitConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    reading: Annotated[SceneOptions, tyro.conf.arg(name="scene")] = field(default_factory=SceneOptions)
    files: Annotated[ResultOptions, tyro.conf.arg(name="output")] = field(default_factory=ResultOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        bare = choose_unfitted_base(self.fit, self.base, self.machine, no_fit=self.no_fit)
        config = choose_base(self.fit, self.base, self.machine) if bare is None else None
        scene = load_scene(self.reading, self.machine, self.scene)
        start = time.monotonic()
        with in_output(self.output):
            request = make_request(
                "run", config.base if config is not None else str(bare), scene=scene, fit=config, sample=self.sample,
                window=self.window, geometry=self.geometry, ranking=self.rank, inputs={"files": self.files.formats},
            )  # fmt: skip
            state = find_job(self.output, request, results=("scores.json",), overwrite=self.files.overwrite)
            if state == "done":
                leave_finished(self.output, scene, self.files, self.machine)
                return
            check_output(self.output, scene, self.files, state)
            source = bare if config is None else self._source(scene, config)
            if source is None:
                return
            fitted = not isinstance(source, str)
            sampling = Sampling(
                scene=scene, source=source, sample=self.sample, window=None if fitted else self.window,
                geometry=None if fitted else self.geometry, ranking=self.rank, output=self.output,
                files=self.files, machine=self.machine, request=request,
            )  # fmt: skip
            completions = sampling.run()
            say_result(self.machine, completions, f"{self.output} in {time.monotonic() - start:.0f} s")
            if self.files.pictures:
                write_pictures(scene, self.output, self.machine)

    def _source(self, scene: Scene, config: FitConfig) -> Adapter | str | None:
        """Fit and save the adapter, unless the references show every pixel of the hole.

        Returns:
            The adapter; a plain inpainter if no fit is needed; ``None`` in a process that only helps another to fit.
        """
        from realfill.pipeline import check_ready

        require_no_adapter(self.output / "adapter", self.output, overwrite=self.files.overwrite)
        if self._is_settled(scene, config):  # found out before the base model is downloaded
            self.machine.say("the references show the whole hole, so no fit is needed")
            return "telea"
        check_ready(
            scene, config, self.sample, ranking=self.rank, progress=self.machine.progress, **self.machine.keywords
        )
        return fit_and_save(
            scene, config, self.window, self.geometry, self.output, self.output / "adapter", self.machine,
            overwrite=self.files.overwrite,
        )  # fmt: skip

    def _is_settled(self, scene: Scene, config: FitConfig) -> bool:
        """Tell whether the references show every pixel of the hole, so that a fit would change nothing."""
        from realfill.pipeline import examine

        if self.geometry.enabled is None and "paper" in (config.preset, self.sample.preset):
            return False
        return (
            examine(scene, self.geometry, device=self.machine.device, progress=self.machine.progress).shares[
                "photographed"
            ]
            == 1
        )
