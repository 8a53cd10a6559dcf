"""Code that ``run`` and ``complete`` share: sampling that can be stopped, resumed and extended."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from realfill.app.commands.common import MachineOptions, OutputOptions, ResultOptions
from realfill.app.commands.jobs import (
    CHECKPOINTS,
    Request,
    State,
    claim_results,
    read_claim,
    record_job,
    remove_checkpoint,
)
from realfill.app.commands.pictures import are_written, remove_pictures, write_pictures
from realfill.app.commands.stopping import StopOnInterrupt
from realfill.config import GeometryConfig, RankConfig, SampleConfig, WindowConfig
from realfill.errors import BaseModelError, OutputError, warn

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.results.completions import Completions
    from realfill.scene.scene import Scene

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


class Stopped(KeyboardInterrupt):
    """A signal ended the sampling, and the finished completions were written."""


def check_output(folder: Path, scene: Scene, files: OutputOptions, state: State) -> None:
    """Check, before anything expensive, that completions can be written to a folder.

    Raises:
        OutputError: the folder holds completions of another request, or cannot be written to.
        ValueError: the file format cannot hold an image of this size.
    """
    from realfill.io.writing import require_size
    from realfill.results.completions import check_output

    require_size(scene.original, files.file_format)
    check_output(folder, overwrite=files.overwrite or state != "new")


def leave_finished(output: Path, scene: Scene, files: ResultOptions, machine: MachineOptions) -> None:
    """Leave the finished result of a request as it is, and add its pictures if they are wanted and missing."""
    remove_checkpoint(output)
    missing = files.pictures and not are_written(output)
    todo = "only the pictures of its composite are missing" if missing else "nothing to do"
    machine.say(f"{output} holds the finished result of this request; {todo}")
    if missing:
        write_pictures(scene, output, machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The sampling job of a command: the scene, its settings, and the output folder."""

    scene: Scene
    source: Adapter | str
    sample: SampleConfig
    window: WindowConfig | None
    geometry: GeometryConfig | None
    ranking: RankConfig
    output: Path
    files: ResultOptions
    machine: MachineOptions
    request: Request

    def run(self) -> Completions:
        """Sample all seeds of the request, except those that an interrupted command has finished, and write them.

        Raises:
            Stopped: a signal ended the sampling; the finished seeds are written.
        """
        first, number = self.request["sample"]["seed"], self.request["sample"]["num_samples"]
        return self._sample_and_write(None, range(first, first + number), self.request)

    def extend(self, request: Request) -> Completions:
        """Add seeds after the last one in the output folder.

        Args:
            request: the request to record in the folder.

        Raises:
            Stopped: a signal ended the sampling; the finished seeds are written.
            OutputError: the completion in the folder has no pixel of a model, so there are no other seeds.
        """
        previous, claim = self._load(), read_claim(self.output)
        first, number = self.request["sample"]["seed"], self.request["sample"]["num_samples"]
        seeds = [seed for seed in previous.seeds if seed is not None]
        if not seeds:
            raise OutputError(
                f"the completion in {str(self.output)!r} has no pixel of a model, so there are no other seeds to add"
            )
        first = max(first, 1 + max(seeds))
        wanted: Sequence[int] = range(first, first + number)
        if claim is not None and claim["extends"] and claim["request"] == self.request:
            wanted = claim["seeds"]  # of a command that was interrupted while it wrote
        return self._sample_and_write(previous, wanted, request)

    def _load(self) -> Completions:
        from realfill.results.completions import Completions

        return Completions.load(self.output, self.scene)

    def _sample_and_write(self, previous: Completions | None, seeds: Sequence[int], request: Request) -> Completions:
        present = previous.seeds if previous is not None else ()
        missing = [seed for seed in seeds if seed not in present]
        with StopOnInterrupt() as stop:
            completions = self._complete(previous, missing, stop)
        claim_results(self.output, self.request, seeds, extends=previous is not None)
        if previous is None:
            remove_pictures(self.output)
        self.files.write(completions, self.output)
        record_job(self.output, request, done=not stop.requested)
        if stop.requested:
            raise Stopped(f"{len(completions)} finished completions are written to {self.output}")
        remove_checkpoint(self.output)
        return completions

    def _complete(self, previous: Completions | None, seeds: Sequence[int], stop: StopOnInterrupt) -> Completions:
        """Sample seeds and merge them with earlier completions. All are ranked together: some scores are relative."""
        from realfill.pipeline import complete

        completions = previous
        if seeds:
            config = dataclasses.replace(self.sample, seed=seeds[0], num_samples=len(seeds))
            completions = complete(
                self.scene, self.source, config, window=self.window, geometry=self.geometry, ranking=self.ranking,
                ranked=previous is None, checkpoint_dir=self.output / CHECKPOINTS, overwrite=self.files.overwrite,
                on_step=stop.on_step, progress=self.machine.progress, **self.machine.keywords,
            )  # fmt: skip
            completions = completions if previous is None else previous.merged(completions)
        assert completions is not None
        if previous is None or stop.requested or not self.scene.references or completions.ranking is None:
            return completions
        return self._rank(completions, stop)

    def _rank(self, completions: Completions, stop: StopOnInterrupt) -> Completions:
        """Rank completions; if that fails, they are kept without scores, so that no sample is lost."""
        import cv2

        from realfill.pipeline import rank_again

        try:
            return rank_again(
                completions, device=self.machine.device, on_step=stop.on_step, progress=self.machine.progress
            )
        except (RuntimeError, MemoryError, cv2.error, BaseModelError) as error:
            warn(
                f"ranking failed ({type(error).__name__}: {error}), so the completions keep their order. Rank them "
                "later with realfill rank, with another matcher or a smaller max_size_px"
            )
            return completions
