"""``adapt``: fine-tune a base model on photos of one kind, before any scene is fitted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from realfill.compute.devices import make_accelerator, resolve_device, resolve_precision
from realfill.compute.progress import OnStep
from realfill.config import AdaptConfig, AdaptSettings, GeometryConfig, WindowConfig
from realfill.config.adapt import STRUCTURE
from realfill.errors import warn
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.hub import origin
from realfill.models.diffusion.lora import Trainable, as_lora, choose_rank
from realfill.pipeline.fitting import make_trainable
from realfill.results.provenance import describe_fit, fit_identity
from realfill.segmentation.detection import Detector, load_detector
from realfill.training.category_masks import CategoryMasks
from realfill.training.checkpoint import CHECKPOINT_NAME
from realfill.training.epochs import best_epoch, best_epoch_of_combiner, train_in_epochs
from realfill.training.photo_folder import PhotoFolder, PhotoParts, list_photos, split_photos, steps_per_epoch
from realfill.training.structure import StructureTraining
from realfill.training.trainer import Trainer

_STAGE_STEPS = {"num_inference_steps": 60, "stage_steps": [40, 30]}  # Lee & Han, for stages of 256, 512 and 1,024
_FALLING_GUIDANCE = {"guidance_from": "foreground", "guidance_scale": 2.0, "stage_guidance": [1.5, 1.0]}


def adapt(
    photos: str | PathLike[str] | Sequence[str | PathLike[str]],
    config: AdaptConfig | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    detector: Detector | None = None,
    checkpoint_dir: str | PathLike[str] | None = None,
    overwrite: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Adapter:
    """Fine-tune an inpainting model on photos of one kind, with random masks.

    The photos are split by name into those to train on, to validate on and to test on. The validation loss decides
    which epoch is kept and when training stops; the combiner's own error decides which of its states is kept.
    ``realfill adapt`` also compares the result with the base model on the test photos
    (``realfill.benchmark.adaptation``).

    Args:
        photos: a folder of photos, at any depth, or paths of photos; at least three. They are read when a step needs
            them, so their number is not limited by memory.
        config: the recipe. ``None``: a LoRA on Stable Diffusion 2.
        device: ``cpu``, ``cuda``, ``mps`` and so on. ``None``: the best available.
        dtype: precision of the frozen weights under a LoRA; see ``fit``.
        local_files_only: do not use the network for the base model or the detector.
        detector: a loaded detector, which finds the objects for masks by category. ``None``: the one that the config
            names.
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
        ValueError: the base model is not shaped like Stable Diffusion, or the config does not suit it; or the detector
            does not know a class of ``AdaptConfig.foreground_classes``.
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
    masks = None
    if settings.num_category_tokens:
        chosen = detector or load_detector(settings.detector, device=device, local_files_only=local_files_only)
        masks = CategoryMasks(chosen, settings, fit_settings)
    trainable = make_trainable(inpainter, fit_settings, device, dtype)
    structure = StructureTraining.prepare(inpainter, settings) if settings.is_structured else None
    training, validation = (
        PhotoFolder(files, settings, fit_settings, inpainter.resolution, masks)
        for files in (parts.training, parts.validation)
    )
    trainer = Trainer(
        inpainter, trainable if structure is None else structure.added_to(trainable), fit_settings,
        make_accelerator(device, fit_settings.mixed_precision), draw_batch=training.draw_batch, structure=structure,
    )  # fmt: skip
    stages = settings.num_stages if settings.num_stages > 1 else None
    windows, inputs = WindowConfig(num_stages=stages).resolve(inpainter.card.window), _hash_photos(paths, settings)
    epochs = train_in_epochs(
        trainer, training, validation, settings,
        checkpoint=Path(checkpoint_dir) / CHECKPOINT_NAME if checkpoint_dir is not None else None,
        identity=fit_identity(inputs, fit_settings, windows, inpainter.traits), overwrite=overwrite, on_step=on_step,
        progress=progress,
    )  # fmt: skip
    tensors, rank, kept = _export(trainer, trainable, settings)
    num_with_objects = training.count_with_objects(trainer.step)
    sampling = _choose_sampling(settings, inpainter.card.sample, num_with_objects)
    of_combiner = best_epoch_of_combiner(epochs)
    about = {
        "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
        "best_epoch": best_epoch(epochs).number,
        **({"best_epoch_of_combiner": of_combiner.number} if of_combiner is not None else {}),
        "kept_change": kept,
        **({"photos_with_objects": num_with_objects} if masks is not None else {}),
        "photos": {part: [path.name for path in getattr(parts, part)] for part in PhotoParts.__slots__},
    }
    manifest = describe_fit(
        inputs=inputs, num_steps_done=trainer.step, time_s=trainer.time_s, device=str(device),
        origin=origin(config.base),
    )  # fmt: skip
    return Adapter(
        tensors={**tensors, **(structure.export() if structure is not None else {})},
        config=dataclasses.replace(trainer.settings, lora_rank=rank, lora_alpha=rank), window=windows,
        geometry=GeometryConfig().resolve({}), sample=sampling, fingerprint=inpainter.fingerprint,
        losses=tuple(trainer.losses), manifest={**manifest, "adaptation": about},
    )  # fmt: skip


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


def _choose_sampling(settings: AdaptSettings, base: Mapping[str, Any], num_with_objects: int) -> dict[str, Any]:
    """Choose the sampler's settings of the structure recipe; the base model's own number of steps holds."""
    chosen: dict[str, Any] = {}
    if settings.preset == "structure":
        chosen |= {name: steps for name, steps in _STAGE_STEPS.items() if name not in base}
    if not settings.num_category_tokens:
        return chosen
    if not num_with_objects:
        warn(
            f"no object of {', '.join(settings.foreground_classes)} was found in the photos, so the foreground is not "
            "learnt, and filling is not guided away from it; name other foreground_classes, or another detector"
        )
        return chosen | {"guidance_scale": 1.0, "stage_guidance": [1.0]}
    return chosen | _FALLING_GUIDANCE


def _hash_photos(paths: Sequence[Path], settings: AdaptSettings) -> Mapping[str, str]:
    """Hash names and sizes of the photos, and how they are shown."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\n{path.stat().st_size}\n".encode())
    shown: Any = (settings.masks_per_photo, settings.crop_share, settings.mirror, settings.shares, settings.patience)
    inputs = {"photos": digest.hexdigest(), "masks": str(shown)}
    if settings.is_structured:
        inputs["structure"] = json.dumps([getattr(settings, name) for name in STRUCTURE])
    return inputs
