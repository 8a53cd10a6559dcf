"""``realfill adapt``: from a folder of photos of one kind to an adapter, compared with the base model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from realfill.app.commands.common import MachineOptions, UsageError
from realfill.app.commands.fitting import require_no_adapter
from realfill.app.commands.jobs import (
    CHECKPOINTS,
    find_job,
    forget_job,
    in_output,
    make_request,
    record_job,
    remove_checkpoint,
)
from realfill.app.commands.stopping import StopOnInterrupt
from realfill.config import AdaptConfig
from realfill.errors import SceneError, warn

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapt:
    """Fine-tune a base model on photos of one kind. The same command resumes an unfinished run."""

    photos: Path
    """Folder of photos, which may have subfolders; at least three."""
    output: Path
    """Folder for the adapter, its loss curve, and the comparison with the base model."""
    base: str | None = None
    """Base model: ``mini``, ``sd2``, ``sd15``, a hub id, or a directory in diffusers' layout. None: sd2, which needs a
    GPU."""
    overwrite: bool = False
    """Replace the adapter in the output folder."""
    num_compared: int = 24
    """Number of photos kept out of training on which the result is compared with the base model, at most; 0: none."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        from realfill.compute.devices import is_main_process
        from realfill.models.diffusion.adapter import MANIFEST_NAME, WEIGHTS_NAME, Adapter

        if self.num_compared < 0:
            raise UsageError(f"--num-compared is {self.num_compared}; legal: 0 or more")
        config = self._choose_base()
        paths = self._list()
        with in_output(self.output):
            inputs = {"adapt": config.to_dict(), "photos": [[p.name, p.stat().st_size] for p in paths]}
            request = make_request("adapt", config.base, inputs=inputs)
            state = find_job(
                self.output, request, results=(MANIFEST_NAME, WEIGHTS_NAME), overwrite=self.overwrite
            )  # fmt: skip
            if state != "new" and not is_main_process():
                return
            if state == "done":
                remove_checkpoint(self.output)
                self.machine.say(f"{self.output} holds the finished adapter of this request; nothing to do")
                return
            if state == "new":
                require_no_adapter(self.output, self.output, overwrite=self.overwrite)
                adapter = self._train(paths, config)
                if adapter is None:
                    return
                record_job(self.output, request, done=False)
            else:
                adapter = Adapter.load(self.output)
            self._compare(adapter, paths)
            record_job(self.output, request, done=True)
            remove_checkpoint(self.output)
        self.machine.say(f"{adapter!r} written to {self.output}")

    def _choose_base(self) -> AdaptConfig:
        from realfill.compute.devices import resolve_device

        if self.base is None and resolve_device(self.machine.device).type == "cpu":
            raise UsageError(
                f"adapting the default base model {self.adapt.base} takes days without a GPU; use --base mini, which "
                f"takes minutes, or --base {self.adapt.base} to start it anyway"
            )
        return self.adapt if self.base is None else dataclasses.replace(self.adapt, base=self.base)

    def _list(self) -> list[Path]:
        from realfill.training.photo_folder import list_photos

        output = self.output.resolve()  # it may lie within the folder of photos, and holds pictures too
        return [path for path in list_photos(self.photos) if output not in path.resolve().parents]

    def _train(self, paths: list[Path], config: AdaptConfig) -> Adapter | None:
        """Train and save the adapter; return ``None`` in a process that only helps the one that saves."""
        from realfill.compute.devices import in_any_process, is_main_process
        from realfill.pipeline import adapt

        with StopOnInterrupt() as stop:
            adapter = adapt(
                paths, config, checkpoint_dir=self.output / CHECKPOINTS, overwrite=self.overwrite,
                on_step=stop.on_step, progress=self.machine.progress, **self.machine.keywords,
            )  # fmt: skip
        if in_any_process(stop.requested):
            raise KeyboardInterrupt(f"a checkpoint is in {self.output / CHECKPOINTS}")
        if not is_main_process():
            return None
        if self.overwrite:
            forget_job(self.output)
        adapter.save(self.output, overwrite=True)
        return adapter

    def _compare(self, adapter: Adapter, paths: list[Path]) -> None:
        """Compare the result with the base model on the photos of the test part."""
        from realfill.benchmark.adaptation import compare_adapter

        about = adapter.manifest["adaptation"]
        if "kept_change" in about and about["kept_change"] < 1:
            self.machine.say(
                f"the adapter keeps {100 * about['kept_change']:.1f} % of the squared change of the weights, at rank "
                f"{adapter.config.lora_rank}"
            )
        test = set(about["photos"]["test"])
        chosen = [path for path in paths if path.name in test][: self.num_compared]
        if not chosen:
            return
        with StopOnInterrupt() as stop:
            try:
                report = compare_adapter(
                    self.output, chosen, on_step=stop.on_step, progress=self.machine.progress, **self.machine.keywords
                )
            except SceneError as error:
                warn(f"the adapter is not compared with the base model: {error}")
                return
        if stop.requested:
            raise KeyboardInterrupt(f"the adapter is in {self.output}; it is not compared yet")
        report.save(self.output)
        self.machine.say(str(report))
        self.machine.say(f"pairs.png, losses.png and report.json are in {self.output}")
