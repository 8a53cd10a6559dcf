"""The settings of a job: the caller's, else the adapter's, else the base model's, else the defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from realfill.compute.progress import OnStep
from realfill.config import (
    GeometryConfig,
    GeometrySettings,
    Preset,
    RankConfig,
    RankSettings,
    SampleConfig,
    SampleSettings,
    WindowConfig,
    WindowSettings,
)
from realfill.errors import warn
from realfill.models.diffusion.adapter import Adapter, resolve_sampling
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.family import DiffusionFamily
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompletionJob:
    """A completion by a diffusion model: its inputs, and its settings without open fields."""

    scene: Scene
    inpainter: DiffusionFamily
    adapter: Adapter | None
    sample: SampleSettings
    window: WindowSettings
    geometry: GeometrySettings
    ranking: RankSettings
    ranked: bool
    device: torch.device
    dtype: torch.dtype | None
    on_step: OnStep | None
    progress: bool


def resolve_completion(
    scene: Scene,
    inpainter: DiffusionFamily,
    adapter: Adapter | None,
    config: SampleConfig,
    window: WindowConfig | None,
    geometry: GeometryConfig | None,
    ranking: RankConfig | None,
    *,
    ranked: bool,
    **machine: Any,
) -> CompletionJob:
    """Resolve the settings of a completion."""
    sample = resolve_sampling(config, inpainter.card, adapter)
    return CompletionJob(
        scene=scene, inpainter=inpainter, adapter=adapter, sample=sample,
        window=resolve_windows(window, adapter, inpainter.card),
        geometry=resolve_geometry(geometry, scene, adapter, sample.preset),
        ranking=(ranking or RankConfig()).resolve(inpainter.card.rank),
        ranked=ranked and bool(scene.references), **machine,
    )  # fmt: skip


def resolve_geometry(
    geometry: GeometryConfig | None, scene: Scene, adapter: Adapter | None, preset: Preset | None
) -> GeometrySettings:
    """Resolve which pixels are taken from the references.

    A part of a completion that is filled again is left to the model by default, because the references would fill it
    as before.
    """
    geometry = geometry or GeometryConfig()
    if geometry.enabled is None and "redo" in scene.history:
        geometry = dataclasses.replace(geometry, enabled=False)
    return geometry.resolve(adapter.geometry.to_dict() if adapter is not None else {}, preset=preset)


def resolve_windows(window: WindowConfig | None, adapter: Adapter | None, card: Card) -> WindowSettings:
    """Resolve the windows, and warn if they are not those of the adapter's fit."""
    if adapter is None:
        return (window or WindowConfig()).resolve(card.window)
    if window is None:
        return adapter.window
    windows = window.resolve(adapter.window.to_dict())
    if windows != adapter.window:
        warn(
            f"the adapter was fitted for {adapter.window}, and is used for {windows}; it has not seen the scene at "
            "that scale. Give fit() the same window"
        )
    return windows
