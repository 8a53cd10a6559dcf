"""Measure a base on scenes with ground truth: PSNR and SSIM in the hole, bare, fitted and top-ranked.

    python examples/measure_scenes.py SCENES --base mini --fit-seeds 3

SCENES holds folders in RealBench's layout; those without target/gt.png are passed over and named.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from realfill import Completions, FitConfig, SampleConfig, Scene, complete, fit
from realfill.images import read_image
from realfill.metrics import psnr, ssim


@dataclass(frozen=True, kw_only=True)
class Measure:
    scenes: tyro.conf.Positional[Path]
    """Folder of scene folders."""
    base: str = "mini"
    fit_seeds: int = 1
    """Fits of each scene."""
    only: tuple[str, ...] = ()
    """Names of scenes; none: all."""
    output: Path | None = None
    """Folder for the completions of the first fit seed."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="fit")] = FitConfig()
    sample: SampleConfig = SampleConfig()


def figures(completions: Completions, truth: np.ndarray) -> list[float]:
    """PSNR and SSIM, mean over the samples; PSNR of the first (top-ranked) and of the best there is."""
    mask = completions.scene.mask
    values = [psnr(c.image, truth, mask) for c in completions]
    return [np.mean(values), np.mean([ssim(c.image, truth, mask) for c in completions]), values[0], max(values)]


def main(args: Measure) -> None:
    print("| scene | bare PSNR | SSIM | fitted PSNR | SSIM | top-ranked PSNR | best PSNR | fit s | sample + rank s |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for folder in sorted(p for p in args.scenes.iterdir() if p.is_dir()):
        if args.only and folder.name not in args.only:
            continue
        if not (folder / "target" / "gt.png").exists():
            print(f"| {folder.name} | no ground truth |")
            continue
        scene, truth = Scene.load(folder), read_image(folder / "target" / "gt.png")[0]
        bare = figures(complete(scene, args.base, args.sample, progress=False), truth)
        for seed in range(args.fit_seeds):
            changes = {**args.fit.to_dict(), "base": args.base, "seed": seed}
            start = time.perf_counter()
            adapter = fit(scene, FitConfig.from_dict(changes), progress=False)
            middle = time.perf_counter()
            completions = complete(scene, adapter, args.sample, progress=False)
            end = time.perf_counter()
            rows.append([*bare[:2], *figures(completions, truth), middle - start, end - middle])
            print_row(f"{folder.name}, {seed}", rows[-1])
            if args.output is not None and seed == 0:
                completions.save(args.output / folder.name, overwrite=True)
    print_row("mean", np.mean(rows, axis=0))


def print_row(name: str, row) -> None:
    formats = (".2f", ".3f", ".2f", ".3f", ".2f", ".2f", ".0f", ".1f")
    print(f"| {name} | " + " | ".join(format(x, f) for x, f in zip(row, formats, strict=True)) + " |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Measure, description=__doc__))
