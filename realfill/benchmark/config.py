"""Every knob of the benchmarks: of quality and of speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from realfill.config import MAX_REFERENCES
from realfill.fields import Config

MethodName = Literal[
    "realfill", "base", "prompt", "smooth", "telea", "shiftmap", "stitching", "paint_by_example", "dreambooth", "klein"
]
MetricName = Literal[
    "psnr", "ssim", "gmsd", "detail", "native_detail", "seam", "delta_e", "lpips", "dreamsim", "dino", "clip"
]
SpeedPart = Literal["fit", "sample", "rank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig(Config):
    """What a benchmark compares (paper, section 4.1)."""

    methods: tuple[MethodName, ...] = ("realfill", "base", "telea", "shiftmap", "stitching")
    """``realfill``, or else the first, is compared with each of the others, scene by scene. ``base`` is unfitted,
    ``prompt`` too but told the case's prompt; ``smooth``, ``telea``, ``shiftmap`` and ``stitching`` need no weights,
    ``paint_by_example``, ``dreambooth`` and ``klein`` their own."""
    metrics: tuple[MetricName, ...] = get_args(MetricName)
    """Those whose weights or packages can't be had are told in the results."""
    fit_seeds: int = 1
    """Times that each case is fitted, with seeds from 0."""
    num_references: tuple[int, ...] = ()
    """Repeat the methods that look at references with each of these numbers of them, the first of a case; none: once,
    with all. Paper's supplement: 1 to 5."""
    paint_by_example: str = "Fantasy-Studio/Paint-by-Example"
    """Hub id or directory of the weights for that method."""
    dreambooth: str = "sd2"
    """The same: a text-to-image model, ``sd2``, ``sd15``, a hub id or a directory."""
    klein: str = "black-forest-labs/FLUX.2-klein-4B"
    """The same."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_at_least(1, "fit_seeds")
        self._check("methods", self.methods and len(set(self.methods)) == len(self.methods), "different methods")
        self._check("metrics", self.metrics and len(set(self.metrics)) == len(self.metrics), "different metrics")
        legal = set(self.num_references) <= set(range(1, MAX_REFERENCES + 1))
        legal = legal and len(set(self.num_references)) == len(self.num_references)
        self._check("num_references", legal, f"different numbers from 1 to {MAX_REFERENCES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedConfig(Config):
    """What the speed benchmark measures, and how often."""

    parts: tuple[SpeedPart, ...] = ("fit", "sample", "rank")
    """What to measure."""
    against: Literal["port"] | None = None
    """``port``: beside the library, a straight port of what public scripts do per step, on the same model."""
    rounds: int = 5
    """Times that each variant is measured; they take turns, and medians are told."""
    fit_steps: int = 4
    """Optimizer steps of a round, after one that isn't counted. With a bank: rounded up until each crop in it was used
    as often as it shall be, so that every use bears its share of the encoding. On a GPU at least four for each thread
    that draws crops ahead."""
    banks: tuple[int, ...] = (16,)
    """Also fit with a bank whose crops are used so often, once for each number; none: only as the fit's own config
    says."""
    num_references: int = 3
    """References that completions are ranked by. Their number is that of the samples."""
    photo_px: int = 160
    """Longer side of the photos that are ranked. Their matcher is LoFTR with random weights."""
    profile: bool = False
    """Also tell where the time goes."""
    scaling: bool = False
    """Also measure how cost grows with steps, samples, references, and the number and size of the photos."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check("parts", self.parts and len(set(self.parts)) == len(self.parts), "different parts")
        self._check_at_least(1, "rounds", "fit_steps", "num_references")
        uses = self.banks
        self._check("banks", len(set(uses)) == len(uses) and all(n >= 1 for n in uses), "different numbers from 1")
        self._check_at_least(64, "photo_px")
        self._check("num_references", self.num_references <= MAX_REFERENCES, f"1 to {MAX_REFERENCES}")
