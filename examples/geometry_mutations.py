"""Plant faults of meaning in the code of matching, cameras, choice and ranking, and see which a test notices.

Each mutant changes one place of one module, in memory and in a child process, so that no file changes. The tests of its
area run up to the first failure, those of the mutated module first. A mutant that survives shows a hole in the tests.

    OMP_NUM_THREADS=1 python examples/geometry_mutations.py --areas matching cameras
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest
import tyro
from forked import preload

_ROOT = Path(__file__).parents[1]
_MAX_S = 300.0

_TESTS = {
    "matching": [f"geometry/test_{n}.py" for n in ("matching", "correspondences", "network_matchers")],
    "cameras": [f"geometry/test_{n}.py" for n in ("cameras", "adjustment", "reconstruction")],
    "choice": [f"geometry/test_{n}.py" for n in ("choice", "confidence", "layers")],
    "ranking": [
        f"ranking/test_{n}.py"
        for n in ("composite_agreement", "keypoints", "rank", "verified_keypoints", "warped_references")
    ],
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault in the code.

    Attributes:
        module: the module below ``realfill``.
        what: the fault, in words.
        old: text that occurs once in the module.
        new: text that replaces it.
    """

    module: str
    what: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """The module's file."""
        return _ROOT / "realfill" / f"{self.module.replace('.', '/')}.py"

    def source(self) -> str:
        """Return the mutated text of the module."""
        text = self.path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.old!r} occurs {text.count(self.old)} times in {self.path}; legal: once")
        return text.replace(self.old, self.new)


MUTANTS = {
    "matching": (
        Mutant("geometry.matching", "points of a shrunk target are off by half a pixel",
               "points = ((matches.keypoints1 + 0.5) * scale - 0.5)", "points = (matches.keypoints1 * scale)"),
        Mutant("geometry.matching", "matches in the hole are kept",
               "results.append(matches[~lies_in(points, mask)])", "results.append(matches)"),
        Mutant("geometry.matching", "matches need not be mutual",
               " and nearest1[best.trainIdx] == best.queryIdx", ""),
        Mutant("geometry.matching", "the confidence is the ratio",
               "best.queryIdx, 1 - ratio)", "best.queryIdx, ratio)"),
        Mutant("geometry.matching", "points belong to the pixel to the upper left",
               "x, y = np.rint(points).astype(int).reshape(-1, 2).T\n    return mask[",
               "x, y = np.floor(points).astype(int).reshape(-1, 2).T\n    return mask["),
        Mutant("geometry.correspondences", "keypoints are off by half a pixel",
               ".reshape(-1, 2) + 0.5) / np.float32(scale) - np.float32(0.5)", ".reshape(-1, 2)) / np.float32(scale)"),
        Mutant("geometry.correspondences", "patches may reach into the hole",
               "outside = distance[y, x] > radius", "outside = distance[y, x] > 0"),
        Mutant("geometry.correspondences", "references are matched with each other by affine views",
               "(shape[0], shape[1])), plain, 0.8, 1.0)", "(shape[0], shape[1])), views, 0.8, 1.0)"),
        Mutant("geometry.correspondences", "the matches of normal views are lost",
               "np.concatenate([candidates[pair], more]) if pair in candidates else more", "more"),
        Mutant("geometry.correspondences", "the sides of two photos are swapped",
               "(sides[pair[0]], sides[pair[1]])", "(sides[pair[1]], sides[pair[0]])"),
        Mutant("geometry.correspondences", "a matcher's matches in the second mask are kept",
               "verify(table[~lies_in(kept.keypoints1, excluded[j])], sides)", "verify(table, sides)"),
    ),
    "cameras": (
        Mutant("geometry.cameras", "the rotation is not transposed",
               "(local - self.translation) @ self.rotation", "(local - self.translation) @ self.rotation.T"),
        Mutant("geometry.cameras", "a point may lie behind all cameras but the first",
               "for camera in cameras:\n        depth = points", "for camera in cameras[:1]:\n        depth = points"),
        Mutant("geometry.cameras", "the places of cameras are turned the wrong way",
               "camera.rotation.T @ camera.translation", "camera.rotation @ camera.translation"),
        Mutant("geometry.reconstruction", "one good observation of a point suffices",
               "errors.max(axis=0) <", "errors.min(axis=0) <"),
        Mutant("geometry.reconstruction", "the two limits of doubt about EXIF are swapped",
               "(1.0 if together else _DOUBT)", "(_DOUBT if together else 1.0)"),
        Mutant("geometry.reconstruction", "a plane's points lie behind the camera",
               "@ normal.ravel() > 0", "@ normal.ravel() < 0"),
        Mutant("geometry.reconstruction", "EXIF does not bound the focal length",
               ", max_factor=_EXIF_FACTOR", ""),
        Mutant("geometry.adjustment", "a step in depth has the wrong sign",
               "-(by_ray @ ray[:, :, None])", "(by_ray @ ray[:, :, None])"),
        Mutant("geometry.adjustment", "the derivative by the focal length ignores distortion",
               "np.stack([focal * (1 + distortion * radius) * ray,", "np.stack([focal * ray,"),
        Mutant("geometry.adjustment", "a prior's sigma is not squared",
               "_DISTORTION_SIGMA)], axis=1) ** 2", "_DISTORTION_SIGMA)], axis=1)"),
        Mutant("geometry.adjustment", "the points seen least often take part",
               "np.argsort(-views[candidates]", "np.argsort(views[candidates]"),
    ),
    "choice": (
        Mutant("geometry.choice", "the labels already given do not count",
               "(cost[d] + arrived[d] + right[d] + below[d])", "(cost[d] + right[d] + below[d])"),
        Mutant("geometry.choice", "seams to pixels outside the hole cost",
               "inside[d, here] & inside[d + 1, there]", "inside[d, here] | inside[d + 1, there]"),
        Mutant("geometry.choice", "a seam is judged on one of its sides",
               "for shown in (here, there):", "for shown in (here, here):"),
        Mutant("geometry.choice", "the last row of the hole is left out",
               "slice(rows[0], rows[-1] + 1)", "slice(rows[0], rows[-1])"),
        Mutant("geometry.layers", "distances at half size are not doubled",
               "cv2.DIST_L2, 5) * (2 / side)", "cv2.DIST_L2, 5) * (1 / side)"),
        Mutant("geometry.layers", "a reference's layers confirm each other",
               "for b in range(a) if candidates[b].warp.reference != one.warp.reference]", "for b in range(a)]"),
        Mutant("geometry.layers", "the votes of visible pixels are dropped instead of those of hidden ones",
               "np.where(hidden[b], np.float32(np.inf), error), out=votes[a]",
               "np.where(hidden[a], np.float32(np.inf), error), out=votes[a]"),
        Mutant("geometry.layers", "hidden pixels cost nothing",
               " + _VOTE * vote + _HIDDEN_COST * hidden[n]", " + _VOTE * vote"),
        Mutant("geometry.layers", "pixels that a layer does not show have a cost like others",
               "cost=np.where(valid[n], cost, _WORST)", "cost=cost"),
        Mutant("geometry.confidence", "the slope has no limit",
               "interpolation=cv2.INTER_AREA).clip(0, _STEEPEST)", "interpolation=cv2.INTER_AREA)"),
        Mutant("geometry.confidence", "corrections of both signs cancel out",
               "np.abs(correction).mean(axis=2)", "np.abs(correction.mean(axis=2))"),
    ),
    "ranking": (
        Mutant("ranking.composite_agreement", "the error is divided by the hole's pixels, not by their trust",
               "* weight).sum() / weight.sum())", "* weight).sum() / mask.sum())"),
        Mutant("ranking.composite_agreement", "differences are compared without blur",
               "cv2.GaussianBlur(image.astype(np.float32) - composite.astype(np.float32), (0, 0), sigma)",
               "image.astype(np.float32) - composite.astype(np.float32)"),
        Mutant("ranking.composite_agreement", "the trust is averaged over the whole target",
               "weight[mask].mean() <", "weight.mean() <"),
        Mutant("ranking.keypoints", "a reference's masked part is shown to the matcher",
               "extract(hide(*pair)) for pair", "extract(pair[0]) for pair"),
        Mutant("ranking.keypoints", "a group of completions lacks its last one",
               "start : start + _GROUP_SIZE]", "start : start + _GROUP_SIZE - 1]"),
        Mutant("ranking.keypoints", "ties are won by the less confident",
               "-pair[1], pair[0].seed)", "pair[1], pair[0].seed)"),
        Mutant("ranking.scores", "completions without a score come first",
               "math.inf if c.score is None", "-math.inf if c.score is None"),
        Mutant("ranking.verified_keypoints", "a small picture in a reference lessens the tolerance",
               "max(1.0, float(np.median(steps)))", "float(np.median(steps))"),
        Mutant("ranking.warped_references", "references are weighted by their error, not its square",
               "max(warp.error, 1.0) ** 2", "max(warp.error, 1.0)"),
        Mutant("ranking.warped_references", "a completion counts among the others",
               "self.fills[:index] + self.fills[index + 1 :]", "self.fills"),
        Mutant("ranking.warped_references", "a warp counts where it shows nothing",
               "self.hole_mask & ~resize_mask(~w.valid_mask[box] & small_mask[box], shape) for w in warps",
               "self.hole_mask for w in warps"),
    ),
}  # fmt: skip


class _FirstFailure:
    """A plugin of pytest that remembers the first test, or file, that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.name:
            broken = isinstance(report, pytest.CollectReport)
            self.name = f"{report.nodeid}, which cannot be imported" if broken else report.nodeid


def find_killer(mutant: Mutant, tests: Sequence[Path]) -> str:
    """Run tests on a mutant in a child.

    Returns:
        The name of the first test that fails; empty if all pass.
    """
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            return pool.apply_async(_run, (mutant, mutant.source(), [str(test) for test in tests])).get(_MAX_S)
        except multiprocessing.TimeoutError:
            return f"more than {_MAX_S:.0f} s"


def _run(mutant: Mutant, source: str, tests: Sequence[str]) -> str:
    for name in [name for name in sys.modules if name.split(".")[0] == "realfill"]:
        del sys.modules[name]
    usual = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if fullname == f"realfill.{mutant.module}":
            return compile(source, mutant.path, "exec")
        return usual(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # xdist, and plugins that were imported too early for pytest
    first = _FirstFailure()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = pytest.main([*tests, "-x", "-p", "no:cacheprovider"], plugins=[first])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not first.name:
        raise RuntimeError(f"pytest ended with {status!r}: {printed.getvalue()[-2000:]}")
    return first.name


def order(mutant: Mutant, area: str) -> list[Path]:
    """List the tests of an area, those of the mutant's module first."""
    tests = [_ROOT / "tests" / test for test in _TESTS[area]]
    return sorted(tests, key=lambda test: test.stem != f"test_{mutant.module.split('.')[-1]}")


def main(*, areas: tuple[str, ...] = tuple(MUTANTS), only: tuple[str, ...] = ()) -> None:
    """Print one line for each mutant, and the share killed in each area.

    Args:
        areas: the areas to mutate.
        only: words of which one must occur in a mutant's description; empty: all mutants.
    """
    preload()
    for area in areas:
        mutants = [m for m in MUTANTS[area] if not only or any(words in m.what for words in only)]
        killed = 0
        for mutant in mutants:
            killer = find_killer(mutant, order(mutant, area))
            killed += bool(killer)
            result = f"killed by {killer.removeprefix('tests/')}" if killer else "SURVIVED"
            print(f"{area}, {mutant.module}: {mutant.what}: {result}", flush=True)
        print(f"{area}: {killed} of {len(mutants)} killed", flush=True)


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
