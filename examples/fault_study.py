"""Plant the faults of a machine in every command: each must give one clear line, and lose nothing.

Faults: a disk that becomes full at a file operation, and at a share of what the job writes (on a small tmpfs, as root);
an output folder that is read-only, or vanishes; memory that runs out once or for good in each stage; a clock that runs
backwards; two processes on one folder; Ctrl-C in each stage. After each fault the same command runs without it, and its
result must equal the undisturbed one.

    python examples/fault_study.py --output faults.json
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import tyro
from forked import Ending, FileOperations, preload, run_forked
from kill_study import Reference, prepare_references
from planted_faults import (
    STAGES,
    become_nobody,
    failing,
    press_ctrl_c,
    raise_full,
    run,
    small_disk,
    turn_clock_back,
    wrap,
)
from small_jobs import find_differences, find_faults, find_leftovers, table

_MAX_REACTION_S = 2.0
_FINISHED_FIRST = {"train"}  # after Ctrl-C, because an interrupted step would lose earlier ones

_FIT = ("read", "load", "encode", "fit step", "save adapter")
_COMPLETE = ("sample", "decode", "blend", "rank", "write", "contact sheet")
_STAGES_OF = {
    "run": (*_FIT, *_COMPLETE),
    "fit": _FIT,
    "adapt": ("load", "read photos", "encode", "fit step", "validate", "save adapter", "compare"),
    "complete": ("read", "load", *_COMPLETE),
    "complete, aligned": ("align", "rank"),
    "bench": ("read", "load", "fit step", "sample", "measure", "report"),
    "batch": ("read", "load", "sample", "write", "load detector", "fill"),
    "erase": ("erase", "fill"),
    "train-completion": ("train", "save network", "draw previews"),
    "pretrain": ("build", "encode", "fit step", "save base", "preview"),
}


@dataclass(slots=True, kw_only=True)
class Trial:
    """One planted fault.

    Attributes:
        fault: the fault.
        job: name of the job.
        where: where it strikes.
        status: the exit status.
        line: the last line that the command printed.
        problems: what was wrong.
    """

    fault: str
    job: str
    where: str
    status: int
    line: str
    problems: list[str] = field(default_factory=list)


class Study:
    """Runs jobs with faults below a folder."""

    def __init__(self, folder: Path, references: Sequence[Reference], stages: Sequence[str]) -> None:
        self.stages = {name: [s for s in own if s in stages] for name, own in _STAGES_OF.items()}
        self.folder, self.references = folder, {reference.job.name: reference for reference in references}
        self.log, self.trials = folder / "log", list[Trial]()

    def place(self, name: str) -> Path:
        """Make an empty folder for a job's output."""
        place = self.folder / name / "faulty"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def new_note(self) -> Path:
        """Return the path of a file that does not exist, for a note of the next job."""
        note = self.folder / "note"
        note.unlink(missing_ok=True)
        return note

    def strike(
        self, fault: str, name: str, where: str, prepare: Callable[[Path], object], *, legal: Sequence[int] = (1,)
    ) -> None:
        """Run a job with a fault in an empty folder, judge how it ends, and run it again without."""
        place = self.place(name)
        ending = run_forked(self.command(name, place), self.log, prepare=partial(prepare, place))
        self.judge(fault, name, where, ending, place, legal=legal)

    def command(self, name: str, place: Path) -> list[str]:
        """Return the command line of a job."""
        return self.references[name].job.command(place)

    def judge(
        self, fault: str, name: str, where: str, ending: Ending, place: Path, *, legal: Sequence[int],
        extra: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Judge how a job ended, and run it again without a fault."""
        lines = ending.log.strip().splitlines() or [""]
        trial = Trial(fault=fault, job=name, where=where, status=ending.status, line=lines[-1], problems=[*extra])
        if ending.status not in legal:
            trial.problems.append(f"the status is {ending.status}; legal: {legal}")
        if "Traceback" in ending.log:
            trial.problems.append(f"a traceback: {ending.log[-600:]}")
        if ending.status and not lines[-1].startswith(("error: ", "stopped")):
            trial.problems.append(f"no plain line: {ending.log[-300:]}")
        trial.problems += find_faults(place)
        if ending.status:
            self.run_again(trial, place)
        else:  # the command went on, perhaps with less than it was asked for, such as completions without a rank
            trial.problems += find_leftovers(self.references[name].job, place)
        self.trials.append(trial)
        for problem in trial.problems:
            print(f"{fault}, {name}, {where}: {problem}", file=sys.stderr, flush=True)

    def run_again(self, trial: Trial, place: Path) -> None:
        """Run a job without a fault, and compare its result."""
        reference = self.references[trial.job]
        place.mkdir(exist_ok=True)
        ending = run_forked(self.command(trial.job, place), self.log)
        if ending.status:
            trial.problems.append(f"afterwards the status is {ending.status}: {ending.log[-300:]}")
        else:
            trial.problems += find_differences(reference.folder / reference.job.output, place / reference.job.output)
            trial.problems += find_leftovers(reference.job, place)


def full_disk_at_an_operation(study: Study, moments: int) -> None:
    """Let the disk be full from an operation on, and at a single one."""
    for name, reference in study.references.items():
        step = max(1, reference.operations // moments)
        for at in range(1, reference.operations + 1, step):
            lasting = at // step % 2 == 0
            study.strike(
                "disk full", name, f"operation {at}{' and later' if lasting else ''}",
                lambda place, at=at, lasting=lasting: FileOperations(
                    folder=place, at=at, disturb=raise_full, lasting=lasting, removals=False
                ).install(),
                legal=(0, 1),
            )  # fmt: skip


def full_disk(study: Study, shares: Sequence[float]) -> None:
    """Give a job a disk that is too small, and then enlarge it."""
    for name, reference in study.references.items():
        output = reference.folder / reference.job.output
        files = [output] if output.is_file() else [path for path in output.rglob("*") if path.is_file()]
        total = sum(path.stat().st_size for path in files)
        for share in shares:
            with small_disk(study.place(name), max(4096, int(share * total))) as place:
                ending = run_forked(study.command(name, place), study.log)
                run("mount", "-o", f"remount,size={20 * total + (1 << 20)}", str(place))
                study.judge("small disk", name, f"{100 * share:.0f} % of the result", ending, place, legal=(0, 1))


def read_only(study: Study) -> None:
    """Run as a user who may not write to the output folder."""

    for name in study.references:
        study.strike("read-only folder", name, "start", lambda _: become_nobody())


def vanishing_folder(study: Study, moments: int) -> None:
    """Remove the output folder at a file operation."""
    for name, reference in study.references.items():
        step = max(1, reference.operations // moments)
        for at in range(2, reference.operations + 1, step):
            study.strike(
                "folder vanishes", name, f"operation {at}",
                lambda place, at=at: FileOperations(
                    folder=place, at=at, disturb=partial(shutil.rmtree, place, ignore_errors=True)
                ).install(),
                legal=(0, 1),
            )  # fmt: skip


def out_of_memory(study: Study) -> None:
    """Let memory run out in each stage, once and for good."""
    for name, stages in study.stages.items():
        for stage in stages if name in study.references else ():
            for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")):
                for lasting in (False, True):
                    note = study.new_note()
                    fail = failing(error, note, lasting=lasting)
                    study.strike(
                        type(error).__name__, name, f"{stage}, {'always' if lasting else 'once'}",
                        lambda _, stage=stage, fail=fail: wrap(stage, fail), legal=(0, 1),
                    )  # fmt: skip
                    study.trials[-1].problems += [] if note.exists() else ["the command has no such stage"]


def clock_set_back(study: Study) -> None:
    """Let the clock of the machine run backwards."""

    for name, reference in study.references.items():
        study.strike("clock set back", name, "whole job", lambda _: turn_clock_back(), legal=(0,))
        output = reference.job.output
        study.trials[-1].problems += find_differences(
            reference.folder / output, study.folder / name / "faulty" / output
        )


def two_processes(study: Study) -> None:
    """Start a job where another process is at work."""
    for name in study.references:
        if name == "erase":  # its output is a file, which it writes whole at the end
            continue
        place, endings, log = study.place(name), list[Ending](), study.folder / "log of the first"
        command = study.command(name, place)
        first = threading.Thread(target=lambda: endings.append(run_forked(command, log)))  # noqa: B023
        first.start()
        while first.is_alive() and not any(place.rglob(".realfill.lock.json")):
            time.sleep(0.01)
        second = run_forked(command, study.log)
        first.join()
        extra = [] if "is in use by process" in second.log else [f"the second was not refused: {second.log[-300:]}"]
        extra += [] if endings[0].status == 0 else [f"the first was disturbed: {endings[0].log[-300:]}"]
        study.judge("two processes", name, "the second", second, place, legal=(1,), extra=extra)


def interrupts(study: Study) -> None:
    """Press Ctrl-C within each stage, which then would take another eight seconds."""
    for name, stages in study.stages.items():
        for stage in stages if name in study.references else ():
            if stage in _FINISHED_FIRST:
                continue
            place, note = study.place(name), study.new_note()
            ending = run_forked(
                study.command(name, place), study.log, prepare=partial(wrap, stage, partial(press_ctrl_c, note))
            )
            waited = time.monotonic() - float(note.read_text()) if note.exists() else math.inf
            late = [f"it took {waited:.1f} s to end"] if waited > _MAX_REACTION_S else []
            study.judge("Ctrl-C", name, f"{stage}: {waited:.1f} s", ending, place, legal=(130,), extra=late)


def describe(trials: Sequence[Trial]) -> str:
    """Format the results as tables in Markdown."""
    kinds = dict.fromkeys((trial.fault, trial.job) for trial in trials)
    rows = []
    for fault, job in kinds:
        own = [trial for trial in trials if (trial.fault, trial.job) == (fault, job)]
        states = ", ".join(f"{sum(t.status == s for t in own)} × {s}" for s in sorted({t.status for t in own}))
        errors = [t.line for t in own if t.status] or [own[0].line]
        rows.append([fault, job, len(own), states, sum(not t.problems for t in own), errors[0][:100].replace("|", "/")])
    header = ["fault", "command", "trials", "exit status", "good", "a line that it printed"]
    problems = [f"- {t.fault}, {t.job}, {t.where}: {' '.join(p.split())}" for t in trials for p in t.problems]
    return "\n\n".join([f"{len(trials)} trials", table(header, rows), "\n".join(problems) or "No problems."])


def main(
    *,
    jobs: tuple[str, ...] = (),
    faults: tuple[str, ...] = (),
    moments: int = 6,
    shares: tuple[float, ...] = (0.05, 0.3, 0.6, 0.9),
    stages: tuple[str, ...] = (),
    folder: Path | None = None,
    output: Path | None = None,
) -> list[Trial]:
    """Plant faults, and report.

    Args:
        jobs: names of the jobs. None: all.
        faults: disk, small-disk, read-only, vanish, memory, clock, two, interrupt. None: all that this user can plant.
        moments: number of file operations of each job at which a fault is planted.
        shares: sizes of the small disk, as shares of the result.
        stages: stages in which memory runs out or Ctrl-C is pressed. None: all.
        folder: folder for inputs and uninterrupted results, which a later study uses again. None: a temporary one.
        output: JSON file for all trials.
    """
    preload()
    kinds: dict[str, Callable[[Study], None]] = {
        "interrupt": interrupts, "memory": out_of_memory, "clock": clock_set_back, "two": two_processes,
        "disk": partial(full_disk_at_an_operation, moments=moments),
        "vanish": partial(vanishing_folder, moments=moments),
    }  # fmt: skip
    if os.getuid() == 0:
        kinds |= {"small-disk": partial(full_disk, shares=shares), "read-only": read_only}
    with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory(prefix="fault-study-") as name:
        place = Path(name)
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)
        study = Study(place, prepare_references(place, jobs), stages or tuple(STAGES))
        for kind in faults or kinds:
            kinds[kind](study)
            if output is not None:
                output.write_text(json.dumps([asdict(t) for t in study.trials], indent=1) + "\n", encoding="utf-8")
        print(describe(study.trials))
    return study.trials


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
