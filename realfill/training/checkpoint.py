"""Checkpoints: the state of a fit in a file, which is written whole or not at all and belongs to one fit.

A checkpoint is a safetensors file. Its header holds everything but the tensors as JSON, so reading one runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from realfill.errors import AdapterError
from realfill.io.files import whole_file

CHECKPOINT_NAME = "checkpoint.safetensors"


def save_checkpoint(path: Path, state: Mapping[str, Any], identity: str) -> None:
    """Write a checkpoint; if that fails, an earlier one at the same path stays.

    Args:
        path: the file; missing folders are made.
        state: tensors, numbers and texts, in mappings, lists and tuples.
        identity: hash of everything that decides the result of the fit.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    tensors: dict[str, torch.Tensor] = {}
    header = {"identity": identity, "state": json.dumps(_take_tensors(state, tensors))}
    path.parent.mkdir(parents=True, exist_ok=True)
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with whole_file(path, num_bytes=num_bytes) as partial:
        save_file(tensors, partial, header)


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
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = file.metadata()
            saved_identity = header["identity"]
            state = _put_tensors(json.loads(header["state"]), file)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError(
            f"the checkpoint {str(path)!r} is damaged; start again with overwrite=True (--overwrite), or remove it"
        ) from error
    if saved_identity != identity:
        raise AdapterError(
            f"the checkpoint {str(path)!r} belongs to a fit with another config, scene or base model; choose another "
            "folder, or replace it with overwrite=True (--overwrite)"
        )
    return state


def _take_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Replace each tensor by its number, and write mappings as pairs, because the keys of an optimizer are numbers."""
    if isinstance(value, torch.Tensor):
        number = str(len(tensors))
        tensors[number] = value.detach().contiguous()
        return {"tensor": number}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _take_tensors(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_take_tensors(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_take_tensors(item, tensors) for item in value]
    return value


def _put_tensors(value: Any, file: Any) -> Any:
    """Undo ``_take_tensors``."""
    if isinstance(value, list):
        return [_put_tensors(item, file) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return file.get_tensor(content)
    if kind == "tuple":
        return tuple(_put_tensors(item, file) for item in content)
    return {key: _put_tensors(item, file) for key, item in content}
