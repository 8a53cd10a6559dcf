"""Measure what wrong geometry costs, on planted cases: composite and completion without a fit, against a base alone.

    python examples/planted_cases.py TEXTURES CASES --part 2 --seeds 200 201
    python examples/wrong_geometry.py CASES

References of another scene, a mirrored reference and a moved object are planted in the cases themselves. In cases with
boxes and layers, a quarter of the matches is replaced by false ones, or all matches of the target are moved by 20
pixels, so that every plane and camera is off by as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from planted_cases import Case, completed, keep, load_cases

from realfill.benchmark.metrics import psnr
from realfill.geometry.composite import composite
from realfill.geometry.correspondences import Pairs, match_all
from realfill.io.images import ImageArray
from realfill.models.classical import inpaint_telea
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter

PLANTED = {"elsewhere": "another scene", "mirrored": "a reference mirrored", "moved": "a moved object"}
SOUND = ("boxes", "layers")
FALSE_SHARE, MOVED_PX = 0.25, 20.0


def with_false_matches(pairs: Pairs, case: Case) -> Pairs:
    """Replace a share of the matches by pairs of random points."""
    rng, changed = np.random.default_rng(0), {}
    shapes = [case.truth.shape, *(r.shape for r in case.references)]
    for (one, other), matches in pairs.items():
        wrong = rng.random(len(matches)) < FALSE_SHARE
        sides = np.array([*shapes[one][1::-1], *shapes[other][1::-1]]) - 1
        changed[one, other] = np.where(wrong[:, None], rng.uniform(0, sides, matches.shape), matches).astype(np.float32)
    return changed


def moved(pairs: Pairs) -> Pairs:
    """Move the target's points."""
    by = np.array([MOVED_PX, 0, 0, 0], np.float32)
    return {pair: matches + by if pair[0] == 0 else matches for pair, matches in pairs.items()}


def measure(cases: list[Case], base: StableDiffusionInpainter) -> dict[str, list[tuple[float, ...]]]:
    """Return, for each fault, PSNR of composite, completion, base and Telea in each case."""
    rows: dict[str, list[tuple[float, ...]]] = {}

    def add(fault: str, case: Case, image: ImageArray, confidence: NDArray, source: NDArray) -> None:
        kept = keep(case, image, confidence, source, base)
        candidates = (image, completed(case, kept, base), case.samples[0])
        images = (*candidates, inpaint_telea(case.known, case.mask))
        rows.setdefault(fault, []).append(tuple(psnr(i, case.truth, case.mask) for i in images))

    for case in cases:
        if case.kind in PLANTED:
            add(PLANTED[case.kind], case, case.composite, case.confidence, case.source)
        if case.kind in SOUND:
            pairs = match_all([case.known, *case.references], case.mask)
            faults: Mapping[str, Pairs] = {
                "none": pairs, "25 % false matches": with_false_matches(pairs, case), "off by 20 pixels": moved(pairs)
            }  # fmt: skip
            for fault, wrong in faults.items():
                found = composite(case.known, case.mask, case.references, pairs=wrong)
                add(fault, case, found.image, found.confidence, found.source)
    return rows


def main(cases: tyro.conf.Positional[Path], /, parts: tuple[int, ...] = (2,)) -> None:
    loaded = [case for part in parts for case in load_cases(cases, part)]
    rows = measure(loaded, StableDiffusionInpainter.load("mini"))
    print("| fault | scenes | composite | completion | base | Telea | worst completion less base |")
    print("|---|---|---|---|---|---|---|")
    for fault, values in rows.items():
        table = np.array(values)
        means = " | ".join(f"{mean:.2f}" for mean in table.mean(axis=0))
        print(f"| {fault} | {len(table)} | {means} | {(table[:, 1] - table[:, 2]).min():+.2f} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
