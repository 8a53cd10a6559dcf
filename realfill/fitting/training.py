"""Training: the loop of a fit, its progress, its checkpoints (paper, section 3.2)."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from realfill.capacity import is_out_of_memory
from realfill.errors import AdapterError, RealFillWarning, TrainingError
from realfill.fitting.batches import TrainingImage
from realfill.fitting.trainer import Trainer

CHECKPOINT_NAME = "checkpoint.pt"
_WARM_UP = 2  # steps that tell nothing about how long the others take


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What ``on_step`` is told.

    Attributes:
        step: steps done.
        num_steps: steps to do at most; a time budget may end them before.
        loss: the last that was read.
        learning_rate: the U-Net's, at the last step.
        time_s: seconds spent on the steps done.
        left_s: seconds that the others are expected to take; ``None`` in the first steps, which warm up.
    """

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    time_s: float
    left_s: float | None


class Pace:
    """How long a step takes, by the last ones."""

    def __init__(self) -> None:
        """Start without an idea."""
        self._num_seen = 0
        self._last_s: deque[float] = deque(maxlen=20)  # on a GPU every tenth step waits for those before it

    def add(self, seconds: float) -> None:
        """Note what a step took."""
        self._num_seen += 1
        if self._num_seen > _WARM_UP:
            self._last_s.append(seconds)

    @property
    def mean_s(self) -> float | None:
        """Seconds a step on average; ``None`` before enough steps were seen."""
        return sum(self._last_s) / len(self._last_s) if self._last_s else None

    @property
    def longest_s(self) -> float:
        """Seconds that a step may take; 0 where that isn't known."""
        return max(self._last_s, default=0.0)


def train(
    trainer: Trainer,
    photos: Sequence[TrainingImage],
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    overwrite: bool = False,
    on_step: Callable[[Progress], bool | None] | None = None,
    progress: bool = True,
) -> None:
    """Run a fit to its end, to the end of its time budget, or until ``on_step`` returns ``False``.

    With a checkpoint file it goes on where the file stands, and draws what an uninterrupted run would have drawn; on
    ``overwrite`` one of another fit is replaced. An interruption (Ctrl-C) writes one before it is passed on.

    Raises:
        TrainingError: the loss is no longer a number.
        AdapterError: the checkpoint is damaged or of another fit.
    """
    config = trainer.config
    if checkpoint is not None:
        _go_on(trainer, checkpoint, identity, overwrite=overwrite)
    pace = Pace()
    start = time.monotonic() - trainer.time_s
    bar = tqdm(
        total=config.num_steps, initial=trainer.step, desc="fit", unit="step", smoothing=0,
        disable=not progress or not trainer.accelerator.is_main_process,
    )  # fmt: skip
    try:
        with bar, _saved_at_the_end(trainer, checkpoint, identity):
            while trainer.step < config.num_steps and not _is_time_up(trainer, pace):
                rate = config.learning_rate * trainer.learning_rate_factor
                begun = time.monotonic()
                if not _try_step(trainer, photos):
                    continue
                pace.add(time.monotonic() - begun)
                trainer.time_s = time.monotonic() - start
                if checkpoint is not None and trainer.step % config.checkpoint_every == 0:
                    trainer.save(checkpoint, identity)
                report = _report(trainer, pace, rate)
                _show(bar, report, trainer.losses[-50:], pace.mean_s)
                if on_step is not None and _is_ended(trainer, on_step(report)):
                    break
    except TrainingError:
        if checkpoint is not None:  # it would only lead to the same end
            checkpoint.unlink(missing_ok=True)
        raise


def _go_on(trainer: Trainer, checkpoint: Path, identity: str, *, overwrite: bool) -> None:
    """Go on from a checkpoint; where there is none to go on from, write one, which shows whether that can be done."""
    if checkpoint.exists():
        try:
            trainer.load(checkpoint, identity)
        except AdapterError:
            if not overwrite:
                raise
        else:
            return
    trainer.save(checkpoint, identity)


@contextmanager
def _saved_at_the_end(trainer: Trainer, checkpoint: Path | None, identity: str) -> Iterator[None]:
    """Write a last checkpoint however the steps end, unless they diverge; that may turn out as it is written."""
    diverged = False
    try:
        yield
    except TrainingError:
        diverged = True
        raise
    finally:
        if checkpoint is not None and not diverged:
            trainer.save(checkpoint, identity)


def _try_step(trainer: Trainer, photos: Sequence[TrainingImage]) -> bool:
    """Make a step; where memory runs out, make the pieces smaller instead, and return ``False``."""
    try:
        trainer.train_step(photos)
    except RuntimeError as error:
        if not is_out_of_memory(error) or not trainer.can_shrink:
            raise
    else:
        return True
    trainer.shrink()  # after the exception is gone, which holds on to tensors
    plan = trainer.plan
    how = f"{plan.pieces} pieces{', with gradient checkpointing' if plan.checkpointing else ''}"
    warnings.warn(f"out of memory; going on with the batch in {how}", RealFillWarning, stacklevel=4)
    return False


def _is_time_up(trainer: Trainer, pace: Pace) -> bool:
    """Tell whether another step may end beyond the budget; all processes come to the same answer."""
    budget = trainer.config.time_budget_s
    if budget is None:
        return False
    trainer.time_s, expected_s = _largest(trainer, trainer.time_s, trainer.time_s + pace.longest_s)
    return expected_s >= budget


def _is_ended(trainer: Trainer, answer: bool | None) -> bool:  # noqa: FBT001 - it is what the callback said
    """Tell whether ``on_step`` said so in any process: all of them have to end after the same step."""
    return bool(_largest(trainer, float(answer is False))[0])


def _largest(trainer: Trainer, *values: float) -> list[float]:
    """Take the largest of each value over all processes."""
    accelerator = trainer.accelerator
    if accelerator.num_processes == 1:
        return list(values)
    own = torch.tensor([values], device=accelerator.device)
    return accelerator.gather(own).amax(dim=0).tolist()  # type: ignore[union-attr]


def _report(trainer: Trainer, pace: Pace, learning_rate: float) -> Progress:
    config, left_s = trainer.config, None
    if pace.mean_s is not None:
        left_s = pace.mean_s * (config.num_steps - trainer.step)
        if config.time_budget_s is not None:
            left_s = min(left_s, max(0.0, config.time_budget_s - trainer.time_s))
    return Progress(
        step=trainer.step, num_steps=config.num_steps, learning_rate=learning_rate, time_s=trainer.time_s,
        loss=trainer.losses[-1] if trainer.losses else math.nan, left_s=left_s,
    )  # fmt: skip


def _show(bar: tqdm, report: Progress, losses: Sequence[float], pace_s: float | None) -> None:
    """Bring the bar up to date; what it says is left goes by the steps after the first ones."""
    if bar.disable:
        return
    loss = float(np.mean(losses)) if losses else math.nan
    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    if report.left_s is None or not pace_s:
        bar.initial, bar.start_t = report.step, time.time()
    else:
        bar.total = report.step + round(report.left_s / pace_s)
    bar.update()
