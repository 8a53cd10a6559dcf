"""Checkpoints: the state of a fit in a file, which is written whole or not at all and belongs to one fit.

A checkpoint is a safetensors file. Its header holds everything but the tensors as JSON, so reading one runs no code,
and a hash of the whole, so that no damage goes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from realfill.errors import AdapterError
from realfill.io.files import whole_file
from realfill.io.json_files import parse_json
from realfill.results.provenance import hash_tensors

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
    text = json.dumps(_take_tensors(state, tensors))
    header = {"identity": identity, "state": text, "hash": _hash(text, tensors)}
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
    if not path.is_file():  # reading a pipe or a device would wait for ever
        raise _damaged(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = file.metadata()
            saved_identity = header["identity"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            state = _put_tensors(parse_json(header["state"]), tensors)
            is_whole = isinstance(state, dict) and header["hash"] == _hash(header["state"], tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if not is_whole:
        raise _damaged(path)
    if saved_identity != identity:
        raise AdapterError(
            f"the checkpoint {str(path)!r} belongs to a fit with another config, scene or base model; choose another "
            "folder, or replace it with overwrite=True (--overwrite)"
        )
    return state


@contextmanager
def damaged_state(path: Path) -> Iterator[None]:
    """Turn the errors of a trainer that is given the state of a checkpoint into one error.

    Raises:
        AdapterError: the checkpoint does not hold the state of this trainer.
    """
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> AdapterError:
    return AdapterError(
        f"the checkpoint {str(path)!r} is damaged; start again with overwrite=True (--overwrite), or remove it"
    )


def _hash(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    return hashlib.sha256(f"{hash_tensors(tensors)} {text}".encode()).hexdigest()


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


def _put_tensors(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Undo ``_take_tensors``."""
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_put_tensors(item, tensors) for item in content)
    return {key: _put_tensors(item, tensors) for key, item in content}
