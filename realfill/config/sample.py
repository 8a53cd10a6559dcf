"""Settings of sampling and blending."""

# Settings have no defaults: resolve() gives every value.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from realfill.config.base import MAX_SEED, Config, Presets, auto
from realfill.config.fit import FitConfig, Preset, Quantization, divided

Scheduler = Literal["ddpm", "ddim", "dpm++", "unipc", "euler"]
GuidanceFrom = Literal["negative_prompt", "base", "foreground"]
Blend = Literal["poisson", "cut"]

_NUM_TRAIN_TIMESTEPS = 1000  # length of Stable Diffusion's noise schedule; no sampler can take more steps


def _at_most(limit: int) -> Callable[[int], int]:
    return lambda number: min(number, limit)


def _each_at_most(limit: int) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    return lambda numbers: tuple(min(number, limit) for number in numbers)


def _of_stage(values: tuple[float, ...], stage: int) -> float:
    """Return the value for a stage, counted from 1; the last value holds for all later stages."""
    return values[min(stage, len(values)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig(Config):
    """Settings of ``complete``, which samples and blends (paper, section 3.3)."""

    presets: ClassVar[Presets] = {
        "fast": {
            "scheduler": "dpm++",
            "num_inference_steps": _at_most(25),
            "stage_steps": _each_at_most(25),
            "num_samples": divided(2, least=4),
        },
        "draft": {
            "scheduler": "dpm++",
            "num_inference_steps": _at_most(12),
            "stage_steps": _each_at_most(12),
            "num_samples": divided(8, least=4),
        },
    }

    base: str | None = None
    """Base model to sample with, if its layers are those of the fit's base model: ``klein`` for an adapter made on
    ``klein-base``. None: the base model of the fit."""
    quantization: Quantization | None = None
    """Format of the weights on a CUDA device, as ``FitConfig.quantization``. None: half precision."""
    num_samples: int | None = auto(64)
    """Number of completions, one for each seed. Paper: 64."""
    seed: int = 0
    """The first seed. The others count up from it."""
    scheduler: Scheduler | None = auto("ddpm")
    """Sampler: ``ddpm`` (paper), or one that needs fewer steps: ``ddim``, ``dpm++``, ``unipc``, ``euler``."""
    num_inference_steps: int | None = auto(200)
    """Denoising steps of the first stage. Paper: 200 steps of DDPM."""
    preset: Preset | None = None
    """Named defaults for the fields that are not set. None: the preset of the adapter's fit; for a bare base model,
    its own defaults. ``paper``: the paper's values, even where the base model has others. ``fast``: half of the base
    model's samples (at least 4) and at most 25 steps a stage, with ``dpm++`` unless the base model names a sampler.
    ``draft``: an eighth of the samples (at least 4) and at most 12 steps a stage."""
    guidance_scale: float | None = auto(1.0)
    """Strength of the guidance away from the prediction that ``guidance_from`` names; 1: no guidance. Paper: 1."""
    guidance_from: GuidanceFrom | None = auto("negative_prompt")
    """``negative_prompt``: classifier-free guidance. ``base``: guidance away from the prediction of the base model
    without its adapter (autoguidance, Karras et al. 2024); it has no effect on a bare base model, nor in windows with
    hints of a composite, since the base reads them too, and guidance would lead away from them. ``foreground``:
    guidance away from the learnt foreground, for removing objects; it needs an adapter of ``adapt`` with the preset
    ``structure``, which names the learnt background as its prompt. Guidance doubles the sampling time, and ``base``
    keeps the base model's weights in memory twice."""
    prompt: str | None = None
    """Prompt for sampling. None: the prompt of the adapter's fit, or an empty one for a bare base model."""
    negative_prompt: str = ""
    """Prompt that ``guidance_from="negative_prompt"`` guides away from, where ``guidance_scale`` is not 1."""
    batch_size: int | None = None
    """Seeds sampled at a time. None: as many as fit into free memory, measured on one of them."""
    stage_steps: tuple[int, ...] | None = auto((40, 30))
    """Denoising steps of each stage after the first; the last number holds for all later stages. After Lee & Han: 60,
    40, 30."""
    stage_guidance: tuple[float, ...] | None = auto((1.0,))
    """``guidance_scale`` of each stage after the first; the last number holds for all later stages."""
    stage_strength: tuple[float, ...] | None = auto((0.5,))
    """Share of the noise schedule that each stage after the first repeats; 1 forgets the stage before. The last number
    holds for all later stages."""
    tile_overlap: float = 0.5
    """Least share of a tile's side that overlaps the next tile, in [0, 1). 0: tiles do not overlap."""
    blend: Blend = "poisson"
    """``poisson``: the gradients of the sample, with the known pixels as border (Perez et al. 2003). ``cut``: the
    sample itself. Known pixels stay exact in both."""
    match_grain: bool | None = auto(value=False)
    """Add the noise that the known pixels around the hole have and the sample lacks, by luminance and channel."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check("seed", 0 <= self.seed <= MAX_SEED, f"a whole number from 0 to {MAX_SEED}")
        self._check("base", self.base is None or self.base.strip(), "a name, hub id or directory")
        self._check_at_least(1, "num_samples", "num_inference_steps", "batch_size")
        self._check_at_least(0, "guidance_scale")
        steps = self.num_inference_steps
        self._check(
            "num_inference_steps", steps is None or steps <= _NUM_TRAIN_TIMESTEPS, f"1 to {_NUM_TRAIN_TIMESTEPS}"
        )
        self._check_share("tile_overlap", one=False)
        for name, low, high in (
            ("stage_steps", 1, _NUM_TRAIN_TIMESTEPS),
            ("stage_guidance", 0, math.inf),
            ("stage_strength", 0, 1),
        ):
            values = getattr(self, name)
            legal = values is None or (values and all(low <= v <= high and v > 0 for v in values))
            self._check(name, legal, f"one or more numbers above 0, from {low} to {high}")
        if self.stage_steps and self.stage_strength:
            stages = range(1, 1 + max(len(self.stage_steps), len(self.stage_strength)))
            whole = [round(_of_stage(self.stage_steps, i) / _of_stage(self.stage_strength, i)) for i in stages]
            legal = f"steps that, divided by stage_strength {self.stage_strength}, are at most {_NUM_TRAIN_TIMESTEPS}"
            self._check("stage_steps", max(whole) <= _NUM_TRAIN_TIMESTEPS, legal)

    def following(self, fit: FitConfig) -> SampleConfig:
        """Adopt the preset of a fit, unless this config has one of its own."""
        return self if self.preset is not None else dataclasses.replace(self, preset=fit.preset)

    def resolve(self, defaults: Mapping[str, Any]) -> SampleSettings:
        """Fill the open fields; see ``Config.filled``."""
        return SampleSettings(**self.filled(defaults))


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings(SampleConfig):
    """A ``SampleConfig`` without open fields."""

    num_samples: int
    scheduler: Scheduler
    num_inference_steps: int
    guidance_scale: float
    guidance_from: GuidanceFrom
    stage_steps: tuple[int, ...]
    stage_guidance: tuple[float, ...]
    stage_strength: tuple[float, ...]
    match_grain: bool

    def stage(self, index: int) -> tuple[int, float, float]:
        """Return the steps, guidance scale and strength of a stage; 0 is the first."""
        if index == 0:
            return self.num_inference_steps, self.guidance_scale, 1.0
        steps, guidance, strength = (
            _of_stage(values, index) for values in (self.stage_steps, self.stage_guidance, self.stage_strength)
        )
        return int(steps), guidance, strength

    def is_guided_from_base(self, num_stages: int) -> bool:
        """Tell whether guidance leads away from the base model without its adapter in any of ``num_stages`` stages."""
        return self.guidance_from == "base" and any(self.stage(i)[1] != 1 for i in range(num_stages))
