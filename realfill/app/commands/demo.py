"""``realfill demo``: the whole job on a real photo with the packaged base model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from realfill.app.commands.common import MachineOptions
from realfill.app.commands.jobs import find_job, in_output, make_request, record_job
from realfill.config import FitConfig

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Complete a real photo: at once from its second view, then with a fit of the packaged base model, no network."""

    output: Path = Path("realfill-demo")
    """Folder for composite.png, completions, scores.json, contact sheet, evidence, adapter and metrics.json."""
    num_steps: int | None = None
    """Optimizer steps of the fit. None: the base model's default."""
    overwrite: bool = False
    """Replace an earlier demo in the output folder."""
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        from realfill.app.demo import run_demo

        start = time.monotonic()
        config = FitConfig(base="mini", num_steps=self.num_steps)
        with in_output(self.output):
            request = make_request("demo", config.base, fit=config)
            if find_job(self.output, request, results=("metrics.json",), overwrite=self.overwrite) == "done":
                self.machine.say(f"{self.output} holds the finished demo; see {self.output / 'contact_sheet.png'}")
                return
            run_demo(
                self.output, config, overwrite=self.overwrite, device=self.machine.device,
                progress=self.machine.progress, say=self.machine.say,
            )  # fmt: skip
            record_job(self.output, request, done=True)
        self.machine.say(f"see {self.output / 'contact_sheet.png'}; done in {time.monotonic() - start:.0f} s")
