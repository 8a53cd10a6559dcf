"""``realfill pretrain``: a small base model from a folder of photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from realfill.app.commands.common import MachineOptions
from realfill.app.commands.jobs import in_output
from realfill.training.pretraining import PretrainConfig, pretrain


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrain:
    """Pre-train a small base model on a folder of photos. The same command resumes an unfinished run."""

    config: Annotated[PretrainConfig, tyro.conf.arg(name="pretraining")]
    quiet: bool = False
    """Show no progress and no report."""
    traceback: bool = False
    """Print the traceback of an error."""

    def __call__(self) -> None:
        """Run the command."""
        with in_output(self.config.output):
            folder = pretrain(self.config, progress=not self.quiet)
        MachineOptions(quiet=self.quiet).say(f"base model written to {folder}")
