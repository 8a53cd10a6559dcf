"""Measure how well cameras and depth are found on planted scenes, and what the composites that stand on them are worth.

    python examples/geometry_accuracy.py TEXTURES --kinds boxes wide --seeds 0 1 2
    python examples/geometry_accuracy.py TEXTURES --num-references 1

TEXTURES is a folder of photos. Each scene (``planted_3d.py``) is composed, from all of its references or from the first
ones. A row has, for one kind:

- **cameras**. For pixels of the hole that a reference shows, the script looks for the depth at which the estimated
  cameras see them nearest to where they truly are in that reference. The distance that is left, in pixels of the
  reference, is the cameras' own error: no depth map can undo it. Its median over pixels is taken for each reference;
  the row has the median and the 90 % quantile of these, in which references without a camera count as infinitely far
  off, and how many references have no camera or are off by more than 2 pixels;
- **depth**. For pixels of the hole that at least two references show, or that the only one shows, the distance between
  where estimated depth and cameras see them and where they truly are, in pixels of these references, on average over
  them: its median, and the share of pixels beyond 1 and beyond 3 pixels. Scenes without a depth count as infinitely far
  off;
- **composite**: PSNR of the hole, and of what references show of it, on average over the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
    """What was measured in a scene: the error of each reference's camera, of each pixel's depth, and PSNR, dB."""

    cameras: list[float]
    depth: NDArray
    psnr: float
    shown: float


def misplacements(planted: Planted, found: Reconstruction | None) -> list[float]:
    """Return the median error of each reference that shows the hole, in its pixels; infinite where it has no camera."""
    cameras = found.cameras if found else {}
    unit = unit_of(planted, found) if found else 1.0
    rng, errors = np.random.default_rng(0), []
    for number in range(1, len(planted.cameras)):
        at = np.argwhere(planted.visible[number - 1] & planted.scene.mask)
        if len(at) < FEWEST_PIXELS:
            continue
        if number not in cameras:
            errors.append(np.inf)
            continue
        at = at[rng.permutation(len(at))[:NUM_PIXELS]]
        pixels, depth = at[:, ::-1].astype(float), planted.depth[tuple(at.T)]
        truth = _true_places(planted, number, cameras[number], pixels, depth)
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
    """Return how far each pixel of the hole that enough references show is misplaced in them, (N,) in pixels."""
    hole, references = planted.scene.mask, len(planted.visible)
    chosen = np.argwhere(hole & (planted.visible.sum(axis=0) >= min(references, 2)))
    if found.reconstruction is None or found.depth is None:
        return np.full(len(chosen), np.inf)
    cameras = found.reconstruction.cameras
    own = cv2.resize(found.depth.depth, hole.shape[::-1], interpolation=cv2.INTER_NEAREST)[tuple(chosen.T)]
    pixels, depth = chosen[:, ::-1].astype(float), planted.depth[tuple(chosen.T)]
    points = cameras[0].unproject(pixels, own.astype(float))
    apart, count = np.zeros(len(chosen)), np.zeros(len(chosen))
    for number, camera in cameras.items():
        if number:
            shown = planted.visible[number - 1][tuple(chosen.T)]
            truth = _true_places(planted, number, camera, pixels, depth)
            apart += np.where(shown, np.linalg.norm(camera.project(points)[0] - truth, axis=1), 0)
            count += shown
    return np.where(count > 0, apart / np.maximum(count, 1), np.inf)


def _true_places(planted: Planted, number: int, camera: Camera, pixels: NDArray, depth: NDArray) -> NDArray:
    """Return where a reference shows the target's pixels (N, 2) of a true depth (N,), at the size of its camera."""
    true = planted.cameras[number]
    places, _ = true.project(planted.cameras[0].unproject(pixels, depth))
    return (places + 0.5) * np.array(camera.size[::-1]) / true.size[::-1] - 0.5


def measure(planted: Planted, num_references: int | None) -> Measured:
    """Compose a scene from its first references or all of them, and compare it with its truth."""
    scene = planted.scene
    references = scene.references[:num_references]
    planted = replace(
        planted, cameras=planted.cameras[: len(references) + 1], visible=planted.visible[: len(references)]
    )  # fmt: skip
    found = composite(scene.target, scene.mask, references, frame=planted.cameras[0].frame)
    return Measured(
        misplacements(planted, found.reconstruction),
        depth_errors(planted, found),
        psnr(found.image, planted.truth, scene.mask),
        psnr(found.image, planted.truth, scene.mask & planted.visible.any(axis=0)),
    )


def row_of(kind: str, scenes: Sequence[Measured]) -> str:
    errors = np.array([error for scene in scenes for error in scene.cameras])
    median, most = np.quantile(errors, [0.5, 0.9], method="higher") if len(errors) else (np.nan, np.nan)
    shown = [scene.depth for scene in scenes if len(scene.depth)]
    measures = [np.median, *(partial(_share_beyond, px) for px in MISPLACED_PX)]
    middle, *far = (np.mean([m(errors) for errors in shown]) if shown else np.nan for m in measures)
    cells = [kind, str(len(errors)), f"{median:.2f}", f"{most:.2f}", str((~(errors <= FAR_OFF_PX)).sum())]
    cells += [f"{middle:.2f}", *(f"{share:.1%}" for share in far)]
    cells += [f"{np.mean([getattr(scene, name) for scene in scenes]):.2f}" for name in ("psnr", "shown")]
    return f"| {' | '.join(cells)} |"


def _share_beyond(px: float, errors: NDArray) -> float:
    return float((errors > px).mean())


def main(
    textures: tyro.conf.Positional[Path],
    /,
    kinds: tuple[Kind, ...] = KINDS,
    seeds: tuple[int, ...] = (0, 1, 2),
    num_references: int | None = None,
) -> None:
    photos = read_textures(textures)
    print(
        "| kind | references | cameras: median, px | 90 %, px | lost or off "
        "| depth: median, px | > 1 px | > 3 px | composite, dB | of what is shown, dB |"
    )
    print("|---" * 10 + "|")
    every: list[Measured] = []
    for kind in kinds:
        scenes = [measure(plant(kind, photos, seed), num_references) for seed in seeds]
        every += scenes
        print(row_of(kind, scenes), flush=True)
    print(row_of("all", every))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
