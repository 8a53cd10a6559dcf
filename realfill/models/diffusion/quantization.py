"""Quantization: frozen weights in 4 bits (bitsandbytes) or 8 bits (torchao), on CUDA. Both packages are optional."""

# ruff: noqa: PLC0415

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from realfill.config import Quantization
from realfill.errors import MissingDependencyError

BYTES_PER_WEIGHT: dict[Quantization, float] = {"nf4": 0.53, "fp8": 1.0}
"""Bytes of a weight. NF4 takes 4 bits and, for each block of 64 weights, an 8-bit scale with double quantization."""

_PACKAGES: dict[Quantization, str] = {"nf4": "bitsandbytes", "fp8": "torchao"}


def check_quantization(kind: Quantization, device: torch.device) -> None:
    """Check that a device can compute with quantized weights, and that the package is installed.

    Raises:
        ValueError: the device is not a CUDA device.
        MissingDependencyError: the package is missing.
    """
    if device.type != "cuda":
        raise ValueError(
            f"quantization is {kind!r}, and the device is {device}; legal: a CUDA device, or no quantization"
        )
    _package(kind)


def quantize(blocks: nn.Module, kind: Quantization, dtype: torch.dtype) -> None:
    """Quantize the weights of all linear layers of a network, in place; they are frozen from then on.

    With ``nf4`` the weights are stored in 4 bits when the network moves to a CUDA device.

    Args:
        blocks: the network.
        kind: ``nf4`` or ``fp8``.
        dtype: precision of the computation.
    """
    package = _package(kind)
    if kind == "fp8":
        package.quantize_(blocks, package.Float8WeightOnlyConfig())
        return
    for parent in list(blocks.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, _in_four_bits(package, layer, dtype))


def _in_four_bits(package: Any, layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    bias = layer.bias is not None
    four = package.nn.Linear4bit(
        layer.in_features, layer.out_features, bias=bias, compute_dtype=dtype, quant_type="nf4", device="meta"
    )
    four.weight = package.nn.Params4bit(
        layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    if bias:
        four.bias = layer.bias
    return four.requires_grad_(requires_grad=False)


def _package(kind: Quantization) -> Any:
    try:
        if kind == "nf4":
            import bitsandbytes as package  # type: ignore[import-not-found]
        else:
            import torchao.quantization as package  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingDependencyError(
            f"quantization {kind!r} needs the package {_PACKAGES[kind]!r}, which is not installed; install it with "
            f"`pip install {_PACKAGES[kind]}`, or leave quantization out"
        ) from error
    return package
