"""The speed study: its options, its measurements, and its tables."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from measuring import Figures, SpeedPart, Variant, measure
from profiling import profile_parts
from untrained import UNTRAINED, write_sd
from workloads import SpeedSetup, fit_variants, rank_variants, sample_variants

from realfill import __version__
from realfill.benchmark.cells import NOTHING, Table
from realfill.benchmark.report import table_text
from realfill.compute.devices import resolve_device
from realfill.config import MAX_REFERENCES, FitConfig, RankConfig, SampleConfig
from realfill.errors import OutputError
from realfill.results.provenance import describe_machine

_NOTES = [
    "Medians over rounds in which the variants take turns.",
    "A step: one optimizer step; one denoising step of one sample; one pair of images.",
    "A sample: one crop trained on; one image sampled; one image ranked.",
    "Latent cache: crops are encoded once and used as often as the name says; the time to encode them is included.",
    "Roofline: this machine's fastest large matrix product in the same precision, measured in between.",
    "Peak: tensors beyond those held before, on CUDA including the memory of kernels.",
    "Floor of ranking: the features of each image once and the attention of each pair, extrapolated from one of each.",
]


@dataclass(frozen=True, kw_only=True)
class SpeedStudy:
    """Measure speed and memory of fit, sampling and ranking on a synthetic scene."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
    """Also write all measurements to this file, as JSON."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``. None: the best available."""
    parts: tuple[SpeedPart, ...] = ("fit", "sample", "rank")
    """Parts to measure."""
    against: Literal["port"] | None = None
    """``port``: also measure a port of what public scripts do in each step, on the same model."""
    rounds: int = 5
    """Number of measurements of each variant."""
    fit_steps: int = 4
    """Optimizer steps of a round, after one that does not count. With a latent cache, rounded up until every cached
    crop has been used equally often. On a GPU at least four for each thread that draws crops ahead."""
    cache_uses: tuple[int, ...] = (16,)
    """Also fit with a latent cache whose crops are used this often, once for each number."""
    num_references: int = 3
    """Number of references to rank by, 1 to 5."""
    photo_px: int = 160
    """Longer side of the ranked photos, 64 or more. The matcher is LoFTR with random weights."""
    profile: bool = False
    """Also print the time of each part of the model and of the slowest operators."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: FitConfig(base="scaled-sd"))
    """Its base may also be ``scaled-sd``, Stable Diffusion 2 scaled down, or ``random-sd2``, its real size; both have
    random weights. ``num_steps`` is ignored."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    rank: RankConfig = field(default_factory=RankConfig)

    def __post_init__(self) -> None:
        legal = {
            "rounds": self.rounds >= 1, "fit_steps": self.fit_steps >= 1, "photo_px": self.photo_px >= 64,
            "num_references": 1 <= self.num_references <= MAX_REFERENCES,
            "cache_uses": all(uses >= 1 for uses in self.cache_uses),
        }  # fmt: skip
        for name, is_legal in legal.items():
            if not is_legal:
                raise ValueError(f"{name} is {getattr(self, name)}; see --help for the legal range")
        if self.output is not None and not self.output.parent.is_dir():
            raise OutputError(f"the folder {str(self.output.parent)!r} does not exist; create it first")

    def __call__(self) -> None:
        """Measure, print the tables, and write the file."""
        device = resolve_device(self.device)
        with tempfile.TemporaryDirectory() as folder:
            fit = self.fit
            if fit.base in UNTRAINED:
                fit = dataclasses.replace(fit, base=str(write_sd(fit.base, Path(folder))))
            setup = SpeedSetup.load(fit, self.sample, device)
            figures, profiles = self._measure(setup)
        machine = describe_machine(device)
        tables = [_figures_table(figures), *(_profile_table(*item) for item in profiles.items())]
        print("\n\n".join([f"# Speed of {self.fit.base!r} on {machine}", *map(table_text, tables)]))
        if self.output is not None:
            about = {
                "base": self.fit.base, "machine": machine,
                "versions": {"realfill": __version__, "torch": torch.__version__},
                "fit": {**setup.fit.to_dict(), "base": self.fit.base}, "sample": setup.sample.to_dict(),
                "rank": self.rank.to_dict(),
            }  # fmt: skip
            values = {"about": about, "figures": [asdict(f) for f in figures], "profiles": profiles}
            self.output.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    def _measure(self, setup: SpeedSetup) -> tuple[list[Figures], dict[str, dict[str, dict[str, float]]]]:
        """Measure all parts: figures of every variant, and profiles of the library's own."""
        port = self.against == "port"
        variants_of: dict[SpeedPart, Callable[[], list[Variant]]] = {
            "fit": lambda: fit_variants(setup, self.fit_steps, latent_cache_uses=self.cache_uses, port=port),
            "sample": lambda: sample_variants(setup, port=port),
            "rank": lambda: rank_variants(
                setup.device, self.rank, side=self.photo_px, num_references=self.num_references,
                num_samples=setup.sample.num_samples, port=port,
            ),
        }  # fmt: skip
        figures, profiles = [], {}
        for part in self.parts:
            variants = variants_of[part]()
            figures += measure(variants, setup.device, self.rounds)
            if self.profile:
                profiles[part] = profile_parts(variants[0].run, setup.device)
        return figures, profiles


def _figures_table(figures: Sequence[Figures]) -> Table:
    speeds = {(f.part, f.variant): f.samples_per_s for f in figures}

    def ratio(variant: str, f: Figures) -> str:
        other = speeds.get((f.part, variant))
        return NOTHING if other is None or f.variant == variant else f"{f.samples_per_s / other:.2f}"

    rows = [
        (
            f.part, f.variant, f.dtype, f"{f.step_s:.4g}", f"{f.samples_per_s:.4g}", f"{f.sample_gflop:.4g}",
            f"{100 * f.roofline_share:.0f} %", f"{f.peak_mb:.0f}", f"{f.set_up_s:.1f}",
            ratio("realfill", f), ratio("port", f),
        )
        for f in figures
    ]  # fmt: skip
    header = (
        "part", "variant", "dtype", "s per step", "samples per s", "GFLOP per sample", "share of roofline",
        "peak (MB)", "set-up (s)", "speed / realfill's", "speed / port's",
    )  # fmt: skip
    return Table(title="Speed", notes=_NOTES, header=header, rows=rows)


def _profile_table(part: str, profile: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [(kind, name, f"{ms:.1f}") for kind, items in profile.items() for name, ms in items.items()]
    notes = [
        "Milliseconds of one run of the library, including the set-up.",
        "Parts contain operators; the times of operators exclude the operators that they call.",
    ]
    return Table(title=f"Profile: {part}", notes=notes, header=("kind", "name", "ms"), rows=rows)
