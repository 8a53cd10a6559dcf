"""What a batch does with one photo or one scene. Both are plain values, so that other processes can receive them."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from realfill.compute.progress import OnStep, Progress
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.errors import NothingToRemoveError, StoppedError
from realfill.io.files import whole_file
from realfill.jobs.sources import copy_path

# Modules that need torch are imported where they are used, so that a batch without work starts at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoJob:
    """Erase in a photo.

    Attributes:
        selection: what goes and what stays.
        erase: how the hole is filled.
        references: a folder of photos of the same place, for every photo; ``None``: none.
        quality: quality of a JPEG, from 1 to 100.
        device: where to compute. ``None``: the best available.
        local_files_only: do not download weights.
    """

    selection: SelectionConfig = field(default_factory=SelectionConfig)
    erase: EraseConfig = field(default_factory=EraseConfig)
    references: Path | None = None
    quality: int = 95
    device: str | None = None
    local_files_only: bool = False

    def __call__(self, source: Path, target: Path, on_step: OnStep | None = None) -> str:
        """Write the erased photo; return a line that describes it.

        Raises:
            NothingToRemoveError: the photo shows nothing to remove, and a copy of it is written.
        """
        from realfill.pipeline import erase_selected

        detector = _detector(self.selection.detector, self.device, self.local_files_only)
        try:
            result = erase_selected(
                source, self.selection, self.erase, references=self.references, detector=detector, device=self.device,
                local_files_only=self.local_files_only, on_step=on_step, progress=False,
            )  # fmt: skip
        except NothingToRemoveError:
            self._keep(source, target)
            raise
        result.save(target, overwrite=True, quality=self.quality)
        copy = copy_path(source, target)
        if copy != target and copy.is_file() and filecmp.cmp(source, copy, shallow=False):
            copy.unlink()  # of an earlier run, whose detector found nothing
        return f"{result.mask_source}; filled by {result.engine}"

    def _keep(self, source: Path, target: Path) -> None:
        """Copy a photo, or write it anew if its GPS data must go."""
        from realfill.io.images import read_photo
        from realfill.io.metadata import without_location
        from realfill.io.writing import write_photo

        if self.erase.strip_location:
            photo = read_photo(source, "the photo")
            write_photo(target, replace(photo, exif=without_location(photo.exif)), quality=self.quality)
            return
        copy = copy_path(source, target)
        with whole_file(copy, num_bytes=source.stat().st_size) as partial:
            shutil.copyfile(source, partial)
        if copy != target:
            target.unlink(missing_ok=True)  # of an earlier run, whose detector found somebody

    @property
    def request(self) -> Mapping[str, Any]:
        """The values that decide the result, as plain JSON values."""
        values = {k: v for k, v in asdict(self).items() if k not in {"device", "local_files_only"}}
        del values["erase"]["trust_weights"]  # whether weights may be loaded, not what they make
        return _plain(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneJob:
    """Fit a scene, if it has references, and complete it.

    Attributes:
        fit: settings of the fit, with the base model.
        sample: settings of the sampler.
        rank: settings of the ranking.
        device: where to compute. ``None``: the best available.
        local_files_only: do not download weights.
        overwrite: replace a checkpoint of another fit. ``run_batch`` sets it if it does everything again.
    """

    fit: FitConfig = field(default_factory=lambda: FitConfig(base="mini"))
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    device: str | None = None
    local_files_only: bool = False
    overwrite: bool = False

    def __call__(self, source: Path, target: Path, on_step: OnStep | None = None) -> str:
        """Write the completions; return a line that describes the best. An interrupted job resumes."""
        from realfill.filling.finished import remove_finished_seeds
        from realfill.pipeline import complete, fit
        from realfill.scene.scene import Scene
        from realfill.training.checkpoint import CHECKPOINT_NAME

        scene = Scene.load(source)
        keywords: dict[str, Any] = {
            "device": self.device, "local_files_only": self.local_files_only, "progress": False,
        }  # fmt: skip
        watch = _Watch(on_step)
        adapter = (
            fit(scene, self.fit, checkpoint_dir=target, overwrite=self.overwrite, on_step=watch, **keywords)
            if scene.references
            else self.fit.base
        )
        if watch.stopped:
            raise StoppedError("the job was ended during the fit, which resumes from its checkpoint")
        completions = complete(
            scene, adapter, self.sample, ranking=self.rank, checkpoint_dir=target, overwrite=self.overwrite,
            on_step=watch, **keywords,
        )  # fmt: skip
        if watch.stopped:
            raise StoppedError("the job was ended before the scene was finished")
        completions.save(target, overwrite=True)
        (target / CHECKPOINT_NAME).unlink(missing_ok=True)
        remove_finished_seeds(target)
        return repr(completions.best)

    @property
    def request(self) -> Mapping[str, Any]:
        """The values that decide the result, as plain JSON values."""
        return _plain({"fit": self.fit.to_dict(), "sample": self.sample.to_dict(), "rank": self.rank.to_dict()})


class _Watch:
    """An ``on_step`` that remembers that it ended the job."""

    def __init__(self, on_step: OnStep | None) -> None:
        self.stopped = False
        self._on_step = on_step

    def __call__(self, report: Progress) -> bool | None:
        if self._on_step is not None and self._on_step(report) is False:
            self.stopped = True
        return False if self.stopped else None


@lru_cache(maxsize=1)
def _detector(name: str, device: str | None, local_files_only: bool) -> Any:  # noqa: FBT001 - the cache needs it so
    """Load a detector once for all photos of a process."""
    from realfill.segmentation.detection import load_detector

    return load_detector(name, device=device, local_files_only=local_files_only)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert to JSON values: tuples to lists, paths to text."""
    import json

    return json.loads(json.dumps(dict(values), default=str))
