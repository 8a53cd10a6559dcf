"""What does a faster sampler cost? The same fit and seeds, sampled by every sampler in several numbers of steps.

    python examples/sampler_study.py -o OUT                  # the demo's scene
    python examples/sampler_study.py SCENES/* -o OUT         # scenes with ground truth, in RealBench's layout

Fits each scene once, or takes the fits that are in OUT from an earlier run. Everything but sampler and steps is as the
base's card says. Prints means over samples and scenes, how far each sampler's samples lie apart, and in how many scenes
it has the higher PSNR than the base's own, which comes first.
"""

import argparse
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from native_resolution import fitted, load

from realfill import SampleConfig, complete
from realfill.demo import demo_scene
from realfill.metrics import gmsd, native_detail, psnr, ssim

SAMPLERS = {
    "the base's own": {},
    **{f"ddpm, {n}": {"scheduler": "ddpm", "num_inference_steps": n} for n in (6, 25, 50)},
    **{f"ddim, {n}": {"scheduler": "ddim", "num_inference_steps": n} for n in (6, 12, 25)},
    **{f"euler, {n}": {"scheduler": "euler", "num_inference_steps": n} for n in (6, 12, 25)},
    **{f"dpm++, {n}": {"scheduler": "dpm++", "num_inference_steps": n} for n in (4, 6, 12, 25)},
    **{f"unipc, {n}": {"scheduler": "unipc", "num_inference_steps": n} for n in (4, 6, 12, 25)},
}
METRICS = (psnr, ssim, gmsd, native_detail)
HEADER = """\
| sampler, steps | PSNR | higher in | SSIM | GMSD | detail | apart | s a sample |
|---|---|---|---|---|---|---|---|"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", type=Path, help="folders with target/gt.png; none: the demo's")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--fit-steps", type=int, help="default: the base's own")
    parser.add_argument("--fit-stages", type=int, default=1, help="stages that the fit's crops cover")
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()

    scenes = {path.name: load(path) for path in options.scenes} or {"demo": demo_scene()}
    found = {name: [] for name in SAMPLERS}
    for folder, (scene, truth) in scenes.items():
        adapter = fitted(scene, options.output / folder, options)
        for name, changes in SAMPLERS.items():
            found[name].append(measure(scene, truth, adapter, num_samples=options.samples, num_stages=1, **changes))
    own = np.array(found["the base's own"])
    print(HEADER)
    for name, rows in found.items():
        values = np.array(rows)
        score, similarity, deviation, energy, apart, seconds = values.mean(axis=0)
        higher = f"{(values[:, 0] > own[:, 0]).sum()} of {len(own)}"
        print(
            f"| {name} | {score:.2f} | {higher} | {similarity:.3f} | {deviation:.3f} | {energy:.2f} | {apart:.1f} "
            f"| {seconds:.2f} |",
            flush=True,
        )


def measure(scene, truth, adapter, **config):
    """Sample and measure.

    Returns:
        PSNR, SSIM, GMSD, detail at the target's own size, mean difference between two samples of 255 levels, and
        seconds for each.
    """
    unranked = scene.with_references(0)
    complete(unranked, adapter, SampleConfig(**{**config, "num_samples": 1}), progress=False)
    started = time.perf_counter()
    images = [c.image for c in complete(unranked, adapter, SampleConfig(**config), progress=False)]
    seconds = (time.perf_counter() - started) / len(images)
    quality = np.mean([[metric(image, truth, scene.mask) for metric in METRICS] for image in images], axis=0)
    filled = [image[scene.mask].astype(np.int16) for image in images]
    return [*quality, np.mean([np.abs(a - b).mean() for a, b in combinations(filled, 2)]), seconds]


if __name__ == "__main__":
    main()
