"""Jobs for the tests on Ray, in a module that workers import quickly."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from realfill.errors import StoppedError, warn
from realfill.jobs.work import SceneJob


@dataclass(frozen=True)
class KilledOnce:
    """Complete a scene, and note the steps of its fit; kill the worker after some of them, the first time."""

    name: str
    after_step: int
    job: SceneJob = field(default_factory=SceneJob)

    def __call__(self, source, target, on_step=None):
        target.mkdir(exist_ok=True)
        steps = target.parent / f"{target.name}.steps"

        def watch(report):
            if report.phase == "fit":
                is_first = not steps.exists() or str(self.after_step) not in steps.read_text().split()
                with steps.open("a") as file:
                    file.write(f"{report.step}\n")
                if source.name == self.name and report.step == self.after_step and is_first:
                    os.kill(os.getpid(), signal.SIGKILL)
            return on_step(report) if on_step is not None else None

        return self.job(source, target, watch)

    @property
    def request(self):
        return self.job.request


@dataclass(frozen=True)
class Waiter:
    """Write a file named after the photo, once another file exists; a call that is ended before notes that."""

    starts_at: Path

    def __call__(self, source, target, on_step=None):
        target.with_suffix(".started").touch()
        while not self.starts_at.exists():
            if on_step is not None and on_step(None) is False:
                target.with_suffix(".ended").touch()
                raise StoppedError("enough")
            time.sleep(0.01)
        if "odd" in source.name:
            warn("this one is odd")
        target.touch()
        return os.environ.get("RAY_USAGE_STATS_ENABLED", "unset")

    @property
    def request(self):
        return {}
