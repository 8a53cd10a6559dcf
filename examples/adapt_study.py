"""Does adapting a base model to photos of one kind help on other photos of that kind?

Cross-validation: the photos are split into folds by a hash of their names. For each fold and each seed, the base model
is adapted to the photos of the other folds, and the photos of the fold are filled by the base model and by the adapted
one, with the same holes. Finished folds are kept in the output folder, and the same command resumes with the others.

    python examples/adapt_study.py PHOTOS -o OUT --base mini
    python examples/adapt_study.py PHOTOS -o OUT --base mini --names examples/monuments.txt

Three ways to train too much can be measured: a learning rate that is too high (``--learning-rate 3e-3``), too many
epochs (``--num-epochs 16 --patience 16``), and too much augmentation, which is more masks for each photo
(``--masks-per-photo 40``), or masks that hide most of a crop and crops that show little of a photo (``--num-shapes 8
12 --shape-size 0.3 0.7 --crop-share 0.1 0.3``). The holes that are filled have the usual shapes, whatever the masks of
the training. ``--keep last`` measures the last epoch, where the recipe would have kept the best.

Prints a Markdown table of the metrics, and one of the validation loss after each epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from realfill import AdaptConfig, adapt
from realfill.benchmark.adaptation import compare_adapter
from realfill.io.files import write_text
from realfill.training.photo_folder import list_photos

_SHARES = (0.89, 0.1, 0.01)  # the fold is the test, so the recipe's own test part is as small as it can be
_NUM_DRAWS = 2000
_RANGES = ("num_shapes", "shape_size", "crop_share")


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--preset", choices=["ocean-study"])
    parser.add_argument("--names", type=Path, help="text file that names the photos to use, one file name per line")
    parser.add_argument("--num-epochs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--patience", type=int)
    parser.add_argument("--masks-per-photo", type=int)
    parser.add_argument("--num-shapes", type=int, nargs=2)
    parser.add_argument("--shape-size", type=float, nargs=2)
    parser.add_argument("--crop-share", type=float, nargs=2)
    parser.add_argument("--keep", choices=["best", "last"])
    parser.add_argument("--num-folds", type=int, default=5)
    parser.add_argument("--folds-per-seed", type=int, help="keep only so many of the folds out with each seed, in turn")
    parser.add_argument("--num-photos", type=int, help="fill only so many of the photos that a run keeps out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device")
    options = parser.parse_args()
    paths = _choose(list_photos(options.photos), options.names)
    for turn in range(options.folds_per_seed or options.num_folds):
        for seed in options.seeds:
            _run_fold(options, paths, seed, (seed + turn) % options.num_folds)
    print(_metrics_table(options.output), _epochs_table(options.output), sep="\n\n")


def _choose(paths: list[Path], names: Path | None) -> list[Path]:
    """Return the named photos, or all, in the order of a hash of their names."""
    if names is not None:
        listed = {line for line in names.read_text(encoding="utf-8").splitlines() if not line.startswith("#")}
        paths = [path for path in paths if path.name in listed]
    return sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())


def _run_fold(options: argparse.Namespace, paths: list[Path], seed: int, fold: int) -> None:
    folder = options.output / f"seed{seed}-fold{fold}"
    if (folder / "report.json").is_file():
        return
    held_out = paths[fold :: options.num_folds]
    ranges: dict[str, Any] = {name: tuple(value) for name in _RANGES if (value := getattr(options, name)) is not None}
    recipe = AdaptConfig(
        base=options.base, preset=options.preset, num_epochs=options.num_epochs, learning_rate=options.learning_rate,
        patience=options.patience, keep=options.keep, shares=_SHARES, seed=seed,
        masks_per_photo=options.masks_per_photo, **ranges,
    )  # fmt: skip
    adapter = adapt(
        [path for path in paths if path not in held_out], recipe, device=options.device, checkpoint_dir=folder
    )
    adapter.save(folder, overwrite=True)
    filled = held_out[: options.num_photos]
    usual = AdaptConfig().resolve({})
    config = dataclasses.replace(adapter.config, num_rectangles=usual.num_shapes, rectangle_size=usual.shape_size)
    compared = folder / "usual-holes"
    dataclasses.replace(adapter, config=config).save(compared, overwrite=True)
    report = compare_adapter(compared, filled, seeds=(seed,), device=options.device)
    report.save(folder)
    values = {"photos": [path.name for path in filled], "values": report.values}
    write_text(folder / "values.json", json.dumps(values, indent=1) + "\n")


def _metrics_table(output: Path) -> str:
    """Average each photo over the seeds, then give means over photos with bootstrap intervals of the difference."""
    differences: dict[str, dict[str, list[float]]] = {}
    levels: dict[str, dict[str, list[float]]] = {}
    for path in sorted(output.glob("seed*-fold*/values.json")):
        fold = json.loads(path.read_text(encoding="utf-8"))
        for metric, arms in fold["values"].items():
            for name, base, adapted in zip(fold["photos"], arms["base"], arms["adapted"], strict=True):
                differences.setdefault(metric, {}).setdefault(name, []).append(adapted - base)
                for arm, value in (("base", base), ("adapted", adapted)):
                    levels.setdefault(metric, {}).setdefault(arm, []).append(value)
    lines = [
        "| metric | base | adapted | difference | 95 % interval over photos | photos |",
        "|---|---|---|---|---|---|",
    ]
    for metric, photos in differences.items():
        means = np.array([np.mean(values) for values in photos.values()])
        draws = np.random.default_rng(0).choice(means, (_NUM_DRAWS, len(means))).mean(axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        base, adapted = (np.mean(levels[metric][arm]) for arm in ("base", "adapted"))
        interval = f"{low:+.4f} to {high:+.4f}"
        lines.append(f"| {metric} | {base:.3f} | {adapted:.3f} | {means.mean():+.4f} | {interval} | {len(means)} |")
    return "\n".join(lines)


def _epochs_table(output: Path) -> str:
    """Give the mean validation loss after each epoch, over the runs that reached it, and how many kept that epoch."""
    runs = [json.loads(path.read_text(encoding="utf-8"))["epochs"] for path in sorted(output.glob("*/report.json"))]
    losses = [[epoch["validation_loss"] for epoch in run] for run in runs]
    lines = ["| epoch | runs | validation loss, change from the base | lowest in |", "|---|---|---|---|"]
    for number in range(max(map(len, losses), default=0)):
        reached = [values for values in losses if len(values) > number]
        change = np.mean([values[number] / values[0] - 1 for values in reached])
        lowest = sum(min(values) == values[number] for values in losses if len(values) > number)
        lines.append(f"| {number} | {len(reached)} | {100 * change:+.2f} % | {lowest} of {len(losses)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
