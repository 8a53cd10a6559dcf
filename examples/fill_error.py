"""Choose the expected error of a fill, which weighs it against the composite in corrected pixels.

    python examples/planted_3d.py PHOTOS PLANTED --kinds boxes layers street wide night --num-scenes 2
    python examples/fill_error.py PLANTED --base mini

With ``--base telea`` it chooses the error of a fill that does not see the corrected pixels. Prints the hole PSNR of
completions without a fit for several errors in levels, averaged over seeds, for each scene that has corrected pixels
and their mean. What the model fills does not depend on the error, so it is computed once.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import tyro
from numpy.typing import NDArray

from realfill import GeometryConfig, SampleConfig, Scene, complete
from realfill.filling import keeping
from realfill.io.images import read_image
from realfill.pipeline.evidence import composite_of
from realfill.results.evidence import CORRECTED, PHOTOGRAPHED, Evidence

ERRORS = (10.0, 14.0, 20.0, 28.0, 40.0, 65.0, 100.0)  # levels


def decibels(folder: Path, base: str, num_samples: int) -> NDArray[np.float64] | None:
    """Return the PSNR for each error, (E,); ``None`` without corrected pixels."""
    scene = Scene.load(folder).blanked()
    truth = read_image(folder / "target" / "gt.png", "the ground truth")[0][scene.mask].astype(float)
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
    shown, settings = found.image[scene.mask].astype(float), GeometryConfig().resolve({})
    weights = [keeping.weights(judged[-1], settings, error)[:, None] for error in ERRORS]
    filled = [completion.image[scene.mask].astype(float) for completion in completions]
    squares = [np.mean([((w * shown + (1 - w) * fill - truth) ** 2).mean() for fill in filled]) for w in weights]
    return 10 * np.log10(255**2 / np.array(squares))


def main(scenes: tyro.conf.Positional[Path], /, base: str = "mini", num_samples: int = 3) -> None:
    rows = {}
    for folder in sorted(path for path in scenes.iterdir() if (path / "target" / "gt.png").is_file()):
        if (row := decibels(folder, base, num_samples)) is not None:
            rows[folder.name] = row
            print(folder.name, *(f"{value:.2f}" for value in row), flush=True)
    if not rows:
        raise SystemExit(
            f"no scene in {scenes} has a ground truth, references that can be aligned and corrected pixels"
        )
    print("\n| scene | " + " | ".join(f"{error:g}" for error in ERRORS) + " |")
    print("|---" * (len(ERRORS) + 1) + "|")
    for name, row in {**rows, "mean": np.mean(list(rows.values()), axis=0)}.items():
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
