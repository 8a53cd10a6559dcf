"""Measure how many pixels of real scenes are called photographed, and how far they are from the truth.

    python examples/photographed.py SCENES

SCENES holds folders of scenes with ``target/gt.png``. For several thresholds of confidence, all scenes together: the
share of the holes' pixels above it, and their PSNR.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from realfill import Scene
from realfill.geometry.composite import composite
from realfill.io.images import read_image

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


def measure(folder: Path) -> tuple[NDArray, NDArray]:
    """Return confidence and mean squared error of each pixel of a scene's hole."""
    scene = Scene.load(folder).blanked()
    truth = read_image(folder / "target" / "gt.png", "the ground truth")[0]
    found = composite(
        scene.known, scene.mask, scene.references, reference_masks=scene.reference_masks, focals=scene.focal_lengths
    )  # fmt: skip
    error = ((found.image.astype(float) - truth) ** 2).mean(axis=2)
    return found.confidence[scene.mask], error[scene.mask]


def decibels(error: NDArray) -> str:
    return f"{10 * np.log10(255**2 / error.mean()):.2f}" if len(error) else "-"


def main(scenes: tyro.conf.Positional[Path], /) -> None:
    measured = {folder.name: measure(folder) for folder in sorted(scenes.iterdir()) if folder.is_dir()}
    print("| confidence | " + " | ".join(f"{name}: share, dB" for name in measured) + " | all: share | all: dB |")
    print("|---" * (len(measured) + 3) + "|")
    confidence, error = (np.concatenate(values) for values in zip(*measured.values(), strict=True))
    for threshold in THRESHOLDS:
        each = [f"{100 * (c >= threshold).mean():.0f} %, {decibels(e[c >= threshold])}" for c, e in measured.values()]
        above = confidence >= threshold
        print(f"| {threshold} | " + " | ".join(each) + f" | {100 * above.mean():.0f} % | {decibels(error[above])} |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
