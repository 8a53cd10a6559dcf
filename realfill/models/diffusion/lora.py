"""LoRA mechanics: make a base model trainable, export the result, and attach an adapter to its base model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn

from realfill.config import FitSettings
from realfill.errors import AdapterError
from realfill.models.diffusion.adapter import PARTS, Adapter
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.quiet import quiet

_TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainable:
    """The parameters of a base model that a fit changes.

    Attributes:
        groups: part of the base model (``unet``, ``text_encoder``) to parameters by name.
        lora_layers: LoRA layers, which layer dropout acts on; empty if the base model's own weights are trained.
        export: builds the tensors of an adapter, float16, from the current values of the parameters.
    """

    groups: Mapping[str, Mapping[str, nn.Parameter]]
    lora_layers: Sequence[LoraLayer]
    export: Callable[[], dict[str, torch.Tensor]]

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over all parameters and their full names."""
        for group, named in self.groups.items():
            for name, parameter in named.items():
                yield f"{group}.{name}", parameter


def trainable_lora(inpainter: DiffusionFamily, settings: FitSettings) -> Trainable:
    """Add LoRA layers to the denoiser and, unless its learning rate is 0, to the text encoder (paper, section 3.2).

    The layers have no effect at first. They are float32, whatever the precision of the frozen weights. Their initial
    values depend on the seed alone.

    Args:
        inpainter: the base model, which is changed in place.
        settings: settings of the fit.

    Raises:
        ValueError: the settings name layers that the base model does not have, or train a text encoder that is frozen.
    """
    name = inpainter.denoiser_name
    parts: dict[str, tuple[Any, tuple[str, ...]]] = {
        name: (inpainter.parts[name], tuple(inpainter.lora_layers(settings.lora_targets)))
    }
    if settings.text_encoder_learning_rate:
        if "text_encoder" not in inpainter.parts:
            raise ValueError(
                f"FitConfig.text_encoder_learning_rate is {settings.text_encoder_learning_rate}; legal for "
                f"{inpainter.base!r}: 0, because its text encoder is not trained"
            )
        parts["text_encoder"] = (inpainter.parts["text_encoder"], _TEXT_TARGETS)
    groups, layers = {}, []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        for part, (model, targets) in parts.items():
            lora = LoraConfig(
                r=settings.lora_rank,
                lora_alpha=settings.lora_alpha,
                target_modules=list(targets),
                init_lora_weights="gaussian",
            )
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


def trainable_weights(inpainter: DiffusionFamily, settings: FitSettings) -> Trainable:
    """Make the denoiser's own weights trainable; their change is exported as a LoRA of rank ``settings.lora_rank``.

    Only the weight matrices of linear layers and convolutions among ``lora_targets`` change, because a LoRA cannot
    express any other change.

    Args:
        inpainter: the base model, which is changed in place.
        settings: settings of the fit.
    """
    layers, denoiser = inpainter.lora_layers(settings.lora_targets), inpainter.denoiser_name
    before = {name: layer.weight.detach().float().clone() for name, layer in layers.items()}
    weights: dict[str, nn.Parameter] = {name: layer.weight for name, layer in layers.items()}  # type: ignore[misc]
    for weight in weights.values():
        weight.data = weight.data.float()
        weight.requires_grad_(True)

    def export() -> dict[str, torch.Tensor]:
        tensors = {}
        for name, weight in weights.items():
            down, up = cut_to_rank(weight.detach() - before[name], settings.lora_rank)
            tensors[f"{denoiser}.{name}.lora_A.weight"] = down.to("cpu", torch.float16).contiguous()
            tensors[f"{denoiser}.{name}.lora_B.weight"] = up.to("cpu", torch.float16).contiguous()
        return tensors

    return Trainable(groups={denoiser: weights}, lora_layers=(), export=export)


def cut_to_rank(change: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Approximate the change of a weight by a LoRA with the least squared error (Eckart-Young).

    Args:
        change: (out, in) of a linear layer, or (out, in, kh, kw) of a convolution.
        rank: rank of the LoRA. If it exceeds that of the matrix, the surplus is zero.

    Returns:
        ``lora_A`` (rank, in[, kh, kw]) and ``lora_B`` (out, rank[, 1, 1]); the approximation is ``lora_B @ lora_A``.
    """
    left, values, right = torch.linalg.svd(change.float().flatten(1).cpu(), full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    down, up = torch.zeros(rank, right.shape[1]), torch.zeros(len(left), rank)
    down[:kept] = root[:, None] * right[:kept]
    up[:, :kept] = left[:, :kept] * root
    return down.view(rank, *change.shape[1:]), up.view(len(left), rank, *(1,) * (change.ndim - 2))


def attach(inpainter: DiffusionFamily, adapter: Adapter, *, elsewhere: bool = False) -> None:
    """Load an adapter into its base model with diffusers' own loader, and fuse it with the weights.

    Call it before ``to``, so that the weights are fused in the precision of the files and rounded once.

    Args:
        inpainter: the base model.
        adapter: the adapter.
        elsewhere: accept an adapter of another base model that has the same layers, as the distilled variant of the
            fit's base model has.

    Raises:
        AdapterError: the adapter was fitted on another base model.
    """
    used = [part for part in PARTS if adapter.lora_metadata(part)]
    if adapter.fingerprint != inpainter.fingerprint and not (elsewhere and _has_layers(inpainter, adapter)):
        raise AdapterError(
            f"the adapter was fitted on {adapter.base!r} ({adapter.fingerprint[:8]}), and this base model is "
            f"{inpainter.base!r} ({inpainter.fingerprint[:8]})"
            + (", whose layers differ" if elsewhere else "")
            + "; load the base model of the fit, or fit again"
        )
    pipeline = inpainter.pipeline
    state = {name: tensor.float() for name, tensor in adapter.tensors.items()}
    metadata = {f"{p}.{k}": v for p in used for k, v in (adapter.lora_metadata(p) or {}).items()}
    with quiet():
        for part in used:
            options = {} if part == "transformer" else {"network_alphas": None}
            load = getattr(pipeline, f"load_lora_into_{part}")
            load(state, **options, **{part: inpainter.parts[part]}, metadata=metadata)
        pipeline.fuse_lora(components=used)
        pipeline.unload_lora_weights()


def _has_layers(inpainter: DiffusionFamily, adapter: Adapter) -> bool:
    """Tell whether a base model has every layer of an adapter, in the same size."""
    layers = {
        f"{part}.{name}": layer for part, network in inpainter.parts.items() for name, layer in network.named_modules()
    }
    for name, tensor in adapter.tensors.items():
        path, _, matrix = name.rpartition(".lora_")
        weight = getattr(layers.get(path), "weight", None)
        size, axis = (tensor.shape[1], 1) if matrix.startswith("A") else (tensor.shape[0], 0)
        if weight is None or weight.ndim < 2 or weight.shape[axis] != size:
            return False
    return True
