"""Measure seconds and peak memory of the full-width completion network, one pass over a whole photo and the engine.

    OMP_NUM_THREADS=1 python examples/completion_speed.py

The weights are random, which changes neither. A pass over a whole photo is what public ports do; the engine fills the
windows around the hole. Each figure is from a process of its own: the medians over the runs of the seconds and of the
processor's seconds, and the largest resident memory above that before the first run. Other work on the machine, whose
load is printed too, adds to the seconds. A pass that does not fit into free memory is left out.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from realfill.compute.memory import fits
from realfill.filling.one_pass import OnePass
from realfill.models.feedforward.completion import CompletionNetwork

SIZES = {"960 x 540": (540, 960), "1083 x 658": (658, 1083), "12 megapixels": (3000, 4000)}
PASS_BYTES = 20  # memory of a pass, per pixel and channel of the first layer
HOLES = {"hole of 120 pixels": 120, "hole of a third of the shorter side": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "WORK"), help="measure one figure in this process")
    options = parser.parse_args()
    if options.one:
        measure(*options.one, options.runs, options.width)
        return
    print(f"{torch.get_num_threads()} threads, {os.cpu_count()} cores, width {options.width}")
    print("| photo | work | seconds | processor seconds | peak memory (MB) | load |\n|---|---|---|---|---|---|")
    for size in SIZES:
        for work in ("whole photo", *HOLES):
            common = ["--runs", str(options.runs), "--width", str(options.width)]
            command = [sys.executable, __file__, *common, "--one", size, work]
            found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this program
            figures = found.stdout.strip() or "failed | " + found.stderr.strip().rpartition("\n")[2]
            print(f"| {size} | {work} | {figures} | {os.getloadavg()[0]:.1f} |", flush=True)


def measure(size: str, work: str, runs: int, width: int) -> None:
    height, width_px = SIZES[size]
    network = CompletionNetwork(width=width).eval()
    rng = np.random.default_rng(0)
    image, hole = rng.integers(0, 256, (height, width_px, 3), np.uint8), np.zeros((height, width_px), bool)
    side = HOLES.get(work) or height // 3
    hole[height // 3 : height // 3 + side, width_px // 3 : width_px // 3 + side] = True
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    if work == "whole photo" and not fits(torch.device("cpu"), height * width_px * width * PASS_BYTES):
        print("does not fit | | ")
        return
    before, seconds, processor = resident_mb(), [], []
    for _ in range(runs):
        start, processor_start = time.perf_counter(), time.process_time()
        if work == "whole photo":
            network.predict(tensor, torch.from_numpy(hole)[None, None])
        else:
            OnePass(network=network).fill(image, hole, [0])
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - processor_start)
    print(f"{np.median(seconds):.1f} | {np.median(processor):.1f} | {resident_mb() - before:,.0f}")


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
