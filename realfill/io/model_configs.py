"""What the configs of a stranger's network may not say: names of code to run, and sizes that no file could fill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realfill.io.containment import is_plain_name
from realfill.io.json_files import read_json

_CODE = frozenset({"auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code", "quantization_config"})
_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")
_LAYERS = frozenset({
    "num_hidden_layers", "num_layers", "num_single_layers", "layers_per_block", "encoder_layers", "decoder_layers",
    "transformer_layers_per_block", "depths",
})  # fmt: skip
_UNBOUNDED = frozenset({"model_max_length"})  # tokenizers without a limit state a number of 31 digits
_MAX_LAYERS, _MAX_NUMBER, _MAX_ITEMS = 512, 20_000_000, 100_000


def check_config(values: Any) -> None:
    """Check a config of diffusers or transformers before a network is made of it.

    Args:
        values: the content of a JSON file.

    Raises:
        ValueError: it is no object, names code or a kernel from elsewhere, asks for quantized weights, or has a number
            that is larger than any network's.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"it holds a {type(values).__name__}; legal: an object")  # noqa: TRY004 - a damaged file
    _check(values, "")


def check_folder(folder: Path) -> None:
    """Check every config of a network's folder, and that its index of weights names files in the folder only.

    Raises:
        OSError: a file cannot be read.
        ValueError: see ``check_config``; the message names the file.
    """
    for path in sorted(folder.glob("*.json")):
        if not path.name.endswith(("config.json", ".index.json")):
            continue
        try:
            values = read_json(path)
            check_config(values)
            _check_weight_map(values.get("weight_map", {}))
        except ValueError as error:
            raise ValueError(f"{path.parent.name}/{path.name}: {error}") from error


def _check_weight_map(names: Any) -> None:
    if not isinstance(names, Mapping) or not all(map(is_plain_name, names.values())):
        raise ValueError("weight_map names other files than those in its folder")


def _check(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_key(key, item)
            _check(item, key)
    elif isinstance(value, list):
        if len(value) > _MAX_ITEMS:
            raise ValueError(f"{name} has {len(value)} values; legal: up to {_MAX_ITEMS}")
        for item in value:
            _check(item, name)
    elif isinstance(value, int | float):
        limit = _MAX_LAYERS if name in _LAYERS else _MAX_NUMBER
        if isinstance(value, int) and abs(value) > limit and name not in _UNBOUNDED:
            raise ValueError(f"{name} is {value}; legal: up to {limit}")


def _check_key(key: str, value: Any) -> None:
    if key in _CODE and value not in (None, False):
        raise ValueError(f"it has {key!r}; legal: the libraries' networks, without code and quantization")
    if key in _ATTENTION and not (value is None or (isinstance(value, str) and value.isidentifier())):
        raise ValueError(f"{key} is {value!r}; legal: a name such as 'sdpa'; others are downloaded and run")
