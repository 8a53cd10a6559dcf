"""The check of a base model's files before any library reads them: a stranger's folder names no code and no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realfill.io.json_files import MAX_JSON_BYTES, read_json
from realfill.io.model_configs import check_config, check_folder

_CLASSES: Mapping[str, frozenset[str]] = {
    "unet": frozenset({"UNet2DConditionModel", "LinearAttentionUNet"}),
    "transformer": frozenset({"Flux2Transformer2DModel"}),
    "vae": frozenset({"AutoencoderKL", "AutoencoderKLFlux2", "PatchAutoencoder"}),
    "text_encoder": frozenset({"CLIPTextModel", "Qwen3ForCausalLM"}),
    "tokenizer": frozenset({"CLIPTokenizer", "CLIPTokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast"}),
}
_OWN = ("realfill.models.mini.autoencoder", "realfill.models.diffusion.linear_attention")
_LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion", *_OWN})
_PIPELINES = ("StableDiffusion", "Flux2Klein")
_NOT_LOADED = ("safety_checker", "feature_extractor", "image_encoder")


def check_base(directory: Path, index: Mapping[str, Any]) -> None:
    """Check the files of a base model.

    Args:
        directory: a directory in diffusers' layout.
        index: the content of ``model_index.json``.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file names a class outside of the known ones, or code, or is too large; the message says which.
    """
    name = index.get("_class_name")
    if not isinstance(name, str) or not name.startswith(_PIPELINES) or not name.isidentifier():
        raise ValueError(f"_class_name is {name!r}; legal: a pipeline of Stable Diffusion or FLUX.2 klein")
    check_config(index)
    for part, entry in index.items():
        if isinstance(entry, list) and part not in _NOT_LOADED:
            _check_entry(part, entry)
            if (directory / part).is_dir():
                check_folder(directory / part)
                _check_class(directory / part, part)
    _check_sizes(directory)


def _check_entry(part: str, entry: list[Any]) -> None:
    """Check a pair of library and class."""
    if len(entry) != 2:
        raise ValueError(f"{part} is {entry!r}; legal: a library and a class")
    library, name = entry
    if library is None and name is None:
        return
    if library not in _LIBRARIES or not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{part} is {entry!r}; legal: a class of {', '.join(sorted(_LIBRARIES))}")
    _check_name(part, name)


def _check_class(folder: Path, part: str) -> None:
    config = folder / ("scheduler_config.json" if part == "scheduler" else "config.json")
    name = read_json(config).get("_class_name") if config.is_file() else None
    if name is not None:
        _check_name(part, name)


def _check_name(part: str, name: Any) -> None:
    legal = _CLASSES.get(part)
    if part == "scheduler" and not (isinstance(name, str) and name.endswith("Scheduler")):
        raise ValueError(f"the class of scheduler is {name!r}; legal: a scheduler of diffusers")
    if legal is not None and name not in legal:
        raise ValueError(f"the class of {part} is {name!r}; legal: {', '.join(sorted(legal))}")


def _check_sizes(directory: Path) -> None:
    for path in directory.glob("*/*.json"):
        if path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path.parent.name}/{path.name} has more than {MAX_JSON_BYTES / 1e6:.0f} MB")
