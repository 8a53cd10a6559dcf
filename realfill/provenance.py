"""Provenance: from what, with what and where something was made; hashes that tell whether it is the same again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.devices import resolve_precision
from realfill.fitting.trainer import Trainer
from realfill.models.adapter import Adapter
from realfill.models.inpainter import Inpainter
from realfill.scene import Scene

_LIBRARIES = (
    "torch", "diffusers", "transformers", "peft", "accelerate", "opencv-contrib-python", "scikit-image", "numpy",
)  # fmt: skip
_OF_THE_MACHINE = ("checkpoint_every", "gradient_accumulation_steps", "gradient_checkpointing", "compile")


def hash_array(array: NDArray) -> str:
    """Hash shape and content."""
    return hashlib.sha256(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


def hash_scene(scene: Scene) -> dict[str, str]:
    """Hash what a fit sees of a scene, picture by picture."""
    references = {f"reference {i}": hash_array(r) for i, r in enumerate(scene.references)}
    masks = {"mask": hash_array(scene.mask), "whole hole": hash_array(scene.whole_hole)}
    return {**references, "target": hash_array(scene.known), **masks}


def fit_identity(inputs: dict[str, str], config: FitConfig, sampling: SampleConfig, inpainter: Inpainter) -> str:
    """Hash all that decides what a fit comes to, but for rounding.

    Args:
        inputs: of ``hash_scene``.
        config: resolved.
        sampling: resolved; its windows are what crops are drawn for.
        inpainter: the base, in the precision that its frozen weights are kept in.
    """
    card = inpainter.card
    seen = {
        "resolution": inpainter.resolution, "masked_image": card.masked_image, "masked_latent": card.masked_latent,
        "context": sampling.context, "join_windows": sampling.join_windows,
    }  # fmt: skip
    recipe = {**config.to_dict(), **dict.fromkeys(_OF_THE_MACHINE)}
    values = [recipe, str(inpainter.dtype), inpainter.fingerprint, seen, inputs]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def describe_finished_fit(trainer: Trainer, inputs: dict[str, str]) -> dict[str, Any]:
    """Tell, for an adapter, what it was made from, where, and how long it took."""
    return {
        "realfill": _version("realfill"),
        "libraries": library_versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_steps_done": trainer.step,
        "time_s": round(trainer.time_s, 3),
        "device": str(trainer.inpainter.device),
        "inputs": inputs,
    }


def describe_completion(
    scene: Scene, adapter: Adapter | str, config: SampleConfig, ranking: RankConfig, inpainter: Inpainter
) -> dict[str, Any]:
    """Tell, for completions, what they are made with; configs are resolved."""
    base = Path(inpainter.base).name if Path(inpainter.base).is_absolute() else inpainter.base  # photos are published
    made: dict[str, Any] = {"realfill": _version("realfill"), "base": base, "fingerprint": inpainter.fingerprint}
    if isinstance(adapter, Adapter):
        made["fit"] = {**adapter.config.to_dict(), "base": base}
    made |= {"sample": config.to_dict(), "rank": ranking.to_dict()}
    return {**made, "scene": dict(scene.history)} if scene.history else made


def library_versions() -> dict[str, str | None]:
    """Tell the versions of the libraries that decide what pixels come to; ``None`` where one goes by another name."""
    return {name: _version(name) for name in _LIBRARIES}


def describe_machine(device: torch.device) -> str:
    """Name what is computed on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    name, precision = features.get("cpu_name") or platform.machine(), resolve_precision(device, None)
    bf16 = ", bf16" if precision == "bf16" else ""
    return f"{device.type} ({name}, {torch.get_num_threads()} of {os.cpu_count()} threads{bf16})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
