"""Filling: sample the windows of a hole for each seed, coarse to fine, and blend them in (paper, section 3.3)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from realfill.compute.memory import free_bytes, until_it_fits
from realfill.compute.progress import Interrupted, OnStep, Progress, ProgressBar
from realfill.config import SampleSettings, WindowSettings
from realfill.filling.blending import blend
from realfill.filling.finished import FinishedSeeds
from realfill.filling.grain import match_grain, measure_grain
from realfill.filling.hints import Hints
from realfill.filling.registration import register
from realfill.io.bands import bands
from realfill.io.images import ImageArray, MaskArray, to_bytes
from realfill.io.profiles import to_depth
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.sampling import largest_batch, lay_tiles, sample
from realfill.scene.scene import Scene
from realfill.scene.windows import Part, Window, choose_windows

OnShift: TypeAlias = Callable[[int, tuple[float, float]], None]
"""Takes a seed and a shift (down, right) in pixels of the target."""


def choose_parts(inpainter: DiffusionFamily, scene: Scene, window: WindowSettings) -> tuple[Part, ...]:
    """Choose the windows in which a base model fills a hole.

    They are the windows of the scene's whole hole, as far as the mask reaches into them.
    """
    parts = choose_windows(
        scene.whole_hole, resolution=inpainter.resolution, multiple=inpainter.vae_scale_factor, context=window.context,
        max_growth=window.join_windows, num_stages=window.num_stages,
    )  # fmt: skip
    return tuple(part for part in parts if part.of(scene.mask).any())


def require_room(scene: Scene, settings: SampleSettings) -> None:
    """Check that the generated pixels of all seeds fit into memory.

    Raises:
        ValueError: they do not fit.
    """
    pixels = scene.original.pixels
    each, free = int(scene.mask.sum()) * pixels.shape[2] * pixels.itemsize, free_bytes(torch.device("cpu"))
    if each * settings.num_samples > free:
        raise ValueError(
            f"num_samples is {settings.num_samples}, and each sample takes {each / 1e9:.2f} GB, which is more than "
            f"the {free / 1e9:.1f} GB of free memory; legal: up to {free // each}. Draw the other seeds in another run"
        )


def fill_hole(
    inpainter: DiffusionFamily,
    scene: Scene,
    settings: SampleSettings,
    window: WindowSettings,
    *,
    progress: bool,
    on_step: OnStep | None = None,
    on_shift: OnShift | None = None,
    finished: FinishedSeeds | None = None,
    hints: Hints | None = None,
) -> dict[int, NDArray]:
    """Fill the hole of a scene once for each seed.

    The parts of a hole are filled in windows of their own, in which other parts are hidden. Seeds are sampled in
    batches, and each batch is finished before the next one starts. Memory is bounded by one window at the target's
    size, apart from the result.

    Args:
        inpainter: the base model, with the adapter attached.
        scene: the scene to complete.
        settings: settings of the sampler.
        window: settings of the windows.
        progress: show a progress bar.
        on_step: called after each denoising step; it counts the steps of all seeds. If it returns ``False``, filling
            stops before the next step.
        on_shift: called with a seed and the shift (down, right), in pixels of the target, by which a sample of a base
            model that ``generates_whole`` lay beside the known pixels, before it was registered to them.
        finished: seeds that an interrupted job has finished, which are not filled again. Each finished batch is added.
        hints: what may belong in the hole, for a base model that ``reads_hints``. ``None``: there are none.

    Returns:
        Seed to (K, C): the pixels of the hole, row by row, in the colours and the depth of the target's file. If
        ``on_step`` stopped it, only the finished seeds.

    Raises:
        ValueError: the results do not fit into memory.
        RuntimeError: a single window does not fit into memory.
        OutputError: finished seeds cannot be written, or belong to another job.
    """
    require_room(scene, settings)
    parts = choose_parts(inpainter, scene, window)
    steps_per_seed = sum(settings.stage(i)[0] for part in parts for i in range(len(part.windows)))
    num_steps = steps_per_seed * settings.num_samples
    wanted = range(settings.seed, settings.seed + settings.num_samples)
    filled, shifts = finished.load() if finished is not None else ({}, {})
    filled = {seed: values for seed, values in filled.items() if seed in wanted}
    seeds = [seed for seed in wanted if seed not in filled]
    first_step = steps_per_seed * len(filled)
    with ProgressBar(total=num_steps, initial=first_step, desc="sample", unit="step", disable=not progress) as bar:
        filler = _Filler(
            inpainter=inpainter, scene=scene, settings=settings, parts=parts, bar=bar,
            known=scene.known if hints is None else hints.image, hints=hints,
            batch_size=settings.batch_size or largest_batch(inpainter, (inpainter.resolution, inpainter.resolution)),
            on_step=on_step, num_steps=num_steps, first_step=first_step, step=first_step, shifts=shifts,
        )  # fmt: skip
        with suppress(Interrupted):
            while seeds:
                batch = _first_batch(seeds, filler.batch_size)
                for seed, values in filler.fill(batch):
                    filled[seed] = values  # one by one: a stop keeps the finished seeds
                if finished is not None:
                    finished.add({seed: filled[seed] for seed in batch}, shifts)
                seeds = seeds[len(batch) :]
    if on_shift is not None:
        for seed, moved in shifts.items():
            for shift in moved if seed in filled else ():
                on_shift(seed, shift)
    return {seed: filled[seed] for seed in wanted if seed in filled}


def _first_batch(seeds: Sequence[int], batch_size: int) -> Sequence[int]:
    """Return the first of as few batches as possible, which are of about the same size."""
    num_batches = math.ceil(len(seeds) / batch_size)
    return seeds[: math.ceil(len(seeds) / num_batches)]


@dataclass(slots=True, kw_only=True, eq=False)
class _Filler:
    """Fills the parts of a hole for batches of seeds.

    Attributes:
        inpainter: the base model.
        scene: the scene to complete.
        settings: settings of the sampler.
        parts: parts of the hole.
        known: (H, W, 3) uint8: the target, blank in the hole except for hints.
        hints: what may belong in the hole; ``None``: there are none.
        batch_size: largest number of windows or tiles in a batch; halved when memory runs out.
        bar: progress bar.
        on_step: called after each denoising step.
        shifts: seed to the shift of each of its samples.
        num_steps: denoising steps of all seeds.
        first_step: denoising steps of an earlier job.
        step: denoising steps done, with those of an earlier job.
        started: time of the start.
        stopped: whether ``on_step`` returned ``False``.
    """

    inpainter: DiffusionFamily
    scene: Scene
    settings: SampleSettings
    parts: tuple[Part, ...]
    known: ImageArray
    batch_size: int
    bar: ProgressBar
    on_step: OnStep | None
    num_steps: int
    shifts: dict[int, list[tuple[float, float]]]
    hints: Hints | None = None
    first_step: int = 0
    step: int = 0
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False

    def fill(self, seeds: Sequence[int]) -> Iterator[tuple[int, NDArray]]:
        """Yield each seed and its pixels of the hole (K, C), as soon as the seed is finished.

        Raises:
            Interrupted: ``on_step`` returned ``False``.
        """
        original, mask = self.scene.original, self.scene.mask
        shape = int(mask.sum()), original.pixels.shape[2]
        filled = {seed: np.empty(shape, original.pixels.dtype) for seed in seeds}
        for part in self.parts:
            part_mask = part.of(mask)
            for seed, image in self._fill_part(part, seeds):
                _store(filled[seed], mask, part_mask, image, part.windows[-1])
                if part is self.parts[-1]:
                    yield seed, filled[seed]

    def _fill_part(self, part: Part, seeds: Sequence[int]) -> Iterator[tuple[int, NDArray]]:
        """Yield for each seed the last window of a part (H, W, C), filled, in the colours and depth of the target.

        The sample is blended in these colours, which can lie outside of sRGB.
        """
        first, last = part.windows[0], part.windows[-1]
        original, hole = self.scene.original, self.scene.mask[last.slices]
        known = np.where(hole[:, :, None], np.uint8(0), to_depth(original.pixels[last.slices], np.uint8))
        grain = None
        if self.settings.match_grain:
            grain = measure_grain(self.known[first.slices], ~self.scene.mask[first.slices])
        for seed, sampled in zip(seeds, self._sample(first, seeds, stage=0), strict=True):
            patch = self._register(first, seed, sampled) if self.inpainter.generates_whole else sampled
            image = last.restore(self._refine(part, seed, patch))
            rng = np.random.default_rng([seed, *last.box])
            image = match_grain(image, hole, grain, rng, whole=last is first)
            image = original.encode_smooth(image)
            yield seed, blend(known, hole, image, method=self.settings.blend, dtype=original.pixels.dtype)

    def _register(self, window: Window, seed: int, sample: NDArray[np.float32]) -> NDArray[np.float32]:
        """Register a sample of a window to the known pixels, and note the shift."""
        image, shift = register(sample, window.crop(self.known), window.crop_mask(self.scene.mask))
        self.shifts.setdefault(seed, []).append((float(shift[0] * window.scale), float(shift[1] * window.scale)))
        return image

    def _refine(self, part: Part, seed: int, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn a sample of the first window into one of the last.

        Each stage starts from the one before, blended, and corrected if the adapter has learnt to.
        """
        structure = self.inpainter.structure
        for stage, (coarse, window) in enumerate(pairwise(part.windows), 1):
            known, hole = window.crop(self.known), window.crop_mask(self.scene.mask)
            start = blend(known, hole, coarse.restore_within(window, patch), method=self.settings.blend)
            if structure is not None:
                start = structure.correct(start, known, hole)
            (patch,) = self._sample(window, [seed], stage=stage, start=start)
        return patch

    def _sample(
        self, window: Window, seeds: Sequence[int], *, stage: int, start: ImageArray | None = None
    ) -> list[NDArray[np.float32]]:
        """Sample a window for each seed: (h, w, 3) float32 in [0, 255], of the model's size.

        Raises:
            Interrupted: ``on_step`` returned ``False``.
        """
        image, mask = to_bytes(window.crop(self.known)), window.crop_mask(self.scene.mask)
        hole, start_image = torch.from_numpy(mask)[None, None], None if start is None else to_bytes(start)
        confidence = None if self.hints is None else torch.from_numpy(self.hints.crop(window))[None, None]
        step = self.step

        def work() -> list[NDArray[np.float32]]:
            patches, remaining = [], seeds
            while remaining:
                batch = _first_batch(remaining, self.batch_size)
                if self.stopped:
                    raise Interrupted
                samples = sample(
                    self.inpainter, image, hole, seeds=batch, settings=self.settings, stage=stage, start=start_image,
                    confidence=confidence, batch_size=self.batch_size, on_step=partial(self._count_step, len(batch)),
                )  # fmt: skip
                patches += [s.permute(1, 2, 0).cpu().numpy() for s in samples.mul_(255)]
                remaining = remaining[len(batch) :]
            return patches

        def shrink() -> str | None:
            in_batch = len(seeds) if start is None else len(lay_tiles(self.inpainter, hole, self.settings))
            in_batch = min(in_batch, self.batch_size)
            if in_batch == 1:
                return None
            self.batch_size = in_batch // 2
            self.bar.n = self.step = step
            return f"{self.batch_size} at a time"

        return until_it_fits(work, shrink, self.inpainter.device)

    def _count_step(self, num_seeds: int, _: Progress) -> bool:
        """Count a denoising step of a batch of seeds; return whether to continue."""
        self.step += num_seeds
        self.bar.update(num_seeds)
        if self.on_step is not None:
            time_s = time.monotonic() - self.started
            left_s = time_s * (self.num_steps - self.step) / (self.step - self.first_step)
            progress = Progress(phase="sample", step=self.step, num_steps=self.num_steps, time_s=time_s, left_s=left_s)
            self.stopped = self.on_step(progress) is False
        return not self.stopped


def _store(values: NDArray, mask: MaskArray, part_mask: MaskArray, image: NDArray, window: Window) -> None:
    """Store the pixels of one part of a hole, shown by a window's image (h, w, C), among those of the hole (K, C)."""
    done, (window_rows, columns) = 0, window.slices
    for rows in bands(mask.shape):
        in_part = part_mask[rows][mask[rows]]
        band = slice(max(rows.start, window_rows.start), min(rows.stop, window_rows.stop))
        if in_part.any():
            pixels = image[band.start - window_rows.start : band.stop - window_rows.start]
            values[done : done + len(in_part)][in_part] = pixels[part_mask[band, columns]]
        done += len(in_part)
