"""The measured work: fit, sampling and ranking of a synthetic scene, by the library and by the port."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from measuring import Timing, Variant, count_flops, synchronize, timed
from port import PortedFit, load_plainly, match_pair_by_pair, sample_one_by_one
from untrained import random_loftr

from realfill.compute.devices import DTYPES, resolve_dtype, resolve_precision
from realfill.compute.progress import Progress
from realfill.config import FitConfig, FitSettings, GeometryConfig, RankConfig, SampleConfig, SampleSettings
from realfill.geometry.matching import Matcher
from realfill.io.images import ImageArray, to_tensor
from realfill.models.diffusion.lora import trainable_lora, trainable_weights
from realfill.models.diffusion.sampling import largest_batch, sample
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.pipeline import fit
from realfill.ranking.rank import rank
from realfill.results.completions import Completion, Completions
from realfill.scene.scene import Scene
from realfill.training.crops import TrainingImage
from realfill.training.plan import compiling_pays
from realfill.training.prefetch import threads_for

_FLOOR_PAIRS = 16  # pairs matched at a time


def make_scene(side: int, num_references: int = 2) -> Scene:
    """Build a scene of random smooth textures, ``side`` pixels high and wide; the hole is a quarter of the target."""
    photos = [_texture(side, seed) for seed in range(num_references + 1)]
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 4 + side // 2, side // 4 : side // 4 + side // 2] = True
    return Scene(photos[1:], photos[0], mask)


def _texture(side: int, seed: int) -> ImageArray:
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.random((n, n, 3)), (side, side), interpolation=cv2.INTER_CUBIC) for n in (4, 12, 40)]
    return (np.mean(layers, axis=0).clip(0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedSetup:
    """The base model, the settings and the device of a study.

    Attributes:
        base: name or directory of the base model.
        fit: settings of fits.
        sample: settings of sampling.
        device: where to compute.
        resolution: resolution of the base model in pixels.
    """

    base: str
    fit: FitSettings
    sample: SampleSettings
    device: torch.device
    resolution: int

    @classmethod
    def load(cls, fit_config: FitConfig, sample_config: SampleConfig, device: torch.device) -> SpeedSetup:
        """Resolve the configs with the base model's defaults."""
        inpainter = StableDiffusionInpainter.load(fit_config.base)
        fit = fit_config.resolve(inpainter.card.fit)
        fit = dataclasses.replace(fit, mixed_precision=resolve_precision(device, fit.mixed_precision))
        if fit.compile is None:  # by the steps of the whole fit, not of a round
            fit = dataclasses.replace(fit, compile=compiling_pays(fit, device))
        return cls(
            base=fit_config.base,
            fit=fit,
            sample=sample_config.following(fit).resolve(inpainter.card.sample),
            device=device,
            resolution=inpainter.resolution,
        )

    def scene(self) -> Scene:
        """Build a scene somewhat larger than the base model's resolution."""
        return make_scene(self.resolution * 3 // 2)


def run_fit(setup: SpeedSetup, scene: Scene, num_steps: int) -> Timing:
    """Run ``realfill.fit``; the set-up includes the first step."""
    marks = [time.perf_counter()]

    def mark(progress: Progress) -> None:
        if progress.step in (1, num_steps + 1):
            synchronize(setup.device)
            marks.append(time.perf_counter())

    config = dataclasses.replace(setup.fit, num_steps=num_steps + 1, time_budget_s=None)
    fit(scene, config, geometry=GeometryConfig(enabled=False), device=setup.device, on_step=mark, progress=False)
    return Timing(seconds=marks[-1] - marks[1], set_up_s=marks[1] - marks[0])


def run_ported_fit(setup: SpeedSetup, scene: Scene, num_steps: int) -> Timing:
    """Run the same fit by the port."""
    start = time.perf_counter()
    inpainter = load_plainly(setup.base, setup.device)
    make = trainable_lora if setup.fit.trainable == "lora" else trainable_weights
    loop = PortedFit(inpainter, make(inpainter, setup.fit), setup.fit)
    sides = (setup.resolution * setup.fit.crop_scale[0], setup.resolution * setup.fit.crop_scale[1])
    photos = [TrainingImage(image=reference, crop_sides_px=sides) for reference in scene.references]
    photos.append(TrainingImage(image=scene.known, known=~scene.mask, crop_sides_px=sides))
    loop.train_step(photos)
    set_up_s = time.perf_counter() - start

    def steps() -> None:
        for _ in range(num_steps):
            loop.train_step(photos)

    return Timing(seconds=timed(steps, setup.device).seconds, set_up_s=set_up_s)


def fit_variants(
    setup: SpeedSetup, num_steps: int, *, latent_cache_uses: Sequence[int] = (), port: bool
) -> list[Variant]:
    """List the variants of a fit: with the given settings, with latent caches, and by the port.

    A latent cache is measured over whole cycles, so that each use has its share of the encoding. It holds a single
    batch: a batch is encoded at its first use, so the time of a step does not depend on the size of the cache. Where
    crops are drawn ahead, there are enough steps that most crops are drawn while the time is measured.
    """
    scene, num_steps = setup.scene(), max(num_steps, 4 * threads_for(setup.device))

    def variant(name: str, run: Callable[[SpeedSetup, Scene, int], Timing], config: FitConfig, steps: int) -> Variant:
        at = dataclasses.replace(setup, fit=config)

        def flops() -> float:  # without the set-up, which is in both
            return count_flops(partial(run, at, scene, steps)) - count_flops(partial(run, at, scene, 0))

        return Variant(
            part="fit", name=name, steps=steps, samples=steps * config.batch_size,
            dtype=DTYPES[config.mixed_precision or "no"], run=partial(run, at, scene, steps), flops=flops,
        )  # fmt: skip

    def with_latent_cache(name: str, uses: int) -> Variant:
        config = dataclasses.replace(setup.fit, latent_cache_size=setup.fit.batch_size, latent_cache_uses=uses)
        return variant(name, run_fit, config, math.ceil(num_steps / uses) * uses)

    settings = setup.fit
    uses = settings.latent_cache_uses
    if settings.latent_cache_size:  # a short fit ends before its cached crops are used that often
        groups = math.ceil(settings.latent_cache_size / settings.batch_size)
        cycles, remainder = divmod(settings.num_steps, groups * uses)
        uses = max(1, round(settings.num_steps / (cycles * groups + min(remainder, groups))))
    variants = [
        with_latent_cache("realfill", uses)
        if settings.latent_cache_size
        else variant("realfill", run_fit, settings, num_steps),
        *(with_latent_cache(f"latent cache, {uses} uses", uses) for uses in latent_cache_uses),
    ]
    return [*variants, variant("port", run_ported_fit, settings, num_steps)] if port else variants


def sample_in_batches(
    inpainter: StableDiffusionInpainter,
    image: torch.Tensor,
    hole: torch.Tensor,
    seeds: Sequence[int],
    settings: SampleSettings,
) -> torch.Tensor:
    """Sample as many seeds at a time as memory holds, as the pipeline does."""
    size = (image.shape[-2], image.shape[-1])
    number = settings.batch_size or largest_batch(inpainter, size)
    number = math.ceil(len(seeds) / math.ceil(len(seeds) / number))
    batches = (seeds[i : i + number] for i in range(0, len(seeds), number))
    return torch.cat([sample(inpainter, image, hole, seeds=batch, settings=settings).cpu() for batch in batches])


def sample_variants(setup: SpeedSetup, *, port: bool) -> list[Variant]:
    """List the variants of sampling a square at the base model's resolution."""
    side, settings = setup.resolution, setup.sample
    scene = make_scene(side)
    image, hole = to_tensor(scene.known), torch.from_numpy(scene.mask)[None, None]
    functions = {
        "realfill": (
            sample_in_batches,
            StableDiffusionInpainter.load(setup.base).to(setup.device, resolve_dtype(setup.device)),
        )
    }
    if port:
        functions["port"] = (sample_one_by_one, load_plainly(setup.base, setup.device))
    variants = []
    for name, (function, inpainter) in functions.items():
        if settings.is_guided_from_base(1):  # as with an adapter
            inpainter.keep_unfitted()
        work = partial(function, inpainter, image, hole, range(settings.num_samples), settings)
        variants.append(
            Variant(
                part="sample", name=name, steps=settings.num_samples * settings.num_inference_steps,
                samples=settings.num_samples, dtype=inpainter.dtype, run=partial(timed, work, setup.device),
            )
        )  # fmt: skip
    return variants


def make_completions(side: int, num_references: int, num_samples: int) -> Completions:
    """Build completions of a scene, each with another texture in the hole."""
    scene = make_scene(side, num_references)
    items = [Completion.from_image(_texture(side, 100 + seed), scene, seed) for seed in range(num_samples)]
    return Completions(items=tuple(items), scene=scene)


def rank_variants(
    device: torch.device, config: RankConfig, *, side: int, num_references: int, num_samples: int, port: bool
) -> list[Variant]:
    """List the variants of ranking, and its floor: the features of each image and the attention of each pair."""
    settings = config.resolve({})
    matcher: Matcher = random_loftr(device, max_size_px=settings.max_size_px, min_confidence=settings.min_confidence)
    completions = make_completions(side, num_references, num_samples)
    references, images = completions.scene.references, [c.image for c in completions]
    pairs = num_references * num_samples

    def floor() -> Timing:
        features0, features1 = ([matcher.extract(x) for x in some[:_FLOOR_PAIRS]] for some in (references, images))
        batch = [(f0, f1) for f1 in features1 for f0 in features0][:_FLOOR_PAIRS]  # equal pairs have more matches
        extract_s = timed(lambda: matcher.extract(images[0]), device).seconds
        match_s = timed(lambda: matcher.match_pairs(batch), device).seconds / len(batch)
        return Timing(seconds=extract_s * (num_references + num_samples) + match_s * pairs)

    functions = {
        "realfill": partial(timed, partial(rank, completions, matcher=matcher, config=config, progress=False), device)
    }
    if port:
        functions["port"] = partial(timed, partial(match_pair_by_pair, matcher, references, images), device)
    shared: dict[str, Any] = {"part": "rank", "steps": pairs, "samples": num_samples, "dtype": torch.float32}
    variants = [Variant(name=name, run=run, **shared) for name, run in functions.items()]
    return [*variants, Variant(name="floor", run=floor, flops=partial(count_flops, functions["realfill"]), **shared)]
