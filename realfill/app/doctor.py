"""The doctor: what a bug report needs to know about a machine, without paths that give away a user's name."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from packaging.requirements import Requirement

import realfill
from realfill.compute.devices import resolve_device
from realfill.compute.memory import free_bytes
from realfill.config import FitConfig, SampleConfig
from realfill.errors import BaseModelError, RealFillWarning
from realfill.models.diffusion.hub import BASES, locate
from realfill.pipeline import complete, fit
from realfill.scene.scene import Scene

_GIB = 2**30


def describe_versions() -> Iterator[str]:
    """Describe this project, Python, the system, and the libraries that the project requires."""
    system = f"{platform.system()} {platform.machine()}"
    yield f"realfill {realfill.__version__}, Python {platform.python_version()}, {system}"
    versions = (_describe_library(requirement) for requirement in _requirements(None))
    yield "libraries: " + ", ".join(versions)


def describe_extras() -> Iterator[str]:
    """Tell, for each extra of the project, whether its packages are installed in a version that it accepts."""
    for extra in importlib.metadata.metadata("realfill").get_all("Provides-Extra") or ():
        if extra == "dev":
            continue
        missing = [r.name for r in _requirements(extra) if not _is_installed(r)]
        state = f"missing {', '.join(missing)}; pip install 'realfill[{extra}]'" if missing else "installed"
        yield f"extra {extra}: {state}"


def describe_device(device: str | None) -> str:
    """Describe the device that a job would use, and the free memory.

    Raises:
        ValueError: the device cannot be used.
    """
    chosen = resolve_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"{os.cpu_count()} processors"
    return f"device: {chosen} ({name}), {free_bytes(chosen) / _GIB:.1f} GiB free"


def describe_bases() -> Iterator[str]:
    """Tell for each named base model whether it is on this machine."""
    for name in BASES:
        try:
            locate(name, local_files_only=True)
            yield f"base {name}: present"
        except BaseModelError:
            yield f"base {name}: not on this machine"


def try_job(device: str | None) -> str:
    """Fit the packaged base model for two steps, complete a small scene, and check the result.

    Raises:
        RuntimeError: the completion is wrong.
    """
    start = time.monotonic()
    rows, columns = np.mgrid[:96, :96]
    photo = np.stack([rows * 2, columns * 2, (rows + columns) % 256], axis=2).astype(np.uint8)
    hole = np.hypot(rows - 48, columns - 48) < 20
    recipe = FitConfig(base="mini", num_steps=2, batch_size=1)
    sampling = SampleConfig(num_samples=1, num_inference_steps=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the references show", RealFillWarning)  # this photo has nothing to match
        adapter = fit(Scene([photo], photo, hole), recipe, device=device, progress=False)
        image = complete(Scene([], photo, hole), adapter, sampling, device=device, progress=False).best.image
    if not np.array_equal(image[~hole], photo[~hole]):
        raise RuntimeError("the completion differs from the target outside the hole; please report this")
    if image[hole].std() == 0:
        raise RuntimeError("the completion is blank in the hole; please report this")
    return f"self-test: passed in {time.monotonic() - start:.0f} s"


def without_names(line: str) -> str:
    """Replace the user's home folder, which contains the user's name, by a tilde."""
    home = str(Path.home())
    return line.replace(home, "~") if len(home) > 1 else line


def _requirements(extra: str | None) -> list[Requirement]:
    """Return the project's own requirements, or those that an extra adds."""
    requirements = [Requirement(text) for text in importlib.metadata.requires("realfill") or ()]
    if extra is None:
        return [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [r for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra})]


def _describe_library(requirement: Requirement) -> str:
    if not _is_installed(requirement):
        return f"{requirement.name} MISSING (needs {requirement.specifier or 'any version'})"
    return f"{requirement.name} {importlib.metadata.version(requirement.name)}"


def _is_installed(requirement: Requirement) -> bool:
    """Tell whether a package is installed in a version that the requirement accepts."""
    try:
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False
