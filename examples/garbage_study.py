"""Feed realfill damaged and hostile files, and count right results, clear errors and defects.

    python examples/garbage_study.py --num-inputs 1000 --output garbage.json

Every file that realfill reads is damaged in random ways (``garbage_inputs.py``), and planted files attack one
weakness each (``garbage_planted.py``). Each input is read in a process of its own. The law: a right result, or one
clear ``RealFillError`` of one line (on the command line: exit status 0, 1 or 2 and no traceback), within 30 seconds and
with at most 1 GB of memory beyond what the size needs that the file declares. Everything else is a defect. The report
is JSON, and Markdown beside it. The exit status is 1 if there is a defect.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from garbage_inputs import Subject, make_subjects
from garbage_mutations import mutate
from PIL import Image

from realfill.errors import RealFillError

_MAX_S, _MAX_BYTES = 30.0, 1 << 30
_PATIENCE = 4  # times the limit, after which a process that waits or a busy machine is given up
_BYTES_PER_PIXEL = 48  # of a photo that is read, filled and written: bytes, shares and working copies
_MAX_LINE = 1500
_MARKER = "ran-code"  # a file that planted code would write to the current folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One hostile input.

    Attributes:
        name: the subject and what was done to it.
        make: writes the input into an empty folder.
        read: reads the folder; raises, or describes the result.
        needed_bytes: memory that the declared size needs.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], str]
    needed_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an input: ``right``, ``error`` or ``defect``, with a line, CPU seconds and bytes."""

    name: str
    kind: str
    line: str
    seconds: float
    extra_bytes: int


def mutated(subject: Subject, number: int, seed: int, others: Sequence[bytes]) -> Input:
    """Make an input that is a random damage of a subject."""
    rng = random.Random(f"{seed} {number}")  # noqa: S311 - no secret
    way, data = mutate(subject, (subject.folder / subject.target).read_bytes(), rng.choice(others), rng)

    def make(folder: Path) -> None:
        shutil.copytree(subject.folder, folder, copy_function=os.link, dirs_exist_ok=True)
        (folder / subject.target).unlink()
        (folder / subject.target).write_bytes(data)

    return Input(name=f"{number} {subject.name}: {way}", make=make, read=subject.read, needed_bytes=_declared(data))


def _declared(data: bytes) -> int:
    """Estimate the memory that a photo of the declared size needs; 0 for other files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return image.width * image.height * _BYTES_PER_PIXEL
    except Exception:  # noqa: BLE001 - whatever a damaged file makes Pillow raise
        return 0


def run(item: Input, root: Path) -> Outcome:
    """Read an input in a process of its own, with limits."""
    folder = Path(tempfile.mkdtemp(dir=root))
    item.make(folder)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(item, folder, writing)
    os.close(writing)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE * _MAX_S)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = usage.ru_utime + usage.ru_stime
    shutil.rmtree(folder, ignore_errors=True)
    if not text:
        return Outcome(name=item.name, kind="defect", line=f"killed, status {status}", seconds=seconds, extra_bytes=0)
    values = json.loads(text)
    outcome = Outcome(name=item.name, seconds=seconds, **values)
    if outcome.kind != "defect" and (seconds > _MAX_S or outcome.extra_bytes > _MAX_BYTES + item.needed_bytes):
        return Outcome(**{**asdict(outcome), "kind": "defect", "line": f"too slow or too large: {outcome.line}"})
    return outcome


def _work(item: Input, folder: Path, pipe: int) -> None:
    """Read an input in the child, and report through a pipe."""
    before = _peak_bytes()
    limit = _virtual_bytes() + _MAX_BYTES + item.needed_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    kind, line = _attempt(item, folder)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    values = {"kind": kind, "line": line, "extra_bytes": max(0, _peak_bytes() - before)}
    os.write(pipe, json.dumps(values).encode()[:60_000])
    os._exit(0)


def _no_network(*_: object, **__: object) -> None:
    """Stand in for ``socket.connect``; an input that makes realfill use the network is a defect."""
    Path(_MARKER).touch()
    raise OSError("the network is not used")


def _attempt(item: Input, folder: Path) -> tuple[str, str]:
    os.chdir(folder)
    socket.socket.connect = _no_network  # type: ignore[method-assign]
    socket.getaddrinfo = _no_network  # type: ignore[assignment]
    stderr = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            line = item.read(folder)
    except RealFillError as error:
        if (folder / _MARKER).exists():
            return "defect", "its code ran, or it used the network"
        return _judge_line(f"{type(error).__name__}: {error}", is_error=True)
    except BaseException as error:  # noqa: BLE001 - this is what the study looks for
        where = traceback.extract_tb(error.__traceback__)[-4:]
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(where))
        return "defect", f"{type(error).__name__}: {str(error)[:300]} at {places}"
    if (folder / _MARKER).exists():
        return "defect", "its code ran, or it used the network"
    text = stderr.getvalue()
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    if "Traceback" in text or len(errors) > 1:
        return "defect", text[:600]
    return _judge_line(errors[0], is_error=True) if errors else _judge_line(line, is_error=False)


def _judge_line(line: str, *, is_error: bool) -> tuple[str, str]:
    if is_error and ("\n" in line or len(line) > _MAX_LINE or not line.isprintable()):
        return "defect", f"not one clear line: {line!r}"[:600]
    return ("error" if is_error else "right"), line[:300]


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Format the report."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    slowest = max(outcomes, key=lambda o: o.seconds)
    largest = max(outcomes, key=lambda o: o.extra_bytes)
    lines = [
        "| inputs | right results | clear errors | defects |",
        "|---|---|---|---|",
        f"| {len(outcomes)} | {kinds['right']} | {kinds['error']} | {kinds['defect']} |",
        "",
        f"Slowest: {slowest.seconds:.1f} CPU seconds ({slowest.name}).",
        f"Most memory beyond the importing process: {largest.extra_bytes / 1e6:.0f} MB ({largest.name}).",
    ]  # fmt: skip
    defects = [o for o in outcomes if o.kind == "defect"]
    lines += ["", *(f"- {o.name}: {o.line}" for o in defects)] if defects else []
    return "\n".join(lines) + "\n"


def study(
    *, num_inputs: int = 1000, seed: int = 0, planted: bool = True, only: str = "", output: Path | None = None
) -> int:
    """Run the study.

    Args:
        num_inputs: number of random damages; the planted files come on top.
        seed: seed of the damages.
        planted: also read the planted files.
        only: a part of the names of the subjects and planted files to try; empty: all.
        output: file for the report in JSON; the Markdown goes beside it.
    """
    from garbage_planted import planted_inputs  # noqa: PLC0415 - it imports Input from here

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "inputs").mkdir()
        subjects = make_subjects(root / "samples", with_heic=_has_heic())
        others = [(s.folder / s.target).read_bytes()[:4096] for s in subjects]
        chosen = [s for s in subjects if only in s.name]
        items = [mutated(chosen[i % len(chosen)], i, seed, others) for i in range(num_inputs if chosen else 0)]
        if planted:
            items += [item for item in planted_inputs(root / "planted", subjects) if only in item.name]
        gc.freeze()
        outcomes = []
        for item in items:
            outcomes.append(run(item, root / "inputs"))
            if outcomes[-1].kind == "defect":
                print(f"{outcomes[-1].name}: {outcomes[-1].line}", file=sys.stderr, flush=True)
    report = markdown(outcomes)
    print(report)
    if output is not None:
        output.write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n", encoding="utf-8")
        output.with_suffix(".md").write_text(report, encoding="utf-8")
    return int(any(o.kind == "defect" for o in outcomes))


def _has_heic() -> bool:
    try:
        import pillow_heif  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(tyro.cli(study))
