"""``realfill batch``: many photos and scenes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from realfill.app.commands.common import MachineOptions
from realfill.app.commands.stopping import StopOnInterrupt
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.errors import OutputError, StoppedError
from realfill.io.formats import FileFormat
from realfill.jobs.cluster import RayCluster

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Erase in many photos, or complete many scenes, and show a table of what is done, unchanged, failed and left."""

    sources: tuple[Path, ...]
    """Photos, scene folders (with target/), and folders of them. Photos are erased, scenes are completed."""
    output: Path
    """Folder for the results. The same command skips what is done there, and tries again what failed. A photo in which
    the detector finds nothing to remove is copied as it is."""
    processes: int = 1
    """Number of processes. Each loads its own models."""
    ray: str | None = None
    """Work on Ray: local, auto or a cluster's address. With local, Ray starts on this machine for this batch. With
    auto, the batch joins the cluster of this machine. An address is HOST:PORT or ray://HOST:PORT. All machines need the
    same paths, on a shared file system."""
    num_cpus: float = 1.0
    """Processors for each photo or scene, on Ray."""
    num_gpus: float | None = None
    """GPUs for each photo or scene, on Ray: a whole number, or a share such as 0.5. None: 1 if the cluster has GPUs."""
    retries: int = 2
    """How often a photo or scene is tried again if its worker dies, on Ray. A fit resumes from its checkpoint."""
    references: Path | None = None
    """Folder of other photos of the place. It may be that of the photos."""
    base: str = "mini"
    """Base model for scenes: ``mini``, ``sd2``, ``sd15``, a hub id, or a directory in diffusers' layout."""
    file_format: FileFormat = "png"
    """Format of erased photos."""
    quality: int = 95
    """Quality of JPEGs, from 1 to 100."""
    overwrite: bool = False
    """Do everything again."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    erase: EraseConfig = field(default_factory=EraseConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes is {self.processes}; legal: 1 or more")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}; legal: from 1 to 100")
        if self.ray is not None and self.processes > 1:
            raise ValueError("--processes and --ray exclude each other; legal: one of the two")
        for option, is_default in (
            ("--num-cpus", self.num_cpus == 1), ("--num-gpus", self.num_gpus is None), ("--retries", self.retries == 2),
        ):  # fmt: skip
            if self.ray is None and not is_default:
                raise ValueError(f"{option} needs --ray; legal: both, or none of them")
        self._cluster()

    def __call__(self) -> None:
        """Run the command."""
        from realfill.jobs.batch import run_batch
        from realfill.jobs.work import PhotoJob, SceneJob

        with StopOnInterrupt() as stopping:
            report = run_batch(
                self.sources, self.output,
                photos=PhotoJob(
                    selection=self.selection, erase=self.erase, references=self.references, quality=self.quality,
                    **self.machine.keywords,
                ),
                scenes=SceneJob(
                    fit=dataclasses.replace(self.fit, base=self.base), sample=self.sample, rank=self.rank,
                    **self.machine.keywords,
                ),
                processes=self.processes, cluster=self._cluster(), file_format=self.file_format,
                overwrite=self.overwrite, on_step=stopping.on_step, progress=self.machine.progress,
            )  # fmt: skip
        self.machine.say(report.table())
        if report.of("left"):
            raise StoppedError(
                f"{len(report.of('left'))} of {len(report.outcomes)} photos and scenes are left; the same command "
                "continues with them"
            )
        if failed := report.of("failed"):
            raise OutputError(f"{len(failed)} of {len(report.outcomes)} failed; the same command tries them again")

    def _cluster(self) -> RayCluster | None:
        if self.ray is None:
            return None
        return RayCluster(address=self.ray, num_cpus=self.num_cpus, num_gpus=self.num_gpus, retries=self.retries)
