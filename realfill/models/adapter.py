"""Adapter: the LoRA that a fit leaves, a few megabytes that any diffusers pipeline can load.

``trainable_lora`` and ``trainable_weights`` set up what a fit may change; ``attach`` puts the result into a base.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionInpaintPipeline
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from realfill.config import FitConfig
from realfill.errors import AdapterError, OutputError
from realfill.models._quiet import quiet
from realfill.models.inpainter import Inpainter

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
MANIFEST_NAME = "adapter.json"
_TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
_PARTS = ("unet", "text_encoder")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """What ``fit`` learnt about a scene, for one base model (paper, section 3.2).

    Attributes:
        tensors: LoRA matrices by diffusers' names (``unet.<layer>.lora_A.weight``), float16.
        config: the resolved config of the fit.
        fingerprint: of the base model's weights.
        losses: the loss of each step.
        manifest: versions, time, and hashes of the known pixels that went in; plain JSON values.
    """

    tensors: Mapping[str, torch.Tensor]
    config: FitConfig
    fingerprint: str
    losses: tuple[float, ...] = ()
    manifest: Mapping[str, Any]

    @property
    def base(self) -> str:
        """The base model's name."""
        return self.config.base

    def save(self, directory: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write ``pytorch_lora_weights.safetensors`` and ``adapter.json``.

        Stock diffusers reads the folder: ``pipe.load_lora_weights(directory)``.

        Raises:
            OutputError: the folder holds an adapter already, and ``overwrite`` isn't set.
        """
        folder = Path(directory)
        if not overwrite and ((folder / WEIGHTS_NAME).exists() or (folder / MANIFEST_NAME).exists()):
            raise OutputError(f"{str(folder)!r} already holds an adapter; choose another folder, or overwrite=True")
        folder.mkdir(parents=True, exist_ok=True)
        layers = {part: self._part(part) for part in _PARTS}
        StableDiffusionInpaintPipeline.save_lora_weights(
            folder,
            unet_lora_layers=layers["unet"],  # type: ignore[arg-type]
            text_encoder_lora_layers=layers["text_encoder"],  # type: ignore[arg-type]
            unet_lora_adapter_metadata=self.lora_metadata("unet"),
            text_encoder_lora_adapter_metadata=self.lora_metadata("text_encoder"),
        )
        values = {
            "config": self.config.to_dict(),
            "fingerprint": self.fingerprint,
            "losses": [round(x, 6) for x in self.losses],
            "manifest": dict(self.manifest),
        }
        (folder / MANIFEST_NAME).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Adapter:
        """Read what ``save`` wrote.

        Raises:
            AdapterError: the folder holds no adapter, or a damaged one.
        """
        folder = Path(directory)
        for name in (WEIGHTS_NAME, MANIFEST_NAME):
            if not (folder / name).is_file():
                raise AdapterError(f"{str(folder)!r} holds no adapter: {name} is missing; fit() and save() make one")
        try:
            values = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
            adapter = cls(
                tensors=load_file(folder / WEIGHTS_NAME),
                config=FitConfig.from_dict(values["config"]),
                fingerprint=values["fingerprint"],
                losses=tuple(values["losses"]),
                manifest=values["manifest"],
            )
            adapter._check_tensors()
        except (ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
            raise AdapterError(f"the adapter in {str(folder)!r} is damaged or of another version: {error}") from error
        return adapter

    def lora_metadata(self, part: str) -> dict[str, Any] | None:
        """Describe the LoRA of ``unet`` or ``text_encoder`` as peft's config does; ``None`` where there is none."""
        layers = sorted({name.rsplit(".lora_", 1)[0] for name in self._part(part)})
        if not layers:
            return None
        scaled = self.config.trainable == "lora" or part == "text_encoder"
        alpha = self.config.lora_alpha if scaled else self.config.lora_rank
        return {"r": self.config.lora_rank, "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": layers}

    def _check_tensors(self) -> None:
        rank, names = self.config.lora_rank, set(self.tensors)
        for name, tensor in self.tensors.items():
            layer, _, matrix = name.rpartition(".lora_")
            other = f"{layer}.lora_{'B' if matrix.startswith('A') else 'A'}.weight"
            if other not in names or tensor.shape[0 if matrix.startswith("A") else 1] != rank:
                raise ValueError(f"{name} has no counterpart, or isn't of rank {rank}")
        if not names:
            raise ValueError("it holds no tensors")

    def _part(self, part: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(f"{part}."): v for k, v in self.tensors.items() if k.startswith(f"{part}.")}

    def __repr__(self) -> str:
        size = sum(t.numel() * t.element_size() for t in self.tensors.values()) / 1e6
        return f"Adapter(base {self.base!r}, {len(self.losses)} steps, {size:.1f} MB)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainable:
    """What a fit may change in a base model.

    Attributes:
        groups: optimizer group name (``unet``, ``text_encoder``) to its parameters by name.
        lora_layers: the LoRA layers, for dropping whole ones; none where plain weights are trained.
        export: builds the adapter's tensors, float16, from the parameters' present values.
    """

    groups: Mapping[str, Mapping[str, nn.Parameter]]
    lora_layers: Sequence[LoraLayer]
    export: Callable[[], dict[str, torch.Tensor]]

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Go through all parameters by their full names."""
        for group, named in self.groups.items():
            for name, parameter in named.items():
                yield f"{group}.{name}", parameter


class LoraLinear(PeftLinear):
    """peft's LoRA of a linear layer, computed in fewer passes over the layer's output, forth and back.

    The scale is applied between the two matrices, where there are only ``lora_rank`` channels, and their product is
    added by the matrix product itself. Where the layer and its LoRA are computed in different precisions, and where
    the LoRA is switched off or merged, it is left to peft.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the layer and its LoRA: (..., in) to (..., out)."""
        (name,) = self.active_adapters
        alike = torch.is_autocast_enabled(x.device.type) or x.dtype == self.lora_A[name].weight.dtype
        if self.disable_adapters or self.merged or not alike:
            return super().forward(x)
        own = self.base_layer(x)
        low = self.lora_A[name](x) * self.scaling[name]
        up: torch.Tensor = self.lora_B[name].weight  # type: ignore[assignment]
        return torch.addmm(own.flatten(0, -2), low.flatten(0, -2), up.t()).view(own.shape)


def trainable_lora(inpainter: Inpainter, config: FitConfig, *, linear: type[PeftLinear] = LoraLinear) -> Trainable:
    """Add LoRA layers to the U-Net and, if its learning rate isn't 0, to the text encoder (paper, section 3.2).

    They start at no effect; float32 whatever the frozen weights are in. The seed decides how they start.

    Args:
        inpainter: changed in place.
        config: resolved.
        linear: what linear layers become.
    """
    parts = {"unet": (inpainter.unet, tuple(inpainter.lora_layers(config.lora_targets)))}
    if config.text_encoder_learning_rate:
        parts["text_encoder"] = (inpainter.text_encoder, _TEXT_TARGETS)
    groups, layers = {}, []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(config.seed)
        for part, (model, targets) in parts.items():
            lora = LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_alpha,
                target_modules=list(targets),
                init_lora_weights="gaussian",
            )
            lora._register_custom_module({nn.Linear: linear})  # noqa: SLF001 (documented in peft's guide)
            model.add_adapter(lora)
            groups[part] = {n: p for n, p in model.named_parameters() if p.requires_grad}
            layers += [m for m in model.modules() if isinstance(m, LoraLayer)]
    for named in groups.values():
        for parameter in named.values():
            parameter.data = parameter.data.float()

    def export() -> dict[str, torch.Tensor]:
        return {
            f"{part}.{name}": tensor.detach().to("cpu", torch.float16).contiguous()
            for part, (model, _) in parts.items()
            for name, tensor in get_peft_model_state_dict(model).items()
        }

    return Trainable(groups=groups, lora_layers=layers, export=export)


def trainable_weights(inpainter: Inpainter, config: FitConfig) -> Trainable:
    """Make the U-Net's own weights trainable; their change is stored as a LoRA of the config's rank.

    Only linear layers and convolutions among ``lora_targets`` change, and of those only the matrices: nothing else
    fits into a LoRA.
    """
    layers = inpainter.lora_layers(config.lora_targets)
    before = {name: layer.weight.detach().float().clone() for name, layer in layers.items()}
    weights: dict[str, nn.Parameter] = {name: layer.weight for name, layer in layers.items()}  # type: ignore[misc]
    for weight in weights.values():
        weight.data = weight.data.float()
        weight.requires_grad_(True)

    def export() -> dict[str, torch.Tensor]:
        tensors = {}
        for name, weight in weights.items():
            down, up = cut_to_rank(weight.detach() - before[name], config.lora_rank)
            tensors[f"unet.{name}.lora_A.weight"] = down.to("cpu", torch.float16).contiguous()
            tensors[f"unet.{name}.lora_B.weight"] = up.to("cpu", torch.float16).contiguous()
        return tensors

    return Trainable(groups={"unet": weights}, lora_layers=(), export=export)


def cut_to_rank(change: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Approximate the change of a weight by a LoRA, with the least squared error (Eckart-Young).

    Args:
        change: (out, in) of a linear layer, or (out, in, kh, kw) of a convolution.
        rank: of the result; where the matrix has fewer, the rest is zero.

    Returns:
        ``lora_A`` (rank, in[, kh, kw]) and ``lora_B`` (out, rank[, 1, 1]), whose product it is.
    """
    left, values, right = torch.linalg.svd(change.float().flatten(1).cpu(), full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    down, up = torch.zeros(rank, right.shape[1]), torch.zeros(len(left), rank)
    down[:kept] = root[:, None] * right[:kept]
    up[:, :kept] = left[:, :kept] * root
    return down.view(rank, *change.shape[1:]), up.view(len(left), rank, *(1,) * (change.ndim - 2))


def attach(inpainter: Inpainter, adapter: Adapter) -> None:
    """Load an adapter into its base with diffusers' own loader, and merge it into the weights.

    Call it before ``Inpainter.to``: it merges in float32, and rounds once.

    Raises:
        AdapterError: the adapter was fitted on another base.
    """
    if adapter.fingerprint != inpainter.fingerprint:
        raise AdapterError(
            f"the adapter was fitted on {adapter.base!r} ({adapter.fingerprint[:8]}), and this base is "
            f"{inpainter.base!r} ({inpainter.fingerprint[:8]}); load the base it was fitted on, or fit again"
        )
    pipeline = inpainter.pipeline
    state = {name: tensor.float() for name, tensor in adapter.tensors.items()}
    used = [part for part in _PARTS if adapter.lora_metadata(part)]
    metadata = {f"{p}.{k}": v for p in used for k, v in (adapter.lora_metadata(p) or {}).items()}
    with quiet():
        if "unet" in used:
            pipeline.load_lora_into_unet(state, None, inpainter.unet, metadata=metadata)
        if "text_encoder" in used:
            pipeline.load_lora_into_text_encoder(state, None, inpainter.text_encoder, metadata=metadata)
        pipeline.fuse_lora(components=used)
        pipeline.unload_lora_weights()
