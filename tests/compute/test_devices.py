"""Devices: which one is chosen, which are refused, and accelerators one after another."""

import os
from contextlib import nullcontext

import pytest
import torch

from realfill.compute.devices import (
    make_accelerator,
    resolve_device,
    resolve_dtype,
    resolve_frozen_dtype,
    resolve_precision,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", CPU])
def test_a_named_device_is_used(device):
    assert resolve_device(device) == CPU


def test_without_a_name_the_best_device_of_this_machine_is_used():
    device = resolve_device()
    assert torch.ones(2, device=device).sum() == 2
    assert device.type == (
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "tpu9", "cpu:x", torch.device("cuda:99"), "xla"])
def test_an_unavailable_device_is_refused(device):
    with pytest.raises(ValueError, match=f"device {str(device)!r} cannot be used .*legal: "):
        resolve_device(device)


def test_frozen_weights_are_single_precision_on_a_cpu_by_default():
    assert resolve_dtype(CPU) == torch.float32
    assert resolve_dtype(CPU, torch.bfloat16) == torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "precision", "expected"),
    [
        (None, "no", torch.float32),
        (None, "bf16", torch.bfloat16),
        (None, "fp16", torch.float16),
        (torch.float32, "bf16", torch.float32),
    ],
)
def test_weights_under_a_lora_have_the_precision_of_the_computation_by_default(dtype, precision, expected):
    assert resolve_frozen_dtype(dtype, precision) == expected


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bf16"),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon", "amx_bf16": True}, "bf16"),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon", "amx_bf16": False}, "no"),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC"}, "no"),
        ({"architecture": "aarch64"}, "no"),
    ],
)
def test_a_cpu_uses_half_precision_if_that_is_faster(monkeypatch, features, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert resolve_precision(CPU, None) == expected


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_named_precision_is_used(precision):
    assert resolve_precision(CPU, precision) == precision
    assert make_accelerator(CPU, precision).mixed_precision == precision


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="fp16"):
        resolve_precision(CPU, "fp16")


@pytest.mark.parametrize(("first", "second"), [("no", "bf16"), ("bf16", "no")])
def test_an_accelerator_does_not_inherit_the_precision_of_the_last_one(first, second):
    made = []
    for precision in (first, second):
        accelerator = make_accelerator(CPU, precision)
        assert accelerator.mixed_precision == precision
        assert accelerator.device == CPU
        with accelerator.autocast():
            made.append(torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype)
    assert made == [torch.bfloat16 if p == "bf16" else torch.float32 for p in (first, second)]


def test_an_accelerator_does_not_change_the_environment():
    before = dict(os.environ)
    make_accelerator(CPU, "bf16")
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("has_bf16", "precision", "dtype"), [(True, "bf16", torch.bfloat16), (False, "fp16", torch.float16)]
)
def test_a_gpu_computes_in_bf16_only_if_its_hardware_can(monkeypatch, has_bf16, precision, dtype):
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: including_emulation or has_bf16)
    cuda = torch.device("cuda")
    assert resolve_precision(cuda, None) == precision
    assert resolve_dtype(cuda) == dtype
    assert resolve_precision(cuda, "no") == "no"


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_without_a_choice_the_best_device_is_used(monkeypatch, cuda, mps, expected):
    tried = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *_, device: tried.append(device.type))
    assert resolve_device().type == expected
    assert tried == [expected]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_uses_half_precision_after_a_cpu_used_single():
    make_accelerator(CPU, "no")
    accelerator = make_accelerator(resolve_device(), None)
    assert accelerator.device.type == "cuda"
    assert accelerator.mixed_precision == ("bf16" if torch.cuda.is_bf16_supported() else "fp16")
