"""Measure how well cameras are found on planted scenes.

    python examples/camera_accuracy.py TEXTURES --kinds boxes wide --seeds 0 1 2

TEXTURES is a folder of photos. Each scene (``planted_3d.py``) is matched and its cameras are estimated. For pixels of
the hole that a reference shows, the script then looks for the depth at which the estimated cameras see them nearest to
where they truly are in that reference. The distance that is left, in pixels of the reference, is the cameras' own
error: no depth map can undo it. The median over pixels is taken for each reference, and a row has, for one kind, the
median and the 90 % quantile of these, in which references without a camera count as infinitely far off; and how many
have no camera or are off by more than 2 pixels.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from planted_3d import Kind, Planted, plant, read_textures

from realfill.geometry.cameras import Camera
from realfill.geometry.composite import composite
from realfill.geometry.reconstruction import Reconstruction

KINDS: tuple[Kind, ...] = ("layers", "boxes", "street", "closer", "night", "wide", "outpainted")
FACTORS = np.geomspace(0.5, 2, 101)  # of the true depth, among which the best is looked for
NEAR = np.geomspace(FACTORS[0] / FACTORS[1], FACTORS[1] / FACTORS[0], 21)  # and then around it
NUM_PIXELS, FEWEST_PIXELS = 1000, 50
FAR_OFF_PX = 2.0


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


def row_of(kind: str, errors: NDArray[np.float64]) -> str:
    if not len(errors):
        return f"| {kind} | 0 | - | - | 0 |"
    off = (~(errors <= FAR_OFF_PX)).sum()
    quantiles = np.quantile(errors, [0.5, 0.9], method="higher")
    return f"| {kind} | {len(errors)} | {quantiles[0]:.2f} | {quantiles[1]:.2f} | {off} |"


def main(
    textures: tyro.conf.Positional[Path],
    /,
    kinds: tuple[Kind, ...] = KINDS,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    photos = read_textures(textures)
    print("| kind | references | median, px | 90 %, px | lost or off |\n|---|---|---|---|---|")
    every: list[float] = []
    for kind in kinds:
        errors: list[float] = []
        for seed in seeds:
            planted = plant(kind, photos, seed)
            scene = planted.scene
            found = composite(scene.target, scene.mask, scene.references, frame=planted.cameras[0].frame)
            errors += misplacements(planted, found.reconstruction)
        every += errors
        print(row_of(kind, np.array(errors)), flush=True)
    print(row_of("all", np.array(every)))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
