"""What does it cost to fill two holes in one window instead of one window each? The measurement behind `join_windows`.

    python examples/joined_windows.py SCENES/* -o OUT      # scenes with ground truth, in RealBench's layout

In each scene's whole photo a hole is cut where the scene has its own, of a quarter of the photo's shorter side, and
smaller ones beside it, so far away that a window for both is as many times as coarse as the large hole's own as is
asked for. One fit of each scene sees all of them, and crops of all scales from the small windows' to the joint ones'.
Each pair is then filled both ways. Prints means over samples and scenes, for each distance.
"""

import argparse
from pathlib import Path

import numpy as np

from realfill import Adapter, FitConfig, SampleConfig, Scene, complete, fit
from realfill.cases import Case
from realfill.masks import bounding_box
from realfill.metrics import gmsd, native_detail, psnr

GROWTHS = (1.45, 1.7, 2.2, 3.0)
METRICS = (psnr, gmsd, native_detail)
HEADER = """\
| times as coarse | pairs | joined is better in | PSNR: apart | joined | GMSD: apart | joined | detail: apart | joined |
|---|---|---|---|---|---|---|---|---|"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--fit-steps", type=int, default=350)
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()

    found = {growth: [] for growth in GROWTHS}
    for path in options.scenes:
        case = Case.load(path)
        large, small = place(case.scene.mask)
        every = large | np.any(list(small.values()), axis=0)
        folder = options.output / path.name
        if not folder.exists():
            config = FitConfig(base=options.base, num_steps=options.fit_steps, crop_scale=(0.8, 3.0))
            fit(Scene(case.scene.references, case.truth, every), config).save(folder)
        adapter = Adapter.load(folder)
        for growth, hole in small.items():
            row = [measure(case.truth, large | hole, adapter, join, options.samples) for join in (1.0, 99.0)]
            found[growth].append(row)
            print(path.name, growth, np.round(row, 3).tolist(), flush=True)
    print(HEADER)
    for growth, rows in found.items():
        if not rows:  # no photo had room
            continue
        values = np.array(rows)  # pairs, ways, metrics
        apart, joined = values.mean(axis=0)
        better = f"{(values[:, 1, 0] > values[:, 0, 0]).sum()} of {len(values)}"
        columns = "".join(f" {apart[i]:.{n}f} | {joined[i]:.{n}f} |" for i, n in enumerate((2, 3, 2)))
        print(f"| {growth} | {len(values)} | {better} |{columns}")


def place(own):
    """Cut a large hole and, for each growth for which there is room, a small one."""
    height, width = own.shape
    side = round(min(height, width) / 4)
    tiny = side // 3
    top, left, bottom, right = bounding_box(own)
    y = int(np.clip((top + bottom - side) // 2, 0, height - side))
    x = int(np.clip((left + right - side) // 2, 0, width - side))
    large, small = np.zeros_like(own), {}
    large[y : y + side, x : x + side] = True
    taken = set()
    for growth in sorted(GROWTHS, reverse=True):
        reach = round(growth * side)  # of both together
        middle = (side - tiny) // 2
        starts = {
            "right": (y + middle, x + reach - tiny),
            "left": (y + middle, x + side - reach),
            "below": (y + reach - tiny, x + middle),
            "above": (y + side - reach, x + middle),
        }
        for direction, (row, column) in starts.items():
            if direction not in taken and 0 <= row <= height - tiny and 0 <= column <= width - tiny:
                small[growth] = np.zeros_like(own)
                small[growth][row : row + tiny, column : column + tiny] = True
                taken.add(direction)
                break
    return large, small


def measure(truth, mask, adapter, join_windows, num_samples):
    config = SampleConfig(num_samples=num_samples, join_windows=join_windows)
    made = complete(Scene([], truth, mask), adapter, config, progress=False)
    return np.mean([[metric(c.image, truth, mask) for metric in METRICS] for c in made], axis=0)


if __name__ == "__main__":
    main()
