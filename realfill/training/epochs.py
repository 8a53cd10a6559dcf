"""Training in epochs: validation after each, the best state, and early stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from realfill.compute.progress import OnStep, say
from realfill.config import AdaptSettings
from realfill.errors import warn
from realfill.training.loop import train
from realfill.training.photo_folder import PhotoFolder, steps_per_epoch
from realfill.training.structure import COMBINER
from realfill.training.trainer import Trainer
from realfill.training.validation import validate

_VALIDATION_SEED = 1
_MASKS_TO_VALIDATE = 4  # per photo and stage, so that each kind of mask is met in each stage
_NOTICEABLE_RISE = 0.01  # share of the loss; smaller rises are as likely chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The losses of an epoch.

    Attributes:
        number: epochs done; 0: before training.
        training_loss: mean over the epoch's steps; ``None`` before training.
        validation_loss: on the photos that are kept out for validation, with the same noise in each epoch.
        combiner_error: the share of the error of enlarged predictions on the same photos that the combiner leaves;
            ``None``: the recipe has no combiner.
    """

    number: int
    training_loss: float | None
    validation_loss: float
    combiner_error: float | None = None

    def describe(self) -> str:
        """Describe the epoch in a line."""
        loss = self.training_loss
        start = "before training" if loss is None else f"epoch {self.number}: loss {loss:.4f}"
        left = self.combiner_error
        error = "" if left is None else f", the combiner leaves {100 * left:.2f} % of the error"
        return f"{start}, validation loss {self.validation_loss:.4f}{error}"


def train_in_epochs(
    trainer: Trainer,
    training: PhotoFolder,
    validation: PhotoFolder,
    settings: AdaptSettings,
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    overwrite: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> list[Epoch]:
    """Train, validate after each epoch, and leave the parameters of the best epoch, or of the last, in the model.

    Training ends after all epochs, after ``patience`` epochs without a lower validation loss, or when ``on_step``
    returns ``False``. An epoch counts as the best only if it is better than the base model itself. The combiner has no
    influence on the validation loss, so its own error decides which of its states is kept.

    Args:
        trainer: the state of the training; its batches come from ``training``.
        training: the photos to train on.
        validation: the photos to validate on.
        settings: the recipe.
        checkpoint: a file from which training resumes; see ``loop.train``.
        identity: hash of everything that decides the result.
        overwrite: replace a checkpoint of another training.
        on_step: called after each step.
        progress: show a progress bar.

    Returns:
        The losses of the epochs, from epoch 0, which is the base model itself.

    Raises:
        TrainingError: training diverged.
        AdapterError: the checkpoint is damaged or belongs to another training.
    """
    num_masks = min(_MASKS_TO_VALIDATE, settings.masks_per_photo)
    if settings.num_stages > 1:
        num_masks = _MASKS_TO_VALIDATE * settings.num_stages
    crops = validation.draw_all(_VALIDATION_SEED, masks_per_photo=num_masks)
    length = steps_per_epoch(training.num_items, settings.batch_size)

    def note(number: int) -> None:
        """Note the losses of an epoch, and the parameters if they are the best so far."""
        trainer.read_losses()
        recent = trainer.losses[(number - 1) * length : number * length] if number else []
        losses = validate(trainer, crops, _VALIDATION_SEED)
        epoch = Epoch(
            number=number, training_loss=sum(recent) / len(recent) if recent else None, validation_loss=losses.loss,
            combiner_error=losses.combiner_error,
        )  # fmt: skip
        earlier = [e for e in _epochs(trainer) if e.number < number]
        _note_best(trainer, epoch, earlier)
        trainer.notes["epochs"] = [asdict(e) for e in (*earlier, epoch)]
        say(epoch.describe() if progress and trainer.accelerator.is_main_process else None)

    def proceed() -> bool:
        number, rest = divmod(trainer.step, length)
        if rest == 0 and len(_epochs(trainer)) <= number:
            note(number)
        return not _is_exhausted(trainer, settings)

    train(
        trainer, (), checkpoint=checkpoint, identity=identity, overwrite=overwrite, proceed=proceed, on_step=on_step,
        progress=progress,
    )  # fmt: skip
    proceed()  # validates the last epoch
    epochs = _epochs(trainer)
    if settings.keep == "best":
        _restore_best(trainer)
    _report(epochs, settings)
    return epochs


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the lowest validation loss."""
    return min(epochs, key=lambda epoch: epoch.validation_loss)


def best_epoch_of_combiner(epochs: Sequence[Epoch]) -> Epoch | None:
    """Return the first epoch with the combiner's lowest error, or ``None`` without a combiner."""
    errors = {epoch.number: epoch.combiner_error for epoch in epochs if epoch.combiner_error is not None}
    return min((e for e in epochs if e.number in errors), key=lambda epoch: errors[epoch.number], default=None)


def _epochs(trainer: Trainer) -> list[Epoch]:
    return [Epoch(**values) for values in trainer.notes.get("epochs", [])]


def _is_exhausted(trainer: Trainer, settings: AdaptSettings) -> bool:
    """Tell whether the last ``patience`` epochs brought no lower validation loss."""
    epochs = _epochs(trainer)
    return bool(epochs) and epochs[-1].number - best_epoch(epochs).number >= settings.patience


def _note_best(trainer: Trainer, epoch: Epoch, earlier: Sequence[Epoch]) -> None:
    """Note the best parameters so far: the combiner's by its own error, all others by the validation loss."""
    is_best = all(epoch.validation_loss < e.validation_loss for e in earlier)
    is_best_of_combiner = best_epoch_of_combiner([*earlier, epoch]) == epoch
    trainer.notes["best"] = {
        **trainer.notes.get("best", {}),
        **{
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in trainer.trainable.parameters()
            if (is_best_of_combiner if name.startswith(COMBINER) else is_best)
        },
    }


def _restore_best(trainer: Trainer) -> None:
    with torch.no_grad():
        for name, parameter in trainer.trainable.parameters():
            parameter.copy_(trainer.notes["best"][name])


def _report(epochs: list[Epoch], settings: AdaptSettings) -> None:
    """Warn of over-training, and of a training that has not helped."""
    best, last, combiner = best_epoch(epochs), epochs[-1], best_epoch_of_combiner(epochs)
    keeps_best = settings.keep == "best"
    if best.number == 0 and last.number > 0:
        changes = combiner is not None and combiner.number > 0 and settings.num_stages > 1
        what = "only the combiner has an effect" if changes else "the adapter changes nothing"
        result = f"so {what}" if keeps_best else "and keep='last' keeps the last one"
        warn(
            f"no epoch has a lower validation loss than the base model ({best.validation_loss:.4f}; the last one has "
            f"{last.validation_loss:.4f}), {result}; try another AdaptConfig.learning_rate than "
            f"{settings.learning_rate}, or more photos"
        )
    elif last.number > best.number:
        is_noticeable = last.validation_loss > (1 + _NOTICEABLE_RISE) * best.validation_loss
        reason = "the photos were learnt by heart" if is_noticeable else "more epochs do not help"
        differs = keeps_best and combiner is not None and combiner.number != best.number
        warn(
            f"the validation loss was lowest after epoch {best.number} ({best.validation_loss:.4f}) and rose to "
            f"{last.validation_loss:.4f} after epoch {last.number}: {reason}. The state of epoch "
            f"{(best if keeps_best else last).number} is kept"
            + (f"; the combiner is that of epoch {combiner.number}" if differs and combiner is not None else "")
        )
