"""Training of a completion network on a folder of photos, in three phases (Iizuka et al. 2017, section 3.5).

A run can be stopped at any time. The same call resumes it from its last checkpoint, to the same result.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from realfill.compute.progress import OnStep, Progress, ProgressBar, indivisible
from realfill.errors import AdapterError, OutputError, TrainingError
from realfill.io.images import ImageArray
from realfill.training.checkpoint import CHECKPOINT_NAME, damaged_state, load_checkpoint, save_checkpoint
from realfill.training.completion_config import CompletionTrainingConfig
from realfill.training.completion_pictures import draw_previews, plot_losses
from realfill.training.completion_samples import shrink_for_crops
from realfill.training.completion_trainer import CompletionTrainer
from realfill.training.pretraining import load_photos

_NOT_IN_IDENTITY = {
    "photos", "output", "minutes", "num_holdout", "holdout", "preview_every", "checkpoint_every", "mixed_precision",
    "device",
}  # fmt: skip


def train_completion(config: CompletionTrainingConfig, *, on_step: OnStep | None = None, progress: bool = True) -> Path:
    """Train a completion network, or resume an earlier run.

    Args:
        config: the recipe.
        on_step: called after each step. If it returns ``False``, the run stops, and can be resumed.
        progress: show a progress bar.

    Returns:
        The output folder, which ``load_engine("completion", weights=...)`` loads.

    Raises:
        SceneError: the folder holds too few photos, or ``holdout`` names others.
        OutputError: the output folder holds other files, or a run with other photos or another recipe.
        TrainingError: the run diverged.
    """
    checkpoint = config.output / CHECKPOINT_NAME
    if any(config.output.glob("[!.]*")) and not checkpoint.exists():  # a lock is hidden
        raise OutputError(f"{str(config.output)!r} is not empty and holds no unfinished run; choose another folder")
    photos, held_out = load_photos(
        config.photos, config.num_holdout, config.holdout, shrink=partial(shrink_for_crops, config=config)
    )
    trainer, identity = CompletionTrainer.start(config, photos), _identity(config, photos)
    _resume(trainer, checkpoint, identity)
    start, first_step = time.monotonic(), trainer.step
    bar = ProgressBar(
        total=config.num_steps, initial=trainer.step, desc=trainer.phase, unit="step", disable=not progress
    )
    with bar, _saved_on_exit(trainer, checkpoint, identity):
        while trainer.step < config.num_steps:
            samples = trainer.draw(photos)
            with indivisible():  # half a step cannot be saved
                trainer.update(samples)
            if trainer.step % config.checkpoint_every == 0:
                save_checkpoint(checkpoint, trainer.state_dict(), identity)
            if trainer.step % config.preview_every == 0 and trainer.step < config.num_steps:
                _write_outputs(trainer, photos, held_out)
            time_s = time.monotonic() - start
            report = _report(trainer, time_s, time_s / (trainer.step - first_step))
            _show(bar, trainer)
            is_ended = on_step is not None and on_step(report) is False
            if is_ended or (config.minutes is not None and time_s >= 60 * config.minutes):
                break
    _write_outputs(trainer, photos, held_out)
    return config.output


def _resume(trainer: CompletionTrainer, checkpoint: Path, identity: str) -> None:
    """Load the checkpoint if there is one; otherwise write one, which shows early whether that is possible."""
    if not checkpoint.exists():
        save_checkpoint(checkpoint, trainer.state_dict(), identity)
        return
    try:
        state = load_checkpoint(checkpoint, identity, trainer.device)
        with damaged_state(checkpoint):
            trainer.load_state_dict(state)
    except AdapterError as error:
        raise OutputError(
            f"the run in {str(checkpoint.parent)!r} cannot be resumed, because its checkpoint is damaged or belongs to "
            "other photos or another recipe; choose another folder"
        ) from error


@contextmanager
def _saved_on_exit(trainer: CompletionTrainer, checkpoint: Path, identity: str) -> Iterator[None]:
    """Save a checkpoint however training ends, unless a step was under way or the run diverged."""
    try:
        yield
    except TrainingError:
        raise
    except BaseException:
        if not trainer.is_updating:
            save_checkpoint(checkpoint, trainer.state_dict(), identity)
        raise
    save_checkpoint(checkpoint, trainer.state_dict(), identity)


def _identity(config: CompletionTrainingConfig, photos: Sequence[ImageArray]) -> str:
    """Hash everything that decides the result, except the locations of files and the machine."""
    values = {name: value for name, value in asdict(config).items() if name not in _NOT_IN_IDENTITY}
    digest = hashlib.sha256(json.dumps(values).encode())
    for photo in photos:
        digest.update(f"{photo.shape}".encode() + photo.tobytes())
    return digest.hexdigest()


def _write_outputs(trainer: CompletionTrainer, photos: Sequence[ImageArray], held_out: Sequence[ImageArray]) -> None:
    """Write the weights, sample pictures of photos that were kept out, and the loss curves."""
    config, losses = trainer.config, trainer.losses
    recent = losses["completion"][-500:]
    summary = {
        "steps": trainer.step, "of_steps": config.num_steps, "phase": trainer.phase, "batch_size": config.batch_size,
        "masked_mse_of_last_500_steps": round(float(np.mean(recent)), 5) if recent else None,
    }  # fmt: skip
    network = trainer.finished(photos)
    network.save(config.output, about=summary)
    if held_out:
        draw_previews(network, held_out, config, config.output / "previews.png")
    plot_losses(losses, config.phase_ends, config.output / "losses.png")


def _report(trainer: CompletionTrainer, time_s: float, step_s: float) -> Progress:
    left_s = step_s * (trainer.config.num_steps - trainer.step)
    if trainer.config.minutes is not None:
        left_s = min(left_s, max(0.0, 60 * trainer.config.minutes - time_s))
    return Progress(
        phase="fit", step=trainer.step, num_steps=trainer.config.num_steps, time_s=time_s, left_s=left_s,
        loss=trainer.losses["completion"][-1], learning_rate=trainer.optimizers[0].param_groups[0]["lr"],
    )  # fmt: skip


def _show(bar: ProgressBar, trainer: CompletionTrainer) -> None:
    if bar.disable:
        return
    bar.set_description(trainer.phase, refresh=False)
    recent = {name: [x for x in values[-50:] if not math.isnan(x)] for name, values in trainer.losses.items()}
    bar.set_postfix({name: f"{np.mean(values):.4f}" for name, values in recent.items() if values}, refresh=False)
    bar.update()
