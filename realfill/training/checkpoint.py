"""Checkpoints: the state of a fit in a file, which is written whole or not at all and belongs to one fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from realfill.errors import AdapterError
from realfill.io.files import whole_file

CHECKPOINT_NAME = "checkpoint.pt"


def save_checkpoint(path: Path, state: Mapping[str, Any], identity: str) -> None:
    """Write a checkpoint; if that fails, an earlier one at the same path stays.

    Args:
        path: the file; missing folders are made.
        state: tensors, numbers and texts.
        identity: hash of everything that decides the result of the fit.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, num_bytes=_tensor_bytes(state)) as partial:
        torch.save({"identity": identity, **state}, partial)


def _tensor_bytes(state: Any) -> int:
    """Size of all tensors in nested mappings, which is nearly that of the checkpoint."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    return sum(map(_tensor_bytes, state.values())) if isinstance(state, Mapping) else 0


def load_checkpoint(path: Path, identity: str, device: torch.device) -> dict[str, Any]:
    """Read the state of a fit.

    Args:
        path: the file.
        identity: the fit's own, which must be that of the checkpoint.
        device: where the tensors go.

    Raises:
        AdapterError: the checkpoint is damaged or belongs to another fit.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        saved_identity = state["identity"]
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise AdapterError(
            f"the checkpoint {str(path)!r} is damaged; start again with overwrite=True (--overwrite), or remove it"
        ) from error
    if saved_identity != identity:
        raise AdapterError(
            f"the checkpoint {str(path)!r} belongs to a fit with another config, scene or base model; choose another "
            "folder, or replace it with overwrite=True (--overwrite)"
        )
    return state
