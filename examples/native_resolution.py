"""Compare blends, stages, sharpness and grain on one fit of each scene, at the target's own size.

    python examples/native_resolution.py -o OUT                  # the demo's scene
    python examples/native_resolution.py SCENES/* -o OUT         # scenes in RealBench's layout

Seam at the hole's border and along the edges of the finest stage's tiles, colour shift, GMSD, detail and PSNR, for each
scene and on average; the last three where there is a ground truth. Fits are kept in OUT and used again; a picture of
each arm's first sample is written beside it.
"""

import argparse
import dataclasses
from pathlib import Path

import cv2
import numpy as np

from realfill import Adapter, FitConfig, SampleConfig, complete, fit
from realfill.cases import Case
from realfill.demo import demo_scene
from realfill.filling.hole import choose_parts
from realfill.filling.tiles import Tiles
from realfill.io.images import ImageArray, MaskArray
from realfill.io.writing import write_png
from realfill.masks import bounding_box
from realfill.metrics import delta_e, gmsd, native_detail, psnr, seam
from realfill.models.inpainter import Inpainter
from realfill.scene import Scene
from realfill.scene_parts import find_image

ARMS = {
    "cut": {"blend": "cut"},
    "membrane": {"blend": "membrane"},
    "poisson": {"blend": "poisson"},
    "sharpness": {"match_sharpness": True},
    "grain": {"match_grain": True},
    "2 stages": {"num_stages": 2},
    "all stages": {"num_stages": 9},
    "all stages, tiles apart": {"num_stages": 9, "tile_overlap": 0.0},
    "all stages, membrane": {"num_stages": 9, "blend": "membrane"},
    "all stages, sharpness": {"num_stages": 9, "match_sharpness": True},
    "all stages, sharpness, grain": {"num_stages": 9, "match_sharpness": True, "match_grain": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", type=Path, help="folders, with target/gt.png or not; none: the demo's")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--fit-steps", type=int, help="default: the base's own")
    parser.add_argument("--fit-stages", type=int, default=9, help="stages that the fit's crops cover")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--strength", type=float, nargs="+", help="of the stages after the first")
    parser.add_argument("--stage-steps", type=int, nargs="+", default=[6])
    parser.add_argument("--stage-guidance", type=float, nargs="+", default=[1.0])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()

    scenes = [(path.name, *load(path)) for path in options.scenes]
    found = [measure(*scene, options) for scene in scenes]
    if not found:
        measure("demo", *demo_scene(), options)
    if len(found) > 1:
        arms = dict.fromkeys(arm for rows in found for arm in rows)
        means = {
            arm: np.ma.masked_invalid([rows[arm] for rows in found if arm in rows]).mean(axis=0).filled(np.nan)
            for arm in arms
        }
        print_table(f"mean of {len(found)} scenes", means)


def load(path: Path) -> tuple[Scene, ImageArray | None]:
    """Read a scene, and its ground truth if there is one."""
    if find_image(path / "target", "gt") is None:
        return Scene.load(path), None
    case = Case.load(path)
    return case.scene, case.truth


def measure(name: str, scene: Scene, truth: ImageArray | None, options: argparse.Namespace) -> dict[str, list[float]]:
    """Fit a scene, fill it in all ways, print the table: arm to the mean of its samples' metrics."""
    folder = options.output / name
    folder.mkdir(parents=True, exist_ok=True)
    adapter = fitted(scene, folder, options)
    common = SampleConfig(
        num_samples=options.samples, num_stages=1, stage_steps=tuple(options.stage_steps),
        stage_guidance=tuple(options.stage_guidance), match_sharpness=False,
    )  # fmt: skip
    if options.strength:
        common = dataclasses.replace(common, stage_strength=tuple(options.strength))
    unranked = scene.with_references(0)
    tiles = finest_tiles(scene, options.base)
    rows = {} if truth is None else {"the photo itself": figures(truth, truth, scene, tiles)}
    for arm in options.arms:
        images = [
            c.image for c in complete(unranked, adapter, dataclasses.replace(common, **ARMS[arm]), progress=False)
        ]
        write_png(folder / f"{arm.replace(', ', '_').replace(' ', '_')}.png", images[0])
        rows[arm] = np.mean([figures(image, truth, scene, tiles) for image in images], axis=0)
    print_table(f"{name}: mean of {options.samples} samples", rows)
    return rows


def finest_tiles(scene: Scene, base: str) -> tuple[slice, slice, MaskArray]:
    """Lay a chessboard of the finest stage's tiles over a box inside the hole's largest part.

    Of tiles that know nothing of each other: where they overlap, the edges are others.
    """
    inpainter = Inpainter.load(base)
    config = SampleConfig(num_stages=9).resolve(inpainter.card.sample)
    part = max(choose_parts(inpainter, scene, config), key=lambda part: part.of(scene.mask).sum())
    window, board, px = part.windows[-1], np.zeros_like(scene.mask), inpainter.latent_px
    seen = np.zeros(window.size, np.uint8)
    tiles = Tiles.cover((window.size[0] // px, window.size[1] // px), inpainter.resolution // px, 0).times(px)
    starts = [sorted({corner[axis] for corner in tiles.corners}) for axis in (0, 1)]
    for y, x in tiles.corners if len(part.windows) > 1 else ():
        seen[y : y + tiles.size[0], x : x + tiles.size[1]] = (starts[0].index(y) + starts[1].index(x)) % 2
    board[window.slices] = cv2.resize(seen, window.box_size[::-1], interpolation=cv2.INTER_NEAREST)
    top, left, bottom, right = bounding_box(part.of(scene.mask))
    height, width = bottom - top, right - left  # an ellipse holds 0.7 of these sides
    rows = slice(top + round(0.15 * height), bottom - round(0.15 * height))
    columns = slice(left + round(0.15 * width), right - round(0.15 * width))
    return rows, columns, board[rows, columns]


def figures(
    image: ImageArray, truth: ImageArray | None, scene: Scene, tiles: tuple[slice, slice, MaskArray]
) -> list[float]:
    mask, (rows, columns, board) = scene.mask, tiles
    compared = (np.nan if truth is None else metric(image, truth, mask) for metric in (gmsd, native_detail, psnr))
    at_tiles = seam(image[rows, columns], board) if board.any() and not board.all() else np.nan
    return [seam(image, mask), at_tiles, delta_e(image, mask), *compared]


def print_table(title: str, rows: dict[str, list[float]]) -> None:
    names = ("seam", "at tiles", "ΔE00", "GMSD", "detail", "PSNR")
    print(f"{title:<36}" + "".join(f"{name:>9}" for name in names))
    for arm, values in rows.items():
        print(f"{arm:<36}" + "".join(f"{value:>9.3f}" for value in values), flush=True)


def fitted(scene: Scene, output: Path, options: argparse.Namespace) -> Adapter:
    folder = output / f"adapter-{options.fit_stages}-{options.fit_steps or 'all'}"
    if not folder.exists():
        config = FitConfig(base=options.base, num_steps=options.fit_steps, num_stages=options.fit_stages)
        fit(scene, config, checkpoint_dir=output).save(folder)
    return Adapter.load(folder)


if __name__ == "__main__":
    main()
