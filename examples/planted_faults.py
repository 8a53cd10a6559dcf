"""Faults of a machine that a process plants in itself, and a small disk."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_NOBODY = 65534
_INTERRUPT_AFTER_S, _STAGE_S = 0.2, 8.0

STAGES: Mapping[str, tuple[str, str]] = {
    "read": ("realfill.scene.scene", "Scene.load"),
    "align": ("realfill.pipeline.evidence", "composite"),
    "load": ("realfill.models.diffusion.stable_diffusion", "StableDiffusionInpainter.load"),
    "encode": ("realfill.training.trainer", "encode_crops"),
    "fit step": ("realfill.training.loop", "compute_gradients"),
    "sample": ("realfill.filling.fill", "sample"),
    "decode": ("realfill.models.diffusion.stable_diffusion", "StableDiffusionInpainter.decode"),
    "blend": ("realfill.filling.fill", "blend"),
    "rank": ("realfill.pipeline.ranking", "rank"),
    "write": ("realfill.results.completions", "Completion.save"),
    "contact sheet": ("realfill.results.completions", "image_grid"),
    "train": ("realfill.training.completion_trainer", "CompletionTrainer.update"),
    "measure": ("realfill.benchmark.runner", "rank"),
    "erase": ("realfill.pipeline.erasing", "load_detector"),
    "load detector": ("realfill.segmentation.detection", "load_detector"),
    "fill": ("realfill.models.classical", "_Deterministic.fill"),
    "save adapter": ("realfill.models.diffusion.adapter", "Adapter.save"),
    "read photos": ("realfill.training.photo_folder", "PhotoFolder._crops"),
    "validate": ("realfill.training.epochs", "validate"),
    "compare": ("realfill.filling.unfitted", "UnfittedBase.fill"),
    "report": ("realfill.benchmark.report", "markdown"),
    "build": ("realfill.training.pretraining", "build_pipeline"),
    "save base": ("realfill.models.diffusion.stable_diffusion", "save_pipeline"),
    "preview": ("realfill.training.pretraining", "sample"),
    "save network": ("realfill.models.feedforward.completion", "CompletionNetwork.save"),
    "draw previews": ("realfill.training.completion_training", "draw_previews"),
}
"""Stages of the commands, each with a function that does it."""


def raise_full() -> None:
    """Fail as the system does when a disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def small_disk(place: Path, num_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs of a size."""
    run("mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "none", str(place))
    try:
        yield place
    finally:
        run("umount", str(place))


def run(*words: str) -> None:
    """Run a command of the system."""
    subprocess.run(words, check=True)  # noqa: S603 - the words are this study's own


def become_nobody() -> None:
    """Become a user who may write nowhere."""
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)


def turn_clock_back() -> None:
    """Set the clock of this process back by an hour, and let it run backwards."""
    real, start = time.time, time.time()
    time.time = lambda: 2 * start - 3600 - real()  # type: ignore[assignment]


def failing(error: BaseException, note: Path, *, lasting: bool) -> Callable[[], None]:
    """Make a function that raises an error at its first call, which writes a note, or at every call."""

    def fail() -> None:
        is_first = not note.exists()
        note.touch()
        if lasting or is_first:
            raise error

    return fail


def find_stage(stage: str) -> tuple[Any, str]:
    """Return the module or class of a stage's function, and the function's name there."""
    module, path = STAGES[stage]
    owner: Any = importlib.import_module(module)
    *names, last = path.split(".")
    for name in names:
        owner = getattr(owner, name)
    return owner, last


def wrap(stage: str, before: Callable[[], object]) -> None:
    """Call a function before each call of a stage, in this process from now on."""
    owner, last = find_stage(stage)
    original = owner.__dict__[last] if isinstance(owner, type) else getattr(owner, last)
    function = original.__func__ if isinstance(original, classmethod | staticmethod) else original

    def wrapped(*args: Any, **options: Any) -> Any:
        before()
        return function(*args, **options)

    setattr(owner, last, type(original)(wrapped) if isinstance(original, classmethod | staticmethod) else wrapped)


def press_ctrl_c(note: Path) -> None:
    """Press Ctrl-C a moment later, and compute for long."""

    def press() -> None:
        note.write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGINT)

    if _pressed:
        return
    _pressed.append(1)
    threading.Timer(_INTERRUPT_AFTER_S, press).start()
    end = time.monotonic() + _STAGE_S
    while time.monotonic() < end:
        torch.linalg.det(torch.rand(100, 100))


_pressed: list[int] = []
