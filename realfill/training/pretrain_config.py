"""The options of pre-training, apart from its code, so that the command line can show them without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realfill.config import FitConfig, FitSettings, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Settings for pre-training a small base model on a folder of photos."""

    photos: Path
    """Folder of photos, which may have subfolders. All photos are held in memory; photos much larger than their crops
    are shrunk."""
    output: Path
    """Folder for the base model, its checkpoint and its previews. An unfinished run found there is resumed."""
    init: Path | None = None
    """Folder of a base model to start from. None: start from scratch."""
    num_steps: int = 60_000
    """Total number of optimizer steps. The learning rate falls to zero over them."""
    batch_size: int = 32
    """Random crops per step, over all processes."""
    learning_rate: float = 5e-4
    """AdamW's learning rate after the warm-up."""
    num_warmup_steps: int = 200
    """Steps over which the learning rate rises linearly from zero."""
    minutes: float | None = None
    """Stop after this many minutes; the same command resumes the run later. None: no limit."""
    resolution: int = 128
    """Side of the crops in pixels, a multiple of 4 * patch_size. It becomes the resolution of the base model, even of
    one that starts from ``init``."""
    patch_size: int = 8
    """Side in pixels of the square that a latent stands for. With ``init``, it must be that base model's."""
    latent_channels: int = 40
    """Number of principal components of a patch that a latent keeps. If the base model in ``init`` has fewer, the
    missing ones are added; if it has more, it keeps them."""
    num_patches: int = 400_000
    """Number of random patches from which the principal components are computed."""
    num_decoder_crops: int = 1500
    """Number of random crops from which the linear decoder is computed."""
    widths: tuple[int, int, int] = (96, 128, 192)
    """Channels of the U-Net's three levels. With ``init``, the first level is widened to this, and the others must be
    that base model's."""
    attention: Literal["softmax", "linear"] = "softmax"
    """Self-attention: ``softmax``, or ``linear`` with a swish gate, whose cost grows with the number of latents instead
    of its square; it does not matter at the packaged base's 16 x 16 latents. With ``init``, it must be that base
    model's."""
    min_crop_share: float = 0.4
    """Side of the smallest crop as a share of the photo's shorter side, in (0, 1]; at least ``resolution`` pixels if
    the photo has them."""
    hint_share: float = 0.0
    """Share of the crops with planted hints, see ``FitConfig.hint_share``. Above 0, the base model's card says that it
    reads hints."""
    num_holdout: int = 100
    """Number of photos to keep out of training, for previews and evaluation, chosen by a hash of their names. Files
    whose names differ only in a last ``-0``, ``-1`` and so on count as one photo."""
    holdout: Path | None = None
    """Text file that names the photos to keep out of training, one file name per line. None: ``num_holdout`` photos."""
    preview_every: int = 1000
    """Steps between previews, which show photos that were kept out."""
    mixed_precision: Precision | None = None
    """``no``, ``fp16`` or ``bf16``. None: bf16 where the device computes fast in it, else fp16 on CUDA, else no."""
    device: str | None = None
    """``cpu``, ``cuda``, ``mps`` and so on. None: the best available."""
    seed: int = 0
    """Seed of all randomness."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "latent_channels", "num_patches", "num_decoder_crops", "preview_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; legal: 1 or more")
        if self.num_holdout < 0:
            raise ValueError(f"num_holdout is {self.num_holdout}; legal: 0 or more")
        if not 0 < self.min_crop_share <= 1:
            raise ValueError(f"min_crop_share is {self.min_crop_share}; legal: above 0, at most 1")
        if self.resolution < 1 or self.resolution % (4 * self.patch_size):
            raise ValueError(f"resolution is {self.resolution}; legal: a multiple of {4 * self.patch_size}")
        self.fit_settings()

    def fit_settings(self) -> FitSettings:
        """Return the settings for the training loop."""
        return FitConfig(
            base=str(self.output), seed=self.seed, checkpoint_every=500, mixed_precision=self.mixed_precision,
            num_steps=self.num_steps, batch_size=self.batch_size, learning_rate=self.learning_rate,
            num_warmup_steps=self.num_warmup_steps, lr_scheduler="cosine", weight_decay=0.01, adam_beta2=0.99,
            ema_decay=0.999, prompt="a photo", mask_dropout=0.05, num_rectangles=(1, 3), rectangle_size=(0.2, 0.8),
            hole_margin_px=0, visible_weight=0.1, noise_bias=1.5, hint_share=self.hint_share,
        ).resolve({})  # fmt: skip
