"""Measure how long a composite takes: by the photo's size, by the number of references, and by step.

    python examples/composite_speed.py --runs 5

A planted scene of ``planted_3d.py`` with three references; further references are crops of these with other noise. The
medians of some runs are printed, in seconds by the clock and of the processor, with the machine's load. Shares are
those of the last run's steps.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import time
from collections.abc import Sequence

import cv2
import numpy as np
import tyro
from large_photos import enlarge
from planted_3d import plant
from skimage import data

from realfill.geometry.composite import composite
from realfill.io.images import ImageArray, MaskArray

STEPS = {
    "match": "match_all", "cameras": "reconstruct", "depth": "sweep", "layers": "build_layers", "choice": "choose",
    "correction": "correct", "alignment": "_aligned", "rendering": "render",
}  # fmt: skip
_SIDES = (576, 768)
_CROP_PX = 6  # by which each further reference is cropped


def make(num_references: int, megapixels: float | None) -> tuple[ImageArray, MaskArray, list[ImageArray]]:
    """Return the known pixels, the hole and the references."""
    planted = plant("boxes", [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()], 2, size=_SIDES)
    hole, target, references = planted.scene.mask, planted.scene.known, []
    rng = np.random.default_rng(0)
    for number in range(num_references):
        turn, which = divmod(number, len(planted.scene.references))
        photo = planted.scene.references[which][_CROP_PX * turn :, _CROP_PX * turn :]
        noise = rng.normal(scale=2, size=photo.shape) if turn else 0
        references.append((photo + noise).clip(0, 255).astype(np.uint8))
    if megapixels is not None:
        factor = float(np.sqrt(megapixels * 1e6 / hole.size))
        target, *references = (enlarge(photo, factor, 8) for photo in (target, *references))
        hole = cv2.resize(hole.view(np.uint8), target.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    return target, hole, references


def measure(num_references: int, megapixels: float | None, runs: int) -> None:
    """Print a row of the table."""
    target, hole, references = make(num_references, megapixels)
    clock, processor, steps = [], [], {}
    for _ in range(runs):
        profile = cProfile.Profile()
        started = time.perf_counter(), time.process_time()
        profile.runcall(composite, target, hole, references)
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
        steps = shares(profile)
    size = f"{target.shape[1]} x {target.shape[0]}"
    figures = f"{statistics.median(clock):.1f} | {statistics.median(processor):.1f} | {os.getloadavg()[0]:.0f}"
    print(f"| {size} | {num_references} | {figures} | {' | '.join(steps[name] for name in STEPS)} |", flush=True)


def shares(profile: cProfile.Profile) -> dict[str, str]:
    """Return the share of each step in a run, as a percentage."""
    stats = pstats.Stats(profile)
    total = max(row[3] for row in stats.stats.values())  # type: ignore[attr-defined]
    spent: dict[str, float] = {}
    for (path, _, name), row in stats.stats.items():  # type: ignore[attr-defined]
        if "geometry" in path:
            spent[name] = max(spent.get(name, 0.0), row[3])
    return {step: f"{100 * spent.get(name, 0) / total:.0f} %" for step, name in STEPS.items()}


def main(runs: int = 5, num_references: Sequence[int] = (1, 3, 5, 10), megapixels: Sequence[float] = (12,)) -> None:
    """Print the table.

    Args:
        runs: number of runs of each row.
        num_references: numbers of references, with photos of 768 pixels.
        megapixels: sizes of larger photos, with three references.
    """
    print(f"| photo | references | s | processor s | load | {' | '.join(STEPS)} |")
    print("|---" * (5 + len(STEPS)) + "|")
    for number in num_references:
        measure(number, None, runs)
    for size in megapixels:
        measure(3, size, runs)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
