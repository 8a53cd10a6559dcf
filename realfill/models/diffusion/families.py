"""Families: the choice of a base model's family from its files. Another family is added here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from realfill.config import Quantization
from realfill.errors import BaseModelError
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.card import Card, family_of, read_index
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.files import hash_networks
from realfill.models.diffusion.hub import BASES, is_present, locate
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.diffusion.trusted import check_base
from realfill.models.quiet import quiet


def load_family(
    base: str, *, local_files_only: bool = False, quantization: Quantization | None = None
) -> DiffusionFamily:
    """Load a base model on the CPU; ``to`` moves it.

    Args:
        base: a name in ``BASES``, a hub id, or a directory.
        local_files_only: do not use the network.
        quantization: format of frozen weights on the device, as ``FitConfig.quantization``.

    Raises:
        BaseModelError: the base model is not available, or belongs to no known family.
        ValueError: the family has no quantized weights.
    """
    directory = locate(base, local_files_only=local_files_only)
    if family_of(directory) == "klein":
        return _load_klein(base, directory, quantization)
    if quantization is not None:
        raise ValueError(
            f"quantization is {quantization!r}, which {base!r} does not have; legal: None, or a base of FLUX.2 klein"
        )
    return StableDiffusionInpainter.load(base, local_files_only=local_files_only)


def load_family_of(
    adapter: Adapter, base: str | None = None, *, local_files_only: bool = False,
    quantization: Quantization | None = None,
) -> DiffusionFamily:  # fmt: skip
    """Load the base model of an adapter.

    What the caller names is downloaded if necessary. What only the adapter names is not, because the adapter may be a
    stranger's.

    Args:
        adapter: the adapter.
        base: the base model that the caller names; ``None``: the one that the adapter names.
        local_files_only: do not use the network.
        quantization: as for ``load_family``.

    Raises:
        BaseModelError: the base model is not available, or only the adapter names it and it is not on this machine.
        ValueError: the family has no quantized weights.
    """
    if base is None and not is_present(adapter.base):
        raise BaseModelError(
            f"the adapter was fitted on {adapter.base!r}, which is not on this machine, and nothing is downloaded only "
            f"because an adapter names it. To download it, name it: SampleConfig(base={adapter.base!r}), or "
            f"--sample-base {adapter.base} on the command line"
        )
    return load_family(
        base or adapter.base, local_files_only=local_files_only or base is None, quantization=quantization
    )  # fmt: skip


def _load_klein(base: str, directory: Path, quantization: Quantization | None) -> DiffusionFamily:
    """Load FLUX.2 klein in the precision of its files, since it takes 32 GB in single precision."""
    with quiet():
        from diffusers import Flux2KleinPipeline  # noqa: PLC0415 - other base models do not need it

        from realfill.models.diffusion.klein import KleinInpainter  # noqa: PLC0415
    name = base if base in BASES or not Path(base).is_dir() else str(directory.resolve())
    try:
        check_base(directory, read_index(directory))
        with quiet():
            pipeline: Any = Flux2KleinPipeline.from_pretrained(
                directory, dtype=_stored_dtype(directory / "transformer"), local_files_only=True, use_safetensors=True
            )
    except MemoryError:
        raise
    except Exception as error:  # the libraries raise anything for damaged files
        raise BaseModelError(
            f"the base model {name!r} cannot be loaded ({type(error).__name__}: {str(error)[:300]}); download it again"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    networks = (pipeline.transformer, pipeline.text_encoder, pipeline.vae)
    return KleinInpainter.from_pipeline(
        pipeline, base=name, card=Card.load(directory), quantization=quantization,
        fingerprint=hash_networks({"class": "Flux2Klein"}, networks),
    )  # fmt: skip


def _stored_dtype(folder: Path) -> torch.dtype:
    """Return bf16 if weights are stored in half precision, else single precision."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            names = list(weights.keys())
            if names:
                return torch.float32 if weights.get_slice(names[0]).get_dtype() == "F32" else torch.bfloat16
    return torch.float32
