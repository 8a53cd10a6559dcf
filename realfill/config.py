"""Every knob of fitting, sampling and ranking: its unit, its legal values and where its default comes from.

A field left ``None`` means: what the preset makes of it, else what the base model's card asks for, else what the paper
(RealFill, Tang et al., SIGGRAPH 2024) says, else, where it is silent, a value of ours. The latter two stand beside the
field, as ``auto(...)``. What was used in the end is stored with every adapter and every completion.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from realfill.fields import Auto, Config, Presets, auto

Preset = Literal["paper", "fast", "draft"]
TrainableName = Literal["lora", "all"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["no", "fp16", "bf16"]
Scheduler = Literal["ddpm", "ddim", "dpm++", "unipc", "euler"]
GuidanceFrom = Literal["negative_prompt", "base"]
Blend = Literal["membrane", "poisson", "cut"]
MatcherName = Literal["loftr", "sift", "registered"]
FileFormat = Literal["png", "tiff", "jpeg"]

MAX_REFERENCES = 5
_NOISE_LEVELS = 1000  # of Stable Diffusion's noise schedule; no sampler can take more steps than there are


def _part(divisor: int, least: int = 0) -> Callable[[int], int]:
    """Leave a part of a number, rounded up, though at least ``least`` of it."""
    return lambda number: min(number, max(least, math.ceil(number / divisor)))


def _of(values: tuple[float, ...], stage: int) -> float:
    """Take what is meant for a stage, counted from 1; the last goes on."""
    return values[min(stage, len(values)) - 1]


def _at_most(most: int) -> Callable[[int], int]:
    return lambda number: min(number, most)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig(Config):
    """How ``fit`` trains an adapter (paper, section 3.2)."""

    presets: ClassVar[Presets] = {
        "fast": {"num_steps": _part(4), "num_warmup_steps": _part(4), "bank_size": 512},
        "draft": {"num_steps": _part(10), "num_warmup_steps": _part(10), "bank_size": 512},
    }

    base: str = "sd2"
    """Base model: ``sd2``, ``sd15``, ``mini``, a hub id, or a local directory in diffusers' layout."""
    preset: Preset | None = None
    """A recipe by name, for the fields that aren't given. None: the base's own, else the paper's. ``paper``: the
    paper's, whatever the base's own is. ``fast``: the base's own with a quarter of the steps, and a bank unless the
    base's card says otherwise; ``draft``: with a tenth of the steps. Sampling follows it too, unless told otherwise."""
    seed: int = 0
    """Seed of everything random in the fit: crops, masks, noise, dropout, LoRA's start."""
    num_steps: Auto[int] = auto(2000)
    """Optimizer steps. Paper: 2,000."""
    time_budget_s: float | None = None
    """Seconds within which the steps end, if ``num_steps`` don't end before; the learning rate's course follows
    whichever is further. Loading the base isn't counted. None: as long as it takes (paper)."""
    batch_size: Auto[int] = auto(16)
    """Independent random crops in each step, over all processes. Paper: 16."""
    gradient_accumulation_steps: int | None = None
    """Pieces that the batch is computed in, to save memory; a divisor of the batch. The result stays the same. None: as
    few as are expected to fit into what is free."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time. None: where single crops
    wouldn't fit into what is free."""
    compile: bool | None = None
    """Compile the U-Net's repeated blocks, which takes a minute or so first. None: on CUDA, where the fit is long
    enough for that to pay."""
    bank_size: Auto[int] = auto(0)
    """Crops that are drawn and encoded ahead and used several times, to save encodings; rounded up to whole batches.
    0 is without: each step draws and encodes its own (paper). Pays where the base's VAE is large."""
    bank_uses: Auto[int] = auto(16)
    """Uses of each crop in the bank before the bank is drawn anew; each time with other noise. Paper: 1."""
    mixed_precision: Precision | None = None
    """``no``, ``fp16`` or ``bf16``. None: bf16 where the device is fast in it, else fp16 on CUDA, else no."""

    prompt: Auto[str] = auto("a photo of sks")
    """The fixed sentence with a rare token. Paper: "a photo of [V]"."""
    trainable: Auto[TrainableName] = auto("lora")
    """``lora``: train low-rank layers (paper). ``all``: train the U-Net's own weights and store their change as
    low-rank layers, cut by singular value decomposition; for small bases, whose LoRA has too little room."""
    learning_rate: Auto[float] = auto(2e-4)
    """AdamW's learning rate for the U-Net. Paper: 2e-4."""
    text_encoder_learning_rate: Auto[float] = auto(4e-5)
    """The same for the text encoder; 0 leaves it alone, as ``trainable="all"`` always does. Paper: 4e-5."""
    weight_decay: Auto[float] = auto(1e-2)
    """AdamW's weight decay. Unstated in the paper; torch's default."""
    lr_scheduler: Auto[Schedule] = auto("constant")
    """Course of the learning rate after the warm-up: ``constant``, or to zero: ``linear``, ``cosine``. Unstated in the
    paper."""
    adam_beta2: Auto[float] = auto(0.999)
    """AdamW's second decay. Unstated in the paper; torch's default."""
    num_warmup_steps: Auto[int] = auto(0)
    """Steps over which the learning rate rises linearly from zero; for any ``lr_scheduler``. Unstated in the paper."""
    max_grad_norm: Auto[float] = auto(1.0)
    """Gradients are clipped to this norm. Unstated in the paper; 1, as in the public implementations."""
    ema_decay: Auto[float] = auto(0.0)
    """Decay a step of the running average of the weights that becomes the adapter, below 1; 0: the last weights (the
    paper speaks of no average)."""

    lora_rank: Auto[int] = auto(8)
    """Rank of the LoRA matrices. Paper: 8."""
    lora_alpha: Auto[int] = auto(16)
    """LoRA's scale is alpha / rank. Unstated in the paper; 16 is what its first public code was run with."""
    lora_targets: Auto[tuple[str, ...]] = auto(("to_q", "to_k", "to_v", "to_out.0"))
    """Ends of the names of the U-Net's layers that get a LoRA; ``*`` alone: every linear layer and convolution.
    Unstated in the paper; those of attention."""
    lora_dropout: Auto[float] = auto(0.1)
    """Probability that a LoRA layer is left out of a step, whole; the others are scaled up to make up for it.
    Paper: 0.1. Only where LoRA layers are trained."""
    prompt_dropout: Auto[float] = auto(0.1)
    """Probability that a crop is trained with the empty prompt. Paper: 0.1."""
    mask_dropout: Auto[float] = auto(0.1)
    """Probability that everything is hidden from the model, for a crop. Paper: 0.1 for "mask m"."""

    target_share: Auto[float] = auto(0.25)
    """Share of the crops that come from the target; the others are spread evenly over the references.
    Unstated in the paper: as if one photo in four were the target."""
    crop_scale: Auto[tuple[float, float]] = auto((0.7, 1.4))
    """Range of a crop's side, as a multiple of the side of a window in which the hole will be filled (with the base's
    own ``context`` and ``join_windows``), at the scale at which matched keypoints say that the photo shows the scene;
    drawn evenly on a logarithmic scale; from 0.05 to 20. Unstated in the paper: close to the scale that is needed."""
    num_stages: Auto[int] = auto(1)
    """Stages of ``SampleConfig.num_stages`` that the fit is for: crops come at the scale of the window and of each
    stage's tiles, as often for each stage of each part of the hole. Paper: 1."""
    aligned_share: Auto[float] = auto(0.0)
    """Share of the references' crops that are taken of the references as a homography lays them over the target, their
    colours brought to its own: around the hole, which is hidden in them. None where no reference can be laid so.
    Paper: none."""
    num_rectangles: Auto[tuple[int, int]] = auto((1, 4))
    """Fewest and most rectangles of a random mask, from 1 to 100. Unstated in the paper."""
    rectangle_size: Auto[tuple[float, float]] = auto((0.2, 0.7))
    """Range of a rectangle's sides as shares of the crop's, from 0.01 to 1. Half of the masks are the union of the
    rectangles, half what the union leaves. Unstated in the paper."""
    hole_margin_px: Auto[int] = auto(8)
    """Known pixels this close to the target's hole stay out of the loss, in pixels of the model's input: the VAE mixes
    the hole's filler into them. Unstated in the paper; one latent."""
    visible_weight: Auto[float] = auto(1.0)
    """Weight in the loss of what the random mask leaves visible, against 1 for what it hides. Paper: 1."""
    noise_bias: Auto[float] = auto(1.0)
    """Timesteps are drawn as 1 - u ** bias of the range, u uniform: 1 is uniform (paper), above it favours noise."""

    checkpoint_every: int = 250
    """Steps between checkpoints, where ``fit`` is given a ``checkpoint_dir``."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check("base", self.base.strip(), "a name, hub id or directory")
        self._check_at_least(1, "num_steps", "batch_size", "gradient_accumulation_steps", "lora_rank", "lora_alpha")
        self._check_at_least(1, "num_stages", "checkpoint_every", "bank_uses")
        self._check_at_least(0, "seed", "num_warmup_steps", "hole_margin_px", "learning_rate", "visible_weight")
        self._check_at_least(0, "text_encoder_learning_rate", "weight_decay", "bank_size")
        self._check_above_zero("noise_bias", "max_grad_norm", "time_budget_s")
        self._check_share("prompt_dropout", "mask_dropout", "target_share", "aligned_share")
        self._check_share("ema_decay", "adam_beta2", "lora_dropout", one=False)
        self._check_range("crop_scale", 0.05, 20)
        self._check_range("num_rectangles", 1, 100)
        self._check_range("rectangle_size", 0.01, 1)
        pieces = self.gradient_accumulation_steps
        divides = self.batch_size is None or pieces is None or self.batch_size % pieces == 0
        self._check("gradient_accumulation_steps", divides, f"a divisor of the batch size {self.batch_size}")
        self._check("lora_targets", self.lora_targets is None or self.lora_targets, "one or more layer names")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig(Config):
    """How ``complete`` samples and blends (paper, section 3.3)."""

    presets: ClassVar[Presets] = {
        "fast": {"scheduler": "dpm++", "num_inference_steps": _at_most(25), "num_samples": _part(2, 4)},
        "draft": {"scheduler": "dpm++", "num_inference_steps": _at_most(12), "num_samples": _part(8, 4)},
    }

    preset: Preset | None = None
    """A recipe by name, for the fields that aren't given. None: that of the adapter's fit; of a bare base, its own,
    else the paper's. ``paper``: the paper's, whatever the base's own is. ``fast``: half as many samples as the base's
    own, though at least 4, in at most 25 steps, of ``dpm++`` unless the base asks for another sampler; ``draft``: an
    eighth as many, though at least 4, in at most 12 steps, likewise."""
    num_samples: Auto[int] = auto(64)
    """Completions to draw, one for each seed. Paper: 64."""
    seed: int = 0
    """The first seed; the others count up from it."""
    scheduler: Auto[Scheduler] = auto("ddpm")
    """``ddpm`` (paper) or a faster one: ``ddim``, ``dpm++``, ``unipc``, ``euler``."""
    num_inference_steps: Auto[int] = auto(200)
    """Denoising steps. Paper: 200 of DDPM."""
    temperature: Auto[float] = auto(1.0)
    """Factor on the noise that ``ddpm`` adds at each step: below 1 samples are smoother and more alike. Paper: 1."""
    guidance_scale: Auto[float] = auto(1.0)
    """How far samples are led away from what ``guidance_from`` names; 1 is not at all. Paper: 1."""
    guidance_from: Auto[GuidanceFrom] = auto("negative_prompt")
    """``negative_prompt``: classifier-free guidance. ``base``: away from what the base predicts without its adapter,
    which doesn't know the scene (autoguidance, Karras et al. 2024); of no effect on a bare base. Either takes twice as
    long, and the latter memory for the base's weights twice."""
    prompt: str | None = None
    """The sentence to sample with. None: the one that the adapter was fitted with, or none on a bare base."""
    negative_prompt: str = ""
    """What ``guidance_from="negative_prompt"`` leads away from, where ``guidance_scale`` isn't 1."""
    batch_size: int | None = None
    """Seeds that are sampled at a time. None: as many as free memory holds, by what one is measured to take."""
    context: Auto[float] = auto(1.7)
    """Side of the window around the hole, as a multiple of the hole's longer side; 1 or more. Known pixels beside the
    hole, of a latent's width, are in it whatever this is."""
    join_windows: float = 1.25
    """Holes that lie apart are filled in one window if it then is at most this many times as coarse as the coarser of
    their own; 1: only where it costs nothing."""
    num_stages: Auto[int] = auto(1)
    """Most stages from coarse to fine, where a window shrinks the target: each has twice the resolution of the one
    before, up to the target's own, starts from its result and is denoised in overlapping tiles. 1: the base's
    resolution only, enlarged."""
    stage_steps: Auto[tuple[int, ...]] = auto((40, 30))
    """Denoising steps of each stage after the first; the last number goes on. After Lee & Han: 60, 40, 30."""
    stage_guidance: Auto[tuple[float, ...]] = auto((1.0,))
    """``guidance_scale`` of each stage after the first, likewise, whatever that of the first is. After Lee & Han it
    falls from stage to stage."""
    stage_strength: Auto[tuple[float, ...]] = auto((0.5,))
    """Share of the noise schedule that each stage after the first goes through anew, likewise; 1 forgets the stage
    before."""
    tile_overlap: float = 0.5
    """Least share of a tile's side that it has in common with the next, below 1; 0: each place is one tile's, and
    nothing is averaged."""
    blend: Blend = "poisson"
    """``poisson``: the sample's gradients, with the known pixels at the border (Perez et al. 2003). ``membrane``: what
    is left between the known pixels and the sample at the border is smoothed, spread into the hole and fades there.
    ``cut``: the sample as it is. Known pixels stay exact in each."""
    match_sharpness: Auto[bool] = auto(value=False)
    """Make what is filled as sharp as the known pixels around it: neither softer nor sharper than their focus."""
    match_grain: Auto[bool] = auto(value=False)
    """Give what is filled the noise that the known pixels around it have and it lacks, by luminance and channel."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_at_least(1, "num_samples", "num_inference_steps", "batch_size", "context")
        self._check_at_least(1, "join_windows", "num_stages")
        self._check_at_least(0, "seed", "guidance_scale", "temperature")
        steps = self.num_inference_steps
        self._check("num_inference_steps", steps is None or steps <= _NOISE_LEVELS, f"1 to {_NOISE_LEVELS}")
        self._check_share("tile_overlap", one=False)
        for name, low, high in (
            ("stage_steps", 1, _NOISE_LEVELS),
            ("stage_guidance", 0, math.inf),
            ("stage_strength", 0, 1),
        ):
            values = getattr(self, name)
            legal = values is None or (values and all(low <= v <= high and v > 0 for v in values))
            self._check(name, legal, f"one or more numbers above 0, from {low} to {high}")
        if self.stage_steps and self.stage_strength:
            stages = range(1, 1 + max(len(self.stage_steps), len(self.stage_strength)))
            whole = [round(_of(self.stage_steps, i) / _of(self.stage_strength, i)) for i in stages]
            legal = f"steps that over stage_strength {self.stage_strength} come to at most {_NOISE_LEVELS}"
            self._check("stage_steps", max(whole) <= _NOISE_LEVELS, legal)

    def following(self, fit: FitConfig) -> SampleConfig:
        """Let what isn't given here follow a fit: its preset, and the stages that it is for."""
        return dataclasses.replace(
            self,
            preset=self.preset if self.preset is not None else fit.preset,
            num_stages=self.num_stages if self.num_stages is not None else fit.num_stages,
        )

    @property
    def guided_from_base(self) -> bool:
        """Whether guidance leads away from the base without its adapter, at any stage, by a resolved config."""
        return self.guidance_from == "base" and any(self.stage(i)[1] != 1 for i in range(self.num_stages))

    def stage(self, index: int) -> tuple[int, float, float]:
        """Tell steps, guidance and strength of a stage; 0 is the first."""
        if index == 0:
            return self.num_inference_steps, self.guidance_scale, 1.0
        steps, guidance, strength = (
            _of(values, index) for values in (self.stage_steps, self.stage_guidance, self.stage_strength)
        )
        return int(steps), guidance, strength


@dataclass(frozen=True, slots=True, kw_only=True)
class RankConfig(Config):
    """How completions are ranked: by matched keypoints between references and filled region (paper, section 3.4).

    The fields after the first are of keypoints; ``registered`` has none.
    """

    matcher: Auto[MatcherName] = auto("loftr")
    """``loftr`` (paper; downloads its weights once), ``sift`` (needs no weights), or ``registered``, for small bases
    whose samples are too soft for keypoints (none either): pixels compared with references laid over the target."""
    max_size_px: Auto[int] = auto(840)
    """Images are shrunk to this longer side before keypoints are matched, 64 or more; memory grows with its fourth
    power."""
    min_confidence: Auto[float] = auto(0.2)
    """Matches of LoFTR below this confidence don't count. LoFTR's authors' default."""
    max_ratio: Auto[float] = auto(0.8)
    """Lowe's ratio test for SIFT: distance to the best match over that to the second best. Lowe's value."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_at_least(64, "max_size_px")
        self._check_share("min_confidence", "max_ratio")
