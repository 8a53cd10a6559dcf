"""Setting a benchmark up: methods, metrics and matcher by name, all arms with one sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from realfill import metrics
from realfill.baselines.classical import ShiftMap, Smooth, Telea
from realfill.baselines.diffusion import Base, Prompt, RealFill
from realfill.baselines.dreambooth import DreamBooth
from realfill.baselines.klein import Klein
from realfill.baselines.method import Method
from realfill.baselines.paint_by_example import PaintByExample
from realfill.baselines.stitching import Stitching
from realfill.benchmark.config import BenchConfig, MethodName, MetricName
from realfill.benchmark.runner import Arm, Benchmark, Metric
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.devices import resolve_device
from realfill.errors import BaseModelError, MissingDependencyError
from realfill.filling.windows import choose_windows
from realfill.io.images import ImageArray, MaskArray
from realfill.models.inpainter import Inpainter
from realfill.models.matcher import load_matcher
from realfill.models.perceptual import load_metric
from realfill.provenance import describe_machine


def set_up(
    config: BenchConfig,
    *,
    fit: FitConfig,
    sample: SampleConfig,
    ranking: RankConfig,
    device: str | None = None,
) -> Benchmark:
    """Load what all arms share, and build the arms.

    Args:
        config: which methods and metrics, how many fits.
        fit: base and recipe; open fields are the base's own.
        sample: sampler, steps, temperature and number of samples, for every arm of Stable Diffusion's kind;
            Paint by Example and FLUX.2 klein have samplers of their own.
        ranking: matcher, for every arm.
        device: where to compute.

    Raises:
        BaseModelError: the base can't be had. A metric or matcher that can't be had is told in the results.
    """
    where = resolve_device(device)
    inpainter = Inpainter.load(fit.base)
    card, resolution, multiple = inpainter.card, inpainter.resolution, inpainter.latent_px
    sample = sample.following(fit.resolve(card.fit)).resolve(card.sample)
    ranking = ranking.resolve(card.rank)
    missing: dict[str, str] = {}
    matcher = _or_reason("score", missing, lambda: load_matcher(ranking, where))

    def at_window(metric: Metric) -> Metric:
        def measure(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
            parts = choose_windows(
                mask, resolution=resolution, multiple=multiple, context=sample.context, max_growth=sample.join_windows
            )
            found, sizes = [], []
            for part in parts:
                own, window = part.of(mask), part.windows[0]
                inside = ~window.crop_mask(~own)  # pixels that average nothing but the hole's
                inside = inside if inside.any() else window.crop_mask(own)
                found.append(metric(window.crop(image), window.crop(truth), inside))
                sizes.append(int(own.sum()))
            return float(np.average(found, weights=sizes))

        return measure

    found: dict[str, Metric] = {}
    for name in config.metrics:
        if metrics.METRICS[name].needs_weights:
            loaded = _or_reason(name, missing, lambda name=name: load_metric(name, where))
            found |= {name: loaded} if loaded is not None else {}
        else:
            found[name] = at_window(metrics.detail) if name == "detail" else _plain(name)
    arms = []
    for name in config.methods:
        method = _method(name, config, fit, sample, device)
        takes_some = config.num_references if method.uses_references else ()
        arms += [Arm(method=method, num_references=n) for n in takes_some or (None,)]
    values = config.to_dict()
    about = {
        "machine": describe_machine(where),
        "config": {name: values.pop(name) for name in ("methods", "metrics", "fit_seeds", "num_references")},
        "weights": values, "base": inpainter.base, "fingerprint": inpainter.fingerprint,
        "fit": dataclasses.replace(fit.resolve(card.fit), base=inpainter.base).to_dict(), "sample": sample.to_dict(),
    }  # fmt: skip
    return Benchmark(
        arms=arms, num_samples=sample.num_samples, fit_seeds=config.fit_seeds, metrics=found, missing_metrics=missing,
        matcher=matcher, ranking=ranking, about=about,
    )  # fmt: skip


def _plain(name: MetricName) -> Metric:
    """Take a metric without weights as a function of (image, truth, mask)."""
    metric: Callable[..., float] = getattr(metrics, name)
    return metric if metrics.METRICS[name].needs_truth else lambda image, _, mask: metric(image, mask)


def _method(name: MethodName, config: BenchConfig, fit: FitConfig, sample: SampleConfig, device: str | None) -> Method:
    shared: dict[str, Any] = {"context": sample.context, "blend": sample.blend, "device": device}
    made: dict[MethodName, Callable[[], Method]] = {
        "realfill": lambda: RealFill(fit=fit, sample=sample, device=device),
        "base": lambda: Base(base=fit.base, sample=sample, device=device),
        "prompt": lambda: Prompt(base=fit.base, sample=sample, device=device),
        "telea": Telea,
        "smooth": Smooth,
        "shiftmap": ShiftMap,
        "stitching": Stitching,
        "paint_by_example": lambda: PaintByExample(base=config.paint_by_example, **shared),
        "dreambooth": lambda: DreamBooth(
            base=config.dreambooth,
            scheduler=sample.scheduler,
            num_inference_steps=sample.num_inference_steps,
            temperature=sample.temperature,
            **shared,
        ),
        "klein": lambda: Klein(base=config.klein, **shared),
    }
    return made[name]()


def _or_reason(name: str, missing: dict[str, str], load: Callable[[], Any]) -> Any:
    """Load something; where it can't be had, note why."""
    try:
        return load()
    except (BaseModelError, MissingDependencyError) as error:
        missing[name] = str(error)
        return None
