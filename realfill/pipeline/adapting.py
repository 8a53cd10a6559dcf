"""``adapt``: fine-tune a base model on photos of one kind, before any scene is fitted."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from realfill.compute.devices import make_accelerator, resolve_device, resolve_precision
from realfill.compute.progress import OnStep
from realfill.config import AdaptConfig, AdaptSettings, GeometryConfig, WindowConfig
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.hub import origin
from realfill.models.diffusion.lora import Trainable, as_lora, choose_rank
from realfill.pipeline.fitting import make_trainable
from realfill.results.provenance import describe_fit, fit_identity
from realfill.training.checkpoint import CHECKPOINT_NAME
from realfill.training.epochs import best_epoch, train_in_epochs
from realfill.training.photo_folder import PhotoFolder, PhotoParts, list_photos, split_photos, steps_per_epoch
from realfill.training.trainer import Trainer


def adapt(
    photos: str | PathLike[str] | Sequence[str | PathLike[str]],
    config: AdaptConfig | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    checkpoint_dir: str | PathLike[str] | None = None,
    overwrite: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Adapter:
    """Fine-tune an inpainting model on photos of one kind, with random masks.

    The photos are split by name into those to train on, to validate on and to test on. The validation loss decides
    which epoch is kept and when training stops. ``realfill adapt`` also compares the result with the base model on the
    test photos (``realfill.benchmark.adaptation``).

    Args:
        photos: a folder of photos, at any depth, or paths of photos; at least three. They are read when a step needs
            them, so their number is not limited by memory.
        config: the recipe. ``None``: a LoRA on Stable Diffusion 2.
        device: ``cpu``, ``cuda``, ``mps`` and so on. ``None``: the best available.
        dtype: precision of the frozen weights under a LoRA; see ``fit``.
        local_files_only: do not use the network for the base model.
        checkpoint_dir: folder for checkpoints. Training resumes from a checkpoint found there, and ends with the same
            result as an uninterrupted one.
        overwrite: replace a checkpoint of another training found there.
        on_step: called after each step. If it returns ``False``, training ends and keeps the best state so far.
        progress: show a progress bar.

    Returns:
        An adapter like that of a fit: ``complete``, ``erase`` and stock diffusers take it, and ``fit`` starts from it
        (``start``). ``manifest["adaptation"]`` has the losses of each epoch and the names of the photos of each part.

    Raises:
        SceneError: there are fewer than three photos, or none can be read.
        BaseModelError: the base model cannot be loaded.
        AdapterError: the checkpoint is damaged or belongs to another training.
        TrainingError: training diverged.
        ValueError: the base model is not shaped like Stable Diffusion, or the config does not suit it.
    """
    config = config or AdaptConfig()
    paths = list_photos(Path(photos) if isinstance(photos, str | PathLike) else [Path(p) for p in photos])
    device = resolve_device(device)
    inpainter = load_family(config.base, local_files_only=local_files_only)
    if inpainter.denoiser_name != "unet":
        raise ValueError(
            f"AdaptConfig.base is {config.base!r}, which has no U-Net; legal: a base model shaped like Stable "
            "Diffusion, such as sd2, sd15 or mini"
        )
    settings = config.resolve(inpainter.card.adapt)
    parts = split_photos(paths, settings.shares)
    num_steps = steps_per_epoch(len(parts.training) * settings.masks_per_photo, settings.batch_size)
    fit_settings = dataclasses.replace(
        settings.fit_settings(num_steps, inpainter.card.fit), base=inpainter.base,
        mixed_precision=resolve_precision(device, settings.mixed_precision),
    )  # fmt: skip
    trainable = make_trainable(inpainter, fit_settings, device, dtype)
    training, validation = (
        PhotoFolder(files, settings, fit_settings, inpainter.resolution) for files in (parts.training, parts.validation)
    )
    trainer = Trainer(
        inpainter, trainable, fit_settings, make_accelerator(device, fit_settings.mixed_precision),
        draw_batch=training.draw_batch,
    )  # fmt: skip
    windows, inputs = WindowConfig().resolve(inpainter.card.window), _hash_photos(paths, settings)
    epochs = train_in_epochs(
        trainer, training, validation, settings,
        checkpoint=Path(checkpoint_dir) / CHECKPOINT_NAME if checkpoint_dir is not None else None,
        identity=fit_identity(inputs, fit_settings, windows, inpainter.traits), overwrite=overwrite, on_step=on_step,
        progress=progress,
    )  # fmt: skip
    tensors, rank, kept = _export(trainer, trainable, settings)
    return Adapter(
        tensors=tensors,
        config=dataclasses.replace(trainer.settings, lora_rank=rank, lora_alpha=rank),
        window=windows,
        geometry=GeometryConfig().resolve({}),
        fingerprint=inpainter.fingerprint,
        losses=tuple(trainer.losses),
        manifest={
            **describe_fit(
                inputs=inputs,
                num_steps_done=trainer.step,
                time_s=trainer.time_s,
                device=str(device),
                origin=origin(config.base),
            ),
            "adaptation": {
                "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
                "best_epoch": best_epoch(epochs).number,
                "kept_change": kept,
                "photos": {part: [path.name for path in getattr(parts, part)] for part in PhotoParts.__slots__},
            },
        },
    )


def _export(
    trainer: Trainer, trainable: Trainable, settings: AdaptSettings
) -> tuple[dict[str, torch.Tensor], int, float]:
    """Build the adapter's tensors; return their rank and the share of the squared change that they keep, too."""
    if trainable.change is None:
        return trainer.export(), settings.lora_rank, 1.0
    trainer.require_finite()
    changes = trainable.change()
    rank, kept = choose_rank(changes, settings.kept_change)
    return as_lora(changes, rank), rank, kept


def _hash_photos(paths: Sequence[Path], settings: AdaptSettings) -> Mapping[str, str]:
    """Hash names and sizes of the photos, and how they are shown."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\n{path.stat().st_size}\n".encode())
    shown: Any = (settings.masks_per_photo, settings.crop_share, settings.mirror, settings.shares, settings.patience)
    return {"photos": digest.hexdigest(), "masks": str(shown)}
