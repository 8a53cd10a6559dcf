"""Compare the scores that completions can be ranked by, on the samples of real fits.

    realfill bench SCENES -o OUT --base mini --methods realfill --fit-seeds 3
    python examples/ranked_fits.py SCENES OUT
    python examples/ranked_fits.py SCENES OUT --method realfill_plain

OUT holds a finished benchmark with at least two samples for each fit. The first table has, for each score, Spearman's
correlation with the PSNR within a fit and what the top-ranked sample gains over the mean of the samples in dB, in the
whole hole and in the invented pixels alone; ``best`` is the sample with the highest PSNR. Means over scenes, each the
mean of its fits, with 95 % bootstrap intervals over scenes. The second table has PSNR and GMSD of the invented pixels,
of the composite with Telea's fill and of the samples, in all scenes that have such pixels. Keypoints are matched by
SIFT, since it needs no weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from ranking_scores import SCORES, Remembering, interval
from scipy.stats import spearmanr

from realfill import Completions, GeometryConfig, Scene
from realfill.benchmark.metrics import gmsd, psnr
from realfill.config import ScoreBy
from realfill.geometry.composite import Composite, composite
from realfill.geometry.matching import Matcher
from realfill.io.images import ImageArray, MaskArray, read_image
from realfill.ranking.composite_agreement import score_by_composite
from realfill.ranking.keypoints import score_by_keypoints
from realfill.ranking.verified_keypoints import score_by_verified_keypoints
from realfill.ranking.warped_references import score_by_warped_references
from realfill.results.completion import Completion

LEAST_PIXELS = 200  # invented pixels from which a scene has any to measure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """A scene of a benchmark, its composite, and the samples of each fit."""

    name: str
    scene: Scene
    truth: ImageArray
    found: Composite
    invented: MaskArray
    fits: Sequence[Sequence[ImageArray]]


def read(folder: Path, cases: Path, method: str) -> Fitted:
    """Read a scene and the samples of one method, and compute the composite."""
    scene = Scene.load(folder).blanked()
    found = composite(
        scene.known, scene.mask, scene.references, reference_masks=scene.reference_masks, focals=scene.focal_lengths,
        frame=scene.frame,
    )  # fmt: skip
    fits = [
        [read_image(path, "a sample")[0] for path in sorted(fit.glob("seed*.png"))]
        for fit in sorted((cases / folder.name / method).glob("fit*"))
    ]
    least = GeometryConfig().resolve({}).corrected_confidence
    return Fitted(
        name=folder.name, scene=scene, truth=read_image(folder / "target" / "gt.png", "the ground truth")[0],
        found=found, invented=scene.mask & ((found.confidence < least) | (found.source < 0)), fits=fits,
    )  # fmt: skip


def score(fitted: Fitted, images: Sequence[ImageArray], score_by: ScoreBy, matcher: Matcher) -> NDArray[np.float64]:
    """Score the samples of a fit, in their order; without evidence all are 0."""
    scene, found = fitted.scene, fitted.found
    items = tuple(Completion.from_image(image, scene, seed) for seed, image in enumerate(images))
    completions, photos = Completions(items=items, scene=scene), scene.references
    excluded = scene.reference_masks
    if score_by == "keypoints":
        ranked = score_by_keypoints(completions, photos, excluded, matcher, lambda _: None)
    elif score_by == "verified_keypoints":
        warps = [layer.warp for layer in found.layers]
        ranked = score_by_verified_keypoints(
            completions, photos, excluded, matcher, warps, lambda _: None, reference_sizes=found.reference_sizes
        )
    elif score_by == "warped_references":
        ranked = score_by_warped_references(completions, photos, excluded, None, lambda _: None)
    else:
        ranked = score_by_composite(completions, found.image, found.confidence, lambda _: None)
    by_seed = {c.seed: c.score or 0.0 for c in ranked}
    return np.array([by_seed[seed] for seed in range(len(images))])


def figures(scores: NDArray, quality: NDArray) -> tuple[float, float]:
    """Return the rank correlation and the gain of the top-ranked samples in dB; 0 and 0 where all are equal."""
    if np.ptp(scores) == 0 or np.ptp(quality) == 0:
        return 0.0, 0.0
    top = quality[scores == scores.max()].mean()
    return float(spearmanr(scores, quality).statistic), float(top - quality.mean())


def main(scenes: tyro.conf.Positional[Path], bench: tyro.conf.Positional[Path], /, method: str = "realfill") -> None:
    warnings.simplefilter("ignore")
    names = (*SCORES, "best")
    rows: dict[str, dict[str, list[NDArray]]] = {part: {name: [] for name in names} for part in ("hole", "invented")}
    lines = []
    for folder in sorted(path for path in scenes.iterdir() if (bench / "cases" / path.name / method).is_dir()):
        fitted, matcher = read(folder, bench / "cases", method), Remembering()
        parts = {"hole": fitted.scene.mask}
        if fitted.invented.sum() >= LEAST_PIXELS:
            parts["invented"] = fitted.invented
            samples = [image for images in fitted.fits for image in images]
            cells = [fitted.name, f"{100 * fitted.invented.sum() / fitted.scene.mask.sum():.0f} %"]
            for measure, digits in ((psnr, 2), (gmsd, 3)):
                before = measure(fitted.found.image, fitted.truth, fitted.invented)
                after = np.mean([measure(image, fitted.truth, fitted.invented) for image in samples])
                cells.append(f"{before:.{digits}f} / {after:.{digits}f}")
            lines.append("| " + " | ".join(cells) + " |")
        values: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for images in fitted.fits:
            quality = {part: np.array([psnr(i, fitted.truth, mask) for i in images]) for part, mask in parts.items()}
            scored = {name: score(fitted, images, name, matcher) for name in SCORES}
            for part, reached in quality.items():
                for name in names:
                    values.setdefault((part, name), []).append(figures(scored.get(name, reached), reached))
        for (part, name), each in values.items():
            rows[part][name].append(np.mean(each, axis=0))
    for part, table in rows.items():
        count = len(table["best"])
        print(f"{method}, {part}: {count} scenes\n\n| score | Spearman | gain of the top, dB |\n|---|---|---|")
        for name, each in table.items() if count else ():
            print(f"| `{name}` | {interval(np.array(each)[:, 0])} | {interval(np.array(each)[:, 1])} |")
        print()
    print("| scene | invented | PSNR: composite / samples | GMSD: composite / samples |\n|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
