"""Means that count each scene once, with bootstrap intervals over scenes, fit seeds and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
NUM_DRAWS = 2000
_MAX_CELLS = 1_000_000  # values held at a time

Nested: TypeAlias = Mapping[str, Sequence[Sequence[float]]]
"""Case to its runs to each run's finite values; no case and no run is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and how sure it is.

    Attributes:
        mean: over cases, of the mean over fit seeds, of the mean over seeds.
        low: lower end of the 95 % interval; ``None`` where there is a single value and so nothing to draw from.
        high: upper end, likewise.
        num_cases: cases that it is a mean of. With one, the interval tells of seeds alone, not of other scenes.
        num_values: values that it is a mean of.
    """

    mean: float
    low: float | None
    high: float | None
    num_cases: int
    num_values: int


def estimate(values: Nested, *, seed: int = 0, num_draws: int = NUM_DRAWS) -> Estimate | None:
    """Estimate the mean over cases.

    Each draw takes cases with replacement, in each of them fit seeds, in each of these seeds. Levels are drawn on top
    of each other, so intervals are a little too wide where seeds differ much, and too narrow for a handful of cases.

    Args:
        values: what to average.
        seed: of the draws; no global random state is used.
        num_draws: how many.

    Returns:
        The estimate, or ``None`` without values.
    """
    if not values:
        return None
    table = _Table.from_nested(values)
    generator = np.random.default_rng(seed)
    means = [table.draw(cases, generator).mean(axis=1) for cases in _case_draws([table], num_draws, generator)]
    return _summary(table.means(), [table], means)


def estimate_difference(a: Nested, b: Nested, *, seed: int = 0, num_draws: int = NUM_DRAWS) -> Estimate | None:
    """Estimate the mean over shared cases of a's mean minus b's.

    Each draw takes the same cases for both, then fit seeds and seeds of each by themselves.

    Args:
        a: minuend.
        b: subtrahend; cases that only one of them has are left out.
        seed: of the draws.
        num_draws: how many.

    Returns:
        The estimate, or ``None`` without shared cases.
    """
    shared = [case for case in a if case in b]
    if not shared:
        return None
    tables = [_Table.from_nested({case: values[case] for case in shared}) for values in (a, b)]
    generator = np.random.default_rng(seed)
    means = [
        (tables[0].draw(cases, generator) - tables[1].draw(cases, generator)).mean(axis=1)
        for cases in _case_draws(tables, num_draws, generator)
    ]
    return _summary(tables[0].means() - tables[1].means(), tables, means)


def case_means(values: Nested) -> dict[str, float]:
    """Compute each case's mean over fit seeds of the mean over seeds."""
    return {case: float(np.mean([np.mean(run) for run in runs])) for case, runs in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """Nested values as an array (cases, fit seeds, seeds), padded with zeros.

    Attributes:
        values: the array.
        num_fits: (cases,), how many fit seeds are real.
        num_seeds: (cases, fit seeds), how many seeds are.
    """

    values: NDArray[np.float64]
    num_fits: NDArray[np.intp]
    num_seeds: NDArray[np.intp]

    @classmethod
    def from_nested(cls, nested: Nested) -> _Table:
        num_fits = np.array([len(runs) for runs in nested.values()])
        num_seeds = np.zeros((len(nested), num_fits.max()), np.intp)
        values = np.zeros((*num_seeds.shape, max(len(run) for runs in nested.values() for run in runs)))
        for i, runs in enumerate(nested.values()):
            for j, run in enumerate(runs):
                num_seeds[i, j] = len(run)
                values[i, j, : len(run)] = run
        return cls(values=values, num_fits=num_fits, num_seeds=num_seeds)

    def means(self) -> NDArray[np.float64]:
        """Compute each case's mean, (cases,)."""
        runs = self.values.sum(axis=2) / np.maximum(self.num_seeds, 1)
        return runs.sum(axis=1) / self.num_fits

    def draw(self, cases: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.float64]:
        """Compute means of cases (draws, cases) over redrawn fit seeds and seeds, of the same shape."""
        fits, seeds = self.values.shape[1:]
        num_fits = self.num_fits[cases]
        fit = _below(num_fits[..., None], (*cases.shape, fits), generator)
        num_seeds = self.num_seeds[cases[..., None], fit]
        seed = _below(num_seeds[..., None], (*fit.shape, seeds), generator)
        drawn = self.values[cases[..., None, None], fit[..., None], seed]
        runs = np.where(np.arange(seeds) < num_seeds[..., None], drawn, 0).sum(axis=-1) / num_seeds
        return np.where(np.arange(fits) < num_fits[..., None], runs, 0).sum(axis=-1) / num_fits


def _below(limit: NDArray[np.intp], shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.intp]:
    """Draw whole numbers from 0 to below a limit that broadcasts to the shape."""
    return (generator.random(shape) * limit).astype(np.intp)


def _case_draws(tables: Sequence[_Table], num_draws: int, generator: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Yield drawn cases (draws, cases), as many draws at a time as memory should hold."""
    num_cases = len(tables[0].values)
    chunk = max(1, _MAX_CELLS // max(t.values.size for t in tables))
    for start in range(0, num_draws, chunk):
        yield generator.integers(num_cases, size=(min(chunk, num_draws - start), num_cases))


def _summary(means: NDArray[np.float64], tables: Sequence[_Table], draws: Sequence[NDArray[np.float64]]) -> Estimate:
    low = high = None
    if any(table.values.size > 1 for table in tables):
        tail = (1 - LEVEL) / 2
        low, high = (float(q) for q in np.quantile(np.concatenate(draws), [tail, 1 - tail]))
    num_values = sum(int(table.num_seeds.sum()) for table in tables)
    return Estimate(mean=float(means.mean()), low=low, high=high, num_cases=len(means), num_values=num_values)
