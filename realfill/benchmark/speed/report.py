"""The speed benchmark as a whole, and what it tells: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from realfill import __version__
from realfill.benchmark.cells import NOTHING, Table
from realfill.benchmark.config import SpeedConfig, SpeedPart
from realfill.benchmark.report import table_text
from realfill.benchmark.speed.measuring import Figures, Variant, measure
from realfill.benchmark.speed.profiling import where_time_goes
from realfill.benchmark.speed.scaling import Growth, growth
from realfill.benchmark.speed.workloads import Workplace, fit_variants, rank_variants, sample_variants
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.devices import resolve_device
from realfill.models.untrained import UNTRAINED, write_sd
from realfill.provenance import describe_machine


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedReport:
    """What the speed benchmark found.

    Attributes:
        about: what was measured, on what; plain JSON values.
        figures: of each part and variant.
        profiles: where the library's time goes, by part.
        growths: how cost grows.
    """

    about: Mapping[str, Any]
    figures: tuple[Figures, ...]
    profiles: Mapping[str, Mapping[str, Mapping[str, float]]]
    growths: tuple[Growth, ...]

    def to_json(self) -> str:
        """Write everything as indented JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def markdown(self) -> str:
        """Write everything as tables."""
        about = self.about
        lines = [f"# Speed of {about['base']!r} on {about['machine']}"]
        tables = [_figures_table(self.figures), *(_profile_table(*item) for item in self.profiles.items())]
        tables += [_growth_table(self.growths)] if self.growths else []
        return "\n\n".join([*lines, *(table_text(table) for table in tables)]) + "\n"


def measure_speed(
    config: SpeedConfig,
    fit: FitConfig,
    sample: SampleConfig,
    ranking: RankConfig,
    *,
    device: str | None = None,
) -> SpeedReport:
    """Measure fit, sampling and ranking.

    Args:
        config: what, and how often.
        fit: base and recipe; ``fit.base`` may also be ``scaled-sd`` or ``random-sd2``, which are built with random
            weights. Its number of steps isn't looked at.
        sample: number of samples, of denoising steps, sampler.
        ranking: size and strictness; the matcher is LoFTR with random weights.
        device: where to compute; ``None``: the best there is.

    Raises:
        BaseModelError: the base can't be had.
    """
    where = resolve_device(device)
    with ExitStack() as stack:
        name = fit.base
        if name in UNTRAINED:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            fit = dataclasses.replace(fit, base=str(write_sd(name, Path(folder))))
        place = Workplace.load(fit, sample, where)
        port = config.against == "port"
        build: dict[SpeedPart, Callable[[], list[Variant]]] = {
            "fit": lambda: fit_variants(place, config.fit_steps, bank_uses=config.banks, port=port),
            "sample": lambda: sample_variants(place, port=port),
            "rank": lambda: rank_variants(
                where, ranking, side=config.photo_px, num_references=config.num_references,
                num_samples=place.sample.num_samples, port=port,
            ),
        }  # fmt: skip
        figures: list[Figures] = []
        profiles = {}
        for part in config.parts:
            variants = build[part]()
            figures += measure(variants, where, config.rounds)
            if config.profile:
                profiles[part] = where_time_goes(variants[0].run, where)
        growths = growth(place, ranking, config.parts, photo_px=config.photo_px) if config.scaling else []
    about = {
        "base": name,
        "machine": describe_machine(where),
        "versions": {"realfill": __version__, "torch": torch.__version__},
        "speed": config.to_dict(),
        "fit": {**place.fit.to_dict(), "base": name},
        "sample": place.sample.to_dict(),
        "rank": ranking.to_dict(),
    }
    return SpeedReport(about=about, figures=tuple(figures), profiles=profiles, growths=tuple(growths))


def _figures_table(figures: tuple[Figures, ...]) -> Table:
    speeds = {(f.part, f.variant): f.samples_a_second for f in figures}

    def against(variant: str, f: Figures) -> str:
        other = speeds.get((f.part, variant))
        return NOTHING if other is None or f.variant == variant else f"{f.samples_a_second / other:.2f}"

    rows = [
        (
            f.part, f.variant, f.dtype, f"{f.seconds_a_step:.4g}", f"{f.samples_a_second:.4g}",
            f"{f.gflop_a_sample:.4g}", f"{f.roofline_share:.0%}", f"{f.peak_mb:.0f}", f"{f.set_up_s:.1f}",
            against("realfill", f), against("port", f),
        )
        for f in figures
    ]  # fmt: skip
    header = (
        "part", "variant", "computes in", "s a step", "samples a s", "GFLOP a sample", "of the roofline", "peak (MB)",
        "set-up (s)", "times realfill's speed", "times the port's speed",
    )  # fmt: skip
    notes = [
        "Medians over rounds in which the variants took turns.",
        "A step: of the optimizer; one denoising step of one sample; one pair of images.",
        "A sample: a crop trained on; an image sampled; an image ranked.",
        "A bank: crops are encoded once and used as often as it says; that the encoding takes time is counted in.",
        "The roofline: this machine's own fastest large matrix product in the same precision, measured in between.",
        "Peak: tensors beyond what was held before, kernels' own memory on CUDA too.",
        "The floor of ranking: each image's features once and each pair's attention, extrapolated from one of each.",
    ]
    return Table(title="Speed", notes=notes, header=header, rows=rows)


def _profile_table(part: str, profile: Mapping[str, Mapping[str, float]]) -> Table:
    whole = sum(profile["operators"].values())
    rows = [(kind, name, f"{ms:.1f}") for kind, items in profile.items() for name, ms in items.items()]
    notes = [
        "Milliseconds of one run of the library, what comes before its first step included.",
        f"Parts hold operators; the operators listed don't overlap and take {whole:.0f} ms in all.",
    ]
    return Table(title=f"Where the time goes: {part}", notes=notes, header=("kind", "name", "ms"), rows=rows)


def _growth_table(growths: tuple[Growth, ...]) -> Table:
    rows = [
        (
            g.what, str(g.size), f"{g.gflop:.4g}" if g.gflop else NOTHING, f"{g.seconds:.3g}",
            *(f"{megabytes:.1f}" if megabytes else NOTHING for megabytes in (g.peak_mb, g.arrays_mb)),
        )
        for g in growths
    ]  # fmt: skip
    header = ("what", "size", "GFLOP", "seconds", "peak (MB)", "photos and their copies (MB)")
    return Table(title="How cost grows", header=header, rows=rows)
