"""Measure seconds and peak memory of every engine that can run here, by size of the photo.

    OMP_NUM_THREADS=1 python examples/engine_speed.py

The hole is a square of a third of the photo's shorter side. "completion" has the packaged weights; the network of the
paper's width has random ones, which changes neither figure. A row "pass over the photo" is one pass of that network
over the whole photo, as public ports do it; the engine fills windows around the hole. Each figure comes from a process
of its own: the medians over the runs of the seconds and of the processor's seconds, and the largest resident memory
above that before the first run. Other work on the machine, whose load is printed too, adds to the seconds. LaMa and
MI-GAN are measured where their files are on this machine; a stand-in for them would say nothing of their speed. Runs on
Linux.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import torch

from realfill.config import EngineName
from realfill.errors import BaseModelError
from realfill.filling.engines import load_engine
from realfill.filling.one_pass import OnePass
from realfill.models.feedforward.completion import CompletionNetwork

SIZES = {"960 x 540": (540, 960), "1083 x 658": (658, 1083), "12 megapixels": (3000, 4000)}
WIDE = "completion, width 64"
WHOLE = "completion, width 64, pass over the photo"
ENGINES = ("smooth", "telea", "shiftmap", "completion", WIDE, WHOLE, "lama", "migan", "base")
MAX_PASS_PX = 2_000_000  # a pass over a larger photo takes gigabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "ENGINE"), help="measure one figure in this process")
    options = parser.parse_args()
    if options.one:
        print(measure(*options.one, options.runs))
        return
    print(f"{torch.get_num_threads()} threads of PyTorch, {os.cpu_count()} cores, {options.runs} runs each")
    print("| engine | photo | seconds | processor seconds | peak memory (MB) | load |\n|---|---|---|---|---|---|")
    for engine in options.engines:
        for size in SIZES:
            command = [sys.executable, __file__, "--runs", str(options.runs), "--one", size, engine]
            found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this program
            figures = found.stdout.strip() or "failed | | " + found.stderr.strip().rpartition("\n")[2]
            print(f"| {engine} | {size} | {figures} | {os.getloadavg()[0]:.1f} |", flush=True)


def measure(size: str, engine: str, runs: int) -> str:
    """Fill the hole of a random photo several times, and return the figures as cells of a table."""
    cv2.setNumThreads(torch.get_num_threads())
    height, width = SIZES[size]
    image = smooth_noise(height, width)
    side = height // 3
    hole = np.zeros((height, width), bool)
    hole[side : 2 * side, (width - side) // 2 : (width + side) // 2] = True
    if engine == WHOLE and height * width > MAX_PASS_PX:
        return "not measured | | "
    try:
        work = load(engine, image, hole)
    except BaseModelError:
        return "no weights here | | "
    Path("/proc/self/clear_refs").write_text("5")  # from here on, Linux notes the peak anew
    before, seconds, processor = resident_mb("VmRSS"), [], []
    for _ in range(runs):
        start, processor_start = time.perf_counter(), processor_s()
        work()
        seconds.append(time.perf_counter() - start)
        processor.append(processor_s() - processor_start)
    child_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6  # the shift map runs in one
    memory_mb = max(resident_mb("VmHWM") - before, child_mb)
    return f"{np.median(seconds):.1f} | {np.median(processor):.1f} | {memory_mb:,.0f}"


def load(engine: str, image: np.ndarray, hole: np.ndarray) -> Callable[[], object]:
    """Load an engine, and return a function that fills the hole with it."""
    if engine == WHOLE:
        network = CompletionNetwork().eval()
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        return partial(network.predict, tensor, torch.from_numpy(hole)[None, None])
    if engine == WIDE:
        return partial(OnePass(network=CompletionNetwork().eval(), blend="poisson").fill, image, hole, [0])
    (name,) = (name for name in get_args(EngineName) if name == engine)
    return partial(load_engine(name, local_files_only=True).fill, image, hole, [0])


def smooth_noise(height: int, width: int) -> np.ndarray:
    """Draw a picture with structure of every size: (H, W, 3) uint8."""
    rng, total = np.random.default_rng(0), np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64, 256):
        total += cv2.resize(rng.random((cells, cells, 3), np.float32), (width, height)) / 4
    return (255 * total).astype(np.uint8)


def resident_mb(name: str) -> float:
    """Return the resident memory of this process, ``VmRSS``, or its peak, ``VmHWM``."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(name))
    return int(kilobytes) * 1024 / 1e6


def processor_s() -> float:
    """Seconds of the processor, with those of child processes."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
