"""Adapter: the LoRA of a fit as a folder of a few megabytes that any diffusers pipeline can load."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save

from realfill.config import FitSettings, GeometryConfig, GeometrySettings, SampleConfig, SampleSettings, WindowSettings
from realfill.errors import AdapterError, OutputError
from realfill.io.files import partial_folder
from realfill.io.json_files import read_json
from realfill.io.lock import locked
from realfill.models.diffusion.card import INDEX_NAME, Card
from realfill.models.diffusion.hub import ADAPTER_NAME
from realfill.models.diffusion.structure import PREFIX, Structure

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
MANIFEST_NAME = ADAPTER_NAME
PARTS = ("unet", "transformer", "text_encoder")  # in the names of tensors; an adapter has one or two of them
_GEOMETRY = GeometryConfig().resolve({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """The result of ``fit``: a LoRA for one scene and one base model (paper, section 3.2).

    Attributes:
        tensors: LoRA matrices, float16, by diffusers' names, such as ``unet.<layer>.lora_A.weight``; and those of a
            ``Structure``.
        config: settings of the fit.
        window: windows that the adapter was fitted for.
        geometry: how the composite is made, and which of its pixels are kept.
        sample: the adapter's defaults for ``SampleConfig``, which go before those of the base model.
        fingerprint: fingerprint of the base model's weights.
        losses: the loss of each step.
        manifest: versions, duration, and hashes of the known pixels that were used; plain JSON values.
    """

    tensors: Mapping[str, torch.Tensor]
    config: FitSettings
    window: WindowSettings
    geometry: GeometrySettings = _GEOMETRY
    sample: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str
    losses: tuple[float, ...] = ()
    manifest: Mapping[str, Any]

    @property
    def base(self) -> str:
        """Name of the base model."""
        return self.config.base

    def save(self, directory: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write ``pytorch_lora_weights.safetensors`` and ``adapter.json``.

        Stock diffusers reads the folder with ``pipe.load_lora_weights(directory)``.

        Raises:
            OutputError: the folder already holds an adapter, and ``overwrite`` is not set; another process writes to
                it; or the disk is full.
        """
        metadata = {f"{part}.{k}": v for part in PARTS for k, v in (self.lora_metadata(part) or {}).items()}
        header = {"format": "pt", "lora_adapter_metadata": json.dumps(metadata, indent=2, sort_keys=True)}
        values = {
            "config": self.config.to_dict(),
            "window": self.window.to_dict(),
            "geometry": self.geometry.to_dict(),
            **({"sample": dict(self.sample)} if self.sample else {}),
            "fingerprint": self.fingerprint,
            "losses": [round(x, 6) for x in self.losses],
            "manifest": dict(self.manifest),
        }
        weights = _with_sorted_metadata(save(dict(self.tensors), metadata=header))
        manifest = json.dumps({**values, "weights": hashlib.sha256(weights).hexdigest()}, indent=1) + "\n"
        with locked(directory) as folder, partial_folder(folder) as partial:
            if not overwrite and any((folder / name).exists() for name in (WEIGHTS_NAME, MANIFEST_NAME)):
                raise OutputError(
                    f"{str(folder)!r} already holds an adapter; choose another folder, or set overwrite=True"
                )
            (partial / WEIGHTS_NAME).write_bytes(weights)
            (partial / MANIFEST_NAME).write_bytes(manifest.encode())
            (folder / MANIFEST_NAME).unlink(missing_ok=True)  # it must not stand beside the new weights
            for name in (WEIGHTS_NAME, MANIFEST_NAME):
                (partial / name).replace(folder / name)

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Adapter:
        """Read a folder that ``save`` wrote.

        Raises:
            AdapterError: the folder holds no adapter, or a damaged one.
        """
        folder = Path(directory)
        if (folder / INDEX_NAME).is_file():
            raise AdapterError(
                f"{str(folder)!r} is a base model, not an adapter; give it as the base model: --base {folder} on the "
                f"command line, or FitConfig(base={str(folder)!r})"
            )
        if folder.is_file():
            raise AdapterError(f"{str(folder)!r} is a file; legal: the folder of an adapter, {str(folder.parent)!r}")
        for name in (WEIGHTS_NAME, MANIFEST_NAME):
            if not (folder / name).is_file():
                raise AdapterError(
                    f"{str(folder)!r} holds no adapter, because {name} is missing; legal: a folder that "
                    "Adapter.save() or `realfill fit` wrote"
                )
        try:
            values = read_json(folder / MANIFEST_NAME)
            adapter = cls(
                tensors=_read_weights(folder / WEIGHTS_NAME, values.get("weights")),
                config=FitSettings.from_dict(values["config"]),
                window=WindowSettings.from_dict(values["window"]),
                geometry=GeometrySettings.from_dict(values["geometry"]) if "geometry" in values else _GEOMETRY,
                sample=dict(values.get("sample", {})),
                fingerprint=values["fingerprint"],
                losses=tuple(map(float, values["losses"])),
                manifest=dict(values["manifest"]),
            )
            adapter._check_values()
            adapter._check_tensors()
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, SafetensorError) as error:
            raise AdapterError(
                f"the adapter in {str(folder)!r} is damaged or from another version ({error}); fit again"
            ) from error
        return adapter

    @property
    def structure(self) -> Structure | None:
        """What the adapter has learnt beside the LoRA; ``None``: nothing."""
        return Structure.of_tensors(self.tensors)

    def lora_metadata(self, part: str) -> dict[str, Any] | None:
        """Describe the LoRA of one of ``PARTS`` as peft's config does; ``None`` if it has none."""
        names = (n.removeprefix(f"{part}.") for n in self.tensors if n.startswith(f"{part}."))
        layers = sorted({name.rsplit(".lora_", 1)[0] for name in names})
        if not layers:
            return None
        scaled = self.config.trainable == "lora" or part == "text_encoder"
        alpha = self.config.lora_alpha if scaled else self.config.lora_rank
        return {"r": self.config.lora_rank, "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": layers}

    def _check_values(self) -> None:
        if not isinstance(self.fingerprint, str):
            raise TypeError(f"the fingerprint is {self.fingerprint!r}; legal: a text")
        SampleConfig().resolve(self.sample)
        if self.base.startswith(("//", "\\\\")) or "://" in self.base or not self.base.isprintable():
            raise ValueError(f"its base model is {self.base!r}; legal: a name, a hub id, or a folder of this machine")

    def _check_tensors(self) -> None:
        rank, names = self.config.lora_rank, set(self.tensors)
        for name, tensor in self.tensors.items():
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise ValueError(f"{name} has values that are no finite numbers")
            if name.startswith(PREFIX):
                continue
            layer, _, matrix = name.rpartition(".lora_")
            other = f"{layer}.lora_{'B' if matrix.startswith('A') else 'A'}.weight"
            if name.partition(".")[0] not in PARTS or matrix not in ("A.weight", "B.weight"):
                raise ValueError(f"{name} is no matrix of a LoRA")
            if other not in names or tensor.ndim < 2 or tensor.shape[0 if matrix.startswith("A") else 1] != rank:
                raise ValueError(f"{name} has no counterpart, or its rank is not {rank}")
        Structure.of_tensors(self.tensors)
        if not names:
            raise ValueError("it holds no tensors")

    def __repr__(self) -> str:
        size = sum(t.numel() * t.element_size() for t in self.tensors.values()) / 1e6
        return f"Adapter(base {self.base!r}, {len(self.losses)} steps, {size:.1f} MB)"


def resolve_sampling(config: SampleConfig, card: Card, adapter: Adapter | None) -> SampleSettings:
    """Fill the open fields of a sampling's settings: the adapter's values come first, then those of the base model."""
    defaults = dict(card.sample)
    if adapter is not None:
        prompt = adapter.config.prompt if config.prompt is None else config.prompt
        config = dataclasses.replace(config.following(adapter.config), prompt=prompt)
        defaults |= adapter.sample
    return config.resolve(defaults)


def _read_weights(path: Path, expected: object) -> dict[str, torch.Tensor]:
    """Read weights, and compare their SHA-256 with the one in the manifest; other programs' adapters have none.

    Raises:
        ValueError: they differ.
    """
    if expected is None:
        return load_file(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        raise ValueError(f"the SHA-256 of {path.name} is not that in {MANIFEST_NAME}")
    return load(data)


def _with_sorted_metadata(data: bytes) -> bytes:
    """Sort the metadata in the header of a safetensors file, which the library writes in an order that varies."""
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[size:]
