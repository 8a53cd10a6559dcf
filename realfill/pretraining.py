"""Pre-training the packaged base on a folder of photos: ``python -m realfill.pretraining PHOTOS -o OUT``.

The masks, the loss and the loop are ``training``'s; only what may change and the photos differ. It can be stopped at
any time and goes on where it stood, on another machine too if its folder is taken there; in pieces of ``--minutes`` it
fits into any schedule. Several processes share its batches:
``torchrun --nproc-per-node 2 -m realfill.pretraining PHOTOS -o OUT``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import matplotlib.figure
import numpy as np
import torch
import tyro
from torch import nn

from realfill.config import FitConfig, Precision, SampleConfig
from realfill.devices import is_main_process, make_accelerator, resolve_device
from realfill.errors import AdapterError, BaseModelError, OutputError, RealFillError, SceneError
from realfill.filling.sampling import sample
from realfill.fitting.batches import TrainingImage, draw_crops, reduced
from realfill.fitting.trainer import Trainer
from realfill.fitting.training import CHECKPOINT_NAME, Progress, train
from realfill.io.images import IMAGE_SUFFIXES, ImageArray, read_image, resize, to_array, to_tensor
from realfill.io.writing import write_png
from realfill.masks import random_mask
from realfill.models.adapter import Trainable
from realfill.models.bases import Card
from realfill.models.inpainter import Inpainter
from realfill.models.mini.building import build_pipeline, principal_components, regress_decoder, widen

_PREVIEWS = 12
_START = "start"  # what the run began with, beside the base that comes of it


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """How a small base is pre-trained."""

    photos: tyro.conf.Positional[Path]
    """Folder of photos. All are held in memory, shrunk where they are much larger than their crops need."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """Folder for the base, its checkpoint, its pictures; an unfinished run there is gone on with."""
    init: Path | None = None
    """A base to start from, instead of from scratch."""
    num_steps: int = 60_000
    """Optimizer steps in all; the learning rate falls to zero over them."""
    batch_size: int = 32
    """Crops in a step."""
    learning_rate: float = 5e-4
    """AdamW's, at its peak."""
    num_warmup_steps: int = 200
    """Steps over which it rises."""
    minutes: float | None = None
    """Stop after this long, to go on another time."""
    resolution: int = 128
    """Side of the crops in pixels; a multiple of four latents' sides. A base given as ``init`` is for this one then."""
    patch_size: int = 8
    """Side of a latent in pixels; with ``init`` it has to be that base's."""
    latent_channels: int = 40
    """Principal components kept of a patch. A base given as ``init`` that has fewer gets the others added; one that has
    more keeps them."""
    num_patches: int = 400_000
    """Random patches that the principal components are computed from."""
    num_decoder_crops: int = 1500
    """Random crops that the linear decoder is computed from."""
    widths: tuple[int, int, int] = (96, 128, 192)
    """Channels of the U-Net's levels. A base given as ``init`` gets its first level widened; the others stay."""
    min_crop_share: float = 0.4
    """Smallest crop's side, as a share of the photo's shorter one, where that isn't below the resolution."""
    num_holdout: int = 100
    """Photos kept out, for the pictures and for judging."""
    preview_every: int = 1000
    """Steps between pictures of what the base does on photos kept out."""
    mixed_precision: Precision | None = None
    """``no``, ``fp16``, ``bf16``; None: by the device."""
    device: str | None = None
    """``cpu``, ``cuda``, ``mps``; None: the best there is."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "latent_channels", "num_patches", "num_decoder_crops", "preview_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; legal: 1 or more")
        if self.num_holdout < 0:
            raise ValueError(f"num_holdout is {self.num_holdout}; legal: 0 or more")
        if not 0 < self.min_crop_share <= 1:
            raise ValueError(f"min_crop_share is {self.min_crop_share}; legal: above 0, at most 1")
        if self.resolution < 1 or self.resolution % (4 * self.patch_size):
            raise ValueError(f"resolution is {self.resolution}; legal: a multiple of {4 * self.patch_size}")
        self.fit_config()

    def fit_config(self) -> FitConfig:
        """State the same in training's terms."""
        return FitConfig(
            base=str(self.output),
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            num_warmup_steps=self.num_warmup_steps,
            lr_scheduler="cosine",
            weight_decay=0.01,
            adam_beta2=0.99,
            ema_decay=0.999,
            prompt="a photo",
            mask_dropout=0.05,
            num_rectangles=(1, 3),
            rectangle_size=(0.2, 0.8),
            hole_margin_px=0,
            visible_weight=0.1,
            noise_bias=1.5,
            mixed_precision=self.mixed_precision,
            seed=self.seed,
            checkpoint_every=500,
        ).resolve({})


def pretrain(config: PretrainConfig, *, progress: bool = True) -> Path:
    """Pre-train a base, from scratch, from another, or from where an earlier run stopped.

    Args:
        config: all of it.
        progress: show a progress bar.

    Returns:
        The folder of the base, loadable by ``FitConfig(base=...)``.

    Raises:
        SceneError: the folder holds too few photos.
        OutputError: the output folder holds something else, or a run of other photos or another recipe.
        BaseModelError: ``init`` can't be had, or has other deeper levels than ``widths`` or another ``patch_size``.
        ValueError: its first level can't be made as wide as ``widths`` says.
    """
    checkpoint = config.output / CHECKPOINT_NAME
    begun = config.output / _START
    unfinished = begun.with_suffix(".partial")
    if config.output.exists() and not begun.exists() and any(path != unfinished for path in config.output.iterdir()):
        raise OutputError(f"{str(config.output)!r} isn't empty and holds no unfinished run; choose another folder")
    kept, held_out = load_photos(config.photos, config.num_holdout, partial(_shrunk, config=config))
    device = resolve_device(config.device)
    accelerator = make_accelerator(device, config.mixed_precision)
    accelerator.wait_for_everyone()  # until all of them have looked
    if not begun.exists() and accelerator.is_main_process:
        inpainter = _start(config, kept)
        shutil.rmtree(unfinished, ignore_errors=True)
        inpainter.save(unfinished, inpainter.card)
        unfinished.replace(begun)
    accelerator.wait_for_everyone()
    inpainter = Inpainter.load(str(begun)).to(device, torch.float32)  # each piece of the run starts with the same
    fit_config = dataclasses.replace(config.fit_config(), mixed_precision=accelerator.mixed_precision)
    trainer = Trainer(inpainter, _all_weights(inpainter.unet), fit_config, accelerator)
    start = time.monotonic()

    def on_step(report: Progress) -> bool:
        if report.step % config.preview_every == 0 and report.step < report.num_steps:
            _write_state(trainer, config, held_out)
        return config.minutes is None or time.monotonic() - start < 60 * config.minutes

    images = [_training_image(photo, config) for photo in kept]
    identity = _identity(config, kept)
    try:
        train(trainer, images, checkpoint=checkpoint, identity=identity, on_step=on_step, progress=progress)
    except AdapterError as error:
        raise OutputError(
            f"the run in {str(config.output)!r} can't be gone on with: its checkpoint is damaged, or of other photos "
            "or another recipe. Choose another folder"
        ) from error
    _write_state(trainer, config, held_out)
    return config.output


def load_photos(
    folder: Path, num_holdout: int, shrink: Callable[[ImageArray], ImageArray] | None = None
) -> tuple[list[ImageArray], list[ImageArray]]:
    """Read a folder of photos and keep some out, chosen by their names' hashes.

    Files whose names differ in a last ``-0``, ``-1`` ... only are crops of one photo and stay together.

    Args:
        folder: where they are, at any depth.
        num_holdout: how many to keep out.
        shrink: applied to each as it is read, so that memory doesn't grow with their size.

    Returns:
        The photos, (h, w, 3) uint8 each, and those kept out.

    Raises:
        SceneError: there are no more photos than shall be kept out.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    names = {p: re.sub(r"-\d{1,2}$", "", p.stem) for p in paths}
    if len(set(names.values())) <= num_holdout:
        raise SceneError(f"{str(folder)!r} holds {len(set(names.values()))} photos; legal: more than {num_holdout}")
    by_hash = sorted(set(names.values()), key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    held = set(by_hash[:num_holdout])
    first = {name: p for p, name in reversed(names.items()) if name in held}

    def read(path: Path) -> ImageArray:
        photo = read_image(path, path.name)[0]
        return photo if shrink is None else shrink(photo)

    return [read(p) for p in paths if names[p] not in held], [read(first[name]) for name in by_hash[:num_holdout]]


def main(args: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    config = tyro.cli(PretrainConfig, args=args, prog="python -m realfill.pretraining", description=__doc__)
    try:
        folder = pretrain(config)
        if is_main_process():
            print(f"base written to {folder}")
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    except (RealFillError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _identity(config: PretrainConfig, photos: Sequence[ImageArray]) -> str:
    """Hash what decides what is learnt: another machine may go on, and find photos and folders elsewhere."""
    elsewhere = {"photos", "output", "init", "minutes", "preview_every", "mixed_precision", "device"}
    digest = hashlib.sha256(json.dumps({k: v for k, v in asdict(config).items() if k not in elsewhere}).encode())
    for photo in photos:
        digest.update(f"{photo.shape}".encode() + photo.tobytes())
    return digest.hexdigest()


def _start(config: PretrainConfig, photos: Sequence[ImageArray]) -> Inpainter:
    """Build a base, or start from another; its decoder is computed anew, and channels that it lacks are added."""
    if config.init is None:
        card, start = Card(resolution=config.resolution, masked_image="smooth", masked_latent="any"), None
    else:
        start = Inpainter.load(str(config.init))
        card = dataclasses.replace(start.card, resolution=config.resolution)
        deeper = tuple(start.unet.config.block_out_channels[1:])
        if deeper != config.widths[1:]:
            raise BaseModelError(
                f"the deeper levels of {str(config.init)!r} are {deeper} wide, and stay so; widths is {config.widths}, "
                f"legal: {(config.widths[0], *deeper)}"
            )
        if start.latent_px != config.patch_size:
            raise BaseModelError(
                f"a latent of {str(config.init)!r} has {start.latent_px} pixels a side, and keeps them; patch_size is "
                f"{config.patch_size}, legal: {start.latent_px}"
            )
    autoencoder = start.pipeline.vae if start is not None else None
    if autoencoder is None or autoencoder.config["latent_channels"] < config.latent_channels:
        autoencoder = principal_components(
            photos, config.patch_size, config.latent_channels,
            keep=autoencoder, seed=config.seed, num_patches=config.num_patches,
        )  # fmt: skip
    rng, images, fit_config = np.random.default_rng(config.seed), [], config.fit_config()
    training = [_training_image(photo, config) for photo in photos]
    while len(images) * config.batch_size < config.num_decoder_crops:
        crops = draw_crops(training, fit_config, config.resolution, config.batch_size, rng)
        images.append(to_tensor(crops.images))
    autoencoder = regress_decoder(autoencoder, torch.cat(images), seed=config.seed)
    if start is None:
        pipeline = build_pipeline(autoencoder, resolution=config.resolution, widths=config.widths, seed=config.seed)
    else:
        pipeline = widen(start.pipeline, autoencoder, config.widths[0], seed=config.seed)
    return Inpainter.from_pipeline(pipeline, base=str(config.output), card=card)


def _all_weights(unet: nn.Module) -> Trainable:
    unet.requires_grad_(requires_grad=True)
    return Trainable(groups={"unet": dict(unet.named_parameters())}, lora_layers=(), export=dict)


def _training_image(photo: ImageArray, config: PretrainConfig) -> TrainingImage:
    short = min(photo.shape[:2])
    least = min(short, max(config.resolution, config.min_crop_share * short))
    return TrainingImage(image=photo, crop_sides_px=(least, short), mirror=True)


def _shrunk(photo: ImageArray, config: PretrainConfig) -> ImageArray:
    return reduced(_training_image(photo, config), config.resolution).image


def _write_state(trainer: Trainer, config: PretrainConfig, held_out: Sequence[ImageArray]) -> None:
    """Write the base with the averaged weights, the loss curve, and a picture of what it does on photos kept out."""
    trainer.read_losses()
    if not trainer.accelerator.is_main_process:
        return
    unet = trainer.inpainter.unet
    present = {n: p.detach().clone() for n, p in unet.named_parameters()}
    averaged = {n.removeprefix("unet."): p for n, p in trainer.average.items()}
    unet.load_state_dict(averaged, strict=False)
    try:
        _save_base(trainer, config)
        size = config.resolution
        if held_out:
            write_png(config.output / "previews.png", _previews(trainer.inpainter, held_out[:_PREVIEWS], size))
        _loss_curve(trainer.losses, config.output / "losses.png")
    finally:
        unet.load_state_dict(present, strict=False)
        unet.train()


def _save_base(trainer: Trainer, config: PretrainConfig) -> None:
    inpainter = trainer.inpainter
    trained = {
        "steps": trainer.step,
        "batch_size": config.batch_size,
        "samples": trainer.step * config.batch_size,
        "loss_of_last_500_steps": round(float(np.mean(trainer.losses[-500:])), 4),
    }
    about = {**inpainter.card.about, "pretraining": trained}
    inpainter.save(config.output, dataclasses.replace(inpainter.card, about=about))


def _previews(inpainter: Inpainter, photos: Sequence[ImageArray], size: int) -> ImageArray:
    """Draw a row for each photo: the photo, the hole, two samples."""
    inpainter.unet.eval()
    config = SampleConfig(scheduler="ddpm", num_inference_steps=20).resolve({})
    rows = []
    for i, photo in enumerate(photos):
        side = min(photo.shape[:2])
        truth = resize(photo[:side, :side], (size, size))
        rng = np.random.default_rng(i)
        hole = torch.from_numpy(random_mask((size, size), rng, num_rectangles=(1, 2), rectangle_size=(0.3, 0.6)))[
            None, None
        ]
        image = to_tensor(truth)
        samples = sample(inpainter, image, hole, seeds=(0, 1), config=config).cpu()
        shown = [image[0], image[0].masked_fill(hole[0], 0), *(torch.where(hole[0], s, image[0]) for s in samples)]
        rows.append(np.concatenate([to_array(x) for x in shown], axis=1))
    half = math.ceil(len(rows) / 2)
    rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
    return np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)


def _loss_curve(losses: Sequence[float], path: Path) -> None:
    window = max(1, len(losses) // 200)
    means = [np.mean(losses[i : i + window]) for i in range(0, len(losses), window)]
    figure = matplotlib.figure.Figure(figsize=(6, 3.5), layout="constrained")
    axes: Any = figure.subplots()
    axes.plot(np.arange(len(means)) * window, means)
    axes.set(xlabel="step", ylabel=f"loss, mean of {window} steps")
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
