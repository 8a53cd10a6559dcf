"""Pre-training of a small base model, like the packaged one, on a folder of photos.

Masks, loss and loop are those of a fit. A run can be stopped at any time and resumes from its last checkpoint, on
another machine too if its folder is moved there. Several processes can share its batches.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import torch

from realfill.compute.devices import make_accelerator, resolve_device
from realfill.compute.progress import OnStep, Progress
from realfill.config import SampleConfig
from realfill.errors import AdapterError, BaseModelError, OutputError, SceneError, warn
from realfill.io.files import partial_folder, whole_file
from realfill.io.images import ImageArray, read_image, resize, to_array, to_tensor
from realfill.io.recognition import find_fault
from realfill.io.writing import write_png
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.linear_attention import LinearAttentionUNet
from realfill.models.diffusion.lora import Trainable
from realfill.models.diffusion.sampling import sample
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.mini.building import build_pipeline, principal_components, regress_decoder, widen
from realfill.scene.masks import random_mask
from realfill.training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from realfill.training.crops import TrainingImage, draw_crops, shrink_photo
from realfill.training.loop import train
from realfill.training.pretrain_config import PretrainConfig
from realfill.training.trainer import Trainer

_NUM_PREVIEWS = 12
_START = "start"  # folder of the untrained base model, beside the trained one
_NOT_IN_IDENTITY = {"photos", "output", "init", "minutes", "holdout", "preview_every", "mixed_precision", "device"}


def pretrain(config: PretrainConfig, *, on_step: OnStep | None = None, progress: bool = True) -> Path:
    """Pre-train a base model from scratch or from another one, or resume an earlier run.

    Args:
        config: the recipe.
        on_step: called after each step. If it returns ``False``, the run stops, and can be resumed.
        progress: show a progress bar.

    Returns:
        The folder of the base model, which ``FitConfig(base=...)`` loads.

    Raises:
        SceneError: the folder holds too few photos, or ``holdout`` names others.
        OutputError: the output folder holds other files, or a run with other photos or another recipe.
        BaseModelError: ``init`` cannot be loaded or does not suit ``widths`` or ``patch_size``.
        ValueError: the first level of ``init`` cannot be widened to ``widths``.
        TrainingError: the run diverged.
    """
    start_folder, checkpoint = config.output / _START, config.output / CHECKPOINT_NAME
    is_begun = start_folder.exists() or checkpoint.exists()
    if any(config.output.glob("[!.]*")) and not is_begun:  # a lock is hidden
        raise OutputError(f"{str(config.output)!r} is not empty and holds no unfinished run; choose another folder")
    photos, held_out = load_photos(
        config.photos, config.num_holdout, config.holdout, shrink=partial(_shrink, config=config)
    )
    device, identity = resolve_device(config.device), _identity(config, photos, len(held_out))
    if checkpoint.exists() and not start_folder.exists():  # the output folder vanished, and training went on
        with _resuming(config.output):
            load_checkpoint(checkpoint, identity, torch.device("cpu"))
    accelerator = make_accelerator(device, config.mixed_precision)
    accelerator.wait_for_everyone()  # each process has checked the folder
    if not start_folder.exists() and accelerator.is_main_process:
        inpainter = build_start(config, photos)
        config.output.mkdir(parents=True, exist_ok=True)
        with partial_folder(config.output) as folder:
            inpainter.save(folder / _START, inpainter.card)
            (folder / _START).replace(start_folder)
    accelerator.wait_for_everyone()
    inpainter = StableDiffusionInpainter.load(str(start_folder)).to(
        device, torch.float32
    )  # rounded as in a resumed run
    settings = dataclasses.replace(config.fit_settings(), mixed_precision=accelerator.mixed_precision)
    inpainter.unet.requires_grad_(requires_grad=True)
    trainable = Trainable(groups={"unet": dict(inpainter.unet.named_parameters())}, lora_layers=(), export=dict)
    trainer = Trainer(inpainter, trainable, settings, accelerator)
    start = time.monotonic()

    def preview_and_check_time(report: Progress) -> bool:
        if report.step % config.preview_every == 0 and report.step < report.num_steps:
            _write_outputs(trainer, config, held_out)
        stopped = on_step is not None and on_step(report) is False
        return not stopped and (config.minutes is None or time.monotonic() - start < 60 * config.minutes)

    with _resuming(config.output):
        train(
            trainer, [_training_image(photo, config) for photo in photos],
            checkpoint=checkpoint, identity=identity, on_step=preview_and_check_time, progress=progress,
        )  # fmt: skip
    _write_outputs(trainer, config, held_out)
    return config.output


@contextmanager
def _resuming(output: Path) -> Iterator[None]:
    """Turn the error of a checkpoint that cannot be used into one that names the run."""
    try:
        yield
    except AdapterError as error:
        raise OutputError(
            f"the run in {str(output)!r} cannot be resumed, because its checkpoint is damaged or belongs to other "
            "photos or another recipe; choose another folder"
        ) from error


def load_photos(
    folder: Path,
    num_holdout: int,
    holdout: Path | None = None,
    *,
    shrink: Callable[[ImageArray], ImageArray] | None = None,
) -> tuple[list[ImageArray], list[ImageArray]]:
    """Read a folder of photos, and keep some of them out of training.

    Files whose names differ only in a last ``-0``, ``-1`` and so on are crops of one photo and stay together.

    Args:
        folder: folder of photos, at any depth.
        num_holdout: number of photos to keep out, chosen by a hash of their names.
        holdout: text file with the names of photos to keep out, one per line; ``None``: ``num_holdout`` photos.
        shrink: applied to each photo when it is read, to save memory.

    Returns:
        The photos to train on and the photos kept out, (h, w, 3) uint8 each.

    Raises:
        SceneError: no photos remain to train on, or ``holdout`` cannot be read or names other photos.
    """
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    faults = {path: find_fault(path) for path in files}
    paths = sorted(path for path, fault in faults.items() if fault is None)
    if others := [f"{path.name} ({fault})" for path, fault in faults.items() if fault is not None]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        warn(f"these files in {str(folder)!r} are left out: {', '.join(others[:3])}{more}. Save photos as PNG or JPEG")
    names = {p: re.sub(r"-\d{1,2}$", "", p.stem) for p in paths}
    if holdout is not None:
        held_names = _read_holdout(holdout, names)
    else:
        by_hash = sorted(set(names.values()), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        held_names = by_hash[:num_holdout]
    num_photos, least = len(set(names.values())), max(num_holdout if holdout is None else 0, len(held_names))
    if num_photos <= least:
        raise SceneError(f"{str(folder)!r} holds {num_photos} photos, of which {least} are kept out; add more photos")
    first_paths = {name: path for path, name in reversed(names.items())}

    def read(path: Path) -> ImageArray:
        photo = read_image(path, path.name)[0]
        return photo if shrink is None else shrink(photo)

    return [read(p) for p in paths if names[p] not in held_names], [read(first_paths[name]) for name in held_names]


def _read_holdout(holdout: Path, names: dict[Path, str]) -> list[str]:
    """Read the names of photos to keep out, one a line, in the order of the file; ``#`` starts a comment."""
    try:
        lines = [line.partition("#")[0].strip() for line in holdout.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeError) as error:
        raise SceneError(f"holdout is {str(holdout)!r}, which cannot be read: {error}") from error
    by_file_name = {path.name: name for path, name in names.items()}
    missing = [line for line in lines if line and line not in by_file_name]
    if missing:
        shown = ", ".join(map(repr, missing[:3])) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise SceneError(f"{str(holdout)!r} names photos that are not in the folder: {shown}; legal: their file names")
    return list(dict.fromkeys(by_file_name[line] for line in lines if line))


def _identity(config: PretrainConfig, photos: Sequence[ImageArray], num_held_out: int) -> str:
    """Hash everything that decides the result, except the locations of files and the machine."""
    values = {k: v for k, v in asdict(config).items() if k not in _NOT_IN_IDENTITY}
    digest = hashlib.sha256(json.dumps(values | {"num_holdout": num_held_out}).encode())
    for photo in photos:
        digest.update(f"{photo.shape}".encode() + photo.tobytes())
    return digest.hexdigest()


def build_start(config: PretrainConfig, photos: Sequence[ImageArray]) -> StableDiffusionInpainter:
    """Build an untrained base model, or adapt ``init``: fit a new decoder, add channels, widen the first level."""
    init = None if config.init is None else _load_init(config, config.init)
    autoencoder = None if init is None else init.pipeline.vae
    if autoencoder is None or autoencoder.config["latent_channels"] < config.latent_channels:
        autoencoder = principal_components(
            photos, config.patch_size, config.latent_channels,
            keep=autoencoder, seed=config.seed, num_patches=config.num_patches,
        )  # fmt: skip
    rng, batches, settings = np.random.default_rng(config.seed), [], config.fit_settings()
    images = [_training_image(photo, config) for photo in photos]
    while len(batches) * config.batch_size < config.num_decoder_crops:
        crops = draw_crops(images, settings, config.resolution, config.batch_size, rng)
        batches.append(to_tensor(crops.images))
    autoencoder = regress_decoder(autoencoder, torch.cat(batches), seed=config.seed)
    if init is None:
        pipeline = build_pipeline(
            autoencoder, resolution=config.resolution, widths=config.widths, linear=config.attention == "linear",
            seed=config.seed,
        )  # fmt: skip
        card = Card(resolution=config.resolution, masked_image="smooth", masked_latent="any")
    else:
        pipeline = widen(init.pipeline, autoencoder, config.widths[0], seed=config.seed)
        card = dataclasses.replace(init.card, resolution=config.resolution)
    if config.hint_share:
        card = dataclasses.replace(card, reads_hints=True, fit={**card.fit, "hint_share": config.hint_share})
    return StableDiffusionInpainter.from_pipeline(pipeline, base=str(config.output), card=card)


def _load_init(config: PretrainConfig, init: Path) -> StableDiffusionInpainter:
    """Load the base model to start from, and check that it suits the config."""
    inpainter = StableDiffusionInpainter.load(str(init))
    deeper_widths = tuple(inpainter.unet.config.block_out_channels[1:])
    if deeper_widths != config.widths[1:]:
        raise BaseModelError(
            f"widths is {config.widths}, but only the first level of {str(init)!r} can change; legal: "
            f"{(config.widths[0], *deeper_widths)}"
        )
    attention = "linear" if isinstance(inpainter.unet, LinearAttentionUNet) else "softmax"
    if attention != config.attention:
        raise BaseModelError(
            f"attention is {config.attention!r}, but that of {str(init)!r} cannot change; legal: {attention!r}"
        )
    if inpainter.vae_scale_factor != config.patch_size:
        raise BaseModelError(
            f"patch_size is {config.patch_size}, but that of {str(init)!r} cannot change; legal: "
            f"{inpainter.vae_scale_factor}"
        )
    if config.hint_share and inpainter.card.masked_image != "smooth":
        raise BaseModelError(
            f"hint_share is {config.hint_share}, but {str(init)!r} fills its masked image with "
            f"{inpainter.card.masked_image!r}; legal: 0, or a base model that fills it with 'smooth'"
        )
    return inpainter


def _training_image(photo: ImageArray, config: PretrainConfig) -> TrainingImage:
    shorter = min(photo.shape[:2])
    smallest = min(shorter, max(config.resolution, config.min_crop_share * shorter))
    return TrainingImage(image=photo, crop_sides_px=(smallest, shorter), mirror=True)


def _shrink(photo: ImageArray, config: PretrainConfig) -> ImageArray:
    return shrink_photo(_training_image(photo, config), config.resolution).image


def _write_outputs(trainer: Trainer, config: PretrainConfig, held_out: Sequence[ImageArray]) -> None:
    """Write the base model with averaged weights, previews on photos that were kept out, and the loss curve."""
    trainer.read_losses()
    if not trainer.accelerator.is_main_process:
        return
    unet = trainer.inpainter.parts["unet"]
    weights = {n: p.detach().clone() for n, p in unet.named_parameters()}
    unet.load_state_dict({n.removeprefix("unet."): p for n, p in trainer.average.items()}, strict=False)
    try:
        _save_base(trainer, config)
        if held_out:
            previews = _draw_previews(trainer.inpainter, held_out[:_NUM_PREVIEWS], config.resolution)
            write_png(config.output / "previews.png", previews)
        _plot_losses(trainer.losses, config.output / "losses.png")
    finally:
        unet.load_state_dict(weights, strict=False)
        unet.train()


def _save_base(trainer: Trainer, config: PretrainConfig) -> None:
    inpainter = trainer.inpainter
    assert isinstance(inpainter, StableDiffusionInpainter)  # ``pretrain`` builds it
    summary = {
        "steps": trainer.step,
        "batch_size": config.batch_size,
        "samples": trainer.step * config.batch_size,
        "loss_of_last_500_steps": round(float(np.mean(trainer.losses[-500:])), 4),
    }
    about = {**inpainter.card.about, "pretraining": summary}
    inpainter.save(config.output, dataclasses.replace(inpainter.card, about=about))


def _draw_previews(inpainter: DiffusionFamily, photos: Sequence[ImageArray], size: int) -> ImageArray:
    """Draw for each photo: the photo, the photo with its hole, and two samples; in two columns."""
    inpainter.parts["unet"].eval()
    settings = SampleConfig(scheduler="ddpm", num_inference_steps=20).resolve({})
    rows = []
    for i, photo in enumerate(photos):
        side = min(photo.shape[:2])
        image = to_tensor(resize(photo[:side, :side], (size, size)))
        mask = random_mask((size, size), np.random.default_rng(i), num_rectangles=(1, 2), rectangle_size=(0.3, 0.6))
        hole = torch.from_numpy(mask)[None, None]
        samples = sample(inpainter, image, hole, seeds=(0, 1), settings=settings).cpu()
        panels = [image[0], image[0].masked_fill(hole[0], 0), *(torch.where(hole[0], s, image[0]) for s in samples)]
        rows.append(np.concatenate([to_array(panel) for panel in panels], axis=1))
    half = math.ceil(len(rows) / 2)
    rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
    return np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)


def _plot_losses(losses: Sequence[float], path: Path) -> None:
    window = max(1, len(losses) // 200)
    means = [np.mean(losses[i : i + window]) for i in range(0, len(losses), window)]
    figure = matplotlib.figure.Figure(figsize=(6, 3.5), layout="constrained")
    axes: Any = figure.subplots()
    axes.plot(np.arange(len(means)) * window, means)
    axes.set(xlabel="step", ylabel=f"loss, mean of {window} steps")
    with whole_file(path) as file:
        figure.savefig(file, format="png")
