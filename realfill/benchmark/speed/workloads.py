"""What the speed benchmark runs: fit, sampling and ranking of a synthetic scene, by the library and by the port."""

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

from realfill.benchmark.speed.measuring import Timing, Variant, count_flops, synchronize, timed
from realfill.benchmark.speed.port import PortedFit, load_plainly, match_pair_by_pair, sample_one_by_one
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.devices import DTYPES, resolve_dtype, resolve_precision
from realfill.filling.sampling import largest_batch, sample
from realfill.fitting.batches import TrainingImage
from realfill.fitting.loading import threads_for
from realfill.fitting.plans import compiling_pays
from realfill.fitting.training import Progress
from realfill.io.images import ImageArray, to_tensor
from realfill.models.adapter import PeftLinear, trainable_lora, trainable_weights
from realfill.models.inpainter import Inpainter
from realfill.models.matcher import Matcher
from realfill.models.untrained import random_loftr
from realfill.pipeline import fit
from realfill.ranking import rank
from realfill.results import Completion, Completions
from realfill.scene import Scene

_FLOOR_PAIRS = 16  # matched at a time


def make_scene(side: int, num_references: int = 2) -> Scene:
    """Build a scene of random smooth textures, ``side`` pixels high and wide, a quarter of the target hidden."""
    photos = [_texture(side, seed) for seed in range(num_references + 1)]
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 4 + side // 2, side // 4 : side // 4 + side // 2] = True
    return Scene(photos[1:], photos[0], mask)


def _texture(side: int, seed: int) -> ImageArray:
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.random((n, n, 3)), (side, side), interpolation=cv2.INTER_CUBIC) for n in (4, 12, 40)]
    return (np.mean(layers, axis=0).clip(0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What all work shares: the base, the configs as the base resolves them, and where it runs.

    Attributes:
        base: name or directory.
        fit: resolved.
        sample: resolved.
        device: where to compute.
        resolution: of the base, in pixels.
    """

    base: str
    fit: FitConfig
    sample: SampleConfig
    device: torch.device
    resolution: int

    @classmethod
    def load(cls, fit_config: FitConfig, sample_config: SampleConfig, device: torch.device) -> Workplace:
        """Resolve the configs by the base's card."""
        inpainter = Inpainter.load(fit_config.base)
        fit = fit_config.resolve(inpainter.card.fit)
        fit = dataclasses.replace(fit, mixed_precision=resolve_precision(device, fit.mixed_precision))
        if fit.compile is None:  # a round's few steps would decide otherwise than the fit that they stand for
            fit = dataclasses.replace(fit, compile=compiling_pays(fit, device))
        return cls(
            base=fit_config.base,
            fit=fit,
            sample=sample_config.following(fit).resolve(inpainter.card.sample),
            device=device,
            resolution=inpainter.resolution,
        )

    def scene(self) -> Scene:
        """Build a scene somewhat larger than the base's images."""
        return make_scene(self.resolution * 3 // 2)


def run_fit(place: Workplace, scene: Scene, num_steps: int) -> Timing:
    """Fit through the library's own door; the first step, and what comes before it, is set-up."""
    marks = [time.perf_counter()]

    def mark(progress: Progress) -> None:
        if progress.step in (1, num_steps + 1):
            synchronize(place.device)
            marks.append(time.perf_counter())

    config = dataclasses.replace(place.fit, num_steps=num_steps + 1, time_budget_s=None)
    fit(scene, config, device=place.device, on_step=mark, progress=False)
    return Timing(seconds=marks[-1] - marks[1], set_up_s=marks[1] - marks[0])


def run_ported_fit(place: Workplace, scene: Scene, num_steps: int) -> Timing:
    """Do the same as a public script does."""
    start = time.perf_counter()
    inpainter = load_plainly(place.base, place.device)
    make = partial(trainable_lora, linear=PeftLinear) if place.fit.trainable == "lora" else trainable_weights
    loop = PortedFit(inpainter, make(inpainter, place.fit), place.fit)
    sides = (place.resolution * place.fit.crop_scale[0], place.resolution * place.fit.crop_scale[1])
    photos = [TrainingImage(image=reference, crop_sides_px=sides) for reference in scene.references]
    photos.append(TrainingImage(image=scene.known, known=~scene.mask, crop_sides_px=sides))
    loop.train_step(photos)
    set_up_s = time.perf_counter() - start

    def steps() -> None:
        for _ in range(num_steps):
            loop.train_step(photos)

    return Timing(seconds=timed(steps, place.device).seconds, set_up_s=set_up_s)


def fit_variants(place: Workplace, num_steps: int, *, bank_uses: Sequence[int] = (), port: bool) -> list[Variant]:
    """Give the ways to fit: as the config says, with banks, and as the port does.

    A bank is measured over whole cycles of its content, so that what it takes to fill it is counted with each use. It
    holds a single batch: a batch is encoded at its first use, so what a step takes doesn't go by the bank's size. Where
    crops are drawn ahead, enough steps are made that most are drawn while they are timed.
    """
    scene, num_steps = place.scene(), max(num_steps, 4 * threads_for(place.device))

    def variant(name: str, run: Callable[[Workplace, Scene, int], Timing], config: FitConfig, steps: int) -> Variant:
        at = dataclasses.replace(place, fit=config)

        def flops() -> float:  # of the later steps: what is done once is in both
            return count_flops(partial(run, at, scene, steps)) - count_flops(partial(run, at, scene, 0))

        return Variant(
            part="fit", name=name, steps=steps, samples=steps * config.batch_size,
            dtype=DTYPES[config.mixed_precision or "no"], run=partial(run, at, scene, steps), flops=flops,
        )  # fmt: skip

    def with_bank(name: str, uses: int) -> Variant:
        config = dataclasses.replace(place.fit, bank_size=place.fit.batch_size, bank_uses=uses)
        return variant(name, run_fit, config, math.ceil(num_steps / uses) * uses)

    own = place.fit
    uses = own.bank_uses
    if own.bank_size:  # a short fit ends before its bank's crops were used so often
        groups = math.ceil(own.bank_size / own.batch_size)
        cycles, rest = divmod(own.num_steps, groups * uses)
        uses = max(1, round(own.num_steps / (cycles * groups + min(rest, groups))))
    found = [
        with_bank("realfill", uses) if own.bank_size else variant("realfill", run_fit, own, num_steps),
        *(with_bank(f"bank, {uses} uses", uses) for uses in bank_uses),
    ]
    return [*found, variant("port", run_ported_fit, own, num_steps)] if port else found


def sample_in_batches(
    inpainter: Inpainter, image: torch.Tensor, hole: torch.Tensor, seeds: Sequence[int], config: SampleConfig
) -> torch.Tensor:
    """Sample as the pipeline does: as many seeds at a time as memory holds."""
    size = (image.shape[-2], image.shape[-1])
    number = config.batch_size or largest_batch(inpainter, size)
    number = math.ceil(len(seeds) / math.ceil(len(seeds) / number))
    batches = (seeds[i : i + number] for i in range(0, len(seeds), number))
    return torch.cat([sample(inpainter, image, hole, seeds=batch, config=config).cpu() for batch in batches])


def sample_variants(place: Workplace, *, port: bool) -> list[Variant]:
    """Give the ways to sample the base's own square."""
    side, config = place.resolution, place.sample
    scene = make_scene(side)
    image, hole = to_tensor(scene.known), torch.from_numpy(scene.mask)[None, None]
    ways = {"realfill": (sample_in_batches, Inpainter.load(place.base).to(place.device, resolve_dtype(place.device)))}
    if port:
        ways["port"] = (sample_one_by_one, load_plainly(place.base, place.device))
    found = []
    for name, (way, inpainter) in ways.items():
        if config.guided_from_base:  # as if an adapter were attached to it
            inpainter.keep_unfitted()
        work = partial(way, inpainter, image, hole, range(config.num_samples), config)
        found.append(
            Variant(
                part="sample", name=name, steps=config.num_samples * config.num_inference_steps,
                samples=config.num_samples, dtype=inpainter.dtype, run=partial(timed, work, place.device),
            )
        )  # fmt: skip
    return found


def make_completions(side: int, num_references: int, num_samples: int) -> Completions:
    """Build completions of a scene whose hole each fills with a texture of its own."""
    scene = make_scene(side, num_references)
    items = [
        Completion.from_image(_texture(side, 100 + seed), scene, seed, provenance={"rank": {"matcher": "loftr"}})
        for seed in range(num_samples)
    ]
    return Completions(items=tuple(items), scene=scene)


def rank_variants(
    device: torch.device, config: RankConfig, *, side: int, num_references: int, num_samples: int, port: bool
) -> list[Variant]:
    """Give the ways to rank, and the floor: features once, attention once a pair, nothing else."""
    matcher: Matcher = random_loftr(config.resolve({}), device)
    completions = make_completions(side, num_references, num_samples)
    references, images = completions.scene.references, [c.image for c in completions]
    pairs = num_references * num_samples

    def floor() -> Timing:
        seen, made = ([matcher.extract(x) for x in some[:_FLOOR_PAIRS]] for some in (references, images))
        batch = [(one, other) for other in made for one in seen][:_FLOOR_PAIRS]  # one with itself has more matches
        extract_s = timed(lambda: matcher.extract(images[0]), device).seconds
        match_s = timed(lambda: matcher.match_pairs(batch), device).seconds / len(batch)
        return Timing(seconds=extract_s * (num_references + num_samples) + match_s * pairs)

    ways = {
        "realfill": partial(timed, partial(rank, completions, matcher=matcher, config=config, progress=False), device)
    }
    if port:
        ways["port"] = partial(timed, partial(match_pair_by_pair, matcher, references, images), device)
    shared: dict[str, Any] = {"part": "rank", "steps": pairs, "samples": num_samples, "dtype": torch.float32}
    found = [Variant(name=name, run=run, **shared) for name, run in ways.items()]
    return [*found, Variant(name="floor", run=floor, flops=partial(count_flops, ways["realfill"]), **shared)]
