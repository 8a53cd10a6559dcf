"""Settings of an adaptation, which fine-tunes a base model on a folder of photos."""

# Settings have no defaults: resolve() gives every value.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from realfill.config.base import MAX_SEED, Config, Presets, auto
from realfill.config.fit import FitConfig, FitSettings, LrScheduler, MaskShape, Precision, TrainableName

AdaptPreset = Literal["ocean-study", "structure"]
Kept = Literal["best", "last"]

BACKGROUND = "<background>"
"""The prompt that stands for the learnt embeddings of the background."""

LOSSES = ("image_weight", "boundary_weight", "consistency_weight")
"""The weights of the losses between images."""

STRUCTURE = (
    *LOSSES, "noise_weight", "num_category_tokens", "category_width", "structure_learning_rate", "detector",
    "foreground_classes", "num_stages", "combiner", "visible_weight", "boundary_px", "blur_px",
)  # fmt: skip
"""The fields of the structure recipe."""

_OF_THE_BASE = (  # properties of the base model's card that hold for any training on it
    "noise_bias", "visible_weight", "hole_margin_px", "adam_beta2", "lora_targets", "text_encoder_learning_rate",
    "num_warmup_steps",
)  # fmt: skip


_OCEAN_STUDY: Mapping[str, Any] = {
    "trainable": "all", "learning_rate": 5e-7, "batch_size": 9, "num_epochs": 3, "masks_per_photo": 10, "patience": 3,
    "lr_scheduler": "constant", "mirror": False, "crop_share": (1.0, 1.0), "weight_decay": 1e-2,
    "shares": (0.8, 0.1, 0.1), "mask_shapes": ("ellipse", "rectangle", "polygon"), "num_shapes": (1, 5),
}  # fmt: skip

_STRUCTURE: Mapping[str, Any] = {
    "num_category_tokens": 10, "combiner": True, "num_stages": 3, "image_weight": (0.2,), "boundary_weight": (0.2,),
    "consistency_weight": (0.2,),
}  # fmt: skip


def _always(value: Any) -> Callable[[Any], Any]:
    """Make a rule that ignores the base model's default, because a study's recipe is exact."""
    return lambda _: value


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptConfig(Config):
    """Settings of ``adapt``, which fine-tunes a base model on photos of one kind."""

    presets: ClassVar[Presets] = {
        "ocean-study": {name: _always(value) for name, value in _OCEAN_STUDY.items()},
        "structure": _STRUCTURE,
    }

    base: str = "sd2"
    """Base model: ``sd2``, ``sd15``, ``mini``, a hub id, or a directory in diffusers' layout."""
    preset: AdaptPreset | None = None
    """``ocean-study``: the recipe of a study on ocean scenes, which trains the whole U-Net; ``structure``: a LoRA with
    learnt embeddings of foreground and background. The study has a learning rate of 5e-7 and batches of 9 for 3 epochs.
    The preset ``structure`` has masks in the shape of objects, three stages from coarse to fine and losses between
    images. None: a LoRA, which costs a fraction of the ocean study's."""
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
    keep: Kept | None = auto("best")
    """Which epoch becomes the adapter: ``best``, the one with the lowest loss on the validation photos (for the
    combiner, the one with its lowest error there), or ``last``, which shows what over-training does."""
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
    num_category_tokens: int | None = auto(0)
    """Number of learnt embeddings of the foreground, and again of the background, which take the place of the prompt.
    0: the prompt. With the preset ``structure``: 10, as in PixelHacker. Half of the masks then have the outlines of
    objects, where the detector finds some."""
    category_width: int | None = auto(3072)
    """Width of the table of these embeddings, before its projection to cross-attention. PixelHacker: 3,072."""
    structure_learning_rate: float | None = auto(1e-3)
    """AdamW's learning rate for the table and for the combiner."""
    detector: str = "auto"
    """What finds objects for the masks, as ``realfill instances``: ``offline``, which finds people only,
    ``mask2former`` and so on, a hub id or a folder. ``auto``: ``mask2former`` if its weights are on this machine, else
    ``offline``."""
    foreground_classes: tuple[str, ...] | None = auto(("person",))
    """Classes of the detector that are foreground; objects of its other classes are background. ``*``: all classes are
    foreground."""
    num_stages: int | None = auto(1)
    """Number of stages from coarse to fine at whose scales crops are taken. The adapter carries it, so that ``erase``
    and ``complete`` fill in as many stages, where a photo is large enough."""
    combiner: bool | None = auto(value=False)
    """Train a small network that corrects the result of a stage before the next one refines it."""
    noise_weight: tuple[float, ...] | None = auto((1.0,))
    """Weight of the error of the predicted noise in each stage; the last number holds for all later stages."""
    visible_weight: float | None = None
    """Weight of the latents that a mask leaves visible; hidden latents weigh 1. None: as the base model's card says."""
    image_weight: tuple[float, ...] | None = auto((0.0,))
    """Weight in each stage of the absolute difference between decoded prediction and photo in the hole, in units of the
    noise loss. 0: off, which is much faster on large base models, because nothing is decoded."""
    boundary_weight: tuple[float, ...] | None = auto((0.0,))
    """Weight in each stage of the same difference in a band on both sides of the hole's boundary. 0: off."""
    boundary_px: int | None = auto(8)
    """Width of that band on each side, in pixels of the model's input."""
    consistency_weight: tuple[float, ...] | None = auto((0.0,))
    """Weight in each stage of the difference from the photo at half its size, enlarged again, after a Gaussian blur of
    both. 0: off."""
    blur_px: float | None = auto(4.0)
    """Standard deviation of that blur, in pixels of the model's input."""
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
        self._check_at_least(1, "checkpoint_every", "category_width", "num_stages", "boundary_px")
        self._check_at_least(0, "learning_rate", "weight_decay", "structure_learning_rate", "num_category_tokens")
        self._check_at_least(0, "visible_weight")
        self._check_above_zero("blur_px")
        self._check("detector", self.detector.strip(), "a name, hub id or folder")
        self._check("foreground_classes", self.foreground_classes != (), "one or more classes, or '*'")
        for name in (*LOSSES, "noise_weight"):
            weights = getattr(self, name)
            self._check(name, weights is None or (weights and min(weights) >= 0), "one or more numbers of at least 0")
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
    keep: Kept
    shares: tuple[float, float, float]
    prompt: str
    mask_shapes: tuple[MaskShape, ...]
    num_shapes: tuple[int, int]
    shape_size: tuple[float, float]
    crop_share: tuple[float, float]
    mirror: bool
    num_category_tokens: int
    category_width: int
    structure_learning_rate: float
    foreground_classes: tuple[str, ...]
    num_stages: int
    combiner: bool
    noise_weight: tuple[float, ...]
    image_weight: tuple[float, ...]
    boundary_weight: tuple[float, ...]
    boundary_px: int
    consistency_weight: tuple[float, ...]
    blur_px: float

    @property
    def is_structured(self) -> bool:
        """Whether crops have categories and stages, because a part of the structure recipe is in use."""
        parts = (self.num_category_tokens, self.combiner, self.num_stages > 1, self.noise_weight != (1.0,))
        return any(parts) or any(any(getattr(self, name)) for name in LOSSES)

    def fit_settings(self, steps_per_epoch: int, defaults: Mapping[str, Any]) -> FitSettings:
        """Return the settings for the training loop.

        Args:
            steps_per_epoch: optimizer steps in an epoch.
            defaults: the base model's defaults for ``FitConfig``. Those that hold for any training on it apply, unless
                the recipe is a study's.
        """
        is_study = self.preset == "ocean-study"
        own = {} if is_study else {name: defaults[name] for name in _OF_THE_BASE if name in defaults}
        if is_study or self.trainable == "all":
            own |= {"lora_targets": ("*",), "text_encoder_learning_rate": 0.0}
        if self.num_category_tokens:  # no prompt is encoded
            own |= {"text_encoder_learning_rate": 0.0}
        return FitConfig(
            base=self.base, seed=self.seed, num_steps=self.num_epochs * steps_per_epoch, batch_size=self.batch_size,
            mixed_precision=self.mixed_precision, trainable=self.trainable, visible_weight=self.visible_weight,
            prompt=BACKGROUND if self.num_category_tokens else self.prompt,
            learning_rate=self.learning_rate, lr_scheduler=self.lr_scheduler, weight_decay=self.weight_decay,
            lora_rank=self.lora_rank, lora_alpha=self.lora_rank, lora_dropout=0.0, prompt_dropout=0.1,
            mask_dropout=0.0, mask_shapes=self.mask_shapes, num_rectangles=self.num_shapes,
            rectangle_size=self.shape_size, complement_share=0.0, checkpoint_every=self.checkpoint_every,
        ).resolve(own)  # fmt: skip
