"""Measure how long finding people and erasing take, by size of the photo.

    OMP_NUM_THREADS=1 python examples/erase_speed.py PEOPLE --photos 4

``PEOPLE`` is a folder of photos with people; without it, the photo is the astronaut of scikit-image. Each photo is
resized to every size. Prints a Markdown table of the offline detector, and one of ``erase`` by engine, with a square
hole of a fifth of the photo's shorter side: the processor's seconds on one thread, which other work on the machine
hardly changes, as the mean and the largest over the photos.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage.data

from realfill import erase, find_instances
from realfill.io.images import ImageArray, read_image, resize
from realfill.scene.reading import find_photos

MEGAPIXELS = (0.8, 2, 12, 24)
ENGINES = ("telea", "base")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path, nargs="?", help="folder of photos with people")
    parser.add_argument("--photos", type=int, default=4, help="number of photos; engines get the first")
    parser.add_argument("--megapixels", type=float, nargs="+", default=MEGAPIXELS)
    parser.add_argument("--engines", nargs="*", default=ENGINES, help="see realfill erase --help")
    parser.add_argument("--weights", help="weights of the engines that need some")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    photos = load(options.people, options.photos)
    detector_s(at_size(photos[0], 0.05))  # the first call loads the cascades
    print("| detector | " + " | ".join(f"{size:g} MP" for size in options.megapixels) + " |")
    print("|---|" + "---|" * len(options.megapixels))
    print_row("offline", [[detector_s(at_size(p, size)) for p in photos] for size in options.megapixels])
    for engine in options.engines:
        sizes = [at_size(photos[0], size) for size in options.megapixels]
        print_row(engine, [[engine_s(photo, engine, options.weights)] for photo in sizes])


def load(folder: Path | None, count: int) -> list[ImageArray]:
    """Read some photos of a folder, evenly over its names, or the astronaut."""
    if folder is None:
        return [skimage.data.astronaut()]
    paths = find_photos(folder)
    return [read_image(path)[0] for path in paths[:: max(1, len(paths) // count)][:count]]


def at_size(photo: ImageArray, megapixels: float) -> ImageArray:
    factor = (megapixels * 1e6 / (photo.shape[0] * photo.shape[1])) ** 0.5
    return resize(photo, (round(photo.shape[0] * factor), round(photo.shape[1] * factor)))


def detector_s(photo: ImageArray) -> float:
    return processor_s(lambda: find_instances(photo, detector="offline"))


def engine_s(photo: ImageArray, engine: str, weights: str | None) -> float:
    """Time ``erase`` with a mask and an engine that needs no references, with loading the engine."""
    side = min(photo.shape[:2]) // 5
    hole = np.zeros(photo.shape[:2], bool)
    hole[2 * side : 3 * side, 2 * side : 3 * side] = True
    return processor_s(lambda: erase(photo, hole, engine=engine, weights=weights, progress=False))


def processor_s(work: Callable[[], object]) -> float:
    """Seconds of the processor, with those of child processes."""
    before = os.times()
    work()
    return sum(after - earlier for after, earlier in zip(os.times()[:4], before[:4], strict=True))


def print_row(name: str, seconds: list[list[float]]) -> None:
    cells = [
        f"{np.mean(values):.1f}" + (f" (up to {max(values):.1f})" if len(values) > 1 else "") for values in seconds
    ]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
