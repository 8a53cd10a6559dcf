"""The run of a benchmark: each method on each case. Each result is saved, so that a killed run can resume."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from realfill import __version__
from realfill.benchmark.cases import Case, case_folders
from realfill.benchmark.memory import PeakMemory
from realfill.benchmark.methods.method import Method
from realfill.benchmark.records import Record, Results, Run
from realfill.compute.progress import ProgressBar
from realfill.config import RankSettings
from realfill.errors import OutputError, RealFillError, RealFillWarning
from realfill.geometry.matching import Matcher
from realfill.io.containment import require_inside
from realfill.io.files import partial_folder, write_text
from realfill.io.images import ImageArray, MaskArray, read_image
from realfill.io.json_files import read_json
from realfill.io.writing import write_png
from realfill.ranking.rank import rank
from realfill.results.completion import Completion
from realfill.results.completions import Completions
from realfill.results.provenance import hash_array, hash_scene, library_versions
from realfill.scene.scene import Scene

RESULTS_NAME = "results.json"
_CONFIG_NAME = "benchmark.json"
_RUN_NAME = "run.json"
_REPORTS = ("results.md", "index.html")

Metric: TypeAlias = Callable[[ImageArray, ImageArray, MaskArray], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A participant of a benchmark: a method with a number of references.

    Attributes:
        method: the method.
        num_references: number of a case's references that it sees; ``None``: all.
    """

    method: Method
    num_references: int | None = None

    @property
    def name(self) -> str:
        """The method's name, followed by the number of references unless it sees all."""
        return self.method.name if self.num_references is None else f"{self.method.name}-{self.num_references}ref"

    def scene(self, case: Case) -> Scene:
        """Return the part of a case that the arm sees.

        Raises:
            SceneError: the case has too few references.
        """
        return case.scene if self.num_references is None else case.scene.with_references(self.num_references)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Benchmark:
    """The participants and metrics of a benchmark.

    Attributes:
        arms: the participants.
        num_samples: completions of each arm, case and fit seed; one for methods without seeds.
        fit_seeds: number of preparations of each method and case; one for methods without fit seeds.
        metrics: name to function of (image, truth, mask).
        missing_metrics: metric name, or ``score``, to the reason why it is not available.
        matcher: the matcher for ranking by keypoints; ``None`` if ranking needs none or ``score`` is missing.
        ranking: how completions are scored.
        about: other values that tell one benchmark from another; plain JSON values. Those under ``config`` may change
            when a benchmark is resumed.
        failed_metrics: metrics that failed on a completion, and the reason; filled by ``run``.
    """

    arms: Sequence[Arm]
    num_samples: int
    fit_seeds: int
    metrics: Mapping[str, Metric]
    missing_metrics: Mapping[str, str] = field(default_factory=dict)
    matcher: Matcher | None
    ranking: RankSettings
    about: Mapping[str, Any] = field(default_factory=dict)
    failed_metrics: dict[str, str] = field(default_factory=dict)

    def run(self, directory: Path, output: Path, *, progress: bool = True) -> Results:
        """Measure every arm on every case of a folder in RealBench's layout.

        Finished runs in the output folder are not repeated; failed ones are tried again.

        Args:
            directory: folder of scene folders.
            output: folder for pictures, ``results.json`` and the state of the benchmark.
            progress: show a progress bar.

        Returns:
            All results, including the errors of methods that failed on a case.

        Raises:
            SceneError: the folder contains no scenes.
            OutputError: the output folder contains something else, or another benchmark.
        """
        folders = case_folders(directory)
        self._claim(output)
        units = [(arm, seed) for arm in self.arms for seed in range(self.fit_seeds if arm.method.uses_fit_seed else 1)]
        records: list[Record] = []
        runs: list[Run] = []
        skipped: dict[str, str] = {}
        with ProgressBar(total=len(folders) * len(units), desc="bench", unit="run", disable=not progress) as bar:
            for folder in folders:
                try:
                    case = Case.load(folder)
                except (RealFillError, OSError, ValueError) as error:
                    skipped[folder.name] = str(error)
                    bar.update(len(units))
                    continue
                _write_inputs(require_inside(output / "cases" / case.name / "input", output), case)
                for arm, seed in units:
                    bar.set_postfix_str(f"{case.name}, {arm.name}", refresh=True)
                    run, measured = self._unit(case, arm, seed, output)
                    runs.append(run)
                    records += measured
                    bar.update()
                self._results(records, runs, skipped).save(
                    output / RESULTS_NAME
                )  # so that a person can look at them before the end
        results = self._results(records, runs, skipped)
        results.save(output / RESULTS_NAME)
        return results

    def _results(self, records: Sequence[Record], runs: Sequence[Run], skipped: Mapping[str, str]) -> Results:
        return Results(
            records=tuple(records), runs=tuple(runs), skipped=dict(skipped),
            missing_metrics={**self.missing_metrics, **self.failed_metrics}, about=self._about(),
        )  # fmt: skip

    def _claim(self, output: Path) -> None:
        """Check that the output folder is new or contains this benchmark."""
        terms = {"num_samples": self.num_samples, "ranking": self.ranking.to_dict(), **self.about}
        identity = json.dumps({k: v for k, v in terms.items() if k != "config"}, indent=1)  # "config" may grow
        path = output / _CONFIG_NAME
        if path.exists():
            data = identity.encode()
            if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
                raise OutputError(f"{str(output)!r} contains a benchmark with another config; choose another folder")
        elif any(p.name not in _REPORTS for p in output.glob("[!.]*")):  # a lock is hidden
            raise OutputError(f"{str(output)!r} is not empty and contains no benchmark; choose another folder")
        output.mkdir(parents=True, exist_ok=True)
        write_text(path, identity)

    def _about(self) -> dict[str, Any]:
        return {
            "realfill": __version__,
            "libraries": library_versions(),
            "python": platform.python_version(),
            "num_samples": self.num_samples,
            "fit_seeds": self.fit_seeds,
            "ranking": self.ranking.to_dict(),
            **self.about,
        }

    def _unit(self, case: Case, arm: Arm, fit_seed: int, output: Path) -> tuple[Run, list[Record]]:
        """Complete a case with an arm and a fit seed, and measure; skip the work of an earlier run."""
        folder = require_inside(output / "cases" / case.name / arm.name / f"fit{fit_seed}", output)
        identity = _identify(case)
        seeds = range(self.num_samples if arm.method.uses_seed else 1)
        kept = _load_unit(folder, identity, seeds)
        try:
            if kept is None:
                kept = self._complete(case, arm, fit_seed, folder), []
                _save_unit(
                    folder, identity, *kept
                )  # saved first, so that completions survive a failure of the measurement
            measured = self._measure(case, arm, *kept, folder)
        except OutputError:  # a full disk would only waste what the other methods compute
            raise
        except Exception as error:  # noqa: BLE001 - a failing method must not stop the others
            reason = f"{type(error).__name__}: {error}"
            return Run(case=case.name, method=arm.name, fit_seed=fit_seed, error=reason), []
        if measured != kept:
            _save_unit(folder, identity, *measured)
        return measured

    def _complete(self, case: Case, arm: Arm, fit_seed: int, folder: Path) -> Run:
        """Run a method and write its pictures, all or none."""
        seeds = range(self.num_samples if arm.method.uses_seed else 1)
        with warnings.catch_warnings(record=True) as caught, PeakMemory() as memory:
            warnings.simplefilter("always", RealFillWarning)
            start = time.perf_counter()
            sampler = arm.method.prepare(arm.scene(case), case.prompt, fit_seed)
            fitted = time.perf_counter()
            images = sampler(seeds)
            sampled = time.perf_counter()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder.parent) as partial:
            for seed, image in zip(seeds, images, strict=True):
                write_png(partial / f"seed{seed}.png", image)
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        messages = dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, RealFillWarning))
        return Run(
            case=case.name, method=arm.name, fit_seed=fit_seed, fit_s=fitted - start, sample_s=sampled - fitted,
            peak_memory_mb=memory.peak_mb, warnings=tuple(messages),
        )  # fmt: skip

    def _measure(
        self, case: Case, arm: Arm, run: Run, records: Sequence[Record], folder: Path
    ) -> tuple[Run, list[Record]]:
        """Rank and measure the written pictures, except those that were measured before."""
        seeds = range(self.num_samples if arm.method.uses_seed else 1)
        old = {r.seed: r for r in records}
        scene = arm.scene(case)
        ranks = "score" not in self.missing_metrics and bool(scene.references)
        scores = {seed: old[seed].score if seed in old else None for seed in seeds}
        order: Sequence[int] = [r.seed for r in records] or seeds
        if ranks and None in scores.values():
            start = time.perf_counter()
            scores = self._scores(scene, {seed: _picture(folder, seed) for seed in seeds})
            order, run = list(scores), dataclasses.replace(run, rank_s=time.perf_counter() - start)
        path = f"cases/{case.name}/{arm.name}/{folder.name}"
        measured = []
        for seed in order:
            values = dict(old[seed].metrics) if seed in old else {}
            record = Record(
                case=case.name, method=arm.name, fit_seed=run.fit_seed, seed=seed, score=scores[seed],
                metrics={n: v for n, v in self._values(case, values, folder, seed).items() if n in self.metrics},
                image=f"{path}/seed{seed}.png",
            )  # fmt: skip
            measured.append(record)
        return run, measured

    def _values(self, case: Case, values: dict[str, float], folder: Path, seed: int) -> dict[str, float]:
        """Add the missing metrics; one that fails is left out and noted in ``failed_metrics``."""
        missing = [name for name in self.metrics if name not in values]
        image = _picture(folder, seed) if missing else case.truth
        for name in missing:
            try:
                values[name] = self.metrics[name](image, case.truth, case.scene.mask)
            except Exception as error:  # noqa: BLE001 - a network may run out of memory
                self.failed_metrics[name] = f"failed on {case.name}: {type(error).__name__}: {error}"
        return values

    def _scores(self, scene: Scene, images: Mapping[int, ImageArray]) -> dict[int, float | None]:
        """Rank pictures; return seed to score, best first."""
        items = tuple(Completion.from_image(image, scene, seed) for seed, image in images.items())
        completions = Completions(items=items, scene=scene)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RealFillWarning
            )  # in a benchmark, a score without matches is a result like any other
            ranked = rank(completions, config=self.ranking, matcher=self.matcher, progress=False)
        return {c.seed: c.score for c in ranked if c.seed is not None}


def discard(output: Path) -> None:
    """Delete the files of a benchmark from a folder; a folder without one stays unchanged."""
    if (output / _CONFIG_NAME).exists():
        (output / RESULTS_NAME).unlink(missing_ok=True)
        shutil.rmtree(output / "cases", ignore_errors=True)
        (output / _CONFIG_NAME).unlink()  # last: without it, the rest would be files that are not a benchmark's


def _picture(folder: Path, seed: int) -> ImageArray:
    return read_image(folder / f"seed{seed}.png")[0]


def _save_unit(folder: Path, identity: str, run: Run, records: Sequence[Record]) -> None:
    kept = {"identity": identity, "run": asdict(run), "records": [asdict(r) for r in records]}
    write_text(folder / _RUN_NAME, json.dumps(kept, indent=1) + "\n")


def _load_unit(folder: Path, identity: str, seeds: Iterable[int]) -> tuple[Run, list[Record]] | None:
    """Read an earlier run, if it was of the same case, is complete, and all its pictures exist."""
    try:
        kept = read_json(folder / _RUN_NAME)
        run = Run.from_dict(kept["run"])
        records = [Record.from_dict(r) for r in kept["records"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_complete = all((folder / f"seed{seed}.png").is_file() for seed in seeds)
    is_of_seeds = not records or sorted(r.seed for r in records) == sorted(seeds)
    return (run, records) if is_complete and is_of_seeds and kept["identity"] == identity else None


def _write_inputs(folder: Path, case: Case) -> None:
    """Write the case's photos for the page."""
    pictures = {f"reference_{i}": r for i, r in enumerate(case.scene.references)}
    mask = np.repeat(case.scene.mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
    pictures |= {"target": case.scene.target, "truth": case.truth, "mask": mask}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        if old.stem not in pictures:
            old.unlink()
    for name, picture in pictures.items():
        write_png(folder / f"{name}.png", picture)


def _identify(case: Case) -> str:
    """Hash a case, including its truth."""
    parts = [case.prompt, hash_scene(case.scene), hash_array(case.scene.target), hash_array(case.truth)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
