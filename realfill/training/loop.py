"""The training loop of a fit (paper, section 3.2)."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from realfill.compute.memory import until_it_fits
from realfill.compute.progress import OnStep, Progress, ProgressBar
from realfill.errors import AdapterError, TrainingError
from realfill.io.files import require_space
from realfill.training.checkpoint import damaged_state, load_checkpoint, save_checkpoint
from realfill.training.crops import Noising, TrainingImage, draw_noising
from realfill.training.objective import Latents
from realfill.training.trainer import Trainer

_NUM_SLOW_STEPS = 2  # the first steps do not show how long the others take


def train(
    trainer: Trainer,
    photos: Sequence[TrainingImage],
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    overwrite: bool = False,
    proceed: Callable[[], bool] | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> None:
    """Train until all steps are done, the time budget is spent, or ``on_step`` returns ``False``.

    Args:
        trainer: the state of the fit.
        photos: the photos to crop from.
        checkpoint: a file. Training resumes from it and draws the same as if it had never stopped; it writes the file
            at regular steps, at the end, and when it is interrupted.
        identity: hash of everything that decides the result; only a fit with the same hash resumes from the file.
        overwrite: replace a checkpoint of another fit.
        proceed: called before each step. If it returns ``False``, training ends.
        on_step: called after each step.
        progress: show a progress bar.

    Raises:
        TrainingError: the fit diverged.
        AdapterError: the checkpoint is damaged or belongs to another fit.
        OutputError: the disk has no room for checkpoints.
    """
    settings, optimizer, accelerator = trainer.settings, trainer.optimizer, trainer.accelerator
    if checkpoint is not None:
        _resume(trainer, checkpoint, identity, overwrite=overwrite)
    first_step, start = trainer.step, time.monotonic() - trainer.time_s
    durations_s: deque[float] = deque(maxlen=20)  # per step; on a GPU, every tenth step waits for the ones before it
    bar = ProgressBar(
        total=settings.num_steps, initial=trainer.step, desc="fit", unit="step",
        disable=not progress or not accelerator.is_main_process,
    )  # fmt: skip
    with bar, _saved_on_exit(trainer, checkpoint, identity):
        while trainer.step < settings.num_steps and not _is_time_up(trainer, durations_s):
            if proceed is not None and not proceed():
                break
            step_start = time.monotonic()
            trainer.set_learning_rates()
            loss = until_it_fits(lambda: compute_gradients(trainer, photos), trainer.shrink, trainer.inpainter.device)
            accelerator.clip_grad_norm_(trainer.parameters, settings.max_grad_norm)
            trainer.is_updating = True  # an interruption before the end of the update leaves nothing to save
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            trainer.step += 1
            trainer.update_average()
            trainer.record_loss(loss)
            trainer.is_updating = False
            trainer.read_losses(if_due=True)
            now = time.monotonic()
            trainer.time_s = now - start
            if trainer.step > first_step + _NUM_SLOW_STEPS:
                durations_s.append(now - step_start)
            if checkpoint is not None and trainer.step % settings.checkpoint_every == 0:
                _save(trainer, checkpoint, identity)
            mean_s = sum(durations_s) / len(durations_s) if durations_s else None
            report = _report(trainer, mean_s)
            _show(bar, report, trainer.losses[-50:], mean_s)
            if on_step is not None and _is_ended(trainer, on_step(report)):
                break


def compute_gradients(trainer: Trainer, photos: Sequence[TrainingImage]) -> torch.Tensor:
    """Draw a batch and backpropagate its loss (paper, equation 3), piece by piece.

    The loss is the mean squared error over all latents of the batch that count, whatever the number of crops, pieces
    and processes. The paper does not state how it is averaged.

    Returns:
        This process's share of the loss; the shares of all processes add up to the mean.
    """
    inpainter, accelerator = trainer.inpainter, trainer.accelerator
    batch, rng, generator = trainer.next_batch(photos)
    num_channels, height, width = batch.mean.shape[1:]
    noising = draw_noising(trainer.settings, (num_channels, height, width), rng, generator)[trainer.rows]
    noising = noising.to(inpainter.device)
    trainer.drop_lora_layers(rng)

    weight_sum: torch.Tensor = accelerator.reduce(batch.weights.sum(), "sum")  # type: ignore[assignment]
    weights = batch.weights / (weight_sum.clamp(min=1) * num_channels)
    total_loss = torch.zeros((), device=inpainter.device)
    for first in range(0, len(weights), trainer.piece_size):
        piece = slice(first, first + trainer.piece_size)
        latents, draws = batch[piece], noising[piece]
        is_last = piece.stop >= len(weights)  # only then do processes exchange gradients
        with nullcontext() if is_last else accelerator.no_sync(trainer.denoiser):
            loss = _summed_loss(trainer, latents, draws, weights[piece])
            accelerator.backward(loss * accelerator.num_processes)  # it averages gradients over processes
        total_loss += loss.detach()
    if trainer.structure is not None and trainer.structure.combiner is not None and accelerator.num_processes > 1:
        for parameter in trainer.structure.combiner.parameters():  # it lies outside of the wrapped module
            parameter.grad = accelerator.reduce(parameter.grad, "mean")  # type: ignore[assignment, arg-type]
    return total_loss


class Prediction(NamedTuple):
    """What the model predicted from noisy latents; all but the last are what ``DiffusionFamily.diffuse`` returns."""

    noisy_latents: torch.Tensor
    timesteps: torch.Tensor
    target: torch.Tensor
    loss_scale: torch.Tensor
    model_pred: torch.Tensor

    def errors(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the weighted squared errors of the prediction over latents (paper, equation 3).

        Args:
            weights: (B, 1, h, w), the weight of each latent.
        """
        return (self.model_pred - self.target) ** 2 * self.loss_scale * weights


def predict(trainer: Trainer, latents: Latents, draws: Noising) -> Prediction:
    """Add noise to latents, and let the model predict the target."""
    noisy_latents, timesteps, target, loss_scale = trainer.inpainter.diffuse(
        latents.sample(draws.noise[0]), draws.noise[1], draws.quantiles
    )
    with trainer.accelerator.autocast():
        model_pred = trainer.denoiser(
            noisy_latents, timesteps, latents.mask_latents, draws.prompted, latents.references, latents.categories
        )
    return Prediction(noisy_latents, timesteps, target, loss_scale, model_pred)


def _summed_loss(trainer: Trainer, latents: Latents, draws: Noising, weights: torch.Tensor) -> torch.Tensor:
    """Sum the weighted squared errors of the model's prediction, by stage if the recipe says so.

    Mean losses between images are added if the recipe says so.
    """
    prediction = predict(trainer, latents, draws)
    errors = prediction.errors(weights)
    if trainer.structure is None:
        return errors.sum()
    structure, batch_size = trainer.structure, trainer.settings.batch_size
    extra = structure.image_losses(
        trainer.inpainter, latents, prediction.noisy_latents, prediction.timesteps, prediction.model_pred
    )
    return (errors * structure.noise_weights(latents)).sum() + extra / batch_size


def _resume(trainer: Trainer, checkpoint: Path, identity: str, *, overwrite: bool) -> None:
    """Load the checkpoint if there is one; otherwise write one, which shows early whether that is possible."""
    exists = checkpoint.exists()
    if trainer.accelerator.is_main_process:  # a new checkpoint is complete before it replaces the old one
        require_space(checkpoint, 2 * trainer.checkpoint_bytes - (checkpoint.stat().st_size if exists else 0))
    if exists:
        try:
            state = load_checkpoint(checkpoint, identity, trainer.inpainter.device)
            with damaged_state(checkpoint):
                trainer.load_state_dict(state)
        except AdapterError:
            if not overwrite:
                raise
        else:
            return
    _save(trainer, checkpoint, identity)


def _save(trainer: Trainer, checkpoint: Path, identity: str) -> None:
    trainer.require_finite()
    if trainer.accelerator.is_main_process:
        save_checkpoint(checkpoint, trainer.state_dict(), identity)


@contextmanager
def _saved_on_exit(trainer: Trainer, checkpoint: Path | None, identity: str) -> Iterator[None]:
    """Save a checkpoint however training ends, but remove it if the fit diverged and would only diverge again."""
    diverged = False
    try:
        try:
            yield
        except TrainingError:
            diverged = True
            raise
        finally:
            if checkpoint is not None and not diverged and not trainer.is_updating:
                _save(trainer, checkpoint, identity)
    except TrainingError:
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        raise


def _is_time_up(trainer: Trainer, durations_s: Sequence[float]) -> bool:
    """Tell whether another step may exceed the time budget; all processes get the same answer."""
    budget = trainer.settings.time_budget_s
    if budget is None:
        return False
    longest_s = max(durations_s, default=0.0)
    trainer.time_s, expected_s = _maximum(trainer, trainer.time_s, trainer.time_s + longest_s)
    return expected_s >= budget


def _is_ended(trainer: Trainer, answer: bool | None) -> bool:  # noqa: FBT001 - the callback's answer
    """Tell whether ``on_step`` returned ``False`` in any process, since all must end after the same step."""
    return bool(_maximum(trainer, float(answer is False))[0])


def _maximum(trainer: Trainer, *values: float) -> list[float]:
    """Return the largest of each value over all processes."""
    accelerator = trainer.accelerator
    if accelerator.num_processes == 1:
        return list(values)
    tensor = torch.tensor([values], device=accelerator.device)
    return accelerator.gather(tensor).amax(dim=0).tolist()  # type: ignore[union-attr]


def _report(trainer: Trainer, mean_s: float | None) -> Progress:
    settings, left_s = trainer.settings, None
    if mean_s is not None:
        left_s = mean_s * (settings.num_steps - trainer.step)
        if settings.time_budget_s is not None:
            left_s = min(left_s, max(0.0, settings.time_budget_s - trainer.time_s))
    return Progress(
        phase="fit", step=trainer.step, num_steps=settings.num_steps, time_s=trainer.time_s, left_s=left_s,
        loss=trainer.losses[-1] if trainer.losses else math.nan,
        learning_rate=trainer.optimizer.param_groups[0]["lr"],
    )  # fmt: skip


def _show(bar: ProgressBar, report: Progress, losses: Sequence[float], mean_s: float | None) -> None:
    """Update the bar, whose remaining time leaves out the first, slower steps and respects the time budget."""
    if bar.disable:
        return
    if losses:  # on a GPU, the first ones are read after some steps
        bar.set_postfix(loss=f"{np.mean(losses):.3f}", refresh=False)
    if report.left_s is None or not mean_s:
        bar.initial, bar.start_t = report.step, time.monotonic()
    else:
        bar.total = report.step + round(report.left_s / mean_s)
    bar.update()
