"""``realfill train-completion``: a completion network from a folder of photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from realfill.app.commands.common import MachineOptions
from realfill.app.commands.jobs import in_output
from realfill.app.commands.stopping import StopOnInterrupt
from realfill.compute.progress import Progress
from realfill.training.completion_config import CompletionTrainingConfig

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainCompletion:
    """Train a completion network, which fills a hole in one pass. The same command resumes an unfinished run."""

    config: Annotated[CompletionTrainingConfig, tyro.conf.arg(name="training")]
    quiet: bool = False
    """Show no progress and no report."""
    traceback: bool = False
    """Print the traceback of an error."""

    def __call__(self) -> None:
        """Run the command."""
        from realfill.training.completion_training import train_completion

        with in_output(self.config.output), StopOnInterrupt() as stop:

            def on_step(report: Progress) -> None:
                if stop.on_step(report) is False:  # weights and previews, which take time, are not written then
                    raise KeyboardInterrupt(f"a checkpoint is in {self.config.output}")

            folder = train_completion(self.config, on_step=on_step, progress=not self.quiet)
        MachineOptions(quiet=self.quiet).say(f"completion network written to {folder}")
