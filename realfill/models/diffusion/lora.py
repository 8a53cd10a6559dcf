"""LoRA mechanics: make a base model trainable, export the result, and attach an adapter to its base model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn

from realfill.config import FitSettings
from realfill.errors import AdapterError
from realfill.models.diffusion.adapter import PARTS, Adapter
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.structure import PREFIX
from realfill.models.quiet import quiet

_TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainable:
    """The parameters of a base model that a fit changes.

    Attributes:
        groups: part of the base model (``unet``, ``text_encoder``) to parameters by name.
        lora_layers: LoRA layers, which layer dropout acts on; empty if the base model's own weights are trained.
        export: builds the tensors of an adapter, float16, from the current values of the parameters.
        change: computes the change of each layer's weight, by its full name, in float32; ``None`` for LoRA layers.
        learning_rates: part to its learning rate, where that differs from the one of the settings.
    """

    groups: Mapping[str, Mapping[str, nn.Parameter]]
    lora_layers: Sequence[LoraLayer]
    export: Callable[[], dict[str, torch.Tensor]]
    change: Callable[[], dict[str, torch.Tensor]] | None = None
    learning_rates: Mapping[str, float] = field(default_factory=dict)

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

    def change() -> dict[str, torch.Tensor]:
        return {f"{denoiser}.{name}": weight.detach() - before[name] for name, weight in weights.items()}

    return Trainable(
        groups={denoiser: weights}, lora_layers=(), change=change,
        export=lambda: as_lora(change(), settings.lora_rank),
    )  # fmt: skip


def as_lora(changes: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """Store changes of weights as an adapter's tensors, float16, each with the least squared error at that rank."""
    tensors = {}
    for name, change in changes.items():
        down, up = cut_to_rank(change, rank)
        tensors[f"{name}.lora_A.weight"] = down.to("cpu", torch.float16).contiguous()
        tensors[f"{name}.lora_B.weight"] = up.to("cpu", torch.float16).contiguous()
    return tensors


def choose_rank(changes: Mapping[str, torch.Tensor], share: float) -> tuple[int, float]:
    """Find the smallest rank at which LoRA layers keep a share of the squared change of all weights together.

    Args:
        changes: changes of weights, float32. If all are zero, rank 1 keeps everything.
        share: least share to keep, in [0, 1].

    Returns:
        The rank, at least 1, and the share that it keeps.
    """
    values = [torch.linalg.svdvals(change.float().flatten(1).cpu()).double() ** 2 for change in changes.values()]
    energy = torch.zeros(max(len(v) for v in values), dtype=torch.float64)
    for squares in values:
        energy[: len(squares)] += squares
    if not energy.sum():
        return 1, 1.0
    kept = energy.cumsum(0) / energy.sum()
    enough = torch.nonzero(kept >= share - 1e-12)
    rank = int(enough[0]) + 1 if len(enough) else len(energy)
    return rank, float(kept[rank - 1])


def stack(first: Adapter, second: Adapter) -> Adapter:
    """Add two adapters of one base model.

    Args:
        first: an adapter, from which the second was trained.
        second: the other one, which gives the result its settings and its manifest.

    Returns:
        An adapter whose rank and alpha are the sum of both ranks, and whose effect is the sum of both effects. The
        categories and the combiner of the first stay, but its defaults of sampling do not: name
        ``guidance_from="foreground"`` or ``num_stages`` to use them.
    """
    tensors = {name: tensor for name, tensor in first.tensors.items() if name.startswith(PREFIX)}
    names = [name for adapter in (first, second) for name in adapter.tensors if not name.startswith(PREFIX)]
    for layer in dict.fromkeys(name.rsplit(".lora_", 1)[0] for name in names):
        down, up = zip(
            *(_scaled(adapter, layer, other) for adapter, other in ((first, second), (second, first))),
            strict=True,
        )
        tensors[f"{layer}.lora_A.weight"] = torch.cat(down, dim=0).to(torch.float16).contiguous()
        tensors[f"{layer}.lora_B.weight"] = torch.cat(up, dim=1).to(torch.float16).contiguous()
    rank = first.config.lora_rank + second.config.lora_rank
    config = dataclasses.replace(second.config, lora_rank=rank, lora_alpha=rank)
    return dataclasses.replace(second, tensors=tensors, config=config)


def _scaled(adapter: Adapter, layer: str, other: Adapter) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an adapter's matrices of a layer, the second times alpha / rank; zero if only the other adapter has it."""
    names = [f"{layer}.lora_{matrix}.weight" for matrix in "AB"]
    rank = adapter.config.lora_rank
    if names[0] not in adapter.tensors:
        down, up = (other.tensors[name] for name in names)
        return torch.zeros(rank, *down.shape[1:]), torch.zeros(len(up), rank, *up.shape[2:])
    metadata = adapter.lora_metadata(layer.split(".", 1)[0]) or {}
    down, up = (adapter.tensors[name].float() for name in names)
    return down, up * (metadata["lora_alpha"] / rank)


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
    has_layers = _has_layers(inpainter, adapter)
    if adapter.fingerprint == inpainter.fingerprint and not has_layers:
        raise AdapterError(
            f"the adapter has other layers than its base model {inpainter.base!r}, so it is damaged; fit again"
        )
    if adapter.fingerprint != inpainter.fingerprint and not (elsewhere and has_layers):
        raise AdapterError(
            f"the adapter was fitted on {adapter.base!r} ({adapter.fingerprint[:8]}), and this base model is "
            f"{inpainter.base!r} ({inpainter.fingerprint[:8]})"
            + (", whose layers differ" if elsewhere else "")
            + "; load the base model of the fit, or fit again"
        )
    pipeline = inpainter.pipeline
    state = {name: tensor.float() for name, tensor in adapter.tensors.items() if not name.startswith(PREFIX)}
    metadata = {f"{p}.{k}": v for p in used for k, v in (adapter.lora_metadata(p) or {}).items()}
    with quiet():
        for part in used:
            options = {} if part == "transformer" else {"network_alphas": None}
            load = getattr(pipeline, f"load_lora_into_{part}")
            load(state, **options, **{part: inpainter.parts[part]}, metadata=metadata)
        pipeline.fuse_lora(components=used)
        pipeline.unload_lora_weights()
    inpainter.structure = adapter.structure or inpainter.structure


def _has_layers(inpainter: DiffusionFamily, adapter: Adapter) -> bool:
    """Tell whether a base model has every layer of an adapter, in the same size, and takes its embeddings."""
    embeddings = adapter.structure.embeddings if adapter.structure is not None else {}
    if any(tensor.shape[1] != inpainter.embedding_width for tensor in embeddings.values()):
        return False
    layers = {
        f"{part}.{name}": layer for part, network in inpainter.parts.items() for name, layer in network.named_modules()
    }
    for name, tensor in adapter.tensors.items():
        if name.startswith(PREFIX):
            continue
        path, _, matrix = name.rpartition(".lora_")
        weight = getattr(layers.get(path), "weight", None)
        if weight is None or weight.ndim < 2 or weight.ndim != tensor.ndim:
            return False
        is_first = matrix.startswith("A")
        if tensor.shape[1:] != weight.shape[1:] if is_first else tensor.shape[0] != weight.shape[0]:
            return False
        if not is_first and any(side != 1 for side in tensor.shape[2:]):
            return False
    return True
