"""Quantization, with STAND-INS for bitsandbytes and torchao: which layers it changes, and what it refuses."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from realfill import FitConfig
from realfill.errors import MissingDependencyError
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.quantization import check_quantization, quantize

CUDA = torch.device("cuda")


class FourBits(nn.Linear):
    """STAND-IN for bitsandbytes' layer; it computes with its weights as they are."""

    def __init__(self, in_features, out_features, *, bias, compute_dtype, quant_type, device):
        super().__init__(in_features, out_features, bias=bias, device=device)
        self.options = compute_dtype, quant_type


def four_bit_weight(data, *, requires_grad, quant_type, compress_statistics):
    assert quant_type == "nf4"
    assert compress_statistics
    return nn.Parameter(data, requires_grad=requires_grad)


@pytest.fixture
def bitsandbytes(monkeypatch):
    package = SimpleNamespace(nn=SimpleNamespace(Linear4bit=FourBits, Params4bit=four_bit_weight))
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)


def test_all_linear_layers_of_the_blocks_become_four_bit(tiny_klein, bitsandbytes):
    transformer = load_family(tiny_klein).parts["transformer"]
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "hidden_states": torch.randn((1, 4, 16), generator=generator), "timestep": torch.tensor([0.5]),
        "encoder_hidden_states": torch.randn((1, 3, 24), generator=generator), "guidance": None,
        "img_ids": torch.zeros(4, 4), "txt_ids": torch.zeros(3, 4), "return_dict": False,
    }  # fmt: skip
    with torch.no_grad():
        before = transformer(**inputs)[0]
        for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
            quantize(blocks, "nf4", torch.bfloat16)
        assert torch.equal(transformer(**inputs)[0], before), "every layer kept its own weights"
    linear = {n: m for n, m in transformer.named_modules() if isinstance(m, nn.Linear)}
    assert {type(m) for n, m in linear.items() if "_blocks." in n} == {FourBits}
    assert {type(m) for n, m in linear.items() if "_blocks." not in n} == {nn.Linear}
    assert all(m.options == (torch.bfloat16, "nf4") for m in linear.values() if isinstance(m, FourBits))
    assert not any(p.requires_grad for p in transformer.parameters())


def test_eight_bits(monkeypatch):
    calls = []
    package = SimpleNamespace(Float8WeightOnlyConfig=lambda: "fp8", quantize_=lambda *args: calls.append(args))
    monkeypatch.setitem(sys.modules, "torchao", SimpleNamespace(quantization=package))
    monkeypatch.setitem(sys.modules, "torchao.quantization", package)
    layer = nn.Linear(2, 2)
    quantize(layer, "fp8", torch.bfloat16)
    assert calls == [(layer, "fp8")]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependencyError, match="pip install bitsandbytes"):
        check_quantization("nf4", CUDA)


def test_only_cuda(tiny_klein, tiny_sd, bitsandbytes):
    check_quantization("nf4", CUDA)
    with pytest.raises(ValueError, match="the device is cpu; legal: a CUDA device"):
        load_family(tiny_klein, quantization="nf4").to(torch.device("cpu"), torch.float32)
    with pytest.raises(ValueError, match=r"which .* does not have; legal"):
        load_family(tiny_sd, quantization="nf4")
    for illegal in ({"quantization": "int3"}, {"quantization": "nf4", "trainable": "all"}):
        with pytest.raises(ValueError, match=r"FitConfig.quantization is '.*'; legal"):
            FitConfig(**illegal)
