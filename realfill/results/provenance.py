"""Provenance: records of how adapters and completions were made. Identity: hashes to recognize equal jobs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from realfill.compute.devices import resolve_precision
from realfill.config import (
    FitConfig,
    GeometryConfig,
    RankConfig,
    SampleConfig,
    SampleSettings,
    WindowConfig,
    WindowSettings,
)
from realfill.results.evidence import INVENTED, Evidence
from realfill.scene.scene import Scene

_LIBRARIES = (
    "torch", "diffusers", "transformers", "peft", "accelerate", "opencv-contrib-python", "scikit-image", "numpy",
)  # fmt: skip
_SEED_FIELDS = (
    "seed",
    "num_samples",
    "batch_size",
    "preset",
    "base",
)  # a preset's fields and the base are there anyway
_MACHINE_FIELDS = ("base", "checkpoint_every", "gradient_accumulation_steps", "gradient_checkpointing", "compile")


def hash_array(array: NDArray) -> str:
    """Return a hash of shape and content."""
    return hashlib.sha256(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


def hash_scene(scene: Scene) -> dict[str, str]:
    """Return the hash of each image of a scene; pixels under the mask have no influence."""
    references = {f"reference {i}": hash_array(r) for i, r in enumerate(scene.references)}
    masks = {"mask": hash_array(scene.mask), "whole hole": hash_array(scene.whole_hole)}
    left_out = enumerate(scene.reference_masks)
    masks |= {f"mask of reference {i}": hash_array(mask) for i, mask in left_out if mask is not None}
    return {**references, "target": hash_array(scene.known), **masks}


def fit_identity(inputs: Mapping[str, str], config: FitConfig, window: WindowConfig, base: Mapping[str, Any]) -> str:
    """Return a hash of everything that determines the result of a fit, up to rounding.

    Args:
        inputs: the result of ``hash_scene``.
        config: the settings of the fit.
        window: the windows that crops are drawn for.
        base: properties of the base model that the fit depends on; plain JSON values.
    """
    recipe = {**config.to_dict(), **dict.fromkeys(_MACHINE_FIELDS)}
    return hashlib.sha256(json.dumps([recipe, dict(base), window.to_dict(), dict(inputs)]).encode()).hexdigest()


def describe_fit(
    *, inputs: Mapping[str, str], num_steps_done: int, time_s: float, device: str, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a finished fit for its adapter: versions, inputs, device, duration, and files of the base model."""
    return {
        "realfill": _version("realfill"),
        "libraries": library_versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_steps_done": num_steps_done,
        "time_s": round(time_s, 3),
        "device": device,
        "inputs": dict(inputs),
        **({"downloaded": dict(origin)} if origin else {}),
    }


def describe_completion(
    scene: Scene,
    *,
    base: str,
    fingerprint: str,
    fit: FitConfig | None,
    sample: SampleConfig,
    window: WindowConfig,
    ranking: RankConfig,
    geometry: GeometryConfig,
    evidence: Evidence,
    given: Sequence[str] = (),
    revision: str | None = None,
) -> dict[str, Any]:
    """Describe how completions are made, for their files.

    Args:
        scene: the completed scene.
        base: name or directory of the base model. Only the last part of a directory is kept, because photos are
            published.
        fingerprint: hash of the base model's weights.
        fit: the config of the adapter's fit; ``None`` for a bare base model.
        sample: settings of the sampler.
        window: settings of the windows.
        ranking: settings of the ranking.
        geometry: settings of the composite.
        evidence: what the pixels rest on; its shares are stored.
        given: what the composite did not estimate.
        revision: revision of the hub's repository that the base model was downloaded from.
    """
    name = Path(base).name if Path(base).is_absolute() else base
    values: dict[str, Any] = {"realfill": _version("realfill"), "base": name, "fingerprint": fingerprint}
    if revision is not None:
        values["revision"] = revision
    if fit is not None:
        values["fit"] = {**fit.to_dict(), "base": name}
    values |= {"sample": {**sample.to_dict(), "base": name}, "window": window.to_dict(), "rank": ranking.to_dict()}
    return values | _describe_sources(scene, geometry, evidence, given)


def describe_composite(
    scene: Scene, *, engine: str | None, geometry: GeometryConfig, evidence: Evidence, given: Sequence[str] = ()
) -> dict[str, Any]:
    """Describe a completion that has no pixel of a model.

    Args:
        scene: the completed scene.
        engine: name of the engine that filled the rest; ``None`` if there was none.
        geometry: settings of the composite.
        evidence: what the pixels rest on; its shares are stored.
        given: what the composite did not estimate.
    """
    values = {"realfill": _version("realfill"), "engine": engine}
    return values | _describe_sources(scene, geometry, evidence, given)


def _describe_sources(
    scene: Scene, geometry: GeometryConfig, evidence: Evidence, given: Sequence[str]
) -> dict[str, Any]:
    numbers = np.unique(evidence.source[evidence.kind != INVENTED]).tolist()
    used = {f"reference {n}": hash_array(scene.references[n]) for n in numbers}
    values: dict[str, Any] = {"geometry": geometry.to_dict(), "evidence": evidence.to_dict(), "references": used}
    if given:
        values["given"] = list(given)
    return {**values, "scene": dict(scene.history)} if scene.history else values


def describe_fill(engine: str) -> dict[str, Any]:
    """Describe how a hole was filled by an engine alone, for its completion."""
    return {"realfill": _version("realfill"), "engine": engine}


def describe_erasure(*, filled_by: str, removed: str, num_passes: int) -> dict[str, Any]:
    """Describe how something was erased, for its completion.

    Args:
        filled_by: what filled the hole.
        removed: description of what was removed.
        num_passes: 2 if the hole was filled a second time with a larger mask.
    """
    return {"realfill": _version("realfill"), "filled_by": filled_by, "removed": removed, "num_passes": num_passes}


def describe_recipe(
    scene: Scene,
    *,
    fingerprint: str | None,
    adapter: Mapping[str, torch.Tensor] | None = None,
    sample: SampleSettings | None = None,
    window: WindowSettings | None = None,
    kept: str | None = None,
) -> dict[str, Any]:
    """Return everything that determines the pixels of a completion besides its seed, up to rounding.

    Two completions can be compared and kept in one folder if their recipes are equal.

    Args:
        scene: the completed scene.
        fingerprint: hash of the base model's weights, or the name of an engine.
        adapter: the tensors of the adapter; ``None`` for a bare base model.
        sample: settings of the sampler; ``None`` without a model.
        window: settings of the windows; ``None`` without a model.
        kept: hash of the pixels that were taken from the references; ``None`` if there are none.

    Returns:
        Plain JSON values.
    """
    images = {name: value for name, value in hash_scene(scene).items() if not name.startswith("reference")}
    recipe: dict[str, Any] = {"scene": images, "base": fingerprint}
    recipe["adapter"] = None if adapter is None else hash_tensors(adapter)
    if sample is not None:
        recipe["sample"] = {name: value for name, value in sample.to_dict().items() if name not in _SEED_FIELDS}
    if window is not None:
        recipe["window"] = window.to_dict()
    return {**recipe, "composite": kept} if kept is not None else recipe


def identify_seeds(scene: Scene, recipe: Mapping[str, Any]) -> str:
    """Hash a recipe and the references, which some base models see: everything that decides the pixels of a seed."""
    return hashlib.sha256(json.dumps([dict(recipe), hash_scene(scene)]).encode()).hexdigest()[:32]


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def library_versions() -> dict[str, str | None]:
    """Return the versions of the libraries that influence results; ``None`` for one that is not installed."""
    return {name: _version(name) for name in _LIBRARIES}


def describe_machine(device: torch.device) -> str:
    """Describe the device for a report."""
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
