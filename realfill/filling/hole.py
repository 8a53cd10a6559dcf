"""Filling: every window, coarse to fine, for every seed (paper, section 3.3): sample, blend, go on from there."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from realfill.capacity import free_bytes, is_out_of_memory
from realfill.config import SampleConfig
from realfill.errors import RealFillWarning
from realfill.filling.blending import blend
from realfill.filling.grain import match_grain, measure_grain
from realfill.filling.sampling import largest_batch, lay_tiles, sample
from realfill.filling.sharpness import Sharpness, match_sharpness, measure_sharpness
from realfill.filling.windows import Part, Window, choose_windows
from realfill.io.bands import bands
from realfill.io.images import ImageArray, MaskArray, to_bytes
from realfill.io.profiles import to_depth
from realfill.models.inpainter import Inpainter
from realfill.scene import Scene


def choose_parts(inpainter: Inpainter, scene: Scene, config: SampleConfig) -> tuple[Part, ...]:
    """Choose the windows in which a scene's hole is filled with a base; ``config`` is resolved.

    Those of its whole hole, as far as the mask reaches into them.
    """
    parts = choose_windows(
        scene.whole_hole, resolution=inpainter.resolution, multiple=inpainter.latent_px, context=config.context,
        max_growth=config.join_windows, num_stages=config.num_stages,
    )  # fmt: skip
    return tuple(part for part in parts if part.of(scene.mask).any())


def require_room(scene: Scene, config: SampleConfig) -> None:
    """Make sure that memory holds what all seeds are going to fill in; ``config`` is resolved.

    Raises:
        ValueError: it doesn't.
    """
    pixels = scene.original.pixels
    each, free = int(scene.mask.sum()) * pixels.shape[2] * pixels.itemsize, free_bytes(torch.device("cpu"))
    if each * config.num_samples > free:
        raise ValueError(
            f"num_samples is {config.num_samples}, and what is filled in takes {each / 1e9:.2f} GB for each, more than "
            f"the {free / 1e9:.1f} GB that are free; legal: up to {free // each}. Go on with other seeds in another run"
        )


def fill_hole(inpainter: Inpainter, scene: Scene, config: SampleConfig, *, progress: bool) -> dict[int, NDArray]:
    """Fill a scene's hole once for each seed.

    Each part of the hole is filled with the same seeds, in windows that see the target's known pixels; what other parts
    of the hole lie in them are hidden. Memory is bounded by a window at the target's size, but for what is returned.

    Args:
        inpainter: the base, with the adapter in it.
        scene: what to complete.
        config: resolved.
        progress: show a progress bar.

    Returns:
        Seed to (K, C), the hole's pixels row by row, in the colours and the depth of the target's file.

    Raises:
        ValueError: memory doesn't hold them.
    """
    require_room(scene, config)
    original, mask = scene.original, scene.mask
    shape, dtype = (int(mask.sum()), original.pixels.shape[2]), original.pixels.dtype
    filled = {config.seed + i: np.empty(shape, dtype) for i in range(config.num_samples)}
    parts = choose_parts(inpainter, scene, config)
    total = sum(config.stage(i)[0] for part in parts for i in range(len(part.windows))) * config.num_samples
    with tqdm(total=total, desc="sample", unit="step", disable=not progress) as bar:
        painter = _Painter(
            inpainter=inpainter, scene=scene, config=config, known=scene.known, bar=bar,
            batch_size=config.batch_size or largest_batch(inpainter, (inpainter.resolution, inpainter.resolution)),
        )  # fmt: skip
        for part in parts:
            own, window = part.of(mask), part.windows[-1]
            for seed, image in painter.paint(part):
                _keep(filled[seed], mask, own, image, window)
    return filled


def _keep(values: NDArray, mask: MaskArray, own: MaskArray, image: NDArray, window: Window) -> None:
    """Store what a window's image (h, w, C) shows of one part of the hole among the hole's values (K, C)."""
    done, (within, columns) = 0, window.slices
    for rows in bands(mask.shape):
        place = own[rows][mask[rows]]
        band = slice(max(rows.start, within.start), min(rows.stop, within.stop))
        if place.any():
            shown = image[band.start - within.start : band.stop - within.start]
            values[done : done + len(place)][place] = shown[own[band, columns]]
        done += len(place)


@dataclass(slots=True, kw_only=True, eq=False)
class _Painter:
    """What paints the parts of one scene's hole.

    Attributes:
        inpainter: the base.
        scene: what is completed.
        config: resolved.
        known: the target, blank in the hole.
        bar: told about each step.
        batch_size: windows or tiles at a time.
        sharpness: of the photo around the hole, in the windows of one part met so far.
    """

    inpainter: Inpainter
    scene: Scene
    config: SampleConfig
    known: ImageArray
    bar: tqdm
    batch_size: int
    sharpness: dict[Window, Sharpness | None] = field(default_factory=dict)

    def paint(self, part: Part) -> Iterator[tuple[int, NDArray]]:
        """Yield, seed by seed, what the part's last window shows when filled, in the colours of the target's file.

        At its size and depth, (H, W, C). Blended in these colours, not all of which sRGB has.
        """
        self.sharpness.clear()
        first, last = part.windows[0], part.windows[-1]
        original, hole = self.scene.original, self.scene.mask[last.slices]
        known = np.where(hole[:, :, None], np.uint8(0), to_depth(original.pixels[last.slices], np.uint8))
        around = self.known[first.slices], ~self.scene.mask[first.slices]
        grain = measure_grain(*around) if self.config.match_grain else None
        seeds = range(self.config.seed, self.config.seed + self.config.num_samples)
        while seeds:
            patches = self._sample(first, seeds, stage=0)
            for seed, patch in zip(seeds, patches, strict=False):
                finest = last.restore(self._refine(part, seed, patch))
                rng = np.random.default_rng([seed, *last.box])
                finest = match_grain(finest, hole, grain, rng, whole=last is first)
                finest = original.encode_smooth(finest)
                yield (
                    seed,
                    blend(known, hole, finest, method=self.config.blend, scale=last.scale, dtype=original.pixels.dtype),
                )
            seeds = seeds[len(patches) :]

    def _refine(self, part: Part, seed: int, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Go from a sample of the first window to one of the last, each from the one before, blended."""
        for stage, (coarse, window) in enumerate(pairwise(part.windows), 1):
            known, hole = window.crop(self.known), window.crop_mask(self.scene.mask)
            begin = coarse.restore_within(window, patch)
            begin = blend(known, hole, begin, method=self.config.blend, scale=coarse.scale / window.scale)
            patch = self._sample(window, [seed], stage=stage, begin=begin)[0]
        return patch

    def _sample(
        self, window: Window, seeds: Sequence[int], *, stage: int, begin: ImageArray | None = None
    ) -> list[NDArray[np.float32]]:
        """Sample the first of the seeds, as many as fit: (h, w, 3) in [0, 255] for each.

        A batch that doesn't fit into memory is halved.
        """
        start = to_bytes(begin) if begin is not None else None
        known, mask = window.crop(self.known), window.crop_mask(self.scene.mask)
        image, hole = to_bytes(known), torch.from_numpy(mask)[None, None]
        done = self.bar.n
        while True:
            batch = seeds[: math.ceil(len(seeds) / math.ceil(len(seeds) / self.batch_size))]  # no small rest
            try:
                patches = sample(
                    self.inpainter, image, hole, seeds=batch, config=self.config, stage=stage, start=start,
                    batch_size=self.batch_size, on_step=partial(self.bar.update, len(batch)),
                )  # fmt: skip
            except RuntimeError as error:
                at_a_time = len(batch) if start is None else len(lay_tiles(self.inpainter, hole, self.config))
                at_a_time = min(at_a_time, self.batch_size)
                if at_a_time == 1 or not is_out_of_memory(error):
                    raise
                self.batch_size = at_a_time // 2
                self.bar.n = done
                message = f"out of memory; going on with {self.batch_size} at a time"
                warnings.warn(message, RealFillWarning, stacklevel=2)
                continue
            found = [patch.permute(1, 2, 0).cpu().numpy() for patch in patches.mul_(255)]
            if not self.config.match_sharpness:
                return found
            if window not in self.sharpness:
                self.sharpness[window] = measure_sharpness(known, mask)
            return [match_sharpness(patch, self.sharpness[window]) for patch in found]
