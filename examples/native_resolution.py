"""Compare blends, stages and grain on one fit of a scene: seam, colour shift, GMSD and detail at the target's own size.

    python examples/native_resolution.py -o OUT                  # the demo's scene
    python examples/native_resolution.py SCENES/NAME -o OUT      # a case with ground truth, in RealBench's layout

The fit is kept in OUT and used again; a picture of each arm's first sample is written beside it.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from realfill import Adapter, FitConfig, SampleConfig, complete, fit
from realfill.cases import Case
from realfill.demo import demo_scene
from realfill.io.writing import write_png
from realfill.metrics import delta_e, gmsd, native_detail, psnr, seam
from realfill.scene import Scene

ARMS = {
    "cut": {"blend": "cut"},
    "membrane": {"blend": "membrane"},
    "poisson": {"blend": "poisson"},
    "membrane, grain": {"match_grain": True},
    "2 stages": {"num_stages": 2},
    "all stages": {"num_stages": 9},
    "all stages, tiles apart": {"num_stages": 9, "tile_overlap": 0.0},
    "all stages, poisson": {"num_stages": 9, "blend": "poisson"},
    "all stages, grain": {"num_stages": 9, "match_grain": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", nargs="?", type=Path, help="folder with target/gt.png; without: the demo's scene")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--fit-steps", type=int, help="default: the base's own")
    parser.add_argument("--fit-stages", type=int, default=9, help="stages that the fit's crops cover")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--strength", type=float, nargs="+", help="of the stages after the first")
    parser.add_argument("--stage-steps", type=int, nargs="+", default=[6])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()

    if options.scene is None:
        scene, truth = demo_scene()
    else:
        case = Case.load(options.scene)
        scene, truth = case.scene, case.truth
    options.output.mkdir(parents=True, exist_ok=True)
    adapter = fitted(scene, options)
    common = SampleConfig(num_samples=options.samples, stage_steps=tuple(options.stage_steps))
    if options.strength:
        common = dataclasses.replace(common, stage_strength=tuple(options.strength))
    unranked = scene.with_references(0)
    metrics = {
        "seam": lambda image: seam(image, scene.mask),
        "ΔE00": lambda image: delta_e(image, scene.mask),
        "GMSD": lambda image: gmsd(image, truth, scene.mask),
        "detail": lambda image: native_detail(image, truth, scene.mask),
        "PSNR": lambda image: psnr(image, truth, scene.mask),
    }
    print(f"{'mean of ' + str(options.samples) + ' samples':<26}" + "".join(f"{name:>9}" for name in metrics))
    print(f"{'the photo itself':<26}" + "".join(f"{metric(truth):>9.3f}" for metric in metrics.values()))
    for name in options.arms:
        config = dataclasses.replace(common, **ARMS[name])
        images = [c.image for c in complete(unranked, adapter, config, progress=False)]
        write_png(options.output / f"{name.replace(', ', '_').replace(' ', '_')}.png", images[0])
        means = [np.mean([metric(image) for image in images]) for metric in metrics.values()]
        print(f"{name:<26}" + "".join(f"{mean:>9.3f}" for mean in means), flush=True)


def fitted(scene: Scene, options: argparse.Namespace) -> Adapter:
    folder = options.output / f"adapter-{options.fit_stages}-{options.fit_steps or 'all'}"
    if not folder.exists():
        config = FitConfig(base=options.base, num_steps=options.fit_steps, num_stages=options.fit_stages)
        fit(scene, config, checkpoint_dir=options.output).save(folder)
    return Adapter.load(folder)


if __name__ == "__main__":
    main()
