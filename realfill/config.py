"""Every knob of fitting, sampling and ranking: its unit, its legal values and where its default comes from.

A field left ``None`` means: what the base model's card asks for, else what the paper (RealFill, Tang et al.,
SIGGRAPH 2024) says, else, where it is silent, a value of ours. The latter two stand beside the field, as
``auto(...)``. What was
used in the end is stored with every adapter and every completion.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
if TYPE_CHECKING:
    Auto = Annotated[T, "resolved"]  # code that runs on a resolved config sees a plain T
else:
    Auto = T | None

Trainable = Literal["lora", "all"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["no", "fp16", "bf16"]
Scheduler = Literal["ddpm", "ddim", "dpm++", "unipc", "euler"]
Blend = Literal["membrane", "cut"]
MatcherName = Literal["loftr", "sift", "patches"]
FileFormat = Literal["png", "tiff", "jpeg"]
MethodName = Literal[
    "realfill", "base", "prompt", "telea", "shiftmap", "stitching", "paint_by_example", "dreambooth", "klein"
]
SpeedPart = Literal["fit", "sample", "rank"]
MetricName = Literal["psnr", "ssim", "gmsd", "detail", "lpips", "dreamsim", "dino", "clip"]

MAX_REFERENCES = 5


def auto(value: Any) -> Any:
    """Declare a field that is ``None`` until resolved, and falls back on ``value``."""
    return field(default=None, metadata={"fallback": value})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    def resolve(self, defaults: Mapping[str, Any]) -> Self:
        """Fill each field left ``None`` from a base model's card, else from the paper.

        Args:
            defaults: field name to value, as the card states them.

        Returns:
            A config of the same class without open fields (but for those that are free to stay ``None``).

        Raises:
            ValueError: ``defaults`` names a field that doesn't exist or holds an illegal value.
        """
        unknown = set(defaults) - {f.name for f in dataclasses.fields(self)}
        if unknown:
            raise ValueError(f"{type(self).__name__} has no field {sorted(unknown)}")
        changes = {}
        for f in dataclasses.fields(self):
            if getattr(self, f.name) is None:
                value = defaults.get(f.name, f.metadata.get("fallback"))
                changes[f.name] = tuple(value) if isinstance(value, list) else value
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Convert back from ``to_dict``'s values."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def _check_types(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            self._check(name, _is_a(getattr(self, name), hint), _describe(hint))

    def _check(self, name: str, legal: object, what: str) -> None:
        if not legal:
            raise ValueError(f"{type(self).__name__}.{name} is {getattr(self, name)!r}; legal: {what}")

    def _check_at_least(self, low: float, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            self._check(name, value is None or value >= low, f"a number of at least {low}")

    def _check_above_zero(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            self._check(name, value is None or value > 0, "a number above 0")

    def _check_share(self, *names: str, one: bool = True) -> None:
        for name in names:
            value = getattr(self, name)
            legal = value is None or 0 <= value < 1 or (one and value == 1)
            self._check(name, legal, f"a number in [0, 1{']' if one else ')'}")

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        legal = value is None or low <= value[0] <= value[1] <= high
        self._check(name, legal, f"two numbers (low, high) with {low} <= low <= high <= {high}")


def _is_a(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type as the fields here declare it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_a(value, a) for a in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        wanted = args[:1] * len(value) if isinstance(value, tuple) and args[-1] is ... else args
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_is_a, value, wanted))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType, Literal):
        return ", ".join(a if isinstance(a, str) else _describe(a) for a in args)
    if origin is tuple:
        return (
            f"a tuple of {_describe(args[0])}" if args[-1] is ... else f"a tuple of {len(args)}: {_describe(args[0])}"
        )
    names = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False", NoneType: "None"}
    return names[hint]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig(_Config):
    """How ``fit`` trains an adapter (paper, section 3.2)."""

    base: str = "sd2"
    """Base model: ``sd2``, ``sd15``, ``mini``, a hub id, or a local directory in diffusers' layout."""
    seed: int = 0
    """Seed of everything random in the fit: crops, masks, noise, dropout, LoRA's start."""
    num_steps: Auto[int] = auto(2000)
    """Optimizer steps. Paper: 2,000."""
    batch_size: Auto[int] = auto(16)
    """Independent random crops in each step, over all processes. Paper: 16."""
    gradient_accumulation_steps: int = 1
    """Pieces that the batch is computed in, to save memory. Divides the batch; the result stays the same."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    mixed_precision: Precision | None = None
    """``no``, ``fp16`` or ``bf16``. None: bf16 where the device computes in it, else fp16 on CUDA, else no."""

    prompt: Auto[str] = auto("a photo of sks")
    """The fixed sentence with a rare token. Paper: "a photo of [V]"."""
    trainable: Auto[Trainable] = auto("lora")
    """``lora``: train low-rank layers (paper). ``all``: train the U-Net's own weights and store their change as
    low-rank layers, cut by singular value decomposition; for small bases, whose LoRA has too little room."""
    learning_rate: Auto[float] = auto(2e-4)
    """AdamW's learning rate for the U-Net. Paper: 2e-4."""
    text_encoder_learning_rate: Auto[float] = auto(4e-5)
    """The same for the text encoder; 0 leaves it alone. Paper: 4e-5."""
    weight_decay: Auto[float] = auto(1e-2)
    """AdamW's weight decay. Unstated in the paper; torch's default."""
    lr_scheduler: Auto[Schedule] = auto("constant")
    """Course of the learning rate after the warm-up: ``constant``, or to zero: ``linear``, ``cosine``."""
    adam_beta2: Auto[float] = auto(0.999)
    """AdamW's second decay. Unstated in the paper; torch's default."""
    num_warmup_steps: Auto[int] = auto(0)
    """Steps over which the learning rate rises linearly from zero; for any ``lr_scheduler``."""
    max_grad_norm: Auto[float] = auto(1.0)
    """Gradients are clipped to this norm. Unstated in the paper; 1, as in the public implementations."""
    ema_decay: Auto[float] = auto(0.0)
    """Decay a step of the running average of the weights that becomes the adapter; 0: the last weights."""

    lora_rank: Auto[int] = auto(8)
    """Rank of the LoRA matrices. Paper: 8."""
    lora_alpha: Auto[int] = auto(16)
    """LoRA's scale is alpha / rank. Unstated in the paper; 16 is what its first public code was run with."""
    lora_targets: Auto[tuple[str, ...]] = auto(("to_q", "to_k", "to_v", "to_out.0"))
    """Ends of the names of the U-Net's layers that get a LoRA; ``*`` alone: every linear layer and convolution."""

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
    """Range of a crop's side, as a multiple of the side of the window in which the hole will be filled, at the scale
    at which matched keypoints say that the photo shows the scene; drawn evenly on a logarithmic scale. Unstated in the
    paper: close to the scale that is needed."""
    aligned_share: Auto[float] = auto(0.0)
    """Share of a reference's crops that are taken where it shows the surroundings of the target's hole, a hole of the
    same shape hidden in them; only where matched keypoints tell the place. Paper: none."""
    num_rectangles: Auto[tuple[int, int]] = auto((1, 4))
    """Fewest and most rectangles of a random mask. Unstated in the paper."""
    rectangle_size: Auto[tuple[float, float]] = auto((0.2, 0.7))
    """Range of a rectangle's sides as shares of the crop's. Half of the masks are the union of the rectangles, half
    what the union leaves. Unstated in the paper."""
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
        self._check_at_least(1, "checkpoint_every")
        self._check_at_least(0, "seed", "num_warmup_steps", "hole_margin_px", "learning_rate", "visible_weight")
        self._check_at_least(0, "text_encoder_learning_rate", "weight_decay")
        self._check_above_zero("noise_bias", "max_grad_norm")
        self._check_share("prompt_dropout", "mask_dropout", "target_share", "aligned_share")
        self._check_share("ema_decay", "adam_beta2", "lora_dropout", one=False)
        self._check_range("crop_scale", 0.05, 20)
        self._check_range("num_rectangles", 1, 100)
        self._check_range("rectangle_size", 0.01, 1)
        divides = self.batch_size is None or self.batch_size % self.gradient_accumulation_steps == 0
        self._check("gradient_accumulation_steps", divides, f"a divisor of the batch size {self.batch_size}")
        self._check("lora_targets", self.lora_targets is None or self.lora_targets, "one or more layer names")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig(_Config):
    """How ``complete`` samples and blends (paper, section 3.3)."""

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
    """Classifier-free guidance; 1 is without. Paper: 1."""
    prompt: str | None = None
    """The sentence to sample with. None: the one that the adapter was fitted with, or none on a bare base."""
    negative_prompt: str = ""
    """What guidance leads away from, where ``guidance_scale`` isn't 1."""
    batch_size: int | None = None
    """Seeds that are sampled at a time. None: as many as free memory holds, by what one is measured to take."""
    context: Auto[float] = auto(1.7)
    """Side of the window around the hole, as a multiple of the hole's longer side."""
    dilation_px: int = 0
    """Pixels by which the hole is grown before it is filled. 0 keeps every known pixel; a few help where a mask cuts
    too close to what it should remove."""
    blend: Blend = "membrane"
    """``membrane``: what is left between the known pixels and the sample at the border is spread into the hole.
    ``cut``: the sample as it is. Known pixels stay exact either way."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_at_least(1, "num_samples", "num_inference_steps", "batch_size", "context")
        self._check_at_least(0, "seed", "dilation_px", "guidance_scale", "temperature")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankConfig(_Config):
    """How completions are ranked: by matched keypoints between references and filled region (paper, section 3.4)."""

    matcher: Auto[MatcherName] = auto("loftr")
    """``loftr`` (paper; downloads its weights once), ``sift`` (needs no weights), or ``patches``, for small bases whose
    samples are too soft for keypoints (none either): patches compared where a homography says that they meet."""
    max_size_px: int = 840
    """Images are shrunk to this longer side before they are matched; memory grows with its fourth power."""
    min_confidence: Auto[float] = auto(0.2)
    """Matches of LoFTR or of patches below this confidence don't count. LoFTR's authors' default."""
    max_ratio: Auto[float] = auto(0.8)
    """Lowe's ratio test for SIFT: distance to the best match over that to the second best. Lowe's value."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_at_least(64, "max_size_px")
        self._check_share("min_confidence", "max_ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig(_Config):
    """What a benchmark compares (paper, section 4.1)."""

    methods: tuple[MethodName, ...] = ("realfill", "base", "telea", "shiftmap", "stitching")
    """``realfill``, or else the first, is compared with each of the others, scene by scene. ``base`` is unfitted,
    ``prompt`` too but told the case's prompt; ``telea``, ``shiftmap`` and ``stitching`` need no weights,
    ``paint_by_example``, ``dreambooth`` and ``klein`` their own."""
    metrics: tuple[MetricName, ...] = ("psnr", "ssim", "lpips", "dreamsim", "dino", "clip", "gmsd", "detail")
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
class SpeedConfig(_Config):
    """What the speed benchmark measures, and how often."""

    parts: tuple[SpeedPart, ...] = ("fit", "sample", "rank")
    """What to measure."""
    against: Literal["port"] | None = None
    """``port``: beside the library, a straight port of what public scripts do per step, on the same model."""
    rounds: int = 5
    """Times that each variant is measured; they take turns, and medians are told."""
    fit_steps: int = 4
    """Optimizer steps of a round, after one that isn't counted."""
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
        self._check_at_least(64, "photo_px")
        self._check("num_references", self.num_references <= MAX_REFERENCES, f"1 to {MAX_REFERENCES}")
