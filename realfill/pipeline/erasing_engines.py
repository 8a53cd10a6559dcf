"""What fills the hole of an erased object: a fit, the composite, or an engine that needs no references."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, get_args

from realfill.compute.progress import OnStep
from realfill.config import EngineName, FitConfig, SampleConfig
from realfill.config.engine import WEIGHTED_ENGINES, EraseEngineName
from realfill.errors import BaseModelError, SceneError
from realfill.filling.engines import load_engine
from realfill.models.engine import Engine
from realfill.pipeline.completing import complete
from realfill.pipeline.fitting import fit
from realfill.pipeline.plain import fill_by_engine
from realfill.results.completion import Completion
from realfill.scene.scene import Scene

_BEST_FIRST: tuple[EngineName, ...] = ("lama", "migan")  # without references, if their weights are on this machine
_ALWAYS_THERE: EngineName = "telea"
_NUM_MORE_SEEDS = 4  # candidates in place of one in which the engine has painted somebody
_MIN_COVERED = 0.02  # share of the hole that references must show for the composite to count as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of ``erase`` that its steps share."""

    engine: str | Engine | None
    weights: str | PathLike[str] | None
    trust_weights: bool
    config: FitConfig | None
    sample: SampleConfig | None
    seeds: Sequence[int]
    keywords: dict[str, Any]
    on_step: OnStep | None
    progress: bool

    def check(self, *, has_references: bool) -> None:
        """Check that the engine exists and that every argument has an effect.

        Raises:
            SceneError: the engine needs references, and there are none.
            ValueError: an argument is not legal.
        """
        legal, engine = (*get_args(EraseEngineName),), self.engine
        if not self.seeds:
            raise ValueError("seeds is empty; legal: at least one")
        if isinstance(engine, str) and engine not in legal:
            raise ValueError(f"there is no engine {engine!r}; legal: {', '.join(legal)}")
        if engine in ("composite", "fit") and not has_references:
            raise SceneError(
                f"the engine {engine!r} needs references, and there are none; add photos of the same place"
            )
        if self.weights is not None and engine not in WEIGHTED_ENGINES:
            raise ValueError(
                f"weights is {str(self.weights)!r}, but {self._described_engine} takes none; legal: an engine with "
                f"weights ({', '.join(WEIGHTED_ENGINES)}), or no weights"
            )
        if self.config is not None and engine != "fit":
            raise ValueError(
                f"config holds settings of a fit, but {self._described_engine} fits nothing; legal: the engine 'fit', "
                "or no config"
            )
        if self.sample is not None and engine not in ("base", "fit"):
            raise ValueError(
                f"sample holds settings of a diffusion model, but {self._described_engine} is none; legal: the engine "
                "'base' or 'fit', or no guidance_from, guidance_scale or sample"
            )
        consecutive = tuple(range(self.seeds[0], self.seeds[0] + len(self.seeds)))
        if engine == "fit" and tuple(self.seeds) != consecutive:
            raise ValueError(
                f"seeds is {tuple(self.seeds)}, and the engine 'fit' draws consecutive seeds; legal: seeds that count "
                f"up by 1, such as {', '.join(map(str, consecutive))}"
            )

    @property
    def can_draw_more(self) -> bool:
        """Whether other seeds give other candidates without another fit."""
        return self.engine == "base" or (self.engine is not None and not isinstance(self.engine, str))

    def with_other_seeds(self) -> Request:
        """Ask for four candidates of seeds that have not been drawn."""
        first = max(self.seeds) + 1
        return dataclasses.replace(self, seeds=tuple(range(first, first + _NUM_MORE_SEEDS)))

    @property
    def _described_engine(self) -> str:
        if self.engine is None:
            return "no engine is named, and the one that is chosen"
        return f"the engine {self.engine!r}" if isinstance(self.engine, str) else "the given engine"


def fill_by(scene: Scene, request: Request) -> tuple[list[Completion], str]:
    """Fill the hole once for each seed: the candidates, and the name of what filled it."""
    if request.engine == "fit":
        return _fit_and_complete(scene, request)
    if request.engine == "composite" or (request.engine is None and scene.references):
        return _fill_from_references(scene, request)
    chosen, used = _load(request)
    return fill_by_engine(scene, chosen, used, request.seeds, on_step=request.on_step), used


def _fit_and_complete(scene: Scene, request: Request) -> tuple[list[Completion], str]:
    """Fit a base model to the references, and complete the scene with it."""
    config = request.config or FitConfig(base="mini")
    adapter = fit(scene, config, on_step=request.on_step, progress=request.progress, **request.keywords)
    sample = request.sample or SampleConfig()
    sample = dataclasses.replace(sample, seed=request.seeds[0], num_samples=len(request.seeds))
    completions = complete(
        scene, adapter, sample, on_step=request.on_step, progress=request.progress, **request.keywords
    )  # fmt: skip
    return list(completions), f"fit of {config.base}"


def _fill_from_references(scene: Scene, request: Request) -> tuple[list[Completion], str]:
    """Fill from the references what they show, and the rest by an engine that needs none."""
    name = _best_plain(request)
    completions = complete(scene, name, on_step=request.on_step, progress=request.progress, **request.keywords)
    evidence = completions.best.evidence
    coverage = evidence.coverage if evidence is not None else 0.0
    if coverage < _MIN_COVERED:
        return list(completions), name
    return list(completions), "composite" if coverage == 1 else f"composite, {100 * (1 - coverage):.0f} % by {name}"


def _load(request: Request) -> tuple[Engine, str]:
    """Load the engine that was asked for, or the best one that can run here."""
    if request.engine is not None and not isinstance(request.engine, str):
        return request.engine, type(request.engine).__name__.lower()
    if request.engine is not None:
        engine = load_engine(
            request.engine,  # type: ignore[arg-type]
            weights=request.weights, trust_weights=request.trust_weights, sample=request.sample, **request.keywords,
        )  # fmt: skip
        return engine, request.engine
    name = _best_plain(request)
    return load_engine(name, **request.keywords), name


def _best_plain(request: Request) -> EngineName:
    """Return the best engine that needs neither references nor a file, and whose weights are on this machine."""
    for name in _BEST_FIRST:
        try:
            load_engine(name, device=request.keywords["device"], local_files_only=True)
        except BaseModelError:
            continue
        return name
    return _ALWAYS_THERE
