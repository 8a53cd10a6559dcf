"""Settings of a fit, which trains an adapter on a scene."""

# Settings have no defaults: resolve() gives every value.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from realfill.config.base import MAX_SEED, Config, Presets, auto

Preset = Literal["paper", "fast", "draft"]
TrainableName = Literal["lora", "all"]
LrScheduler = Literal["constant", "linear", "cosine"]
Precision = Literal["no", "fp16", "bf16"]
Quantization = Literal["nf4", "fp8"]
MaskShape = Literal["rectangle", "ellipse", "polygon"]

MAX_REFERENCES = 30  # of a scene
MAX_FIT_REFERENCES = 5  # that a fit learns from (paper)


def divided(divisor: int, *, least: int = 0) -> Callable[[int], int]:
    """Make a rule that divides a number, rounding up, but returns at least ``least`` of it."""
    return lambda number: min(number, max(least, math.ceil(number / divisor)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig(Config):
    """Settings of ``fit``, which trains an adapter (paper, section 3.2)."""

    presets: ClassVar[Presets] = {
        "fast": {"num_steps": divided(4), "num_warmup_steps": divided(4), "latent_cache_size": 512},
        "draft": {"num_steps": divided(10), "num_warmup_steps": divided(10), "latent_cache_size": 512},
    }

    base: str = "sd2"
    """Base model: ``sd2``, ``sd15``, ``klein-base``, ``mini``, a hub id, or a directory in diffusers' layout."""
    preset: Preset | None = None
    """Named defaults for the fields that are not set. None: the base model's own, else the paper's. ``paper``: the
    paper's values, even where the base model has others. ``fast``: the base model's defaults with a quarter of the
    steps and a latent cache. ``draft``: the same with a tenth of the steps. Sampling adopts the preset too, unless it
    has one of its own."""
    num_steps: int | None = auto(2000)
    """Optimizer steps. Paper: 2,000."""
    seed: int = 0
    """Seed of all randomness in the fit: crops, masks, noise, dropout, and the initial LoRA weights."""
    time_budget_s: float | None = None
    """Stop training after this many seconds, even before ``num_steps``. The learning rate follows whichever end is
    nearer. Loading the base model does not count. None: no limit (paper)."""
    batch_size: int | None = auto(16)
    """Independent random crops per step, over all processes. Paper: 16."""
    gradient_accumulation_steps: int | None = None
    """Number of pieces in which a batch is computed to save memory; it must divide the batch size. The result does not
    change. None: as few as are expected to fit into free memory."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time. None: only if a single crop
    is not expected to fit into free memory."""
    compile: bool | None = None
    """Compile the repeated blocks of the U-Net, which first takes about a minute. None: on CUDA, where the fit is long
    enough to make up for it."""
    latent_cache_size: int | None = auto(0)
    """Number of crops that are encoded in advance and used several times; rounded up to whole batches. 0: every step
    draws and encodes its own crops (paper). A cache pays off where the base model's VAE is large."""
    latent_cache_uses: int | None = auto(16)
    """Number of uses of each crop in the latent cache, each with new noise, before it is replaced. Paper: 1."""
    mixed_precision: Precision | None = None
    """``no``, ``fp16`` or ``bf16``. None: bf16 where the device computes fast in it, else fp16 on CUDA, else no."""

    quantization: Quantization | None = None
    """Format of the frozen weights on a CUDA device, for FLUX.2 klein: ``nf4`` (4 bits, needs bitsandbytes) or ``fp8``
    (8 bits, needs torchao). None: half precision."""

    prompt: str | None = auto("a photo of sks")
    """The fixed prompt with a rare token. Paper: "a photo of [V]"."""
    trainable: TrainableName | None = auto("lora")
    """``lora``: train LoRA layers (paper). ``all``: train the U-Net's own weights and store their change as LoRA
    layers, truncated by singular value decomposition; meant for small base models."""
    learning_rate: float | None = auto(2e-4)
    """AdamW's learning rate for the U-Net. Paper: 2e-4."""
    text_encoder_learning_rate: float | None = auto(4e-5)
    """AdamW's learning rate for the text encoder. 0 leaves the text encoder unchanged, and so does ``trainable="all"``.
    Paper: 4e-5."""
    weight_decay: float | None = auto(1e-2)
    """AdamW's weight decay. The paper does not state it; the default is torch's."""
    lr_scheduler: LrScheduler | None = auto("constant")
    """Learning rate after the warm-up: ``constant``, or falling to zero as ``linear`` or ``cosine``. The paper does not
    state it."""
    adam_beta2: float | None = auto(0.999)
    """Decay of AdamW's second moment. The paper does not state it; the default is torch's."""
    num_warmup_steps: int | None = auto(0)
    """Steps over which the learning rate rises linearly from zero. The paper does not state it."""
    max_grad_norm: float | None = auto(1.0)
    """Norm to which gradients are clipped. The paper does not state it; the default is that of public code."""
    ema_decay: float | None = auto(0.0)
    """Decay per step of the moving average of the weights that becomes the adapter, in [0, 1). 0: no average; the
    adapter is made of the last weights (paper)."""

    lora_rank: int | None = auto(8)
    """Rank of the LoRA matrices. Paper: 8."""
    lora_alpha: int | None = auto(16)
    """Alpha of the LoRA; its scale is alpha / rank. The paper does not state it; the first public code has 16."""
    lora_targets: tuple[str, ...] | None = auto(("to_q", "to_k", "to_v", "to_out.0"))
    """Endings of the names of the U-Net layers that receive a LoRA; ``*`` alone means every linear layer and
    convolution. The paper does not state them; the default is the attention layers."""
    lora_dropout: float | None = auto(0.1)
    """Probability with which a whole LoRA layer is dropped from a step; the other layers are scaled up to compensate.
    Paper: 0.1."""
    prompt_dropout: float | None = auto(0.1)
    """Probability with which a crop is trained with an empty prompt. Paper: 0.1."""
    mask_dropout: float | None = auto(0.1)
    """Probability with which a whole crop is hidden from the model. Paper: 0.1 for "mask m"."""

    target_share: float | None = auto(0.25)
    """Share of the crops that are taken from the target. The references share the rest equally. The paper does not
    state it."""
    crop_scale: tuple[float, float] | None = auto((0.7, 1.4))
    """Range of a crop's side as a multiple of the side of a window, from 0.05 to 20. The side is
    measured at the scale of the scene in each photo, estimated from matched keypoints. The paper does not state it."""
    warped_share: float | None = auto(0.0)
    """Share of the references' crops that are taken from references warped to the target view, with the hole hidden in
    them. Ignored if no reference could be aligned. Paper: 0."""
    hint_share: float | None = auto(0.0)
    """Share of the crops that see planted hints in the hole: slightly wrong warps of the crop with a confidence, as
    ``complete`` gives them to a base model that reads hints, at the default thresholds of confidence. It has no effect
    on other base models, in a scene whose hole no reference shows, and in ``adapt``. Paper: 0."""
    num_rectangles: tuple[int, int] | None = auto((1, 4))
    """Smallest and largest number of rectangles in a random mask, from 1 to 100. The paper does not state it."""
    rectangle_size: tuple[float, float] | None = auto((0.2, 0.7))
    """Range of a rectangle's sides as shares of the crop's, from 0.01 to 1. Half of the masks are the union of the
    rectangles, the other half its complement. The paper does not state the sizes."""
    mask_shapes: tuple[MaskShape, ...] | None = auto(("rectangle",))
    """Shapes in a random mask: ``rectangle``, ``ellipse``, ``polygon``. ``num_rectangles`` and ``rectangle_size`` hold
    for all of them. Paper: rectangles."""
    complement_share: float | None = auto(0.5)
    """Share of the masks that are replaced by their complement. The paper does not state it; half is ours."""
    hole_margin_px: int | None = auto(8)
    """Known pixels this close to the target's hole do not count in the loss, in pixels of the model's input, because
    the VAE mixes the hole's filler into them. The paper does not state it; the default is one latent."""
    visible_weight: float | None = auto(1.0)
    """Weight in the loss of latents that the random mask leaves visible; hidden latents weigh 1. Paper: 1."""
    noise_bias: float | None = auto(1.0)
    """Timesteps are drawn as 1 - u ** noise_bias of their range, u uniform in [0, 1). 1: uniform (paper); larger values
    favour noisy timesteps."""

    checkpoint_every: int = 250
    """Steps between checkpoints, if ``fit`` has a ``checkpoint_dir``."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check("seed", 0 <= self.seed <= MAX_SEED, f"a whole number from 0 to {MAX_SEED}")
        self._check("base", self.base.strip(), "a name, hub id or directory")
        self._check_at_least(1, "num_steps", "batch_size", "gradient_accumulation_steps", "lora_rank", "lora_alpha")
        self._check_at_least(1, "checkpoint_every", "latent_cache_uses")
        self._check_at_least(0, "num_warmup_steps", "hole_margin_px", "learning_rate", "visible_weight")
        self._check_at_least(0, "text_encoder_learning_rate", "weight_decay", "latent_cache_size")
        self._check_above_zero("noise_bias", "max_grad_norm", "time_budget_s")
        self._check_share("prompt_dropout", "mask_dropout", "target_share", "warped_share", "hint_share")
        self._check_share("complement_share")
        self._check_share("ema_decay", "adam_beta2", "lora_dropout", one=False)
        self._check_range("crop_scale", 0.05, 20)
        self._check_range("num_rectangles", 1, 100)
        self._check_range("rectangle_size", 0.01, 1)
        pieces = self.gradient_accumulation_steps
        divides = self.batch_size is None or pieces is None or self.batch_size % pieces == 0
        self._check("gradient_accumulation_steps", divides, f"a divisor of the batch size {self.batch_size}")
        self._check("quantization", self.quantization is None or self.trainable != "all", "None with trainable 'all'")
        self._check("mask_shapes", self.mask_shapes is None or self.mask_shapes, "one or more shapes")
        self._check("lora_targets", self.lora_targets is None or self.lora_targets, "one or more layer names")

    def resolve(self, defaults: Mapping[str, Any]) -> FitSettings:
        """Fill the open fields; see ``Config.filled``."""
        return FitSettings(**self.filled(defaults))


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings(FitConfig):
    """A ``FitConfig`` without open fields, except for those that depend on the machine."""

    num_steps: int
    batch_size: int
    latent_cache_size: int
    latent_cache_uses: int
    prompt: str
    trainable: TrainableName
    learning_rate: float
    text_encoder_learning_rate: float
    weight_decay: float
    lr_scheduler: LrScheduler
    adam_beta2: float
    num_warmup_steps: int
    max_grad_norm: float
    ema_decay: float
    lora_rank: int
    lora_alpha: int
    lora_targets: tuple[str, ...]
    lora_dropout: float
    prompt_dropout: float
    mask_dropout: float
    target_share: float
    crop_scale: tuple[float, float]
    warped_share: float
    hint_share: float
    num_rectangles: tuple[int, int]
    rectangle_size: tuple[float, float]
    mask_shapes: tuple[MaskShape, ...]
    complement_share: float
    hole_margin_px: int
    visible_weight: float
    noise_bias: float
