"""Measure how well cameras and depth are found on planted scenes, and what the composites that stand on them are worth.

    python examples/geometry_accuracy.py TEXTURES --kinds boxes wide --seeds 0 1 2

TEXTURES is a folder of photos. Each scene (``planted_3d.py``) is composed. A row has, for one kind:

- **cameras**. For pixels of the hole that a reference shows, the script looks for the depth at which the estimated
  cameras see them nearest to where they truly are in that reference. The distance that is left, in pixels of the
  reference, is the cameras' own error: no depth map can undo it. Its median over pixels is taken for each reference;
  the row has the median and the 90 % quantile of these, in which references without a camera count as infinitely far
  off, and how many references have no camera or are off by more than 2 pixels;
- **depth**. For pixels of the hole that at least two references show, the distance between where the estimated cameras
  see the estimated and the true depth, in pixels, on average over these references: the share of pixels beyond 1 and
  beyond 3 pixels, in which scenes without a depth count whole;
- **composite**: PSNR of the hole, on average over the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray
from planted_3d import Kind, Planted, plant, read_textures

from realfill.benchmark.metrics import psnr
from realfill.geometry.cameras import Camera
from realfill.geometry.composite import Composite, composite
from realfill.geometry.reconstruction import Reconstruction

KINDS: tuple[Kind, ...] = ("layers", "boxes", "street", "closer", "night", "wide", "outpainted")
FACTORS = np.geomspace(0.5, 2, 101)  # of the true depth, among which the best is looked for
NEAR = np.geomspace(FACTORS[0] / FACTORS[1], FACTORS[1] / FACTORS[0], 21)  # and then around it
NUM_PIXELS, FEWEST_PIXELS = 1000, 50
FAR_OFF_PX = 2.0
MISPLACED_PX = (1.0, 3.0)


class Measured(NamedTuple):
    """What was measured in a scene: the error of each reference's camera, of each pixel's depth, and PSNR."""

    cameras: list[float]
    depth: NDArray
    psnr: float


def misplacements(planted: Planted, found: Reconstruction | None) -> list[float]:
    """Return the median error of each reference that shows the hole, in its pixels; infinite where it has no camera."""
    cameras = found.cameras if found else {}
    unit = unit_of(planted, found) if found else 1.0
    rng, errors = np.random.default_rng(0), []
    for number, true in enumerate(planted.cameras[1:], start=1):
        at = np.argwhere(planted.visible[number - 1] & planted.scene.mask)
        if len(at) < FEWEST_PIXELS:
            continue
        if number not in cameras:
            errors.append(np.inf)
            continue
        at = at[rng.permutation(len(at))[:NUM_PIXELS]]
        pixels, depth = at[:, ::-1].astype(float), planted.depth[tuple(at.T)]
        truth, _ = true.project(planted.cameras[0].unproject(pixels, depth))
        truth = (truth + 0.5) * np.array(cameras[number].size[::-1]) / true.size[::-1] - 0.5
        distances = partial(_distances, cameras[0], cameras[number], pixels, truth, unit * depth)
        rough = FACTORS[np.argmin([distances(factor) for factor in FACTORS], axis=0)]
        errors.append(float(np.median(np.min([distances(rough * factor) for factor in NEAR], axis=0))))
    return errors


def _distances(
    target: Camera, other: Camera, pixels: NDArray, truth: NDArray, depth: NDArray, factor: NDArray | float
) -> NDArray:
    """Return how far from the truth, in pixels of the other photo, pixels of the target are seen at some depth."""
    return np.linalg.norm(other.project(target.unproject(pixels, depth * factor))[0] - truth, axis=1)


def unit_of(planted: Planted, found: Reconstruction) -> float:
    """Return the reconstruction's unit of depth as a multiple of the true one."""
    pixels, depth = found.cameras[0].project(found.points)
    at = np.rint(pixels).astype(int)
    height, width = planted.depth.shape
    inside = (at >= 0).all(axis=1) & (at < (width, height)).all(axis=1) & (depth > 0)
    return float(np.median(depth[inside] / planted.depth[at[inside, 1], at[inside, 0]]))


def depth_errors(planted: Planted, found: Composite) -> NDArray:
    """Return how far each pixel of the hole that two references show is misplaced by its depth, (N,) in pixels."""
    hole = planted.scene.mask
    chosen = np.argwhere(hole & (planted.visible.sum(axis=0) > 1))
    if found.reconstruction is None or found.depth is None:
        return np.full(len(chosen), np.inf)
    cameras, unit = found.reconstruction.cameras, unit_of(planted, found.reconstruction)
    own = cv2.resize(found.depth.depth, hole.shape[::-1], interpolation=cv2.INTER_NEAREST)
    pixels = chosen[:, ::-1].astype(float)
    scenes = [cameras[0].unproject(pixels, z[tuple(chosen.T)].astype(float)) for z in (own, unit * planted.depth)]
    apart, count = np.zeros(len(chosen)), np.zeros(len(chosen))
    for number, camera in cameras.items():
        if number:
            shown = planted.visible[number - 1][tuple(chosen.T)]
            apart += np.where(shown, np.linalg.norm(np.subtract(*(camera.project(s)[0] for s in scenes)), axis=1), 0)
            count += shown
    return np.where(count > 0, apart / np.maximum(count, 1), np.inf)


def measure(planted: Planted) -> Measured:
    """Compose a scene, and compare it with its truth."""
    scene = planted.scene
    found = composite(scene.target, scene.mask, scene.references, frame=planted.cameras[0].frame)
    return Measured(
        misplacements(planted, found.reconstruction),
        depth_errors(planted, found),
        psnr(found.image, planted.truth, scene.mask),
    )


def row_of(kind: str, scenes: Sequence[Measured]) -> str:
    errors = np.array([error for scene in scenes for error in scene.cameras])
    median, most = np.quantile(errors, [0.5, 0.9], method="higher") if len(errors) else (np.nan, np.nan)
    shown = [scene.depth for scene in scenes if len(scene.depth)]
    far = [np.mean([(errors > px).mean() for errors in shown]) if shown else np.nan for px in MISPLACED_PX]
    cells = [kind, str(len(errors)), f"{median:.2f}", f"{most:.2f}", str((~(errors <= FAR_OFF_PX)).sum())]
    cells += [f"{share:.1%}" for share in far] + [f"{np.mean([scene.psnr for scene in scenes]):.2f}"]
    return f"| {' | '.join(cells)} |"


def main(
    textures: tyro.conf.Positional[Path],
    /,
    kinds: tuple[Kind, ...] = KINDS,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    photos = read_textures(textures)
    print(
        "| kind | references | cameras: median, px | 90 %, px | lost or off | depth: > 1 px | > 3 px | composite, dB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    every: list[Measured] = []
    for kind in kinds:
        scenes = [measure(plant(kind, photos, seed)) for seed in seeds]
        every += scenes
        print(row_of(kind, scenes), flush=True)
    print(row_of("all", every))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
