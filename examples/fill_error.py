"""Choose the expected error of a fill, which weighs it against the composite in corrected pixels.

    python examples/planted_3d.py PHOTOS PLANTED --kinds boxes layers street wide night --num-scenes 2
    python examples/fill_error.py PLANTED --base mini

``--base`` is a base model or an engine such as ``telea``. Prints PSNR, GMSD and detail in the hole of completions
without a fit for several errors in levels, averaged over seeds, for each scene that has corrected pixels and their
mean. What the model fills does not depend on the error, so it is computed once. A larger error keeps more detail, since
a mean of two pictures has less than either.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import tyro
from numpy.typing import NDArray

from realfill import GeometryConfig, SampleConfig, Scene, complete
from realfill.benchmark.metrics import detail, gmsd, psnr
from realfill.filling import keeping
from realfill.io.images import read_image
from realfill.pipeline.evidence import composite_of
from realfill.results.evidence import CORRECTED, PHOTOGRAPHED, Evidence

ERRORS = (10.0, 14.0, 20.0, 28.0, 40.0, 65.0, 100.0)  # levels
METRICS = {"PSNR": psnr, "GMSD": gmsd, "detail": detail}
DECIMALS = {"PSNR": 2, "GMSD": 4, "detail": 2}


def measure(folder: Path, base: str, num_samples: int) -> NDArray[np.float64] | None:
    """Return the means of METRICS for each error, (M, E); ``None`` without corrected pixels."""
    scene = Scene.load(folder).blanked()
    truth, mask = read_image(folder / "target" / "gt.png", "the ground truth")[0], scene.mask
    judged: list[Evidence] = []

    def of_fill_alone(evidence: Evidence, *_: object) -> NDArray[np.float32]:
        judged.append(evidence)
        return (evidence.kind == PHOTOGRAPHED).astype(np.float32)

    config = SampleConfig(num_samples=num_samples, match_grain=False)
    with mock.patch.object(keeping, "weights", of_fill_alone):
        completions = complete(scene, base, config, geometry=GeometryConfig(), ranked=False, progress=False)
    found = composite_of(scene)
    if found is None or not judged or not (judged[-1].kind == CORRECTED).any():
        return None
    settings, figures = GeometryConfig().resolve({}), np.zeros((len(METRICS), len(ERRORS)))
    for column, error in enumerate(ERRORS):
        weight = keeping.weights(judged[-1], settings, error)[:, None]
        for completion in completions:
            mean = completion.image.copy()
            mean[mask] = (weight * found.image[mask] + (1 - weight) * mean[mask]).round()
            figures[:, column] += [metric(mean, truth, mask) for metric in METRICS.values()]
    return figures / len(completions)


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
