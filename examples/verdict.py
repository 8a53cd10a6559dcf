"""Measure the verdict on planted cases whose truth is known, and print a table of hits and misses.

    python examples/planted_cases.py TEXTURES CASES --part 2 --seeds 200 201 202
    python examples/verdict.py CASES --parts 2

Each planted scene is judged five times: as the composite leaves it; completed as ``complete`` does, by Telea's method
or by the unfitted packaged base; and with the whole hole filled by that base or by a smooth fill. ``authentic`` is
right if the hole's mean absolute error is at most 12 levels, ``unsupported`` if references show less than 20 % of the
hole or the error is above 30, ``doubtful`` between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import tyro
from planted_cases import Case, completed, keep, load_cases

from realfill.io.images import ImageArray
from realfill.models.classical import inpaint_smooth, inpaint_telea
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.results.verdict import (
    AUTHENTIC_LEVELS,
    UNSUPPORTED_COVERAGE,
    UNSUPPORTED_LEVELS,
    Verdict,
    VerdictKind,
    judge,
)

KINDS: tuple[VerdictKind, ...] = get_args(VerdictKind)
KEPT = 0.35  # confidence from which a completion keeps the composite as it is
BANDS = (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 1.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A judged completion of a planted scene; ``right`` is the verdict that its truth demands."""

    scene: str
    filling: str
    verdict: Verdict
    right: VerdictKind
    error: float

    @property
    def is_right(self) -> bool:
        return self.verdict.kind == self.right


def completions(case: Case, base: StableDiffusionInpainter) -> dict[str, ImageArray]:
    """Fill the hole of a case in several ways."""
    kept, hinted = (keep(case, case.composite, case.confidence, case.source, b) for b in (None, base))
    by_telea, left = case.known.copy(), kept.scene
    fill = np.zeros((0, 3), np.uint8) if left is None else inpaint_telea(left.known, left.mask)[left.mask]
    by_telea[case.mask] = kept.joined(fill)
    return {
        "composite": case.composite,
        "kept and Telea": by_telea,
        "kept and base": completed(case, hinted, base, 1),
        "unfitted base": case.samples[0],
        "smooth": inpaint_smooth(case.known, case.mask),
    }


def truth_of(case: Case, image: ImageArray) -> tuple[VerdictKind, float]:
    """Return the right verdict and the hole's mean absolute error in levels."""
    error = float(np.abs(image[case.mask].astype(float) - case.truth[case.mask]).mean())
    if case.visible[case.mask].mean() < UNSUPPORTED_COVERAGE or error > UNSUPPORTED_LEVELS:
        return "unsupported", error
    return ("authentic" if error <= AUTHENTIC_LEVELS else "doubtful"), error


def judge_all(cases: Sequence[Case]) -> list[Judged]:
    results, base = [], StableDiffusionInpainter.load("mini")
    for case in cases:
        for filling, image in completions(case, base).items():
            verdict = judge(
                image, case.mask, composite=case.composite, confidence=case.confidence, source=case.source,
                contradiction=case.contradiction,
            )  # fmt: skip
            right, error = truth_of(case, image)
            results.append(Judged(scene=case.name, filling=filling, verdict=verdict, right=right, error=error))
    return results


def _share(results: Sequence[Judged], *, false_authentic: bool) -> str:
    """Return the share of right or of falsely authentic verdicts, with its 95 % bootstrap interval over scenes."""
    scenes: dict[str, list[bool]] = {}
    for j in results:
        hit = j.verdict.kind == "authentic" and not j.is_right if false_authentic else j.is_right
        scenes.setdefault(j.scene, []).append(hit)
    shares = 100 * np.array([np.mean(hits) for hits in scenes.values()])
    low, high = np.percentile(np.random.default_rng(0).choice(shares, (10_000, len(shares))).mean(axis=1), (2.5, 97.5))
    return f"{shares.mean():.1f} % [{low:.1f}, {high:.1f}]"


def print_shares(title: str, groups: dict[str, list[Judged]]) -> None:
    print(f"\n| {title} | cases | right | false authentic |\n|---|---|---|---|")
    for name, group in groups.items():
        false = sum(j.verdict.kind == "authentic" and not j.is_right for j in group)
        print(f"| {name} | {len(group)} | {100 * np.mean([j.is_right for j in group]):.0f} % | {false} |")


def print_table(results: Sequence[Judged]) -> None:
    counts = Counter((j.right, j.verdict.kind) for j in results)
    print("| truth \\ verdict | " + " | ".join(KINDS) + " |\n|---|---|---|---|")
    for right in KINDS:
        print(f"| {right} | " + " | ".join(str(counts[right, kind]) for kind in KINDS) + " |")
    print("\n| always | right | false authentic |\n|---|---|---|")
    for kind in KINDS:
        share = float(np.mean([j.right == kind for j in results]))
        print(f"| {kind} | {100 * share:.0f} % | {100 * (1 - share if kind == 'authentic' else 0):.0f} % |")
    print(f"| the verdict | {_share(results, false_authentic=False)} | {_share(results, false_authentic=True)} |")
    kinds = sorted({j.scene.rsplit("-", 1)[0] for j in results})
    print_shares("scene", {k: [j for j in results if j.scene.rsplit("-", 1)[0] == k] for k in kinds})
    fillings = list(dict.fromkeys(j.filling for j in results))
    print_shares("filling", {f: [j for j in results if j.filling == f] for f in fillings})


def print_calibration(cases: Sequence[Case]) -> None:
    """Print the mean absolute error of the composite for each band of confidence."""
    confidence, error = [], []
    for case in cases:
        shown = case.mask & (case.source >= 0)
        confidence.append(case.confidence[shown])
        error.append(np.abs(case.composite[shown].astype(float) - case.truth[shown]).mean(axis=1))
    confidence, error = np.concatenate(confidence), np.concatenate(error)
    print("\n| confidence | share of the shown pixels | mean absolute error |\n|---|---|---|")
    for low, high in pairwise(BANDS):
        within = (confidence >= low) & (confidence < high)
        if within.any():
            print(f"| {low:.2f} to {min(high, 1):.2f} | {100 * within.mean():.0f} % | {error[within].mean():.1f} |")
    print(f"| {KEPT} and above | {100 * (confidence >= KEPT).mean():.0f} % | {error[confidence >= KEPT].mean():.1f} |")


def main(cases: tyro.conf.Positional[Path], /, parts: tuple[int, ...] = (2,), *, misses: bool = False) -> None:
    loaded = [case for part in parts for case in load_cases(cases, part)]
    results = judge_all(loaded)
    print_table(results)
    print_calibration(loaded)
    for j in results if misses else ():
        if not j.is_right:
            print(f"{j.scene}, {j.filling}: {j.verdict.kind}, right is {j.right} ({j.error:.0f}): {j.verdict.reason}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
