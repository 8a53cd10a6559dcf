"""Compare the scores that completions can be ranked by, on planted scenes whose truth is known.

    python examples/planted_cases.py TEXTURES CASES --part 2 --seeds 200 201 202
    python examples/ranking_scores.py CASES --parts 2

Each scene has twelve candidates: samples of the unfitted packaged base, the truth blurred, shifted, mixed with other
content or wrong in one part, and a smooth fill. The table has, for each score, Spearman's correlation with the PSNR of
the hole within a scene, and the share of what the best candidate gains over the mean that the top-ranked one gains,
with 95 % bootstrap intervals over scenes. Keypoints are matched by SIFT, since it needs no weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray
from planted_cases import Case, load_cases
from scipy.stats import spearmanr

from realfill import Completions, RankConfig, Scene
from realfill.benchmark.metrics import psnr
from realfill.config import ScoreBy
from realfill.geometry.matching import Features, Matcher, Matches, SiftMatcher
from realfill.io.images import ImageArray
from realfill.models.classical import inpaint_smooth
from realfill.ranking.composite_agreement import score_by_composite
from realfill.ranking.keypoints import score_by_keypoints
from realfill.ranking.verified_keypoints import score_by_verified_keypoints
from realfill.ranking.warped_references import score_by_warped_references
from realfill.results.completions import Completion

SCORES: tuple[ScoreBy, ...] = ("keypoints", "verified_keypoints", "warped_references", "composite")


class Remembering(Matcher):
    """SIFT with the default thresholds, which matches each pair of images once."""

    def __init__(self) -> None:
        settings = RankConfig(matcher="sift").resolve({})
        self._sift = SiftMatcher(max_size_px=settings.max_size_px, max_ratio=settings.max_ratio)
        self._features: dict[bytes, tuple[bytes, Features]] = {}
        self._matches: dict[tuple[bytes, bytes], Matches] = {}

    def extract(self, image: ImageArray) -> Features:
        key = image.tobytes()
        if key not in self._features:
            self._features[key] = key, self._sift.extract(image)
        return self._features[key]

    def match(self, features0: Features, features1: Features) -> Matches:
        key = features0[0], features1[0]
        if key not in self._matches:
            self._matches[key] = self._sift.match(features0[1], features1[1])
        return self._matches[key]


def candidates(case: Case, other: ImageArray, rng: np.random.Generator) -> list[ImageArray]:
    """Fill the hole in twelve ways, from nearly right to entirely wrong; ``other`` is another scene's truth."""
    truth = case.truth.astype(np.float32)
    shifts = [cv2.warpAffine(truth, np.array([[1, 0, d], [0, 1, d / 2]], float), truth.shape[1::-1], borderMode=1)
              for d in (2, 5, 12)]  # fmt: skip
    columns = np.flatnonzero(case.mask.any(axis=0))
    middle = int(np.median(columns))
    wrong = truth.copy()
    wrong[:, middle:] = other[:, middle:]
    mirrored = truth.copy()
    left, right = columns.min(), columns.max() + 1
    mirrored[:, left:right] = truth[:, left:right][:, ::-1]
    images = [
        *(cv2.GaussianBlur(truth, (0, 0), sigma) for sigma in (1.0, 3.0)), *shifts, wrong, mirrored,
        *((1 - share) * truth + share * other for share in (0.3, 0.7)), *case.samples.astype(np.float32),
        inpaint_smooth(case.known, case.mask).astype(np.float32),
    ]  # fmt: skip
    grainy = [np.clip(image + rng.normal(scale=2, size=image.shape), 0, 255).astype(np.uint8) for image in images]
    return [np.where(case.mask[..., None], image, case.truth) for image in grainy]


def score(case: Case, images: Sequence[ImageArray], score_by: ScoreBy, matcher: Matcher) -> NDArray[np.float64]:
    """Score all candidates of a case, in their order; without evidence all are 0."""
    scene = Scene(case.references, case.known, case.mask)
    items = tuple(Completion.from_image(image, scene, seed) for seed, image in enumerate(images))
    completions, excluded = Completions(items=items, scene=scene), [None] * len(case.references)
    if score_by == "keypoints":
        ranked = score_by_keypoints(completions, case.references, excluded, matcher, lambda _: None)
    elif score_by == "verified_keypoints":
        ranked = score_by_verified_keypoints(
            completions, case.references, excluded, matcher, case.warps(), lambda _: None
        )
    elif score_by == "warped_references":
        ranked = score_by_warped_references(completions, case.references, excluded, None, lambda _: None)
    else:
        ranked = score_by_composite(completions, case.composite, case.confidence, lambda _: None)
    by_seed = {c.seed: c.score or 0.0 for c in ranked}
    return np.array([by_seed[seed] for seed in range(len(images))])


def figures(scores: NDArray, quality: NDArray) -> tuple[float, float]:
    """Return the rank correlation and the share of the possible gain; 0 and 0 where all scores are equal."""
    if np.ptp(scores) == 0:
        return 0.0, 0.0
    top = quality[scores == scores.max()].mean()
    return float(spearmanr(scores, quality).statistic), float((top - quality.mean()) / (quality.max() - quality.mean()))


def interval(values: NDArray, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(5000, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def main(cases: tyro.conf.Positional[Path], /, parts: tuple[int, ...] = (2,), *, least_coverage: float = 0.2) -> None:
    warnings.simplefilter("ignore")
    loaded = [case for part in parts for case in load_cases(cases, part)]
    shown = [case for case in loaded if case.visible[case.mask].mean() >= least_coverage]
    results: dict[ScoreBy, list[tuple[float, float]]] = {name: [] for name in SCORES}
    for place, case in enumerate(shown):
        images = candidates(case, loaded[(place + 7) % len(loaded)].truth, np.random.default_rng(place))
        quality = np.array([psnr(image, case.truth, case.mask) for image in images])
        matcher = Remembering()
        for name in SCORES:
            results[name].append(figures(score(case, images, name, matcher), quality))
    print(f"{len(shown)} scenes, {len(images)} candidates each\n")
    print("| score | Spearman | gain of the top |\n|---|---|---|")
    for name, values in results.items():
        table = np.array(values)
        print(f"| `{name}` | {interval(table[:, 0])} | {interval(table[:, 1])} |")
    for other in SCORES[:-1]:
        print(f"\n| less `{other}` | Spearman | gain of the top |\n|---|---|---|")
        for name in SCORES[SCORES.index(other) + 1 :]:
            table = np.array(results[name]) - np.array(results[other])
            print(f"| `{name}` | {interval(table[:, 0])} | {interval(table[:, 1])} |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
