"""Engines by name: everything that fills a hole from the photo around it."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import get_args

import torch

from realfill.compute.devices import resolve_device
from realfill.config import Blend, EngineName, SampleConfig
from realfill.filling.one_pass import OnePass
from realfill.filling.unfitted import UnfittedBase
from realfill.models.classical import ShiftMap, Smooth, Telea
from realfill.models.engine import Engine
from realfill.models.feedforward.completion import CompletionNetwork
from realfill.models.feedforward.torchscript import load_scripted


def load_engine(
    name: EngineName,
    *,
    weights: str | PathLike[str] | None = None,
    blend: Blend | None = None,
    trust_weights: bool = False,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
    sample: SampleConfig | None = None,
) -> Engine:
    """Load an engine, which fills any number of holes: ``load_engine("telea").fill(image, hole, seeds=[0])``.

    Args:
        name: see ``EngineName``.
        weights: for ``completion``, the file or folder that ``realfill train-completion`` wrote; ``None``: the packaged
            weights. For ``lama`` and ``migan``, the TorchScript file; ``None``: the published one, downloaded once. For
            ``base``, the base model: ``mini``, ``sd2``, ``sd15``, ``klein``, a hub id, a folder, or the folder of an
            adapter; ``None``: ``mini``. The others take none.
        blend: for ``completion``, ``lama`` and ``migan``: ``cut`` keeps the network's pixels, ``poisson`` matches their
            colours to those around the hole. ``None``: ``poisson`` for ``completion``, ``cut`` for ``lama`` and
            ``migan``. The other engines ignore it.
        trust_weights: for ``lama`` and ``migan``: load a file that is not the published one. It is a program, so trust
            its source.
        device: ``cpu``, ``cuda``, ``mps`` and so on. ``None``: the best available. Classical methods use the CPU.
        local_files_only: do not use the network for weights.
        sample: for ``base``, settings of the sampler; the other engines ignore it.

    Raises:
        ValueError: there is no such engine, it takes no weights, or the device is not available.
        BaseModelError: the weights cannot be loaded.
        OutputError: a download cannot be written.
    """
    if name not in get_args(EngineName):
        raise ValueError(f"there is no engine {name!r}; legal: {', '.join(get_args(EngineName))}")
    classical: dict[str, Callable[[], Engine]] = {"smooth": Smooth, "telea": Telea, "shiftmap": ShiftMap}
    if name in classical:
        if weights is not None:
            raise ValueError(f"weights is {str(weights)!r}, but the engine {name!r} takes none; leave it out")
        return classical[name]()
    if name == "base":
        base = "mini" if weights is None else str(weights)
        return UnfittedBase.load(base, device=device, local_files_only=local_files_only, sample=sample)
    chosen = resolve_device(device)
    if name in ("lama", "migan"):
        network = load_scripted(name, weights, device=chosen, trust=trust_weights, local_files_only=local_files_only)
        return OnePass(network=network, blend=blend or "cut")
    return OnePass(network=CompletionNetwork.load(weights, chosen), blend=blend or "poisson")
