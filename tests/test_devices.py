"""Devices: which one is chosen, what is refused, and accelerators one after the other."""

import os

import pytest
import torch

from realfill.devices import (
    make_accelerator,
    resolve_device,
    resolve_dtype,
    resolve_frozen_dtype,
    resolve_precision,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", CPU])
def test_the_device_that_is_named_is_taken(device):
    assert resolve_device(device) == CPU


def test_without_a_name_a_device_of_this_machine_is_taken():
    device = resolve_device()
    assert torch.ones(2, device=device).sum() == 2
    assert device.type == (
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "tpu9", "cpu:x", torch.device("cuda:99"), "xla"])
def test_a_device_that_is_not_there_is_refused_by_name(device):
    with pytest.raises(ValueError, match=f"device {str(device)!r} can't be used"):
        resolve_device(device)


def test_frozen_weights_are_single_on_a_cpu_unless_said_otherwise():
    assert resolve_dtype(CPU) == torch.float32
    assert resolve_dtype(CPU, torch.bfloat16) == torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "precision", "wanted"),
    [
        (None, "no", torch.float32),
        (None, "bf16", torch.bfloat16),
        (None, "fp16", torch.float16),
        (torch.float32, "bf16", torch.float32),
    ],
)
def test_weights_under_a_lora_are_in_the_precision_that_is_computed_in_unless_said_otherwise(dtype, precision, wanted):
    assert resolve_frozen_dtype(dtype, precision) == wanted


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bf16"),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon", "amx_bf16": True}, "bf16"),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon", "amx_bf16": False}, "no"),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC"}, "no"),
        ({"architecture": "aarch64"}, "no"),
    ],
)
def test_a_cpu_computes_in_half_precision_where_that_is_faster(monkeypatch, features, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert resolve_precision(CPU, None) == wanted


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_precision_that_is_named_is_taken(precision):
    assert resolve_precision(CPU, precision) == precision
    assert make_accelerator(CPU, precision).mixed_precision == precision


def test_a_processor_does_not_fit_in_fp16():
    with pytest.raises(ValueError, match="fp16"):
        resolve_precision(CPU, "fp16")


@pytest.mark.parametrize(("first", "second"), [("no", "bf16"), ("bf16", "no")])
def test_one_accelerator_does_not_bind_the_next(first, second):
    made = []
    for precision in (first, second):
        accelerator = make_accelerator(CPU, precision)
        assert accelerator.mixed_precision == precision
        assert accelerator.device == CPU
        with accelerator.autocast():
            made.append(torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype)
    assert made == [torch.bfloat16 if p == "bf16" else torch.float32 for p in (first, second)]


def test_an_accelerator_leaves_the_environment_alone():
    before = dict(os.environ)
    make_accelerator(CPU, "bf16")
    assert dict(os.environ) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_half_precision_after_a_cpu_took_single():
    make_accelerator(CPU, "no")
    accelerator = make_accelerator(resolve_device(), None)
    assert accelerator.device.type == "cuda"
    assert accelerator.mixed_precision == ("bf16" if torch.cuda.is_bf16_supported() else "fp16")
