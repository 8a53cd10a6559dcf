"""Measure what photographed, corrected and invented pixels of real scenes are worth.

    python examples/photographed.py SCENES

SCENES holds folders of scenes with ``target/gt.png``. The unfitted packaged base completes each. The first table has,
for several thresholds of confidence, the share of the holes' pixels above it and the PSNR of the composite there. The
second one has, for each scene, the verdict and the mean absolute error, of 255 levels; for each kind of pixel its
share, the PSNR of the composite and what the completion gains over it; GMSD in all that is not photographed, of both;
and the detail of the completion at the target's own size as a share of the truth's (1 is best), beside that of the
sharpest warped reference that fits the known pixels. Grain is not matched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from realfill import GeometryConfig, SampleConfig, Scene, complete
from realfill.benchmark.metrics import gmsd, native_detail
from realfill.geometry.composite import Composite
from realfill.io.images import ImageArray, MaskArray, read_image
from realfill.pipeline.evidence import composite_of
from realfill.results.completion import Completion
from realfill.results.evidence import CORRECTED, INVENTED, PHOTOGRAPHED

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
KINDS = {"photographed": PHOTOGRAPHED, "corrected": CORRECTED, "invented": INVENTED}
LEAST_SHARE = 0.5  # of the hole, from which a warped reference's detail is measured
MOST_MISFIT = 1.5  # as a multiple of the best warped reference's, up to which it counts as fitting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """A completed scene, its composite and the truth."""

    name: str
    mask: MaskArray
    truth: ImageArray
    found: Composite
    completion: Completion

    @property
    def confidence(self) -> NDArray:
        return self.found.confidence[self.mask]

    def error(self, image: ImageArray) -> NDArray:
        """Return the mean squared error of each pixel of the hole, (K,)."""
        return ((image[self.mask].astype(float) - self.truth[self.mask]) ** 2).mean(axis=1)

    def row(self) -> str:
        """Return the scene's row of the second table."""
        shown, image = self.found.image, self.completion.image
        of_composite, of_completion = self.error(shown), self.error(image)
        kinds = self.completion.evidence.kinds[self.mask]
        kind = verdict.kind if (verdict := self.completion.verdict) is not None else "-"
        levels = np.abs(image[self.mask].astype(float) - self.truth[self.mask]).mean()
        cells = [self.name, f"{kind}, {levels:.0f}"]
        for kind in KINDS.values():
            here = kinds == kind
            gain = f"{decibels(of_composite[here])} {gained(of_composite[here], of_completion[here])}"
            cells.append(f"{100 * here.mean():.0f} %, {gain}" if here.any() else "-")
        rest = self.mask & (self.completion.evidence.kinds != PHOTOGRAPHED)
        cells.append(" / ".join(f"{gmsd(i, self.truth, rest):.3f}" for i in (shown, image)) if rest.any() else "-")
        cells.append(f"{native_detail(image, self.truth, self.mask):.2f} / {self.sharpest():.2f}")
        return "| " + " | ".join(cells) + " |"

    def sharpest(self) -> float:
        """Return the largest detail of a warped reference that fits and reaches at least half of the hole."""
        details, size = [0.0], self.mask.shape[::-1]
        least = min((layer.misfit for layer in self.found.layers), default=0.0)
        for layer in self.found.layers:
            reached = self.mask & (cv2.resize(layer.warp.valid_mask.astype(np.uint8), size) > 0)
            if reached.sum() >= LEAST_SHARE * self.mask.sum() and layer.misfit <= MOST_MISFIT * least:
                picture = cv2.resize(layer.image, size).round().clip(0, 255).astype(np.uint8)
                details.append(native_detail(picture, self.truth, reached))
        return max(details)


def measure(folder: Path) -> Measured | None:
    """Complete a scene without a fit; ``None`` if its references could not be aligned."""
    scene = Scene.load(folder).blanked()
    truth = read_image(folder / "target" / "gt.png", "the ground truth")[0]
    config = SampleConfig(num_samples=1, match_grain=False)
    (completion,) = complete(scene, "mini", config, geometry=GeometryConfig(), ranked=False, progress=False)
    found = composite_of(scene)
    return found and Measured(name=folder.name, mask=scene.mask, truth=truth, found=found, completion=completion)


def decibels(error: NDArray) -> str:
    return f"{10 * np.log10(255**2 / error.mean()):.2f}" if len(error) else "-"


def gained(before: NDArray, after: NDArray) -> str:
    return f"{10 * np.log10(before.mean() / after.mean()):+.2f}"


def print_thresholds(measured: Sequence[Measured]) -> None:
    print("| confidence | " + " | ".join(f"{m.name}: share, dB" for m in measured) + " | all: share | all: dB |")
    print("|---" * (len(measured) + 3) + "|")
    scenes = [(m.confidence, m.error(m.found.image)) for m in measured]
    confidence, error = (np.concatenate(values) for values in zip(*scenes, strict=True))
    for threshold in THRESHOLDS:
        each = [f"{100 * (c >= threshold).mean():.0f} %, {decibels(e[c >= threshold])}" for c, e in scenes]
        above = confidence >= threshold
        print(f"| {threshold} | " + " | ".join(each) + f" | {100 * above.mean():.0f} % | {decibels(error[above])} |")


def main(scenes: tyro.conf.Positional[Path], /) -> None:
    folders = sorted(path for path in scenes.iterdir() if (path / "target" / "gt.png").is_file())
    measured = [each for folder in folders if (each := measure(folder)) is not None]
    print_thresholds(measured)
    kinds = " | ".join(f"{kind}: share, composite's dB, gain" for kind in KINDS)
    rest, detail = "GMSD of the rest: composite / completion", "detail / sharpest reference"
    print(f"\n| scene | verdict, error | {kinds} | {rest} | {detail} |")
    print("|---" * 7 + "|")
    for each in measured:
        print(each.row())
    before = np.concatenate([m.error(m.found.image) for m in measured])
    after = np.concatenate([m.error(m.completion.image) for m in measured])
    kinds_of_all = np.concatenate([m.completion.evidence.kinds[m.mask] for m in measured])
    print("\n| all scenes | share | composite, dB | gain, dB |\n|---|---|---|---|")
    for name, kind in KINDS.items():
        here = kinds_of_all == kind
        cells = f"{100 * here.mean():.0f} % | {decibels(before[here])} | {gained(before[here], after[here])}"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
