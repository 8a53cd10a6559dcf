"""Kill every command at random moments, start it again, and compare its result with the uninterrupted one.

Half of the kills strike after a random time, half at a random file operation, so that the short moments in which files
are written are struck too. After each kill every file with its final name must be whole, no process may be left, and
SIGTERM and SIGINT must have ended the command within two seconds with one line. The same command then starts again;
after a few kills it may finish, and its result must equal the uninterrupted one to the bit, without leftovers.

    python examples/kill_study.py --kills 200 --output kills.json
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from forked import Ending, FileOperations, preload, run_forked
from small_jobs import (
    Job,
    find_differences,
    find_faults,
    find_leftovers,
    make_jobs,
    pretraining_words,
    table,
    write_inputs,
)

_STATUS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

Moment = Literal["time", "file operation"]


@dataclass(slots=True, kw_only=True)
class Kill:
    """One kill.

    Attributes:
        job: name of the job.
        signal: name of the signal.
        moment: what chose the moment.
        at: seconds from the start, or number of the file operation.
        struck: whether the command was still running.
        status: its exit status.
        reaction_s: seconds from the signal to its end.
        problems: what was wrong after it.
    """

    job: str
    signal: str
    moment: Moment
    at: float
    struck: bool
    status: int
    reaction_s: float | None
    problems: list[str]


@dataclass(slots=True, kw_only=True)
class Chain:
    """A job that was killed several times and then ran to its end.

    Attributes:
        job: name of the job.
        kills: the kills.
        problems: what was wrong with its result.
    """

    job: str
    kills: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An uninterrupted run.

    Attributes:
        job: the job.
        folder: where its output is.
        time_s: seconds that it took.
        operations: its file operations.
    """

    job: Job
    folder: Path
    time_s: float
    operations: int


def prepare(folder: Path) -> list[Job]:
    """Write the inputs of all jobs, and pre-train their base model."""
    inputs = folder / "inputs"
    write_inputs(inputs)
    ending = run_forked(pretraining_words(inputs, str(inputs / "base"), 4), folder / "log")
    if ending.status:
        raise RuntimeError(f"the base model could not be made:\n{ending.log}")
    return make_jobs(inputs)


def run_reference(job: Job, folder: Path) -> Reference:
    """Run a job without a disturbance."""
    place = folder / job.name / "reference"
    place.mkdir(parents=True)
    operations, note = FileOperations(folder=place), folder / job.name / "operations"
    ending = run_forked(
        job.command(place), folder / "log", prepare=operations.install,
        finish=lambda: note.write_text(str(operations.count)),
    )  # fmt: skip
    if ending.status:
        raise RuntimeError(f"{job.name} ends with status {ending.status}:\n{ending.log}")
    return Reference(job=job, folder=place, time_s=ending.time_s, operations=int(note.read_text()))


def kill(
    reference: Reference, place: Path, log: Path, number: signal.Signals, moment: Moment, at: float,
    max_reaction_s: float = 2.0,
) -> Kill:  # fmt: skip
    """Start a job, kill it, and look at what it leaves."""
    job = reference.job
    if moment == "time":
        ending = run_forked(job.command(place), log, send=number, after_s=at)
    else:
        strike = partial(os.kill, 0, number) if number == signal.SIGKILL else partial(signal.raise_signal, number)
        operations = FileOperations(folder=place, at=int(at), disturb=strike)
        ending = run_forked(job.command(place), log, prepare=operations.install)
    struck = ending.status != 0
    problems = find_faults(place) + (list(_judge(ending, number, max_reaction_s)) if struck else [])
    return Kill(
        job=job.name, signal=number.name, moment=moment, at=round(at, 3), struck=struck, status=ending.status,
        reaction_s=ending.reaction_s, problems=problems,
    )  # fmt: skip


def _judge(ending: Ending, number: signal.Signals, max_reaction_s: float) -> Iterator[str]:
    """Describe what is wrong with the way in which a killed command ended."""
    if "ORPHANS" in ending.log:
        yield "processes outlived the command"
    if ending.status != _STATUS[number]:
        yield f"the status is {ending.status}: {ending.log[-300:]}"
    if number == signal.SIGKILL:
        return
    if ending.reaction_s is not None and ending.reaction_s > max_reaction_s:
        yield f"it took {ending.reaction_s:.1f} s to end"
    lines = ending.log.splitlines()
    if "Traceback" in ending.log or not lines or not lines[-1].startswith("stopped"):
        yield f"it ended without one plain line: {ending.log[-300:]}"


def run_chain(
    reference: Reference, folder: Path, rng: np.random.Generator, num_kills: int, max_reaction_s: float
) -> Chain:
    """Kill a job several times, let it finish, and compare its result."""
    job, place = reference.job, folder / reference.job.name / "killed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    chain = Chain(job=job.name)
    for _ in range(num_kills):
        moment: Moment = "time" if rng.random() < 0.5 else "file operation"
        at = rng.uniform(0.02, reference.time_s) if moment == "time" else rng.integers(1, reference.operations + 1)
        number = _SIGNALS[int(rng.integers(len(_SIGNALS)))]
        if job.name == "erase" and (place / job.output).exists():
            break
        chain.kills.append(kill(reference, place, folder / "log", number, moment, float(at), max_reaction_s))
        if not chain.kills[-1].struck:
            break
    is_written = job.name == "erase" and (place / job.output).exists()  # it refuses to replace its result
    ending = run_forked(job.command(place), folder / "log")
    if ending.status and not is_written:
        chain.problems.append(f"the restarted command ends with status {ending.status}: {ending.log[-500:]}")
    else:
        chain.problems += find_differences(reference.folder / job.output, place / job.output)
    chain.problems += find_leftovers(job, place)
    return chain


def describe(chains: Sequence[Chain], references: Sequence[Reference]) -> str:
    """Format the results as tables in Markdown."""
    rows = []
    for reference in references:
        own = [chain for chain in chains if chain.job == reference.job.name]
        kills = [kill for chain in own for kill in chain.kills if kill.struck]
        counts = [sum(k.signal == name for k in kills) for name in ("SIGKILL", "SIGTERM", "SIGINT")]
        reactions = [k.reaction_s for k in kills if k.reaction_s is not None and k.signal != "SIGKILL"]
        good = sum(not chain.problems for chain in own)
        bad = sum(len(k.problems) > 0 for k in kills)
        slowest = f"{max(reactions):.2f}" if reactions else "–"
        rows.append([reference.job.name, f"{reference.time_s:.1f}", *counts, slowest, bad, f"{good} of {len(own)}"])
    total = sum(kill.struck for chain in chains for kill in chain.kills)
    header = ["command", "s", "SIGKILL", "SIGTERM", "SIGINT", "slowest end, s", "bad ends", "results equal"]
    problems = [f"- {chain.job}: {problem}" for chain in chains for problem in _problems(chain)]
    return "\n\n".join([f"{total} kills", table(header, rows), "\n".join(problems) or "No problems."])


def _problems(chain: Chain) -> Iterator[str]:
    done = ", ".join(f"{k.signal} at {k.at} ({k.moment})" for k in chain.kills)
    for problem in (*(p for k in chain.kills for p in k.problems), *chain.problems):
        yield f"{' '.join(problem.split())} (after {done})"


def prepare_references(folder: Path, jobs: Sequence[str]) -> list[Reference]:
    """Prepare and run all jobs without a disturbance, or use what an earlier study left in the folder."""
    note = folder / "references.json"
    if note.is_file():
        known = json.loads(note.read_text(encoding="utf-8"))
        chosen = [job for job in make_jobs(folder / "inputs") if job.name in known]
        references = [Reference(job=job, folder=folder / job.name / "reference", **known[job.name]) for job in chosen]
    else:
        references = [run_reference(job, folder) for job in prepare(folder) if not jobs or job.name in jobs]
        known = {r.job.name: {"time_s": r.time_s, "operations": r.operations} for r in references}
        note.write_text(json.dumps(known) + "\n", encoding="utf-8")
    return [reference for reference in references if not jobs or reference.job.name in jobs]


def main(
    kills: int = 200,
    *,
    seed: int = 0,
    jobs: tuple[str, ...] = (),
    max_reaction_s: float = 2.0,
    folder: Path | None = None,
    output: Path | None = None,
) -> list[Chain]:
    """Kill jobs, and report.

    Args:
        kills: number of kills that strike a running command.
        seed: decides signals and moments, as far as the machine's speed allows.
        jobs: names of the jobs. None: all.
        max_reaction_s: most seconds from a signal to the end of a command; a busy machine needs more.
        folder: folder for inputs and uninterrupted results, which a later study uses again. None: a temporary one.
        output: JSON file for all kills.
    """
    preload()
    rng, chains, start = np.random.default_rng(seed), [], time.monotonic()
    with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory(prefix="kill-study-") as name:
        place = Path(name)
        place.mkdir(parents=True, exist_ok=True)
        references = prepare_references(place, jobs)
        try:
            while sum(kill.struck for chain in chains for kill in chain.kills) < kills:
                reference = references[(seed + len(chains)) % len(references)]
                chains.append(run_chain(reference, place, rng, int(rng.integers(1, 5)), max_reaction_s))
                for problem in _problems(chains[-1]):
                    print(f"{chains[-1].job}: {problem}", file=sys.stderr, flush=True)
                if output is not None:
                    text = json.dumps([asdict(chain) for chain in chains], indent=1)
                    output.write_text(text + "\n", encoding="utf-8")
        finally:  # Ctrl-C reports what is known by then
            print(f"{describe(chains, references)}\n\n{time.monotonic() - start:.0f} s", flush=True)
    return chains


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
