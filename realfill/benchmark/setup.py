"""Construction of a benchmark: methods, metrics and matcher by name, with one base model and one sampler for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from realfill.benchmark import metrics
from realfill.benchmark.config import BenchConfig, MethodName, MetricName
from realfill.benchmark.methods.composite import CompositeMethod
from realfill.benchmark.methods.diffusion import Fitted, Unfitted
from realfill.benchmark.methods.dreambooth import DreamBooth
from realfill.benchmark.methods.engines import EngineMethod
from realfill.benchmark.methods.method import Method
from realfill.benchmark.methods.paint_by_example import PaintByExample
from realfill.benchmark.methods.stitching import Stitching
from realfill.benchmark.runner import Arm, Benchmark, Metric
from realfill.compute.devices import resolve_device
from realfill.config import (
    FitConfig,
    GeometryConfig,
    RankConfig,
    ReferenceViews,
    SampleConfig,
    SampleSettings,
    WindowConfig,
    WindowSettings,
)
from realfill.errors import BaseModelError, MissingDependencyError
from realfill.geometry.matching import load_matcher
from realfill.io.images import ImageArray, MaskArray
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.perceptual import load_metric
from realfill.results.provenance import describe_machine
from realfill.scene.windows import choose_windows


def set_up(
    config: BenchConfig,
    *,
    fit: FitConfig,
    sample: SampleConfig,
    window: WindowConfig,
    ranking: RankConfig,
    geometry: GeometryConfig | None = None,
    device: str | None = None,
    progress: bool = False,
) -> Benchmark:
    """Load the shared models and build the arms.

    Args:
        config: methods, metrics, and number of fits.
        fit: base model and recipe; the base model's defaults fill open fields.
        sample: sampler, steps and number of samples for every arm of the base model. Paint by Example and FLUX.2 klein
            have samplers of their own, and klein a recipe.
        window: the windows in which every diffusion arm fills the hole.
        ranking: how the completions of every arm are scored.
        geometry: the thresholds of the composite for ``realfill``, ``base`` and ``klein_fit``, for which it is always
            on.
        device: where to compute.
        progress: show the progress of each fit.

    Raises:
        BaseModelError: the base model cannot be loaded. A missing metric or matcher is named in the results instead.
    """
    torch_device = resolve_device(device)
    inpainter = load_family(fit.base)
    card = inpainter.card
    sample_settings = sample.following(fit.resolve(card.fit)).resolve(card.sample)
    windows = window.resolve(card.window)
    rank_settings = ranking.resolve(card.rank)
    missing: dict[str, str] = {}
    matcher = None
    if rank_settings.uses_matcher:
        matcher = _load_or_note("score", missing, lambda: load_matcher(rank_settings, torch_device))
    measures: dict[str, Metric] = {}
    for name in config.metrics:
        if not metrics.METRICS[name].needs_weights:
            measures[name] = _at_window(metrics.detail, inpainter, windows) if name == "detail" else _unweighted(name)
        elif (measure := _load_or_note(name, missing, lambda name=name: load_metric(name, torch_device))) is not None:
            measures[name] = measure
    sources = dataclasses.replace(geometry or GeometryConfig(), enabled=True)
    arms = []
    for name in config.methods:
        method = _method(name, config, fit, sample_settings, windows, sources, device, progress=progress)
        numbers = config.num_references if method.uses_references else ()
        arms += [Arm(method=method, num_references=number) for number in numbers or (None,)]
    values = config.to_dict()
    about = {
        "machine": describe_machine(torch_device),
        "config": {name: values.pop(name) for name in ("methods", "metrics", "fit_seeds", "num_references")},
        "weights": values, "base": inpainter.base, "fingerprint": inpainter.fingerprint,
        "fit": dataclasses.replace(fit.resolve(card.fit), base=inpainter.base).to_dict(),
        "covered_fit": card.describe_covered_fit(fit),
        "sample": sample_settings.to_dict(), "window": windows.to_dict(), "geometry": sources.resolve({}).to_dict(),
    }  # fmt: skip
    return Benchmark(
        arms=arms, num_samples=sample_settings.num_samples, fit_seeds=config.fit_seeds, metrics=measures,
        missing_metrics=missing, matcher=matcher, ranking=rank_settings, about=about,
    )  # fmt: skip


def _at_window(metric: Metric, inpainter: DiffusionFamily, windows: WindowSettings) -> Metric:
    """Measure at the resolution at which the model sees each part of the hole; the parts count by their area."""

    def measure(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
        parts = choose_windows(
            mask, resolution=inpainter.resolution, multiple=inpainter.vae_scale_factor, context=windows.context,
            max_growth=windows.join_windows,
        )  # fmt: skip
        values, areas = [], []
        for part in parts:
            hole, window = part.of(mask), part.windows[0]
            inside = ~window.crop_mask(~hole)  # pixels that average pixels of the hole alone
            inside = inside if inside.any() else window.crop_mask(hole)
            values.append(metric(window.crop(image), window.crop(truth), inside))
            areas.append(int(hole.sum()))
        return float(np.average(values, weights=areas))

    return measure


def _unweighted(name: MetricName) -> Metric:
    """Return a metric that needs no weights as a function of (image, truth, mask)."""
    metric: Callable[..., float] = getattr(metrics, name)
    return metric if metrics.METRICS[name].needs_truth else lambda image, _, mask: metric(image, mask)


def _method(
    name: MethodName,
    config: BenchConfig,
    fit: FitConfig,
    sample: SampleSettings,
    window: WindowSettings,
    geometry: GeometryConfig,
    device: str | None,
    *,
    progress: bool,
) -> Method:
    ours: dict[str, Any] = {"sample": sample, "window": window, "device": device}
    stock: dict[str, Any] = {"context": window.context, "blend": sample.blend, "device": device}
    klein_sample = SampleConfig(
        num_samples=sample.num_samples, seed=sample.seed, blend=sample.blend, quantization=sample.quantization
    )
    with_composite, without = {"geometry": geometry}, {"geometry": GeometryConfig(enabled=False)}
    klein: dict[str, Any] = {
        **ours, **without, "sample": klein_sample, "base": config.klein, "needs_references": True
    }  # fmt: skip
    klein_fit: dict[str, Any] = {
        **ours,
        "sample": dataclasses.replace(klein_sample, base=config.klein),
        "fit": FitConfig(
            base=config.klein_base, preset=fit.preset, time_budget_s=fit.time_budget_s,
            mixed_precision=fit.mixed_precision, quantization=fit.quantization,
        ),
        "progress": progress,
    }  # fmt: skip
    methods: dict[MethodName, Callable[[], Method]] = {
        "realfill": lambda: Fitted(name="realfill", fit=fit, progress=progress, **with_composite, **ours),
        "realfill_plain": lambda: Fitted(name="realfill_plain", fit=fit, progress=progress, **without, **ours),
        "base": lambda: Unfitted(name="base", base=fit.base, **with_composite, **ours),
        "base_plain": lambda: Unfitted(
            name="base_plain", base=fit.base, uses_references=False, **without, **ours
        ),
        "prompt": lambda: Unfitted(
            name="prompt", base=fit.base, uses_references=False, with_prompt=True, **without, **ours
        ),
        "smooth": lambda: EngineMethod(name="smooth"),
        "telea": lambda: EngineMethod(name="telea"),
        "shiftmap": lambda: EngineMethod(name="shiftmap"),
        "completion": lambda: EngineMethod(name="completion", weights=config.completion, device=device),
        "lama": lambda: EngineMethod(name="lama", weights=config.lama, device=device),
        "migan": lambda: EngineMethod(name="migan", weights=config.migan, device=device),
        "stitching": Stitching,
        "composite": lambda: CompositeMethod(geometry=geometry, device=device),
        "paint_by_example": lambda: PaintByExample(base=config.paint_by_example, **stock),
        "dreambooth": lambda: DreamBooth(
            base=config.dreambooth, scheduler=sample.scheduler, num_inference_steps=sample.num_inference_steps,
            progress=progress, **stock,
        ),
        "klein": lambda: Unfitted(name="klein", **klein),
        "klein_warped": lambda: Unfitted(name="klein_warped", **klein | _showing("warped", window)),
        "klein_both": lambda: Unfitted(name="klein_both", **klein | _showing("both", window)),
        "klein_fit": lambda: Fitted(name="klein_fit", **with_composite, **klein_fit),
        "klein_fit_plain": lambda: Fitted(name="klein_fit_plain", **without, **klein_fit),
    }  # fmt: skip
    return methods[name]()


def _showing(views: ReferenceViews, window: WindowSettings) -> dict[str, Any]:
    """Return windows in which FLUX.2 klein sees the references in another form."""
    return {"window": dataclasses.replace(window, reference_views=views)}


def _load_or_note(name: str, missing: dict[str, str], load: Callable[[], Any]) -> Any:
    """Load a model; if it is not available, note the reason and return ``None``."""
    try:
        return load()
    except (BaseModelError, MissingDependencyError) as error:
        missing[name] = str(error)
        return None
