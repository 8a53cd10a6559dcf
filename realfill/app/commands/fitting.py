"""Code that ``run`` and ``fit`` share: the choice of the base model, and the fit with its checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from realfill.app.commands.common import MachineOptions, UsageError
from realfill.app.commands.jobs import CHECKPOINTS, forget_job
from realfill.app.commands.stopping import StopOnInterrupt
from realfill.config import PLAIN_ENGINES, FitConfig, GeometryConfig, WindowConfig
from realfill.errors import OutputError

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.scene.scene import Scene

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415

_UNFITTED_BASE = "mini"  # fills the rest where the default base model is too slow


def choose_base(fit: FitConfig, base: str | None, machine: MachineOptions) -> FitConfig:
    """Set the base model of a fit.

    Raises:
        UsageError: no base model is named and there is no GPU, on which the default base model is meant to be fitted.
    """
    from realfill.compute.devices import resolve_device

    if base is None and resolve_device(machine.device).type == "cpu":
        raise UsageError(
            f"a fit of the default base model {fit.base} takes days without a GPU; use --base mini, which takes "
            f"minutes, or --base {fit.base} to start it anyway"
        )
    if base in PLAIN_ENGINES:
        raise UsageError(
            f"--base is {base}, an engine, which cannot be fitted; legal: a base model, such as mini or "
            f"{fit.base}. realfill complete takes {base}"
        )
    return fit if base is None else dataclasses.replace(fit, base=base)


def choose_unfitted_base(fit: FitConfig, base: str | None, machine: MachineOptions, *, no_fit: bool) -> str | None:
    """Choose what completes a scene without a fit, if the user wants that or a fit would take too long.

    Returns:
        A base model or the name of an engine; ``None`` if the scene is to be fitted.
    """
    from realfill.compute.devices import resolve_device

    if base is not None:
        return base if no_fit or base in PLAIN_ENGINES else None
    if resolve_device(machine.device).type != "cpu":
        return fit.base if no_fit else None
    if not no_fit:
        machine.say(
            f"a fit of the default base model {fit.base} takes days without a GPU; this is the result without a fit. "
            f"{_UNFITTED_BASE} fills what the references do not show. --base {_UNFITTED_BASE} fits in minutes; --base "
            f"{fit.base} starts the long fit"
        )
    return _UNFITTED_BASE


def fit_and_save(
    scene: Scene, config: FitConfig, window: WindowConfig, geometry: GeometryConfig, output: Path, folder: Path,
    machine: MachineOptions, *, overwrite: bool,
) -> Adapter | None:  # fmt: skip
    """Fit a scene, with a checkpoint in the output folder, and save the adapter.

    Returns:
        The adapter; ``None`` in a process that only helps the one that saves.

    Raises:
        KeyboardInterrupt: a signal ended the fit; its checkpoint is written.
    """
    from realfill.compute.devices import is_main_process
    from realfill.pipeline import fit

    with StopOnInterrupt() as stop:
        adapter = fit(
            scene, config, window=window, geometry=geometry, checkpoint_dir=output / CHECKPOINTS, overwrite=overwrite,
            on_step=stop.on_step, progress=machine.progress, **machine.keywords,
        )  # fmt: skip
    is_whole = adapter.config.time_budget_s is not None or len(adapter.losses) >= adapter.config.num_steps
    if stop.requested or not is_whole:  # a signal to another process ends the fit of all
        raise KeyboardInterrupt
    if not is_main_process():
        return None
    if overwrite:
        forget_job(output)
    adapter.save(folder, overwrite=True)
    return adapter


def require_no_adapter(folder: Path, output: Path, *, overwrite: bool) -> None:
    """Check that no adapter would be replaced. One beside a checkpoint belongs to an unfinished job.

    Raises:
        OutputError: the folder holds an adapter.
    """
    from realfill.models.diffusion.adapter import MANIFEST_NAME, WEIGHTS_NAME

    present = any((folder / name).exists() for name in (MANIFEST_NAME, WEIGHTS_NAME))
    if present and not (overwrite or (output / CHECKPOINTS).exists()):
        raise OutputError(
            f"{str(folder)!r} already holds an adapter; choose another folder, or replace it with --overwrite"
        )
