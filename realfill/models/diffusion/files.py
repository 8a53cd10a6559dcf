"""Pipelines as files: load a folder in diffusers' layout, write one, and compute a fingerprint of the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from realfill.errors import OutputError
from realfill.io.files import partial_folder
from realfill.io.json_files import read_json
from realfill.models.diffusion.linear_attention import LinearAttentionUNet
from realfill.models.mini.autoencoder import PatchAutoencoder
from realfill.models.quiet import quiet

with quiet():  # the first import of a pipeline logs that torchvision is missing, which nothing here needs
    from diffusers import DiffusionPipeline, StableDiffusionInpaintPipeline

__all__ = [
    "DiffusionPipeline",
    "StableDiffusionInpaintPipeline",
    "compute_fingerprint",
    "load_pipeline",
    "save_pipeline",
]

_SCHEDULE_KEYS = ("prediction_type", "beta_schedule", "beta_start", "beta_end", "rescale_betas_zero_snr")


def load_pipeline(directory: Path) -> StableDiffusionInpaintPipeline:
    """Load a pipeline without using the network; the errors are those of the libraries."""
    parts: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    if _class_of(directory / "vae") == PatchAutoencoder.__name__:
        with quiet():
            parts["vae"] = PatchAutoencoder.from_pretrained(directory / "vae", use_safetensors=True)
    variant = "fp16" if any((directory / "unet").glob("*.fp16.safetensors")) else None
    if _class_of(directory / "unet") == LinearAttentionUNet.__name__:
        with quiet():
            parts["unet"] = LinearAttentionUNet.from_pretrained(
                directory / "unet", variant=variant, use_safetensors=True
            )
    with quiet():
        pipeline = StableDiffusionInpaintPipeline.from_pretrained(
            directory, variant=variant, requires_safety_checker=False, local_files_only=True, use_safetensors=True,
            **parts,
        )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _class_of(folder: Path) -> str | None:
    """Return the class that the config of a network names."""
    return read_json(folder / "config.json").get("_class_name")


def compute_fingerprint(pipeline: StableDiffusionInpaintPipeline) -> str:
    """Hash the noise schedule and the networks of a pipeline, see ``hash_networks``."""
    schedule = {k: pipeline.scheduler.config.get(k) for k in _SCHEDULE_KEYS}
    return hash_networks(schedule, (pipeline.unet, pipeline.text_encoder, pipeline.vae))


def hash_networks(values: Mapping[str, Any], networks: Iterable[Any]) -> str:
    """Hash some values, and each tensor's name, shape and some of its values, rounded to half precision."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for network in networks:
        for name, tensor in sorted(network.state_dict().items()):
            numbers = tensor.detach().flatten()
            numbers = numbers[:: max(1, len(numbers) // 64)].to("cpu", torch.float16)
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(numbers.numpy().tobytes())
    return digest.hexdigest()[:32]


def save_pipeline(pipeline: StableDiffusionInpaintPipeline, directory: Path) -> None:
    """Write a pipeline with its U-Net in half precision; the pipeline itself does not change.

    Raises:
        OutputError: the disk is full, and an earlier pipeline in the directory stays; or the directory vanished.
    """
    unet = type(pipeline.unet).from_config(pipeline.unet.config)
    unet.load_state_dict(pipeline.unet.state_dict())  # type: ignore[attr-defined]
    parts = {**pipeline.components, "requires_safety_checker": False}
    directory.mkdir(parents=True, exist_ok=True)
    with partial_folder(directory) as partial:
        mark = partial / ".mark"
        mark.touch()
        with quiet():
            parts["unet"] = unet.half()  # type: ignore[attr-defined]
            StableDiffusionInpaintPipeline(**parts).save_pretrained(partial)  # type: ignore[arg-type]
        if not mark.exists():  # diffusers has made the folder again, without what it wrote before
            raise OutputError(
                f"{str(directory)!r} vanished while a base model was being written to it; give the command again"
            )
        mark.unlink()
        _tidy(pipeline, partial)
        index = partial / "model_index.json"  # last: without it, a folder is no base model
        for path in sorted((p for p in partial.rglob("*") if p.is_file()), key=lambda path: path == index):
            target = directory / path.relative_to(partial)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)


def _tidy(pipeline: StableDiffusionInpaintPipeline, folder: Path) -> None:
    """Give weights the permissions of the other files, and keep private paths and the last prompt out."""
    mode = (folder / "model_index.json").stat().st_mode
    for weights in folder.rglob("*.safetensors"):  # which safetensors makes readable for the user alone
        weights.chmod(mode)
    for part in pipeline.components:
        config = folder / part / "config.json"
        if config.is_file():  # the libraries record the path that they read it from, which is private
            values = json.loads(config.read_text(encoding="utf-8"))
            values.pop("_name_or_path", None)
            config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    if tokenizer.is_file():  # it records how the last prompt was padded, so it would depend on when it is written
        values = json.loads(tokenizer.read_text(encoding="utf-8"))
        values |= {"padding": None, "truncation": None}
        tokenizer.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
