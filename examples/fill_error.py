"""Choose the expected error of a fill, which weighs it against the composite in corrected pixels.

    python examples/planted_3d.py PHOTOS PLANTED --kinds boxes layers street wide night --num-scenes 2
    python examples/fill_error.py PLANTED --base mini

``--base`` is a base model or an engine such as ``telea``. Prints PSNR, GMSD and detail in the hole of completions
without a fit for several errors in levels, averaged over seeds, for each scene that has corrected pixels and their
mean. What the model fills does not depend on the error, so it is computed once. A larger error keeps more structure,
since a mean of two pictures has less than either; detail that is too fine for the window of the fill is kept anyway.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import tyro
from numpy.typing import NDArray

from realfill import GeometryConfig, SampleConfig, Scene, complete
from realfill.benchmark.metrics import detail, gmsd, psnr
from realfill.filling.keeping import Kept, weights
from realfill.io.images import read_image
from realfill.results.evidence import CORRECTED

ERRORS = (10.0, 14.0, 20.0, 28.0, 40.0, 65.0, 100.0)  # levels
METRICS = {"PSNR": psnr, "GMSD": gmsd, "detail": detail}
DECIMALS = {"PSNR": 2, "GMSD": 4, "detail": 2}


def measure(folder: Path, base: str, num_samples: int) -> NDArray[np.float64] | None:
    """Return the means of METRICS for each error, (M, E); ``None`` without corrected pixels."""
    scene = Scene.load(folder).blanked()
    truth, mask = read_image(folder / "target" / "gt.png", "the ground truth")[0], scene.mask
    fills: list[tuple[Kept, NDArray]] = []

    def noting(kept: Kept, filled: NDArray) -> NDArray:
        fills.append((kept, filled))
        return joined(kept, filled)

    config, joined = SampleConfig(num_samples=num_samples, match_grain=False), Kept.joined
    with mock.patch.object(Kept, "joined", noting):
        complete(scene, base, config, geometry=GeometryConfig(), ranked=False, progress=False)
    if not fills or not (fills[0][0].evidence.kind == CORRECTED).any():
        return None
    settings, figures = GeometryConfig().resolve({}), np.zeros((len(METRICS), len(ERRORS)))
    for column, error in enumerate(ERRORS):
        for kept, filled in fills:
            weighted = replace(kept, weight=weights(kept.evidence, settings, error))
            image = scene.known.copy()
            image[mask] = scene.original.decode(weighted.joined(filled))
            figures[:, column] += [metric(image, truth, mask) for metric in METRICS.values()]
    return figures / len(fills)


def main(scenes: tyro.conf.Positional[Path], /, base: str = "mini", num_samples: int = 3) -> None:
    rows = {}
    for folder in sorted(path for path in scenes.iterdir() if (path / "target" / "gt.png").is_file()):
        if (figures := measure(folder, base, num_samples)) is not None:
            rows[folder.name] = figures
            print(folder.name, "PSNR:", *(f"{value:.2f}" for value in figures[0]), flush=True)
    if not rows:
        raise SystemExit(
            f"no scene in {scenes} has a ground truth, references that can be aligned and corrected pixels"
        )
    for index, metric in enumerate(METRICS):
        print(f"\n| {metric} | " + " | ".join(f"{error:g}" for error in ERRORS) + " |")
        print("|---" * (len(ERRORS) + 1) + "|")
        for name, figures in {**rows, "mean": np.mean(list(rows.values()), axis=0)}.items():
            print(f"| {name} | " + " | ".join(f"{value:.{DECIMALS[metric]}f}" for value in figures[index]) + " |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
