"""Compare a trained completion network with methods that need no weights, on photos that its training kept out.

    realfill train-completion PHOTOS -o WEIGHTS --holdout examples/holdout.txt
    python examples/completion_study.py PHOTOS WEIGHTS -o OUT

Each photo is shrunk to a shorter side of 384 pixels and gets one rectangular hole, of 96 to 128 pixels a side as in the
paper, at a random place. Prints a Markdown table of PSNR (dB), GMSD (lower is better), detail (1 is best) and seam
(about 1 is best) in the hole, the differences to each other method photo by photo with 95 % bootstrap intervals, and
whether the network passes the rule for weights in the package: its GMSD is the best of all, and its PSNR is within 0.2
dB of the best. Writes a contact sheet, and the figures, which are not computed again.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from holdout import load_held_out

from realfill.benchmark.metrics import detail, gmsd, psnr, seam
from realfill.filling.engines import load_engine
from realfill.io.files import write_text
from realfill.io.images import ImageArray, MaskArray, read_image, resize
from realfill.io.writing import write_png
from realfill.models.engine import Engine

SIDE_PX, HOLE_PX = 384, (96, 128)
METRICS = ("PSNR", "GMSD", "detail", "seam")
MAX_PSNR_LOSS = 0.2
NUM_ROWS = 12
OURS = ("completion, cut", "completion, poisson")
OTHERS = ("telea", "smooth", "shiftmap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder that holds the photos that holdout.txt names")
    parser.add_argument("weights", type=Path, help="file or folder that realfill train-completion wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--num-photos", type=int, default=60, help="use the first photos of the list alone")
    options = parser.parse_args()
    engines: dict[str, Engine] = {
        "completion, cut": load_engine("completion", weights=options.weights, blend="cut"),
        "completion, poisson": load_engine("completion", weights=options.weights, blend="poisson"),
        **{name: load_engine(name) for name in OTHERS},
    }
    options.output.mkdir(parents=True, exist_ok=True)
    cases = [make_case(photo, i) for i, photo in enumerate(load_held_out(options.photos)[: options.num_photos])]
    figures = {name: measure(engine, cases, name, options.output) for name, engine in engines.items()}
    print_tables(figures)
    sheet = [row(case, options.output, list(engines), i) for i, case in enumerate(cases[:NUM_ROWS])]
    write_png(options.output / "contact-sheet.png", np.concatenate(sheet))


def make_case(photo: ImageArray, number: int) -> tuple[ImageArray, MaskArray]:
    """Shrink a photo, and draw its hole, the same for the same place in the list."""
    factor = SIDE_PX / min(photo.shape[:2])
    image = resize(photo, (round(photo.shape[0] * factor), round(photo.shape[1] * factor)))
    rng = np.random.default_rng(number)
    sides = rng.integers(HOLE_PX[0], HOLE_PX[1] + 1, size=2)
    y, x = (rng.integers(8, n - side - 8) for n, side in zip(image.shape[:2], sides, strict=True))
    hole = np.zeros(image.shape[:2], bool)
    hole[y : y + sides[0], x : x + sides[1]] = True
    return image, hole


def measure(engine: Engine, cases: list[tuple[ImageArray, MaskArray]], name: str, output: Path) -> np.ndarray:
    """Fill all cases and measure them: (N, metrics). Finished cases are read from files."""
    rows = []
    start = time.monotonic()
    for i, (truth, hole) in enumerate(cases):
        path = picture(output, name, i)
        record = path.with_suffix(".json")
        if not record.exists():
            blank = np.where(hole[:, :, None], np.uint8(0), truth)
            (image,) = engine.fill(blank, hole, [0])
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, image)
            values = [metric(image, truth, hole) for metric in (psnr, gmsd, detail)]
            write_text(record, json.dumps([*values, seam(image, hole)]))
        rows.append(json.loads(record.read_text()))
    print(f"{name}: {len(cases)} photos, {time.monotonic() - start:.0f} s", flush=True)
    return np.array(rows)


def picture(output: Path, name: str, number: int) -> Path:
    return output / name.replace(", ", "-") / f"{number:02d}.png"


def print_tables(figures: dict[str, np.ndarray]) -> None:
    print("\n| engine | " + " | ".join(METRICS) + " |\n|" + "---|" * (len(METRICS) + 1))
    for name, values in figures.items():
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in values.mean(axis=0)) + " |")
    for ours in OURS:
        print(f"\n| {ours}, better than | PSNR | GMSD |\n|---|---|---|")
        for name in OTHERS:
            gains = figures[ours] - figures[name]
            print(f"| {name} | {interval(gains[:, 0])} | {interval(-gains[:, 1])} |")
    means = {name: values.mean(axis=0) for name, values in figures.items()}
    for ours in OURS:
        best_gmsd = all(means[ours][1] < means[name][1] for name in OTHERS)
        loss = max(means[name][0] for name in OTHERS) - means[ours][0]
        passes = best_gmsd and loss <= MAX_PSNR_LOSS
        print(f"\n{ours}: best GMSD: {best_gmsd}; PSNR below the best by {loss:.2f} dB; passes: {passes}")


def interval(gains: np.ndarray) -> str:
    """Describe the mean of paired differences, its 95 % bootstrap interval, and how many are positive."""
    rng = np.random.default_rng(0)
    means = gains[rng.integers(len(gains), size=(2000, len(gains)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{gains.mean():+.3f} [{low:+.3f}, {high:+.3f}], in {(gains > 0).sum()} of {len(gains)}"


def row(case: tuple[ImageArray, MaskArray], output: Path, names: list[str], number: int) -> ImageArray:
    """Lay out a case around its hole: the photo, the hole, and each engine's picture."""
    image, hole = case
    rows, columns = np.nonzero(hole)
    side = 2 * HOLE_PX[1]
    corner = [int(np.clip(x.mean() - side / 2, 0, n - side)) for x, n in zip((rows, columns), hole.shape, strict=True)]
    box = tuple(slice(start, start + side) for start in corner)
    pictures = [read_image(picture(output, name, number))[0] for name in names]
    return np.concatenate([p[box] for p in (image, np.where(hole[:, :, None], np.uint8(0), image), *pictures)], axis=1)


if __name__ == "__main__":
    main()
