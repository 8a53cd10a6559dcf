"""Settings of an adaptation, which fine-tunes a base model on a folder of photos."""

# Settings have no defaults: resolve() gives every value.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from realfill.config.base import MAX_SEED, Config, Presets, auto
from realfill.config.fit import FitConfig, FitSettings, LrScheduler, MaskShape, Precision, TrainableName

AdaptPreset = Literal["ocean-study"]

_OF_THE_BASE = (  # properties of the base model's card that hold for any training on it
    "noise_bias", "visible_weight", "hole_margin_px", "adam_beta2", "lora_targets", "text_encoder_learning_rate",
    "num_warmup_steps",
)  # fmt: skip


_OCEAN_STUDY: Mapping[str, Any] = {
    "trainable": "all", "learning_rate": 5e-7, "batch_size": 9, "num_epochs": 3, "masks_per_photo": 10, "patience": 3,
    "lr_scheduler": "constant", "mirror": False, "crop_share": (1.0, 1.0), "weight_decay": 1e-2,
    "shares": (0.8, 0.1, 0.1), "mask_shapes": ("ellipse", "rectangle", "polygon"), "num_shapes": (1, 5),
}  # fmt: skip


def _always(value: Any) -> Callable[[Any], Any]:
    """Make a rule that ignores the base model's default, because a study's recipe is exact."""
    return lambda _: value


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptConfig(Config):
    """Settings of ``adapt``, which fine-tunes a base model on photos of one kind."""

    presets: ClassVar[Presets] = {
        "ocean-study": {name: _always(value) for name, value in _OCEAN_STUDY.items()},
    }

    base: str = "sd2"
    """Base model: ``sd2``, ``sd15``, ``mini``, a hub id, or a directory in diffusers' layout."""
    preset: AdaptPreset | None = None
    """``ocean-study``: the recipe of a study on ocean scenes, which trains the whole U-Net with a learning rate of 5e-7
    and batches of 9 for 3 epochs. None: a LoRA, which costs a fraction."""
    num_epochs: int | None = auto(20)
    """Passes over all masks of all training photos. The best state is kept, and training stops early (``patience``)."""
    batch_size: int | None = auto(8)
    """Crops per optimizer step, over all processes."""
    masks_per_photo: int | None = auto(10)
    """Number of masks that are drawn once for each photo; an epoch shows each photo with each of its masks."""
    trainable: TrainableName | None = auto("lora")
    """``lora``: train LoRA layers. ``all``: train the U-Net's own weights and store their change as LoRA layers."""
    learning_rate: float | None = auto(1e-4)
    """AdamW's learning rate."""
    lr_scheduler: LrScheduler | None = auto("cosine")
    """Learning rate after the warm-up: ``constant``, or falling to zero as ``linear`` or ``cosine``."""
    weight_decay: float | None = auto(1e-2)
    """AdamW's weight decay; the default is torch's."""
    lora_rank: int | None = auto(16)
    """Rank of the LoRA matrices; alpha equals it. Ignored with ``trainable="all"``."""
    kept_change: float | None = auto(0.99)
    """With ``trainable="all"``, the least share of the squared change of the weights that the stored LoRA keeps. It
    decides the rank."""
    patience: int | None = auto(3)
    """Epochs without a lower loss on the validation photos after which training stops."""
    shares: tuple[float, float, float] | None = auto((0.8, 0.1, 0.1))
    """Shares of the photos that are trained on, validated on and tested on. They are chosen by a hash of their names;
    each part has at least one photo."""
    prompt: str | None = auto("a photo")
    """The prompt of all photos."""
    mask_shapes: tuple[MaskShape, ...] | None = auto(("ellipse", "rectangle", "polygon"))
    """Shapes in a random mask."""
    num_shapes: tuple[int, int] | None = auto((1, 5))
    """Smallest and largest number of shapes in a mask, from 1 to 100."""
    shape_size: tuple[float, float] | None = auto((0.1, 0.5))
    """Range of the sides of a shape's bounding box as shares of the crop's, from 0.01 to 1."""
    crop_share: tuple[float, float] | None = auto((0.6, 1.0))
    """Range of a crop's side as a share of the photo's shorter side, from 0.05 to 1."""
    mirror: bool | None = auto(True)
    """Flip half of the crops horizontally."""
    mixed_precision: Precision | None = None
    """``no``, ``fp16`` or ``bf16``. None: bf16 where the device computes fast in it, else fp16 on CUDA, else no."""
    seed: int = 0
    """Seed of all randomness."""
    checkpoint_every: int = 250
    """Steps between checkpoints, if ``adapt`` has a ``checkpoint_dir``."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check("seed", 0 <= self.seed <= MAX_SEED, f"a whole number from 0 to {MAX_SEED}")
        self._check("base", self.base.strip(), "a name, hub id or directory")
        self._check_at_least(1, "num_epochs", "batch_size", "masks_per_photo", "lora_rank", "patience")
        self._check_at_least(1, "checkpoint_every")
        self._check_at_least(0, "learning_rate", "weight_decay")
        self._check_share("kept_change")
        self._check_range("num_shapes", 1, 100)
        self._check_range("shape_size", 0.01, 1)
        self._check_range("crop_share", 0.05, 1)
        self._check("mask_shapes", self.mask_shapes is None or self.mask_shapes, "one or more shapes")
        legal = self.shares is None or (min(self.shares) > 0 and abs(sum(self.shares) - 1) < 1e-6)
        self._check("shares", legal, "three numbers above 0 that add up to 1")

    def resolve(self, defaults: Mapping[str, Any]) -> AdaptSettings:
        """Fill the open fields; see ``Config.filled``."""
        return AdaptSettings(**self.filled(defaults))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptSettings(AdaptConfig):
    """An ``AdaptConfig`` without open fields, except for those that depend on the machine."""

    num_epochs: int
    batch_size: int
    masks_per_photo: int
    trainable: TrainableName
    learning_rate: float
    lr_scheduler: LrScheduler
    weight_decay: float
    lora_rank: int
    kept_change: float
    patience: int
    shares: tuple[float, float, float]
    prompt: str
    mask_shapes: tuple[MaskShape, ...]
    num_shapes: tuple[int, int]
    shape_size: tuple[float, float]
    crop_share: tuple[float, float]
    mirror: bool

    def fit_settings(self, steps_per_epoch: int, defaults: Mapping[str, Any]) -> FitSettings:
        """Return the settings for the training loop.

        Args:
            steps_per_epoch: optimizer steps in an epoch.
            defaults: the base model's defaults for ``FitConfig``. Those that hold for any training on it apply, unless
                the recipe is a study's.
        """
        own = {} if self.preset else {name: defaults[name] for name in _OF_THE_BASE if name in defaults}
        if self.preset or self.trainable == "all":
            own |= {"lora_targets": ("*",), "text_encoder_learning_rate": 0.0}
        return FitConfig(
            base=self.base, seed=self.seed, num_steps=self.num_epochs * steps_per_epoch, batch_size=self.batch_size,
            mixed_precision=self.mixed_precision, prompt=self.prompt, trainable=self.trainable,
            learning_rate=self.learning_rate, lr_scheduler=self.lr_scheduler, weight_decay=self.weight_decay,
            lora_rank=self.lora_rank, lora_alpha=self.lora_rank, lora_dropout=0.0, prompt_dropout=0.1,
            mask_dropout=0.0, mask_shapes=self.mask_shapes, num_rectangles=self.num_shapes,
            rectangle_size=self.shape_size, complement_share=0.0, checkpoint_every=self.checkpoint_every,
        ).resolve(own)  # fmt: skip
