"""Profiles by part of the model and by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.profiler import ProfilerActivity, profile, record_function

_PARTS = {
    "UNet2DConditionModel": "U-Net forward",
    "Encoder": "VAE encode",
    "Decoder": "VAE decode",
    "CLIPTextModel": "text encoder forward",
    "ResNetFPN_8_2": "LoFTR features",
    "LocalFeatureTransformer": "LoFTR attention",
    "CoarseMatching": "LoFTR coarse matching",
}
_BACKWARD = "autograd::engine::evaluate_function"
_OPTIMIZER = "Optimizer.step"
_NUM_OPERATORS = 10


def profile_parts(work: Callable[[], object], device: torch.device) -> dict[str, dict[str, float]]:
    """Profile a piece of work.

    Returns:
        ``parts``: milliseconds of each part of the model, of the backward pass and of the optimizer. ``operators``:
        milliseconds of torch's slowest operators, without the operators that they call. On CUDA, the device's time.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with _named_parts(), profile(activities=activities, acc_events=True) as profiler:
        work()
    events: Any = profiler.key_averages()
    total, self_total = ("device_time_total", "self_device_time_total") if device.type == "cuda" else (
        "cpu_time_total", "self_cpu_time_total"
    )  # fmt: skip
    parts: dict[str, float] = {}
    for event in events:
        name = event.key if event.key in _PARTS.values() else None
        name = "backward" if event.key.startswith(_BACKWARD) else name
        name = "optimizer" if event.key.startswith(_OPTIMIZER) else name
        if name is not None:
            parts[name] = parts.get(name, 0.0) + getattr(event, total) / 1e3
    operators = {e.key: getattr(e, self_total) / 1e3 for e in events if e.key.startswith("aten::")}
    slowest = sorted(operators.items(), key=lambda pair: -pair[1])[:_NUM_OPERATORS]
    return {"parts": dict(sorted(parts.items(), key=lambda pair: -pair[1])), "operators": dict(slowest)}


@contextmanager
def _named_parts() -> Iterator[None]:
    """Name the forward passes of the model's parts in the profile."""
    open_ranges: list[Any] = []

    def enter(module: Any, _: object) -> None:
        if type(module).__name__ in _PARTS:
            open_ranges.append(record_function(_PARTS[type(module).__name__]))
            open_ranges[-1].__enter__()

    def leave(module: Any, *_: object) -> None:
        if type(module).__name__ in _PARTS:
            open_ranges.pop().__exit__(None, None, None)

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
